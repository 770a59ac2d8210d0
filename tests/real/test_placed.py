"""Jobs whose executor is started by an engine: their record comes into the store, whole, in order and once."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conftest import Repository
from support import waiting
from support.placing import LOGGING, detached, home, nothing_left
from support.program import SYSTEM, Cli
from support.team import Team, team_server

Start = Callable[[], contextlib.AbstractContextManager[Team]]

ON = ("--backend", "background", *SYSTEM)


@pytest.fixture
def away(cli: Cli, background: Path) -> Cli:
    """The program, with the example backend installed."""
    cli.env["PYTHONPATH"] = str(background)
    return cli


@pytest.fixture
def logging(repository: Repository) -> Repository:
    repository.commit(LOGGING)
    return repository


def executor_of(cli: Cli, run_id: str) -> int:
    return int((home(cli) / "parcels" / run_id / "pid").read_text())


def until(cli: Cli, run_id: str, *, points: int = 0, status: str = "") -> dict:
    """The run once it has so many points, or a status."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        run = cli.json("runs", "show", run_id)["run"]
        if status and run["status"] == status:
            return run
        if points and any(metric["step"] >= points for metric in run["metrics"]):
            return run
        time.sleep(0.2)
    raise AssertionError(f"never came so far: {run}")


def test_a_run_elsewhere_looks_like_one_here(away: Cli, logging: Repository) -> None:
    hostile = 'it\'s "$(x)"\n`y`'
    there = away("run", logging.url, "-P", f"text={hostile}", *ON)
    assert there.returncode == 0, there.stderr
    assert there.stdout == f"text {hostile}\n"
    assert "to stderr\n" in there.stderr
    here = away("run", logging.url, "-P", f"text={hostile}", *SYSTEM)
    assert here.returncode == 0, here.stderr
    runs = away.json("runs", "list")["runs"]
    there_run, here_run = runs[1], runs[0]
    for key in ("status", "params", "experiment_id", "user"):
        assert there_run[key] == here_run[key]
    values = [[(item["key"], item["value"], item["step"]) for item in run["metrics"]] for run in (there_run, here_run)]
    assert values[0] == values[1] == [("loss", 1 / 3, 2)]
    names = [sorted(item["path"] for item in away.json("runs", "artifacts", run["id"])["artifacts"]) for run in runs[:2]]
    assert names[0] == names[1]
    assert "made/model.bin" in names[0] or "made" in names[0]
    assert "only in where they ran" not in away("diff", there_run["id"], here_run["id"]).stdout
    nothing_left(away)


@pytest.mark.parametrize(("entry_point", "code", "reason"), [("fail", 3, "exit code 3"), ("die", 137, "ended by SIGKILL")])
def test_exit_codes_and_signals_are_those_of_the_command(
    away: Cli, logging: Repository, entry_point: str, code: int, reason: str
) -> None:
    ended = away("run", logging.url, "-e", entry_point, *ON)
    assert ended.returncode == code
    assert reason in ended.stderr
    nothing_left(away)


def test_what_runs_is_seen_from_any_process_and_can_be_stopped(away: Cli, logging: Repository) -> None:
    run_id = detached(away, logging, *ON, "-e", "endless")
    run = until(away, run_id, points=5)
    assert run["status"] == "RUNNING"
    stopped = away("runs", "stop", run_id)
    assert stopped.returncode == 0, stopped.stderr
    assert "KILLED" in stopped.stderr
    assert away("runs", "logs", run_id).stdout == "begun\nasked to end\n"
    nothing_left(away)


def altered(cli: Cli, background: Path, tmp_path: Path, *changes: tuple[str, str]) -> None:
    """Have the example backend with other words in it."""
    code = (background / "runproj_background.py").read_text()
    for before, after in changes:
        assert before in code
        code = code.replace(before, after, 1)
    (tmp_path / "altered").mkdir()
    (tmp_path / "altered" / "runproj_background.py").write_text(code)
    cli.env["PYTHONPATH"] = f"{tmp_path / 'altered'}:{background}"


def test_a_job_whose_submission_seemed_to_fail_executes_nothing(
    away: Cli, repository: Repository, background: Path, slow: Path, tmp_path: Path
) -> None:
    """An engine may have taken it, and its answer been lost."""
    repository.commit({"train.py": f"open({str(tmp_path / 'mark')!r}, 'w')\n"})
    lost = "[self._start(job) for job in jobs]; raise BackendError('The engine does not answer')"
    altered(away, background, tmp_path, ("return [self._start(job) for job in jobs]", lost))
    failed = away("run", repository.url, "-e", "train.py", *ON)
    assert (failed.returncode, "does not answer" in failed.stderr) == (125, True)
    slow.touch()
    waiting.until(lambda: away("runs", "list") and not list((home(away) / "parcels").iterdir()))
    (run,) = away.json("runs", "list")["runs"]
    assert run["status"] == "FAILED"
    assert not (tmp_path / "mark").exists()
    nothing_left(away)


def test_an_engine_that_does_not_answer_is_told_of_once(away: Cli, logging: Repository, background: Path, tmp_path: Path) -> None:
    ids = [detached(away, logging, *ON, "-e", "endless") for _ in range(2)]
    gone = "raise BackendError('The engine is away', why='Nobody listens.')"
    altered(away, background, tmp_path, ("return [JobStatus(", f"{gone}; return [JobStatus("))
    assert away("runs", "list").stderr.count("The engine is away. Nobody listens.") == 1
    away.env["PYTHONPATH"] = str(background)
    assert away("runs", "stop", *ids).returncode == 0
    nothing_left(away)


def test_a_run_whose_engine_is_gone_for_good_can_be_closed(
    away: Cli, logging: Repository, background: Path, tmp_path: Path
) -> None:
    run_id = detached(away, logging, *ON, "-e", "endless")
    until(away, run_id, points=5)
    executor = executor_of(away, run_id)
    gone = "raise BackendError('The engine is away', why='Nobody listens.')"
    deaf = ("def cancel(self, handle: JobHandle) -> None:", f"def cancel(self, handle: JobHandle) -> None:\n        {gone}")
    altered(away, background, tmp_path, ("return [JobStatus(", f"{gone}; return [JobStatus("), deaf)
    assert f"runs stop --abandon {run_id[:8]}" in away("runs", "stop", run_id).stderr
    os.kill(executor, signal.SIGKILL)
    stopped = away("runs", "stop", "--abandon", run_id)
    assert (stopped.returncode, "could not be stopped: The engine is away" in stopped.stderr) == (0, True), stopped.stderr
    view = away.json("runs", "show", run_id)
    assert (view["run"]["status"], view["reason"].partition(":")[0]) == ("KILLED", "abandoned")
    assert away("runs", "logs", run_id).stdout.startswith("begun\n")
    nothing_left(away)
    again = away("runs", "stop", "--abandon", run_id)
    assert (again.returncode, "is KILLED" in again.stderr) == (0, True)
    here = detached(away, logging, "-e", "endless")
    assert "no job" in away("runs", "stop", "--abandon", here).stderr
    assert away("runs", "stop", here).returncode == 0


def test_what_cannot_be_stored_is_set_aside(away: Cli, logging: Repository) -> None:
    run_id = detached(away, logging, *ON)
    recorded(away, run_id)
    place = home(away) / "artifacts" / "0" / run_id / "artifacts"
    (place / "made").write_text("in the way of a folder")
    kept = home(away) / "unstored" / run_id
    assert str(kept).splitlines()[0] in away("sync").stderr
    run = away.json("runs", "show", run_id)["run"]
    assert run["status"] == "FINISHED" and any(tag["key"] == "runproj.incomplete" for tag in run["tags"])
    assert [path.stat().st_size for path in kept.rglob("model.bin")] == [7000]
    (check,) = [item for item in away.json("doctor")["checks"] if item["name"] == "records"]
    assert check["state"] == "warning" and run_id[:8] in check["found"]
    nothing_left(away)


def test_a_job_that_was_stopped_is_killed_whatever_its_engine_says_of_it(
    away: Cli, logging: Repository, background: Path, tmp_path: Path
) -> None:
    """Some have no better word than `failed` for a job that they were told to end."""
    judged = "JobStatus(JobState.ENDED, outcome=Outcome(RunStatus.FAILED, 1, 'lost: nothing is known'))"
    alive, needs = "self._alive(handle)", "from runproj.core.outcome import Outcome\nfrom runproj.core.run import RunStatus\n"
    ends = (f"JobState.RUNNING if {alive} else JobState.ENDED)", f"JobState.RUNNING) if {alive} else {judged}")
    altered(away, background, tmp_path, ends, ("from runproj.errors", f"{needs}from runproj.errors"))
    run_id = detached(away, logging, *ON, "-e", "endless")
    until(away, run_id, points=5)
    assert away("runs", "stop", run_id).returncode == 0
    view = away.json("runs", "show", run_id)
    assert (view["run"]["status"], "lost" in view["reason"]) == ("KILLED", False)
    failed = detached(away, logging, *ON, "-e", "die")
    assert until(away, failed, status="FAILED")
    assert "lost: nothing is known" in away.json("runs", "show", failed)["reason"]
    nothing_left(away)


def test_ctrl_c_stops_the_job(away: Cli, logging: Repository) -> None:
    process = away.start("run", logging.url, "-e", "endless", *ON)
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, err
    assert "asked to end" in out
    assert [run["status"] for run in away.json("runs", "list")["runs"]] == ["KILLED"]
    nothing_left(away)


def test_when_the_follower_is_gone_the_next_command_completes_the_record(away: Cli, logging: Repository) -> None:
    process = away.start("run", logging.url, "-P", "n=200", *ON)
    assert process.stdout is not None
    process.stdout.readline()
    process.kill()
    process.communicate()
    run_id = away.json("runs", "list")["runs"][0]["id"]
    run = until(away, run_id, status="FINISHED")
    assert [item["step"] for item in run["metrics"]] == [199]
    assert len(points_of(away, run_id)) == 200
    nothing_left(away)


def test_a_killed_executor_leaves_what_was_logged_and_a_closed_run(away: Cli, logging: Repository) -> None:
    run_id = detached(away, logging, *ON, "-e", "nesting")
    until(away, run_id, points=5)
    os.kill(executor_of(away, run_id), signal.SIGKILL)
    run = until(away, run_id, status="FAILED")
    assert "lost" in next(tag["value"] for tag in run["tags"] if tag["key"] == "runproj.reason")
    steps = [step for step, _ in points_of(away, run_id)]
    assert steps == list(range(len(steps)))
    assert len(steps) > 5
    assert away("runs", "logs", run_id).stdout == "begun\n"
    inner = next(run for run in away.json("runs", "list")["runs"] if run["name"] == "inner")
    assert inner["status"] == "FAILED"
    nothing_left(away)


def test_a_merge_that_is_killed_anywhere_is_completed_once(away: Cli, logging: Repository) -> None:
    run_id = detached(away, logging, *ON, "-P", "n=300")
    while not (home(away) / "parcels" / run_id / "record" / "ended.json").exists():
        time.sleep(0.05)
    for wait in (0.15, 0.2, 0.25, 0.3, 0.35, 0.4):
        looking = away.start("runs", "list")
        time.sleep(wait)
        looking.kill()
        looking.communicate()
    both = [away.start("sync"), away.start("runs", "list")]
    for process in both:
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
    run = away.json("runs", "show", run_id)["run"]
    assert run["status"] == "FINISHED"
    assert [step for step, _ in points_of(away, run_id)] == list(range(300))
    assert away("sync").returncode == 0
    assert len(away.json("runs", "list")["runs"]) == 1
    nothing_left(away)


def test_who_sees_that_a_run_is_over_finds_its_files(away: Cli, repository: Repository) -> None:
    code = "import runproj\nopen('model.bin', 'wb').write(bytes(150_000_000))\nrunproj.log_artifact('model.bin')\n"
    repository.commit({"train.py": code})
    run_id = detached(away, repository, "-e", "train.py", *ON)
    recorded(away, run_id)
    merging = away.start("sync")
    stored = home(away) / "runproj.db"
    with contextlib.closing(sqlite3.connect(f"file:{stored}?mode=ro", uri=True, timeout=60)) as store:
        waiting.until(lambda: store.execute("SELECT status FROM runs").fetchall() == [("FINISHED",)])
    assert [path.stat().st_size for path in (home(away) / "artifacts").rglob("model.bin")] == [150_000_000]
    assert merging.wait(60) == 0
    nothing_left(away)


ENDS = """
import json, os, pathlib, sys, time, urllib.request
told = {"run_id": os.environ["MLFLOW_RUN_ID"], "status": "FINISHED", "end_time": int(time.time() * 1000)}
where = os.environ["MLFLOW_TRACKING_URI"] + "/api/2.0/mlflow/runs/update"
head = {"Content-Type": "application/json"}
urllib.request.urlopen(urllib.request.Request(where, json.dumps(told).encode(), head)).read()
print("told", flush=True)
while len(sys.argv) > 1 and not pathlib.Path(sys.argv[1]).exists(): time.sleep(0.05)
time.sleep(2)
print("after", flush=True)
sys.exit(3)
"""


def test_a_project_that_ends_its_run_on_a_server_has_not_ended_it(away: Cli, repository: Repository, served: Start) -> None:
    """As leaving `with mlflow.start_run()` does: the command goes on, and how that ends is what counts."""
    repository.commit({"train.py": ENDS})
    with served():
        done = away("run", repository.url, "-e", "train.py", *ON)
        assert (done.returncode, done.stdout) == (3, "told\nafter\n"), done.stderr
        assert away.json("runs", "list")["runs"][0]["status"] == "FAILED"
        nothing_left(away)


def test_logs_are_kept_where_the_server_was_away_when_the_job_ended(
    away: Cli, repository: Repository, served: Start, tmp_path: Path
) -> None:
    text = f"entry_points: {{main: {{command: [python, train.py, '{tmp_path / 'away'}']}}}}\n"
    repository.commit({"runproj.yaml": text, "train.py": ENDS})
    with served():
        run_id = detached(away, repository, *ON)
        waiting.until(lambda: "told" in away("runs", "logs", run_id).stdout)
    (tmp_path / "away").touch()
    recorded(away, run_id)
    with served():
        assert away("sync").returncode == 0
        view = away.json("runs", "show", run_id)
        assert (view["run"]["status"], view["exit_code"]) == ("FAILED", 3)
        assert away("runs", "logs", run_id).stdout == "told\nafter\n"
    nothing_left(away)


def test_a_folder_with_names_of_modules_does_not_disturb_it(away: Cli, repository: Repository) -> None:
    """Neither the executor, which the engine starts there, nor the system's Python, which is asked there what it has."""
    broken = dict.fromkeys(("secrets.py", "typer.py", "platform.py"), "raise SystemExit(9)\n")
    repository.commit({"MLproject": "entry_points: {main: {command: 'true'}}\n", **broken})
    program = Path(sys.executable).with_name("runproj")
    done = subprocess.run([program, "run", ".", *ON], cwd=repository.path, env=away.env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_removal_that_is_killed_is_finished_by_the_next_command(away: Cli, logging: Repository, tmp_path: Path) -> None:
    run_id = detached(away, logging, *ON)
    while not (home(away) / "parcels" / run_id / "record" / "ended.json").exists():
        time.sleep(0.05)
    (tmp_path / "sitecustomize.py").write_text(
        "import os, time\n"
        "unlink, here = os.unlink, os.path.dirname(__file__)\n"
        "def stop(path, *rest, **more):\n"
        "    if str(path).endswith('waybill.json'): open(f'{here}/removing', 'w'); time.sleep(60)\n"
        "    unlink(path, *rest, **more)\n"
        "os.unlink = stop\n"
    )
    usual = away.env["PYTHONPATH"]
    away.env["PYTHONPATH"] = f"{tmp_path}:{usual}"
    looking = away.start("runs", "list")
    while not (tmp_path / "removing").exists():
        assert looking.poll() is None
        time.sleep(0.02)
    looking.kill()
    looking.communicate()
    away.env["PYTHONPATH"] = usual
    (run,) = away.json("runs", "list")["runs"]
    assert run["status"] == "FINISHED"
    nothing_left(away)


def test_a_job_that_was_submitted_by_a_process_that_died_at_once_is_found_again(away: Cli, logging: Repository) -> None:
    """The lease says where the job goes before it goes there; here it was killed before it could write what it is called."""
    run_id = detached(away, logging, *ON, "-e", "endless")
    until(away, run_id, points=1)
    (lease,) = (home(away) / "active").glob("*.json")
    lease.write_text(lease.read_text().replace(f'"id":"{executor_of(away, run_id)}"', '"id":""'))
    assert '"id":""' in lease.read_text()
    assert until(away, run_id, points=3)["status"] == "RUNNING"
    away("runs", "stop", run_id)
    assert until(away, run_id, status="KILLED")
    nothing_left(away)


@pytest.fixture
def slow(away: Cli, tmp_path: Path) -> Path:
    """An engine that starts nothing before this file is there."""
    go, programs = tmp_path / "go", tmp_path / "programs"
    programs.mkdir()
    wrapper = programs / "nice"
    wrapper.write_text(f"#!/bin/sh\nwhile [ ! -e '{go}' ]; do sleep 0.05; done\nexec {shutil.which('nice')} \"$@\"\n")
    wrapper.chmod(0o755)
    away.env["PATH"] = f"{programs}:{away.env['PATH']}"
    return go


@pytest.fixture
def served(away: Cli, tmp_path: Path) -> Start:
    """Starts the tracking server that the program uses; always at the same address."""
    options = ["--store", f"sqlite:///{tmp_path}/served.db", "--artifacts", str(tmp_path / "served files")]

    @contextlib.contextmanager
    def start() -> Iterator[Team]:
        known = away.env.get("RUNPROJ_TRACKING_URI")
        port = ["--port", known.rpartition(":")[2]] if known else []
        with team_server(*options, *port, home=tmp_path / "server home") as team:
            away.env["RUNPROJ_TRACKING_URI"] = team.url
            yield team

    return start


def recorded(cli: Cli, run_id: str) -> Path:
    """Wait until the job has written all of its record."""
    ended = home(cli) / "parcels" / run_id / "record" / "ended.json"
    deadline = time.monotonic() + 300
    while not ended.exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return ended.parent


def test_jobs_record_into_the_server_that_they_reach(away: Cli, logging: Repository, served: Start, tmp_path: Path) -> None:
    with served():
        ended = away("run", logging.url, "-P", "n=30", *ON)
        assert ended.returncode == 0, ended.stderr
        run = away.json("runs", "list")["runs"][0]
    assert run["status"] == "FINISHED"
    assert len(points_of(tmp_path / "served.db", run["id"])) == 30
    nothing_left(away)


def test_a_job_that_does_not_reach_its_server_is_complete_there_after_sync(
    away: Cli, logging: Repository, served: Start, slow: Path, tmp_path: Path
) -> None:
    with served():
        run_id = detached(away, logging, *ON, "-P", "n=30")
    slow.touch()
    recorded(away, run_id)
    refused = away("sync")
    assert refused.returncode == 1
    assert "cannot be reached" in refused.stderr
    with served():
        for _ in range(2):
            assert away("sync").returncode == 0
        run = away.json("runs", "list")["runs"][0]
        names = [item["path"] for item in away.json("runs", "artifacts", run_id)["artifacts"]]
    assert (run["id"], run["status"]) == (run_id, "FINISHED")
    assert "made/model.bin" in names
    assert [step for step, _ in points_of(tmp_path / "served.db", run_id)] == list(range(30))
    nothing_left(away)


def test_a_job_that_is_stopped_before_it_begins_does_nothing(away: Cli, logging: Repository, slow: Path) -> None:
    run_id = detached(away, logging, *ON)
    stopped = away("runs", "stop", run_id)
    assert "KILLED" in stopped.stderr, stopped.stderr
    assert away("runs", "logs", run_id).returncode != 0
    nothing_left(away)


def points_of(store: Cli | Path, run_id: str) -> list[tuple[int, float]]:
    """Every point of the metric, as a database has them; by default that of the home."""
    path = store if isinstance(store, Path) else home(store) / "runproj.db"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        found = connection.execute(
            "SELECT step, value FROM points JOIN runs ON points.run = runs.seq WHERE runs.id = ? ORDER BY step", (run_id,)
        )
        return found.fetchall()


def test_how_long_a_job_waited_for_its_engine_is_told(away: Cli, logging: Repository, slow: Path) -> None:
    run_id = detached(away, logging, *ON)
    time.sleep(1)
    slow.touch()
    until(away, run_id, status="FINISHED")
    timings = {timing["phase"]: timing["seconds"] for timing in away.json("runs", "show", run_id)["record"]["timings"]}
    assert timings["queue"] >= 1
