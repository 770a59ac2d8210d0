"""`why --bisect`: among several things that differ, the one that moves the results is found by running hybrids."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from conftest import Repository
from runproj.core.differences import Bisection
from runproj.core.environment import EnvManager, LockOptions
from runproj.core.plan import RunOptions
from runproj.core.run import Run, RunQuery, Tag, TagName
from runproj.machine import THREAD_VARIABLES
from runproj.reproduce.bisect import Laboratory
from runproj.reproduce.why import explain
from support.package_index import PackageIndex, wheel
from support.program import SYSTEM, Cli
from support.wired import Wired

DESCRIPTOR = """
env: {MODE: "1"}
entry_points:
  main:
    parameters:
      lr: {type: float, default: 1}
      unused: {type: int, default: 0}
      seed: {type: seed, default: 1}
      extra: {required: false}
    inputs: {table: table.csv}
    command: [python, train.py, "{lr}", "{unused}", "{seed}"]
    metrics: [{file: m.json}]
"""
SCRIPT = """
import json, os, random, sys
lr, other, seed = float(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
threads, noise = int(os.environ.get("OMP_NUM_THREADS", 1)), float(os.environ.get("NOISE", 0))
table = sum(map(int, open("table.csv").read().split(",")))
score = 10 + min(lr, 3) + table + random.Random(seed).random() + threads + int(os.environ["MODE"])
score += (100 if lr > 3 and other else 0) + (10 ** (300 * random.SystemRandom().random()) if noise else 0)
json.dump({"score": score}, open("m.json", "w"))
"""
FILES = {"runproj.yaml": DESCRIPTOR, "train.py": SCRIPT, "table.csv": "1,2", "README.md": "one\n"}


@dataclass
class Bench:
    """A project, and hybrids of its runs."""

    wired: Wired
    repository: Repository

    def run(self, params: dict[str, str] | None = None, **files: str) -> Run:
        self.repository.commit({**FILES, **{name.replace("__", "."): text for name, text in files.items()}})
        return self.wired.run(self.repository.path, params)

    def bisect(self, first: Run, second: Run) -> Bisection:
        wiring = self.wired.wiring
        found, pair = explain(first, second, wiring.services())
        return Laboratory(pair, wiring.services(), wiring.leases).bisect(found.factors)


@pytest.fixture
def bench(isolated: Path, repository: Repository, monkeypatch: pytest.MonkeyPatch) -> Bench:
    for name in THREAD_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    return Bench(Wired(), repository)


def test_one_of_several_factors_is_named(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Harmless: a line of the README, an unused parameter, a variable.  Each time another one moves the metric."""
    first = bench.run()
    harmless = {"unused": "7"}
    monkeypatch.setenv("ELSEWHERE", "1")
    cases = {
        "parameter lr": bench.run({**harmless, "lr": "2"}, README__md="two\n"),
        "seed seed": bench.run({**harmless, "seed": "5"}, README__md="two\n"),
        "code: train.py changed, code: README.md": bench.run(
            harmless, README__md="2\n", train__py=SCRIPT.replace("10 +", "11 +")
        ),
        "input table": bench.run(harmless, table__csv="1,3"),
        "descriptor: env MODE": bench.run(harmless, runproj__yaml=DESCRIPTOR.replace('"1"', '"3"'), README__md="3\n"),
    }
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    cases["threads OMP_NUM_THREADS"] = bench.run(harmless, README__md="two\n")
    monkeypatch.delenv("OMP_NUM_THREADS")
    for wanted, second in cases.items():
        found = bench.bisect(first, second)
        (cause,) = found.cause or ("",)
        assert cause.startswith(wanted), (wanted, found)
        assert any("ELSEWHERE" in trial.swapped[0] and trial.problem for trial in found.trials)


def test_two_factors_that_only_move_it_together(bench: Bench) -> None:
    found = bench.bisect(bench.run({"lr": "3"}), bench.run({"lr": "9", "unused": "1", "extra": "x"}, README__md="two\n"))
    assert found.words == "only together these move the results: parameter lr: 3 → 9; parameter unused: 0 → 1"
    found = bench.bisect(bench.run({"lr": "1"}), bench.run({"lr": "2", "seed": "9"}))
    assert found.words == "each of these moves the results: parameter lr: 1 → 2; seed seed: 1 → 9"


def test_where_nothing_can_be_told_it_says_so(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    first = bench.run()
    assert "differ no more" in bench.bisect(first, bench.run({"unused": "3"})).words
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    set_here = bench.bisect(first, bench.run())
    assert "does not come back itself" in set_here.words
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setenv("NOISE", "1")
    assert "does not come back itself" in bench.bisect(bench.run({"seed": "4"}), bench.run({"seed": "5"})).words


def test_what_does_not_run_is_no_cause(bench: Bench) -> None:
    """The second run's code needs its descriptor: alone it does not run, together they do."""
    first = bench.run()
    renamed = {
        "runproj__yaml": DESCRIPTOR.replace("MODE", "KIND"),
        "train__py": SCRIPT.replace("MODE", "KIND").replace("10", "20"),
    }
    found = bench.bisect(first, bench.run(**renamed))
    assert [bool(trial.problem) for trial in found.trials] == [True, True, False]
    assert "does not run" in found.trials[0].problem
    assert len(found.cause) == 2


def test_a_package_among_others_is_named(isolated: Path, repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    index = PackageIndex()
    monkeypatch.setenv("UV_DEFAULT_INDEX", index.url)
    for name in ("plain", "small", "third"):
        for version in ("1.0", "2.0"):
            index.add(wheel(name, version, {f"{name}.py": f"V = {version}\n"}))
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    descriptor = (
        f'environment: {{python: "{python}", requirements: requirements.txt}}\n'
        "entry_points: {main: {command: [python, main.py], metrics: [{file: m.json}]}}\n"
    )
    script = "import json, plain, small, third\njson.dump({'v': 1 if small.V > 1 else 0.5}, open('m.json', 'w'))\n"
    bench = Bench(Wired(), repository)

    def run(version: str, **files: str) -> Run:
        lines = "".join(f"{name}=={version}\n" for name in ("plain", "small", "third"))
        repository.commit({"runproj.yaml": descriptor, "main.py": script, "requirements.txt": lines, **files})
        lock = LockOptions(as_of="now")
        return bench.wired.run(repository.path, lock=lock, manager=EnvManager.VIRTUALENV)

    try:
        found = bench.bisect(run("1.0"), run("2.0", note="x\n"))
    finally:
        index.close()
    assert found.words == "lock: small 1.0 → 2.0 moves the results"
    tried = [trial.swapped for trial in found.trials]
    assert tried[0] == ("code: note added",)
    assert [len(words) for words in tried] == [1] * 5


def test_the_profile_can_be_swapped_and_hybrids_are_no_yardstick(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "6")
    bench.repository.commit(FILES)
    first = bench.wired.run(bench.repository.path)
    second = bench.wired.run(bench.repository.path, options=RunOptions(deterministic=True))
    found = bench.bisect(first, second)
    assert found.cause == ("variable --deterministic: unset → yes",)
    hybrids = bench.wired.wiring.tracking.search(RunQuery(tags=(Tag(TagName.VERDICT, "bisect"),)))
    assert len(hybrids) == 1 + sum(not trial.problem for trial in found.trials)


def test_on_the_command_line(cli: Cli, repository: Repository) -> None:
    repository.commit(FILES)
    for name in THREAD_VARIABLES:
        cli.env.pop(name, None)
    assert cli("run", repository.url, *SYSTEM).returncode == 0
    assert cli("run", repository.url, "-P", "lr=2", "-P", "unused=1", *SYSTEM).returncode == 0
    shown = cli("why", "@last~1", "@last", "--bisect", "--quiet")
    assert shown.stdout.endswith("parameter lr: 1 → 2 moves the results\n"), shown.stderr
    document = json.loads(cli("why", "@last~2", "@last~1", "--bisect", "--json").stdout)
    assert document["bisection"] is not None
