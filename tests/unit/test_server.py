"""`runproj server`: it starts, answers, and stops."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from runproj.cli import server
from runproj.errors import Interrupted
from runproj.proc import start_time
from support.team import team_server
from support.waiting import until


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


def test_it_is_soon_there_and_stays_small(isolated):
    with team_server():
        pass
    with team_server() as team:
        assert team.ask("GET", "/health").content == b"OK"
        spent = Path(f"/proc/{team.process.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        status = Path(f"/proc/{team.process.pid}/status").read_text()
    resident = int(next(line for line in status.splitlines() if line.startswith("VmRSS:")).split()[1])
    assert sum(map(int, spent)) / os.sysconf("SC_CLK_TCK") < 5  # seconds of CPU; docs/reference/performance.md has the figure
    assert resident < 90_000


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_request_that_has_begun_is_answered_before_it_stops(isolated, number):
    with team_server() as team, socket.create_connection(("127.0.0.1", team.port)) as client:
        head = f"PUT /api/2.0/mlflow-artifacts/artifacts/0/late HTTP/1.1\r\nHost: 127.0.0.1:{team.port}\r\n"
        client.sendall(f"{head}Content-Length: 6\r\n\r\nhal".encode())
        until(lambda: b"runproj_http_requests_in_flight 2\n" in team.ask("GET", "/metrics").content)
        team.process.send_signal(number)
        time.sleep(0.3)
        client.sendall(b"ves")
        assert client.recv(1000).startswith(b"HTTP/1.1 200 ")
        assert team.process.wait(60) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_that_comes_as_soon_as_it_is_minded_is_heard(monkeypatch, number):
    install = signal.signal

    def install_and_send(which, handler):
        before = install(which, handler)
        if handler is server._heard and which == number:
            monkeypatch.undo()
            os.kill(os.getpid(), number)
        return before

    monkeypatch.setattr(signal, "signal", install_and_send)
    with pytest.raises(Interrupted):
        server._wait(once=False)


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


def test_metrics_count_answers_by_route(isolated):
    with team_server() as team:
        run = team.ok("POST", "runs/create", experiment_id="0")["run"]["info"]["run_id"]
        team.ok("GET", "runs/get", run_id=run)
        team.call("GET", "runs/get", run_id="0" * 32)
        assert team.ask("GET", "/no/such/page").status == 404
        counted = b'runproj_http_requests_total{method="",route="",status="404"} 1\n'  # when the answer has been sent
        until(lambda: counted in team.ask("GET", "/metrics").content)
        answer = team.ask("GET", "/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = answer.content.decode().splitlines()
    assert 'runproj_http_requests_total{method="GET",route="2.0/mlflow/runs/get",status="200"} 1' in lines
    assert 'runproj_http_requests_total{method="GET",route="2.0/mlflow/runs/get",status="404"} 1' in lines
    assert 'runproj_http_requests_total{method="",route="",status="404"} 1' in lines, "paths of others make no series"
    assert 'runproj_http_request_seconds_count{route="2.0/mlflow/runs/get"} 2' in lines
    assert "runproj_store_runs 1" in lines
    assert "runproj_http_requests_in_flight 1" in lines
    for line in lines:
        assert line.startswith("# ") or float(line.rpartition(" ")[2]) >= 0


def test_the_access_log_has_a_line_for_each_answer_and_no_secret(isolated):
    log = isolated / "access log"
    with team_server("--access-log", str(log)) as team:
        evil = 'x"\\n{\x7f}'
        given = {"User-Agent": evil.replace("\\n", "\t").replace("\x7f", "?"), "Authorization": "Bearer rpj_secret"}
        team.ask("GET", "/api/2.0/mlflow/experiments/get?experiment_id=0&token=geheim", **given)
        team.ask("GET", "/nope%0a%7b")
        team.stop()
    text = log.read_text()
    entries = sorted((json.loads(line) for line in text.splitlines()), key=lambda entry: entry["status"])
    assert [entry["status"] for entry in entries] == [200, 404]
    assert entries[0]["route"] == "2.0/mlflow/experiments/get"
    assert entries[0]["peer"] == "127.0.0.1"
    assert "secret" not in text and "geheim" not in text
    assert oct(log.stat().st_mode & 0o007) == "0o0"


def test_there_is_room_for_as_many_connections_as_it_takes(isolated):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))  # the server inherits it
    try:
        with team_server("--max-connections", "300") as team:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))  # the clients are in this process
            limits = Path(f"/proc/{team.process.pid}/limits").read_text()
            found = next(line for line in limits.splitlines() if line.startswith("Max open files"))
            assert int(found.split()[3]) >= min(800, hard)
            clients = [socket.create_connection(("127.0.0.1", team.port)) for _ in range(200)]
            for client in clients:
                client.sendall(f"GET /health HTTP/1.1\r\nHost: 127.0.0.1:{team.port}\r\n\r\n".encode())
                assert client.recv(1000).startswith(b"HTTP/1.1 200 ")
            for client in clients:
                client.close()
            status = Path(f"/proc/{team.process.pid}/status").read_text()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert int(next(line for line in status.splitlines() if line.startswith("VmRSS:")).split()[1]) < 120_000


def test_several_workers_need_postgresql(cli):
    failed = cli("server", "--workers", "2", "--port", "0")
    assert failed.returncode == 2
    assert "PostgreSQL" in failed.stderr and "--store" in failed.stderr


def test_several_workers_serve_one_address_and_are_replaced(isolated, postgres):
    with team_server("--workers", "2", "--store", postgres) as team:
        run = team.ok("POST", "runs/create", experiment_id="0")["run"]["info"]["run_id"]
        workers = children(team.process.pid)
        assert len(workers) == 2
        os.kill(workers[0], signal.SIGKILL)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and (len(now := children(team.process.pid)) < 2 or workers[0] in now):
            time.sleep(0.1)
        assert len(now) == 2 and workers[0] not in now
        for step in range(20):
            team.ok("POST", "runs/log-metric", run_id=run, key="m", value=step, timestamp=1, step=step)
        assert len(team.ok("GET", "metrics/get-history", run_id=run, metric_key="m")["metrics"]) == 20

        def counted() -> bool:
            team.ask("GET", "/health")
            lines = team.ask("GET", "/metrics").content.decode().splitlines()
            return any('log-metric",status="200"' in line and float(line.rpartition(" ")[2]) > 0 for line in lines)

        until(counted)
        code, said = team.stop()
        assert code == 0, said
        assert not any(start_time(pid) for pid in now)


def test_workers_answer_what_has_begun_when_a_terminal_stops_all_of_them(isolated, postgres):
    with team_server("--workers", "2", "--store", postgres) as team:
        team.ok("POST", "runs/create", experiment_id="0")
        workers = children(team.process.pid)
        with socket.create_connection(("127.0.0.1", team.port)) as client:
            head = f"PUT /api/2.0/mlflow-artifacts/artifacts/0/late HTTP/1.1\r\nHost: 127.0.0.1:{team.port}\r\n"
            client.sendall(f"{head}Content-Length: 6\r\n\r\nhal".encode())
            until(lambda: b"runproj_http_requests_in_flight 2\n" in team.ask("GET", "/metrics").content)
            for pid in (team.process.pid, *workers):
                os.kill(pid, signal.SIGINT)
            time.sleep(1)
            client.sendall(b"ves")
            assert client.recv(1000).startswith(b"HTTP/1.1 200 ")
        assert team.process.wait(60) == 0


def test_workers_end_when_their_parent_is_killed(isolated, postgres):
    with team_server("--workers", "2", "--store", postgres) as team:
        team.ok("POST", "runs/create", experiment_id="0")
        workers = children(team.process.pid)
        team.process.kill()
        team.process.wait()
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and any(start_time(pid) for pid in workers):
            time.sleep(0.1)
        assert not any(start_time(pid) for pid in workers)


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
