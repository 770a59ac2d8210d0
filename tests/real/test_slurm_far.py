"""Runs on a Slurm whose node sees nothing of this home: everything comes with the script, and goes to the tracking server."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import Repository
from gitservers import git_daemon
from support.cluster import reason_of
from support.placing import LOGGING, detached, home, nothing_left
from support.program import SYSTEM, Cli
from support.slurm import Slurm
from support.team import team_server

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    found = Slurm(tmp_path_factory.mktemp("far-slurm"), hidden=tmp_path_factory.getbasetemp())
    try:
        found.start()
        yield found
    finally:
        found.stop()


@pytest.fixture
def away(cli: Cli, made: Slurm, tmp_path: Path) -> Iterator[Cli]:
    cli.env |= made.environ
    with team_server(home=tmp_path / "server home") as team:
        cli.env["RUNPROJ_TRACKING_URI"] = team.url
        yield cli


def settled(cli: Cli) -> None:
    """Nothing is left here when the job has ended, too: the record is complete before."""
    deadline = time.monotonic() + 300
    while list((home(cli) / "parcels").iterdir()):
        assert time.monotonic() < deadline
        cli("runs", "list")
        time.sleep(0.5)
    nothing_left(cli)


def on(**options: object) -> list[str]:
    return ["--backend", "slurm", "--backend-config", json.dumps({"python": sys.executable, **options}), *SYSTEM]


def test_everything_comes_along_and_is_recorded(away: Cli, repository: Repository) -> None:
    repository.commit(LOGGING)
    repository.write(
        {"train.py": LOGGING["train.py"] + "print(open('untracked.txt').read())\n", "untracked.txt": 'it\'s "$(x)"\n'}
    )
    done = away("run", str(repository.path), "-P", "text=far away", *on(variables=["LANG"], setup=["export LANG=C"]))
    assert done.returncode == 0, done.stderr
    assert done.stdout == 'text far away\nit\'s "$(x)"\n\n'
    run = away.json("runs", "list")["runs"][0]
    assert [(item["key"], item["step"]) for item in run["metrics"]] == [("loss", 2)]
    assert "made/model.bin" in [item["path"] for item in away.json("runs", "artifacts", run["id"])["artifacts"]]
    done = away("run", repository.url, "-e", "fail", *on())
    assert done.returncode == 3, done.stderr
    assert reason_of(away.json("runs", "list")["runs"][0]) == "exit code 3"
    settled(away)


def test_jobs_that_are_stopped_and_that_can_not_run(away: Cli, repository: Repository, made: Slurm) -> None:
    repository.commit(LOGGING)
    run_id = detached(away, repository, "-e", "endless", *on())
    deadline = time.monotonic() + 300
    while not away.json("runs", "show", run_id)["run"]["metrics"]:
        assert time.monotonic() < deadline
        time.sleep(0.5)
    assert away("runs", "stop", run_id).returncode == 0
    assert away.json("runs", "show", run_id)["run"]["status"] == "KILLED"
    assert away("runs", "logs", run_id).stdout == "begun\nasked to end\n"
    done = away("run", repository.url, *on(python="/no/such/python"))
    assert done.returncode != 0 and "its job ended with exit code 97" in done.stderr, done.stderr
    settled(away)


def test_code_that_is_too_large_comes_without_its_history_or_from_its_remote(away: Cli, repository: Repository) -> None:
    project = {"MLproject": "entry_points: {main: {command: 'git rev-list --count HEAD; ls'}}\n"}
    repository.commit({**project, "large.bin": os.urandom(3_000_000).hex()})
    with git_daemon(repository.path.parent) as url:
        whole = away("run", f"{url}/project", *on())
        assert whole.returncode == 0, whole.stderr
        assert "which gets it from git://" in whole.stderr and "large.bin" in whole.stdout.splitlines()
        (repository.path / "large.bin").unlink()
        repository.commit({"small.bin": "x"})
    alone = away("run", repository.url, *on())
    assert alone.returncode == 0, alone.stderr
    assert alone.stdout.splitlines() == ["1", "MLproject", "small.bin"] and "git has one commit there" in alone.stderr
    settled(away)


def test_what_can_not_be_is_said(away: Cli, repository: Repository) -> None:
    repository.commit({**LOGGING, "large.bin": os.urandom(3_000_000).hex()})
    done = away("run", repository.url, *on())
    assert done.returncode == 125 and "Slurm takes scripts of 3 MiB" in done.stderr, done.stderr
    del away.env["RUNPROJ_TRACKING_URI"]
    done = away("run", repository.url, *on())
    assert done.returncode == 125 and "needs a way here" in done.stderr, done.stderr
