"""Jobs whose executor is started by an engine: their record comes into the store, whole, in order and once."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conftest import Repository
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
    deadline = time.monotonic() + 60
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
    deadline = time.monotonic() + 60
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
