"""The sweep that the project exists for: boosted trees on a cluster, chosen by a model, pruned, killed and resumed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from conftest import Repository
from support.slurm import Slurm

pytestmark = [pytest.mark.slow, pytest.mark.network, pytest.mark.timeout(3000)]

EXAMPLE = Path(__file__).parents[2] / "example_projects" / "xgboost_classifier"
TRIALS = 40
KILLED_AFTER = 12
SPACE = ("-P", "learning_rate=0.005..0.8:log", "-P", "max_depth=2..6", "-P", "colsample_bytree=0.3..1.0", "-P", "rounds=1000")
HOW = ("--method", "tpe", "--trials", str(TRIALS), "--metric", "mlogloss", "--minimize", "--prune", "median", "-j", "2")
PROGRAM = (sys.executable, "-m", "runproj.cli.main")


def asked(*arguments: str) -> dict:
    done = subprocess.run([*PROGRAM, *arguments, "--json"], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    document: dict = json.loads(done.stdout)
    return document


def test_a_tpe_sweep_of_forty_trials_survives_kill_and_is_resumed_to_exactly_forty(
    repository: Repository, slurm: Slurm, monkeypatch: pytest.MonkeyPatch, common_wheels: Path
) -> None:
    for name, value in slurm.environ.items():
        monkeypatch.setenv(name, value)
    shutil.copytree(EXAMPLE, repository.path, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
    repository.commit({})
    command = [*PROGRAM, "sweep", repository.url, "--backend", "slurm", *SPACE, *HOW]
    process = subprocess.Popen(command, env=dict(os.environ), stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    sweep, said, count = "", "", 0
    for line in process.stderr:
        said += line
        if line.startswith("sweep"):
            sweep = line.partition("(")[2].partition(")")[0]
        count += " FINISHED " in line
        if count == KILLED_AFTER:
            break
    process.send_signal(signal.SIGKILL)
    said += process.communicate()[1]
    assert process.returncode == -signal.SIGKILL, said
    view = asked("sweep", "resume", sweep)
    trials = view["trials"]
    assert [trial["number"] for trial in trials] == list(range(1, TRIALS + 1))
    assert all(trial["status"] == "FINISHED" or trial["pruned"] is not None for trial in trials)
    assert any(trial["pruned"] is not None for trial in trials)
    runs = asked("runs", "list", "-n", "1000")["runs"]
    tags = [{tag["key"]: tag["value"] for tag in run["tags"]} | {"status": run["status"]} for run in runs]
    ended = [one for one in tags if "runproj.trial" in one and (one["status"] == "FINISHED" or "runproj.pruned" in one)]
    assert Counter(one["runproj.trial"] for one in ended) == Counter(str(number) for number in range(1, TRIALS + 1))
    assert len({one["runproj.lock"] for one in tags}) == 1
    assert len(asked("env", "list")["environments"]) == 1

    values = {trial["number"]: trial["value"] for trial in trials if trial["status"] == "FINISHED"}
    assert view["best"][0] == min(values, key=lambda number: values[number])
    effects = {effect["name"] for effect in view["importance"]["numeric"]}
    assert {"learning_rate", "max_depth", "colsample_bytree"} <= effects
