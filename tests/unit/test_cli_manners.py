"""How the commands treat their user: once told is enough, what matters comes first, exit codes say what they promise."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from conftest import Repository
from runproj.core.environment import EnvLock, EnvManager, EnvPlace
from runproj.core.run import Lifecycle, Metric, NewRun, Param, Run, RunChanges
from runproj.core.views import Comparison, Difference
from runproj.reproduce.comparison import is_package, results_first
from runproj.reproduce.facts import lock_facts
from runproj.tracking import open_full_store
from runproj.tracking.full import FullStore
from support.clients import NOBODY, python
from support.program import SYSTEM, Cli
from support.team import team_server


def store_of(cli: Cli) -> FullStore:
    home = Path(cli.env["RUNPROJ_HOME"])
    return open_full_store(f"sqlite:///{home / 'runproj.db'}", home=home)


def recorded(store: FullStore, experiment: str = "0", **values: float) -> Run:
    """A run that has ended, with a parameter and a metric of each value."""
    run = store.create_run(NewRun(experiment, 1_700_000_000_000, params=tuple(Param(key, str(v)) for key, v in values.items())))
    store.update(run.id, RunChanges(metrics=tuple(Metric(f"{key}_", v, 1) for key, v in values.items())))
    return store.get_run(run.id)


def test_the_package_is_a_program_too(cli: Cli) -> None:
    command = [sys.executable, "-m", "runproj", "runs", "list"]
    done = subprocess.run(command, env=cli.env, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "No runs yet.  Start one with: runproj run URI\n")


def test_a_server_that_refuses_is_told_once_and_only_what_starts_projects_ends_with_125(cli: Cli, project: Repository) -> None:
    cli("user", "add", "ada")
    token = cli("user", "token", "ada").stdout.strip()
    with team_server() as team:
        cli.env["MLFLOW_TRACKING_URI"] = team.url
        cli.env["RUNPROJ_HOME"] += " of another"
        for command in (("runs", "list"), ("runs", "search"), ("experiments", "list"), ("models", "list")):
            refused = cli(*command)
            assert (refused.returncode, refused.stderr.count("MLFLOW_TRACKING_TOKEN")) == (1, 1), refused.stderr
        assert cli("run", project.url, *SYSTEM).returncode == 125
        cli.env["MLFLOW_TRACKING_TOKEN"] = token
        denied = cli("runs", "list", "--experiment", "Default")
        assert denied.returncode == 1
        assert (denied.stderr.count("runproj user grant"), "TOKEN" in denied.stderr) == (1, False), denied.stderr
    assert cli("runs", "list").returncode == 1, "nobody answers"


def test_a_comparison_begins_with_what_somebody_chose_and_what_came_of_it(cli: Cli) -> None:
    kinds = ("code", "lock", "parameter", "interpreter", "seed", "metric", "output", "run")
    values = tuple(Difference(kind, "name", ("a", "b")) for kind in kinds)
    found = [item.kind for item in results_first(Comparison(("1", "2"), values)).differences]
    assert found == ["parameter", "seed", "metric", "output", "code", "lock", "interpreter", "run"]
    store = store_of(cli)
    runs = [recorded(store, lr=value).id for value in (0.1, 0.2)]
    shown = cli("runs", "compare", *runs).stdout.splitlines()
    assert [line.split()[0] for line in shown[1:3]] == ["parameter", "metric"], shown


def test_packages_are_told_apart_from_what_installs_them() -> None:
    lock = EnvLock(EnvManager.SYSTEM, EnvPlace.HOST, "d" * 64, "system", "linux", installed=("numpy==2.0", "pandas==2.2"))
    facts = [Difference(fact.kind, fact.name, (fact.value, None)) for fact in lock_facts(lock)]
    assert [item.name for item in facts if is_package(item)] == ["numpy", "pandas"]
    assert [item.name for item in facts if not is_package(item)] == ["manager"]


def test_what_is_not_sent_is_said_once_an_hour(cli: Cli, tmp_path: Path) -> None:
    python("import runproj; runproj.log_metric('m', 1)", tmp_path, **{**cli.env, "MLFLOW_TRACKING_URI": NOBODY})
    assert "runproj sync" in cli("runs", "list").stderr
    assert "runproj sync" not in cli("runs", "list").stderr
    stamp = Path(cli.env["RUNPROJ_HOME"]) / "told-of-unsent"
    os.utime(stamp, (time.time() - 3700,) * 2)
    assert "runproj sync" not in cli("env", "list").stderr
    assert "runproj sync" in cli("runs", "list").stderr


def test_gc_finds_what_a_server_keeps_elsewhere(cli: Cli, tmp_path: Path) -> None:
    uri, place = f"sqlite:///{tmp_path / 'team.db'}", cli.home / "files of the team"
    store = open_full_store(uri, home=tmp_path)
    run = recorded(store, lr=1)
    files = place / "0" / run.id / "artifacts"
    files.mkdir(parents=True)
    (files / "model").write_text("x" * 1000)
    store.update(run.id, RunChanges(lifecycle=Lifecycle.DELETED))
    store.close()
    elsewhere = ("--store", uri, "--artifacts", place.name)
    assert "nothing" in cli("gc", "--deleted").stderr
    assert f"run {run.id[:8]}" in cli("gc", "--deleted", *elsewhere, "--dry-run").stdout
    assert files.exists()
    assert f"run {run.id[:8]}" in cli("gc", "--deleted", *elsewhere).stdout
    assert not files.exists()
