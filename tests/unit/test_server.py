"""`runproj server`: it starts, answers, and stops."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from support.team import team_server


def test_it_serves_the_store_of_this_home_and_stops_when_told(cli):
    with team_server() as team:
        run = team.ok("POST", "runs/create", experiment_id="0", run_name="first")["run"]["info"]["run_id"]
        team.ok("POST", "runs/log-metric", run_id=run, key="m", value=1.5, timestamp=1, step=3)
        assert team.ask("PUT", f"/api/2.0/mlflow-artifacts/artifacts/0/{run}/artifacts/a.txt", b"hello").status == 200
        code, said = team.stop()
    assert code == 0, said
    shown = cli.json("runs", "show", "first")
    assert shown["run"]["id"] == run
    assert shown["run"]["metrics"][0]["value"] == 1.5


def test_it_starts_quickly_and_stays_small(isolated):
    with team_server():
        pass
    begin = time.monotonic()
    with team_server() as team:
        assert team.ask("GET", "/health").content == b"OK"
        took = time.monotonic() - begin
        status = Path(f"/proc/{team.process.pid}/status").read_text()
    resident = int(next(line for line in status.splitlines() if line.startswith("VmRSS:")).split()[1])
    assert took < 5  # a second on a machine that has nothing else to do; docs/reference/performance.md has the figure
    assert resident < 90_000


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_request_that_has_begun_is_answered_before_it_stops(isolated, number):
    with team_server() as team, socket.create_connection(("127.0.0.1", team.port)) as client:
        head = f"PUT /api/2.0/mlflow-artifacts/artifacts/0/late HTTP/1.1\r\nHost: 127.0.0.1:{team.port}\r\n"
        client.sendall(f"{head}Content-Length: 6\r\n\r\nhal".encode())
        time.sleep(0.3)
        team.process.send_signal(number)
        time.sleep(0.3)
        client.sendall(b"ves")
        assert client.recv(1000).startswith(b"HTTP/1.1 200 ")
        assert team.process.wait(20) == 0


def test_an_address_that_is_taken_is_an_error_with_a_fix(cli):
    with team_server() as team:
        failed = cli("server", "--port", str(team.port))
    assert failed.returncode == 2
    assert "Address already in use" in failed.stderr
    assert "--port" in failed.stderr


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_the_network_is_not_served_without_users(cli, host):
    failed = cli("server", "--host", host, "--port", "0")
    assert failed.returncode == 2
    assert "fix:" in failed.stderr


@pytest.mark.parametrize("options", [("--store", "mysql://x"), ("--artifacts", "gopher://x")])
def test_places_that_cannot_be_served_are_refused(cli, options):
    failed = cli("server", "--port", "0", *options)
    assert failed.returncode == 2
    assert options[1] in failed.stderr


def test_store_and_artifacts_can_be_elsewhere(isolated):
    options = ("--store", f"sqlite:///{isolated / 'team runs.db'}", "--artifacts", str(isolated / "team files"))
    with team_server(*options) as team:
        team.ok("POST", "runs/create", experiment_id="0")
        team.ask("PUT", "/api/2.0/mlflow-artifacts/artifacts/0/x/a", b"1")
    assert (isolated / "team runs.db").exists()
    assert (isolated / "team files/0/x/a").read_bytes() == b"1"
    assert not (isolated / "runproj home" / "runproj.db").exists()


def test_many_clients_at_once(isolated):
    with team_server() as team:
        run = team.ok("POST", "runs/create", experiment_id="0")["run"]["info"]["run_id"]

        def log(worker: int) -> None:
            for step in range(10):
                team.ok("POST", "runs/log-metric", run_id=run, key=f"m{worker}", value=step, timestamp=1, step=step)

        threads = [threading.Thread(target=log, args=(worker,)) for worker in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        found = team.ok("GET", "runs/get", run_id=run)["run"]["data"]["metrics"]
        assert sorted((item["key"], item["value"]) for item in found) == sorted((f"m{worker}", 9.0) for worker in range(16))


def test_what_help_says_costs_no_server():
    code = "import sys; from runproj.cli import server; print([m for m in sys.modules if m.startswith('runproj.server')])"
    assert json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout) == []
