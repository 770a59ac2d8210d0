"""The Python client in trouble: servers that are away or unreliable, processes that die, disks that are full."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import HOSTILE, Repository
from runproj.client import spool
from runproj.core.run import NewRun
from runproj.errors import RefusedError
from runproj.files import Lock
from runproj.remote import Remote
from runproj.tracking import open_full_store
from runproj.tracking.full import FullStore
from support.clients import NOBODY, Flaky, Unreliable, python, runs, spools, start
from support.program import SYSTEM, Cli


@pytest.fixture
def home(isolated: Path) -> Path:
    return isolated / "runproj home"


@pytest.fixture
def store(home: Path) -> Iterator[FullStore]:
    """What this machine's own store holds: where everything goes when nothing is configured."""
    found = open_full_store(f"sqlite:///{home / 'runproj.db'}", home=home)
    yield found
    found.close()


LOGGING = """
import runproj, sys, time
with runproj.start_run("away"):
    runproj.log_params({"p%d" % i: i for i in range(150)})
    for step in range(3000):
        runproj.log_metric("m", step, step=step)
    runproj.log_text("hello", "a/b.txt")
    runproj.set_tag("t", 1)
    runproj.set_tag("t", 2)
"""


def is_complete(store: FullStore, points: int = 3000) -> None:
    [run] = runs(store)
    assert [point.value for point in store.history(run.id, "m")] == list(range(points))
    assert (len(run.params), run.tag("t"), run.status.value) == (150, "2", "FINISHED")


def test_a_server_that_is_away_all_the_time(store: FullStore, home: Path, tmp_path: Path, cli: Cli) -> None:
    with Flaky(home) as server:
        url = server.url
        server.kill()
        done = python(LOGGING, tmp_path, RUNPROJ_TRACKING_URI=url)
        assert done.returncode == 0
        assert done.stderr.count("RuntimeWarning") == 1
        assert "`runproj sync` sends them" in done.stderr
        assert not runs(store)
        assert "runproj sync" in cli("runs", "list").stderr
        assert ("sync", "warning", "runproj sync") in checks(cli)
        failed = cli("sync")
        assert (failed.returncode, "left" in failed.stderr) == (1, True)
        server.start()
        report = cli.json("sync")
        assert [(spool["refused"], spool["left"], spool["problem"]) for spool in report["spools"]] == [(0, 0, "")]
        assert cli.json("sync") == {"spools": [], "runs": [], "failed": {}}
    is_complete(store)
    assert not spools(home / "spool")
    assert ("sync", "ok", "") in checks(cli)


def checks(cli: Cli) -> list[tuple[str, str, str]]:
    return [(check["name"], check["state"], check["fix"]) for check in cli.json("doctor")["checks"]]


@pytest.mark.slow
def test_several_syncs_at_once_and_one_that_is_killed(store: FullStore, home: Path, tmp_path: Path, cli: Cli) -> None:
    with Flaky(home) as server:
        for _ in range(3):
            python(LOGGING, tmp_path, RUNPROJ_TRACKING_URI=NOBODY)
        for spool in spools(home / "spool"):
            about = json.loads((spool / "about.json").read_text())
            (spool / "about.json").write_text(json.dumps({**about, "uri": server.url}))
        killed = cli.start("sync")
        time.sleep(0.6)
        killed.kill()
        killed.communicate()
        both = [cli.start("sync") for _ in range(2)]
        for process in both:
            process.communicate(timeout=300)
        assert cli("sync").returncode == 0
    found = runs(store)
    assert len(found) == 3
    assert [len(store.history(run.id, "m")) for run in found] == [3000] * 3
    assert not spools(home / "spool")


def test_a_spool_is_removed_whoever_looks_at_it(tmp_path: Path) -> None:
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            for folder in spool.waiting(str(tmp_path / "spool")):
                spool.held(folder)

    looking = threading.Thread(target=look)
    looking.start()
    for _ in range(200):
        spool.Spool.make(str(tmp_path / "spool"), spool.About(NOBODY, "", "")).finish()
    over.set()
    looking.join()
    assert not list((tmp_path / "spool").iterdir())


def test_a_training_that_is_killed(store: FullStore, home: Path, tmp_path: Path, cli: Cli) -> None:
    code = """
import runproj, os, signal
runproj.start_run("killed")
for step in range(20000):
    runproj.log_metric("m", step, step=step)
runproj.log_metric("far", 1, timestamp=2**50)
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert python(code, tmp_path).returncode == -signal.SIGKILL
    killed = time.time()
    [spool] = spools(home / "spool")
    last = max(spool.glob("events-*"))
    with last.open("ab") as file:
        file.write(b'["m",1,"m",5,')  # what a write that was cut short leaves
    os.utime(last, (killed, killed))
    assert cli("sync").returncode == 0
    [run] = runs(store)
    assert [point.value for point in store.history(run.id, "m")] == list(range(20000))
    assert (run.status.value, run.tag("runproj.lost")) == ("FAILED", "1")
    assert run.end == pytest.approx(killed * 1000, abs=1), "when it logged last, not when it was closed"
    assert not spools(home / "spool")


def test_the_run_of_a_fork_that_is_killed_is_ended_by_its_parent(store: FullStore, home: Path, tmp_path: Path) -> None:
    code = """
import os, runproj, signal
runproj.start_run("outer")
if os.fork() == 0:
    runproj.start_run("of the fork", nested=True)
    runproj.log_metric("m", 1)
    os.kill(os.getpid(), signal.SIGKILL)
os.wait()
"""
    done = python(code, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    fork, outer = sorted(runs(store), key=lambda run: run.name)
    assert (outer.status.value, fork.status.value, fork.tag("runproj.lost")) == ("FINISHED", "FAILED", "1")
    assert len(store.history(fork.id, "m")) == 1
    assert not spools(home / "spool")


@pytest.mark.slow
def test_trainings_that_are_killed_while_they_send(store: FullStore, home: Path, tmp_path: Path, cli: Cli) -> None:
    code = """
import itertools, runproj
runproj.start_run("killed")
for step in itertools.count():
    runproj.log_metric("m", step, step=step)
    if step % 200 == 0:
        print(step, flush=True)
"""
    printed = []
    with Flaky(home) as server:
        for number in range(5):
            training = start(code, tmp_path, RUNPROJ_TRACKING_URI=server.url)
            assert training.stdout and training.stderr
            assert training.stdout.readline() == "0\n"
            time.sleep(0.3 + number * 0.13)
            training.kill()
            said, errors = training.stdout.read(), training.stderr.read()
            assert errors == ""
            printed.append(int(("0 " + said).split()[-1]))
            training.communicate()
        assert cli("sync").returncode == 0
    found = runs(store)
    assert {run.tag("runproj.lost") for run in found} == {"1"}
    for run, least in zip(found, printed, strict=True):
        steps = [point.step for point in store.history(run.id, "m")]
        assert steps == list(range(len(steps))), "each once, and none is missing"
        assert len(steps) > least
    assert not spools(home / "spool")


@pytest.mark.slow
def test_fifty_outages(store: FullStore, home: Path, tmp_path: Path) -> None:
    code = """
import runproj, sys
with runproj.start_run("outages"):
    for step, line in enumerate(sys.stdin):
        for part in range(20):
            runproj.log_metric("m", step * 20 + part, step=step * 20 + part)
    print(runproj.flush(280))
"""
    with Flaky(home) as server, Unreliable(server.url) as proxy:
        training = start_reading(code, tmp_path, RUNPROJ_TRACKING_URI=proxy.url)
        assert training.stdin
        sent = 0
        while proxy.outages < 50:
            training.stdin.write("go\n")
            training.stdin.flush()
            sent += 1
            time.sleep(0.02)
        said, errors = training.communicate(timeout=600)
        assert (training.returncode, said, errors) == (0, "True\n", "")
    [run] = runs(store)
    assert [point.step for point in store.history(run.id, "m")] == list(range(sent * 20))


def start_reading(code: str, cwd: Path, **variables: str) -> subprocess.Popen[str]:
    pipe, environ = subprocess.PIPE, {**os.environ, "RUNPROJ_FLUSH_SECONDS": "120", **variables}
    return subprocess.Popen([sys.executable, "-c", code], env=environ, cwd=cwd, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def test_what_the_server_refuses_does_not_hold_up_the_rest(store: FullStore, home: Path, tmp_path: Path, cli: Cli) -> None:
    code = """
import runproj, sys
first = runproj.start_run("first")
runproj.log_param("p", 1)
runproj.end_run()
runproj.flush()
with runproj.start_run(run_id=first.id):
    runproj.log_params({"a%d" % i: i for i in range(10)})
    runproj.log_param("p", 2)
    runproj.log_metric("m", 1)
with runproj.start_run(run_id="0" * 32):
    runproj.log_metric("nowhere", 1)
with runproj.start_run("last"):
    runproj.log_metric("m", 1)
"""
    done = python(code, tmp_path)
    assert done.returncode == 0
    assert done.stderr.count("RuntimeWarning") == 2, done.stderr
    assert "'p'" in done.stderr
    first, last = sorted(runs(store), key=lambda run: run.name)
    assert {param.key: param.value for param in first.params} == {"p": "1", **{f"a{i}": str(i) for i in range(10)}}
    assert len(store.history(first.id, "m")) == len(store.history(last.id, "m")) == 1
    [kept] = spools(home / "spool")
    assert kept.name.startswith("refused-")
    refused = [json.loads(line) for line in (kept / "refused.jsonl").read_text().splitlines()]
    assert [json.loads(entry["event"])[0] for entry in refused] == ["p", "r", "m", "e"]
    assert cli.json("sync") == {"spools": [], "runs": [], "failed": {}}
    store.create_run(NewRun("0", 1, id="0" * 32))
    again = cli.json("sync", "--refused")["spools"]
    assert [(spool["sent"], spool["refused"], spool["left"]) for spool in again] == [(4, 1, 0)]
    assert len(store.history("0" * 32, "nowhere")) == 1
    [kept] = spools(home / "spool")
    assert len((kept / "refused.jsonl").read_text().splitlines()) == 1
    is_cleared_away_in_time(kept, cli)


def is_cleared_away_in_time(kept: Path, cli: Cli) -> None:
    def removed() -> list[str]:
        return [what for what in cli.json("gc")["removed"] if kept.name in what]

    assert not removed()
    then = time.time() - 31 * 86400
    os.utime(kept / "refused.jsonl", (then, then))
    with Lock(kept / "lock"):  # `runproj sync --refused` is at it
        assert not removed()
    assert removed() == [f"events that a server refused, {kept.name}"]
    assert not kept.exists()


def test_a_large_file_that_is_refused_early_does_not_hold_up_the_rest(store: FullStore, home: Path, tmp_path: Path) -> None:
    (tmp_path / "model").write_text("a file")
    with (tmp_path / "weights.bin").open("wb") as file:
        file.truncate(30_000_000)
    code = """
import runproj
with runproj.start_run("large"):
    runproj.log_artifact("model")
    runproj.log_artifact("weights.bin", "model")
    runproj.log_metric("m", 1)
"""
    with Flaky(home) as server:
        done = python(code, tmp_path, RUNPROJ_TRACKING_URI=server.url)
        assert (done.returncode, done.stderr.count("RuntimeWarning")) == (0, 1), done.stderr
        assert "the server refused" in done.stderr
        [run] = runs(store)
        assert (len(store.history(run.id, "m")), run.status.value) == (1, "FINISHED")
        with (tmp_path / "weights.bin").open("rb") as file, pytest.raises(RefusedError, match="a file, or a link"):
            Remote(server.url, {}).upload(f"0/{run.id}/artifacts/model/weights.bin", file, 30_000_000)


def test_a_spool_that_cannot_be_written(store: FullStore, tmp_path: Path) -> None:
    blocked = tmp_path / HOSTILE / "file"
    blocked.parent.mkdir(exist_ok=True)
    blocked.write_text("not a folder")
    code = """
import runproj
with runproj.start_run():
    for step in range(2500):
        runproj.log_metric("m", step, step=step)
    runproj.log_text("x", "x.txt")
    runproj.log_table({"a": [1]}, "t.json")
"""
    done = python(code, tmp_path, RUNPROJ_SPOOL=str(blocked))
    assert done.returncode == 0
    assert done.stderr.count("RuntimeWarning") == 1, done.stderr
    assert "kept in memory" in done.stderr
    [run] = runs(store)
    assert len(store.history(run.id, "m")) == 2500
    assert run.tag("mlflow.loggedArtifacts")


def test_a_full_disk(store: FullStore, tmp_path: Path) -> None:
    """A limit on the size of files stands in for the disk: writes fail or are cut short in the same way."""
    code = """
import resource, runproj, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
runproj.set_tracking_uri(URI)
with runproj.start_run():
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, hard))
    for step in range(2000):
        runproj.log_metric("m", step, step=step)
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    for step in range(2000, 3000):
        runproj.log_metric("m", step, step=step)
"""
    with Flaky(tmp_path / HOSTILE / "runproj home") as server:
        done = python(code.replace("URI", repr(server.url)), tmp_path)
    assert done.returncode == 0
    assert done.stderr.count("RuntimeWarning") == 1, done.stderr
    [run] = runs(store)
    assert [point.step for point in store.history(run.id, "m")] == list(range(3000))


def test_a_server_that_hangs_keeps_nobody_waiting(home: Path, tmp_path: Path) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        done = python(LOGGING, tmp_path, RUNPROJ_TRACKING_URI=url, RUNPROJ_FLUSH_SECONDS="1")
    assert done.returncode == 0
    assert done.stderr.count("RuntimeWarning") == 1
    assert len(spools(home / "spool")) == 1


def test_a_process_that_goes_on_while_the_server_comes_back(store: FullStore, home: Path, tmp_path: Path) -> None:
    code = """
import runproj, sys
runproj.start_run("long")
for line in sys.stdin:
    runproj.log_metric("m", int(line), step=int(line))
    if int(line) == 2: print(runproj.flush(60), flush=True)
"""
    with Flaky(home) as server:
        server.kill()
        training = start_reading(code, tmp_path, RUNPROJ_TRACKING_URI=server.url)
        assert training.stdin
        assert training.stdout
        training.stdin.write("0\n1\n")
        training.stdin.flush()
        time.sleep(1)
        server.start()
        training.stdin.write("2\n")
        training.stdin.flush()
        assert training.stdout.readline() == "True\n"
        [run] = runs(store)
        assert len(store.history(run.id, "m")) == 3
        training.stdin.close()
        assert training.wait(60) == 0
    assert [run.status.value for run in runs(store)] == ["FINISHED"]


def test_a_run_is_complete_whatever_becomes_of_its_processes(
    store: FullStore, home: Path, cli: Cli, repository: Repository
) -> None:
    script = """
import os, runproj
runproj.log_metric("m", 1)
if os.fork() == 0:
    for step in range(100):
        runproj.log_metric("fork", step, step=step)
    os._exit(0)
os.wait()
with runproj.start_run("inner", nested=True):
    runproj.log_metric("x", 1)
runproj.log_text("hello", "note.txt")
runproj.start_run("lost", nested=True)
os.kill(os.getpid(), 9)
"""
    repository.commit({"train.py": script})
    done = cli("run", repository.url, "-e", "train.py", *SYSTEM)
    assert done.returncode == 137, done.stderr
    outer, inner, lost = runs(store)
    assert (lost.status.value, lost.tag("runproj.lost")) == ("FAILED", "1")
    assert (outer.status.value, inner.status.value, inner.tag("mlflow.parentRunId")) == ("FAILED", "FINISHED", outer.id)
    assert [len(store.history(outer.id, key)) for key in ("m", "fork")] == [1, 100]
    assert len(store.history(inner.id, "x")) == 1
    assert list((home / "artifacts").glob(f"*/{outer.id}/artifacts/note.txt"))
    assert not spools(home / "spool")


@pytest.mark.slow
def test_a_run_whose_server_has_gone_is_completed_by_sync(home: Path, tmp_path: Path, cli: Cli, repository: Repository) -> None:
    """The run is recorded on a server, which is killed while the command logs, and started again after the run."""
    killed = tmp_path / "killed"
    script = f"""
import os, runproj, time
runproj.log_metric("early", 1)
assert runproj.flush()
print("ready", flush=True)
while not os.path.exists({str(killed)!r}):
    time.sleep(0.01)
for step in range(100):
    runproj.log_metric("late", step, step=step)
"""
    repository.commit({"train.py": script})
    with Flaky(tmp_path / HOSTILE / "server") as server:
        environ = {**cli.env, "RUNPROJ_TRACKING_URI": server.url}
        command = cli.command("run", repository.url, "-e", "train.py", *SYSTEM)
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, env=environ, cwd=cli.home, stdout=pipe, stderr=pipe, text=True)
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        server.kill()
        killed.touch()
        _, said = process.communicate(timeout=200)
        assert "runproj sync" in said
        assert "FINISHED  " in said, "how long it took is not known yet"
        server.start()
        assert cli("sync").returncode == 0
    store = open_full_store(f"sqlite:///{server.home / 'runproj.db'}", home=server.home)
    [run] = runs(store)
    assert [len(store.history(run.id, key)) for key in ("early", "late")] == [1, 100]
    store.close()
    assert not spools(home / "spool")


def test_an_experiment_without_a_grant_does_not_hold_up_the_others(
    store: FullStore, home: Path, tmp_path: Path, cli: Cli
) -> None:
    assert cli("user", "add", "ann").returncode == 0
    token = cli("user", "token", "ann").stdout.strip().splitlines()[-1]
    code = """
import runproj
for experiment in ("ann's", "Default", "ann's"):
    with runproj.start_run(experiment=experiment):
        runproj.log_metric("m", 1)
"""
    client = {"RUNPROJ_HOME": str(tmp_path / HOSTILE / "client"), "MLFLOW_TRACKING_TOKEN": token}
    with Flaky(home) as server:
        done = python(code, tmp_path, RUNPROJ_TRACKING_URI=server.url, **client)
        assert done.stderr.count("RuntimeWarning") == 1, done.stderr
        assert "runproj sync --refused" in done.stderr
        assert [len(run.metrics) for run in runs(store)] == [1, 1]
        assert cli("user", "grant", "ann", "write", "--experiment", "Default").returncode == 0
        environ = {**cli.env, **client}
        again = subprocess.run(cli.command("sync", "--refused"), env=environ, capture_output=True, text=True)
        assert again.returncode == 0, again.stderr
    assert [len(run.metrics) for run in runs(store)] == [1, 1, 1]
