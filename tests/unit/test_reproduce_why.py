"""`why`, `diff` and `run --repeat`, as their users type them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

from conftest import Repository
from runproj.core.run import RunStatus
from runproj.reproduce.diff import diff
from runproj.reproduce.why import explain
from support.program import SYSTEM, Cli
from support.wired import Wired

SCHEMAS = Path(__file__).parents[2] / "schemas"
DESCRIPTOR = """
entry_points:
  main:
    parameters: {lr: {type: float, default: 0.1}, noise: {type: float, default: 0}}
    command: [python, train.py, "{lr}", "{noise}"]
    outputs: [out.json]
    metrics: ['(?P<name>\\w+)=(?P<value>\\S+)']
"""
SCRIPT = """
import json, os, sys
lr, noise = map(float, sys.argv[1:])
json.dump({"lr": lr}, open("out.json", "w"))
print(f"score={lr + noise * int.from_bytes(os.urandom(4), 'big') / 2**32!r}")
"""


@pytest.fixture
def training(repository: Repository) -> Repository:
    repository.commit({"runproj.yaml": DESCRIPTOR, "train.py": SCRIPT, "blob.bin": b"\0" + os.urandom(100)})
    return repository


def test_what_differs_first_and_all_of_it(cli: Cli, training: Repository) -> None:
    def fits(name: str, *arguments: str) -> dict:
        document = cli.json(*arguments)
        jsonschema.validate(document, json.loads((SCHEMAS / f"{name}.schema.json").read_text()))
        return document

    assert cli("run", training.url, *SYSTEM).returncode == 0
    training.commit({"train.py": SCRIPT.replace("lr +", "2 * lr +"), "blob.bin": b"\0" + os.urandom(100)})
    assert cli("run", training.url, "-P", "lr=0.3", *SYSTEM).returncode == 0
    words = cli("why", "@last~1", "@last")
    assert words.stdout == "code: blob.bin changed, and 2 more\n  also  code: train.py changed\n  also  parameter lr: 0.1 → 0.3\n"
    found = fits("why", "why", "@last~1", "@last")
    assert [(factor["kind"], factor["name"], factor["after"]) for factor in found["factors"]][2] == ("parameter", "lr", "0.3")
    shown = cli("diff", "@last~1", "@last").stdout
    for line in ("  lr  0.1 → 0.3", "  score  0.1 → 0.6", "  out.json  different  JSON, by value", "  changed  train.py"):
        assert f"{line}\n" in shown, shown
    for line in ('-print(f"score={lr +', '+print(f"score={2 * lr +', "Binary files a/blob.bin and b/blob.bin differ"):
        assert f"\n{line}" in shown, shown
    document = fits("diff", "diff", "@last~1", "@last")
    assert {"path": "train.py", "state": "changed"} in document["files"]
    assert cli("rerun", "@last").returncode == 0
    for words in (("@last~1", "@last"), ("@last",)):  # alone, it is compared with what it repeats
        assert cli("why", *words).stdout == "nothing differs, and neither do the results\n"
    assert "repeats no other run" in cli("diff", "@last~1").stderr
    assert "score" not in cli("diff", "@last~1", "@last").stdout


def test_runs_that_did_not_come_so_far_are_explained_too(isolated: Path, training: Repository) -> None:
    wired = Wired()
    first = wired.run(training.url)
    training.commit({"train.py": "raise SystemExit(3)\n"})
    second = wired.run(training.url)
    assert second.status is RunStatus.FAILED
    found, _ = explain(first, second, wired.wiring.services())
    assert (found.words, found.same_results) == ("code: train.py changed", False)


def test_code_that_is_gone_is_told_from_code_that_is_the_same(isolated: Path, training: Repository, tmp_path: Path) -> None:
    wired = Wired()
    first = wired.run(training.url)
    training.commit({"train.py": SCRIPT + "\n"})
    second = wired.run(training.url)
    shutil.rmtree(training.path)
    shutil.rmtree(Path(wired.wiring.settings.home) / "cache" / "git")
    found, _ = explain(first, second, wired.wiring.services())
    assert found.words == "code: another tree changed"
    assert "cannot be told" in found.notes[0]
    whole = diff(first, second, wired.wiring.services())
    assert "cannot be told" in whole.notes[0]
    assert {item.name for item in whole.differences if item.kind == "code"} == {"commit", "tree"}


def test_runs_that_runproj_did_not_make_have_no_plan(cli: Cli, training: Repository) -> None:
    assert cli("run", training.url, *SYSTEM).returncode == 0
    script = "import runproj; runproj.log_metric('score', 1.0)"
    subprocess.run([sys.executable, "-c", script], env=cli.env, cwd=cli.home, check=True)
    for arguments in (("reproduce", "@last"), ("why", "@last~1", "@last"), ("diff", "@last", "@last~1")):
        result = cli(*arguments)
        assert (result.returncode, "has no plan" in result.stderr) == (1, True), result.stderr
    assert "score" in cli("runs", "compare", "@last", "@last~1").stdout


def test_the_noise_floor_is_measured_stored_and_used(cli: Cli, training: Repository) -> None:
    result = cli("run", training.url, "-P", "noise=0.5", "--repeat", "4", "--json", *SYSTEM)
    assert result.returncode == 0, result.stderr
    floor = json.loads(result.stdout)
    jsonschema.validate(floor, json.loads((SCHEMAS / "run-repeat.schema.json").read_text()))
    (noise,) = floor["noise"]
    assert (noise["name"], noise["n"], len(floor["runs"])) == ("score", 4, 4)
    assert 0 < noise["sd"] < 0.5
    assert noise["cv"] == pytest.approx(noise["sd"] / noise["mean"])
    for run in floor["runs"]:
        assert "runproj/noise.json" in {item["path"] for item in cli.json("runs", "show", run)["artifacts"]}
    (metric,) = cli.json("reproduce", "@last")["replays"][0]["metrics"]
    assert metric["tolerance"] == "95 % prediction interval of 4 runs"
    for run in floor["runs"][:3]:
        cli("runs", "delete", run)
    (metric,) = cli.json("reproduce", floor["runs"][3])["replays"][0]["metrics"]
    assert metric["tolerance"] == "95 % prediction interval of 4 runs", "by what was stored with the run"


def test_repeating_what_does_not_vary_or_fails(cli: Cli, training: Repository) -> None:
    assert "score  mean 0.1, sd 0, cv 0, n = 2" in cli("run", training.url, "--repeat", "2", "--quiet", *SYSTEM).stdout
    assert cli("run", training.url, "--repeat", "2", "--detach", *SYSTEM).returncode == 2
    training.commit({"train.py": "raise SystemExit(3)\n"})
    assert cli("run", training.url, "--repeat", "3", *SYSTEM).returncode == 3
    assert [run["status"] for run in cli.json("runs", "list")["runs"]] == ["FAILED", "FINISHED", "FINISHED"]
