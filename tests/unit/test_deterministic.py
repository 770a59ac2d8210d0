"""`--deterministic` and what is recorded of a command's variables."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from conftest import Repository
from runproj.core.environment import Environment, EnvLock, EnvManager, EnvPlace
from runproj.core.plan import RunOptions
from runproj.core.run import TagName
from runproj.variables import recordable
from support.program import SYSTEM, Cli
from support.wired import Wired

SHOW = "import json, os, sys, time\nprint(json.dumps([dict(os.environ), hash('a'), time.tzname[0]]))\n"
DESCRIPTOR = """
entry_points:
  main:
    parameters: {seed: {type: seed, default: 7}}
    env: {MKL_NUM_THREADS: "2"}
    command: [python, show.py, "{seed}"]
"""


def test_the_profile_reaches_the_command_is_recorded_and_replayed(
    cli: Cli, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.commit({"runproj.yaml": DESCRIPTOR, "show.py": SHOW}, date="2024-05-06T07:08:09+02:00")
    cli.env |= {"OMP_NUM_THREADS": "3", "TZ": "Asia/Tokyo"}
    result = cli("run", repository.url, "--deterministic", *SYSTEM)
    variables, hashed, zone = json.loads(result.stdout)
    assert (variables["OMP_NUM_THREADS"], variables["PYTHONHASHSEED"], variables["LC_ALL"], zone) == ("1", "7", "C.UTF-8", "UTC")
    assert variables["MKL_NUM_THREADS"] == "2", "what the project itself says comes first"
    assert variables["SOURCE_DATE_EPOCH"] == "1714972089"
    view = cli.json("runs", "show", "@last")
    assert view["plan"]["options"]["deterministic"] is True
    assert {"PYTHONHASHSEED": "7", "OMP_NUM_THREADS": "1"}.items() <= dict(view["record"]["machine"]["threads"]).items()
    again, hashed_again, _ = json.loads(cli("rerun", "@last").stdout)
    assert (again["PYTHONHASHSEED"], hashed_again) == ("7", hashed)
    plain, _, zone = json.loads(cli("run", repository.url, *SYSTEM).stdout)
    assert (plain["OMP_NUM_THREADS"], "PYTHONHASHSEED" in plain, zone) == ("3", False, "JST")
    seeded, other, _ = json.loads(cli("run", repository.url, "--deterministic", "-P", "seed=-1", *SYSTEM).stdout)
    assert (seeded["PYTHONHASHSEED"], other != hashed) == ("0", True)
    wrong = cli("run", repository.url, "-P", "seed=x", *SYSTEM)
    assert (wrong.returncode, "an int" in wrong.stderr) == (2, True)


def test_it_makes_another_recipe(isolated: Path, repository: Repository) -> None:
    repository.commit({"runproj.yaml": DESCRIPTOR, "show.py": SHOW})
    wired = Wired()
    runs = [wired.run(repository.url, options=RunOptions(deterministic=value)) for value in (True, False, True)]
    recipes = [run.tag(TagName.RECIPE) for run in runs]
    assert recipes[0] == recipes[2] != recipes[1]


def test_variables_are_told_apart_and_not_told() -> None:
    given = {
        "LAYERS": "3",
        "TZ": "UTC",
        "API_TOKEN": "x",
        "DATABASE": "postgres://me@host",
        "SHLVL": "2",
        "RUNPROJ_RUN_ID": "1",
        "PYTHONPATH": "/ours:/theirs",
        "EXTRA": "1",
    }
    system = Environment(EnvLock(EnvManager.SYSTEM, EnvPlace.HOST, "", "", ""), bin=(Path("/ours"),), variables={"EXTRA": "1"})

    def recorded(variables: dict[str, str]) -> dict[str, str]:
        return dict(recordable(variables, system))

    found = recorded(given)
    assert found.keys() == {"LAYERS", "TZ", "PYTHONPATH"}
    assert found["TZ"] == "UTC"
    assert found["LAYERS"] != recorded({"LAYERS": "4"})["LAYERS"]
    assert found["PYTHONPATH"] == recorded({"PYTHONPATH": "/other:/theirs"})["PYTHONPATH"]
    assert all(len(value) == len("sha256:12345678") for name, value in found.items() if name != "TZ")
