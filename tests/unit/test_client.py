"""The logging functions inside a run's process: old interpreters, forks, trouble, and out of place."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import runproj
from conftest import HOSTILE
from runproj.tracking import open_full_store
from runproj.tracking.full import FullStore
from support.clients import Flaky, runs
from support.endpoint import Served, served

BARE = [sys.executable, "-S"]
"""This interpreter without any installed package."""

OLD = [
    path
    for path in sorted(Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions").glob("3.*/bin/python"))
    if (3, 6) <= tuple(map(int, path.parents[1].name.split(".")[:2])) < (3, 11)
] or [Path(sys.executable)]
"""Older interpreters that this machine has."""

CLIENT = Path(runproj.__file__).with_name("client")


@pytest.fixture
def here(isolated: Path) -> Iterator[Served]:
    with served(isolated / "runproj home") as found:
        yield found


@pytest.fixture
def inside(tmp_path: Path) -> Path:
    """What the executor puts on the path of the project's process."""
    package = tmp_path / HOSTILE / "inside" / "runproj"
    package.mkdir(parents=True)
    shutil.copytree(CLIENT, package / "client", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copyfile(CLIENT / "standalone.py", package / "__init__.py")
    return package.parent


@dataclass
class Team:
    url: str
    store: FullStore


@pytest.fixture
def team(tmp_path: Path) -> Iterator[Team]:
    """A server of its own."""
    home = tmp_path / HOSTILE / "team"
    with Flaky(home) as server:
        store = open_full_store(f"sqlite:///{home / 'runproj.db'}", home=home)
        yield Team(server.url, store)
        store.close()


def run(command: list[str], code: str, inside: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    base = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW", "RUNPROJ"))}
    environ = {**base, "PYTHONPATH": str(inside), "RUNPROJ_FLUSH_SECONDS": "120", **environment}
    return subprocess.run([*command, "-c", code], env=environ, cwd=inside.parent, capture_output=True, text=True, timeout=300)


CODE = """
import json, os, runproj
runproj.log_param("p", 1)
runproj.log_params({"q": None, "r": "it's \\n 文字"})
runproj.log_param("p", 1)
try:
    runproj.log_param("p", 2)
except ValueError as error:
    refused = "'p'" in str(error)
for value in (3, 2, 1):
    runproj.log_metric("loss", value)
runproj.log_metrics({"nan": float("nan"), "inf": float("-inf")}, step=5, timestamp=77)
runproj.set_tag("t", True)
runproj.log_params({"many.%d" % i: i for i in range(250)})
os.makedirs("out/deep")
for name in ("out/a.txt", "out/deep/b ü.txt"):
    open(name, "w").write(name)
runproj.log_artifact("out")
runproj.log_artifact("out/a.txt", "elsewhere")
print(json.dumps([runproj.run_id(), refused, runproj.__file__]))
"""


def check(here: Served, done: subprocess.CompletedProcess[str], inside: Path) -> None:
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert json.loads(done.stdout) == [here.run.id, True, str(inside / "runproj" / "__init__.py")]
    found = here.store.get_run(here.run.id)
    params = {param.key: param.value for param in found.params}
    assert (params["p"], params["q"], params["r"], params["many.249"]) == ("1", "None", "it's \n 文字", "249")
    assert [(point.step, point.value) for point in here.store.history(here.run.id, "loss")] == [(0, 3), (1, 2), (2, 1)]
    metrics = {metric.key: metric for metric in found.metrics}
    assert math.isnan(metrics["nan"].value)
    assert (metrics["inf"].value, metrics["inf"].step, metrics["inf"].timestamp) == (-math.inf, 5, 77)
    assert found.tag("t") == "True"
    files = here.folder(found)
    assert (files / "out/deep/b ü.txt").read_text() == "out/deep/b ü.txt"
    assert (files / "elsewhere/a.txt").exists()


def environment(here: Served) -> dict[str, str]:
    return {**here.environment, "RUNPROJ_RUN_ID": here.run.id}


def test_it_logs_into_the_run(here, inside):
    check(here, run(BARE, CODE, inside, **environment(here)), inside)


ANYWHERE = """
import multiprocessing, os, runproj
class Figure:
    def savefig(self, path): open(path, "w").write("picture")
def work(number):
    runproj.log_metric("pool", number)
runproj.set_experiment("old")
with runproj.start_run("outer") as outer:
    with multiprocessing.get_context("fork").Pool(1) as pool:
        pool.map(work, range(3)), pool.close(), pool.join()
    with runproj.start_run("inner", nested=True):
        runproj.log_metrics({"a": 1, "b": float("inf")}, step=3)
    runproj.log_table({"a": [1]}, "t.json"), runproj.log_table([{"b": 2}], "t.json")
    runproj.log_figure(Figure(), "f.png"), runproj.log_dict({"x": 1}, "d.json"), runproj.log_text("x", "t.txt")
    try:
        runproj.log_metric("a*b", 1)
    except runproj.Refused:
        runproj.set_tag("refused", 1)
assert runproj.flush(60)
print(sorted((found["run_name"], found.get("metrics.b")) for found in runproj.search_runs(output="list")))
"""


@pytest.mark.parametrize("python", OLD, ids=lambda path: path.parents[1].name)
def test_it_begins_runs_from_interpreters_of_all_ages(team, inside, python):
    done = run([str(python), "-S"], ANYWHERE, inside, RUNPROJ_TRACKING_URI=team.url)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "[('inner', inf), ('outer', None)]\n"
    outer = next(found for found in runs(team.store) if found.name == "outer")
    assert (len(team.store.history(outer.id, "pool")), outer.tag("refused")) == (3, "1")


@pytest.mark.parametrize("python", OLD, ids=lambda path: path.parents[1].name)
def test_it_logs_from_interpreters_of_all_ages(here, inside, python):
    check(here, run([str(python), "-S"], CODE, inside, **environment(here)), inside)


def test_it_is_fit_for_old_interpreters():
    """The syntax of Python 3.6, and nothing but the standard library and itself."""
    import ast

    for module in CLIENT.glob("*.py"):
        tree = ast.parse(module.read_text(), feature_version=(3, 6))
        imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        foreign = {name for name in imported if name.partition(".")[0] not in sys.stdlib_module_names}
        foreign -= {"pandas"} if module.name == "searching.py" else set()
        assert all(name.startswith("runproj.client") for name in foreign) or module.name == "installed.py", module
        assert not any(isinstance(node, ast.NamedExpr | ast.Match) for node in ast.walk(tree))


def test_it_warns_once_where_nothing_says_where_to_begin_a_run(inside):
    code = "import runproj\nfor i in range(3): runproj.log_metric('m', 1); runproj.set_tag('t', 1); runproj.log_artifact('x')"
    done = run(BARE, code, inside)
    assert done.returncode == 0
    assert done.stderr.count("RuntimeWarning") == 1
    assert "-c:2: RuntimeWarning" in done.stderr.replace("<string>", "-c")
    assert "does not belong to a run" in done.stderr


def test_an_unreachable_record_does_not_end_the_training(here, inside):
    here.endpoint.close()
    environ = {**environment(here), "MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}
    done = run(BARE, "import runproj\nfor i in range(3): runproj.log_metric('m', i)\nprint('trained')", inside, **environ)
    assert (done.returncode, done.stdout) == (0, "trained\n")
    assert done.stderr.count("RuntimeWarning") == 1


def test_a_wrong_token_keeps_what_is_logged(here, inside):
    environ = {**environment(here), "MLFLOW_TRACKING_TOKEN": "wrong"}
    done = run(BARE, "import runproj\nrunproj.log_metric('m', 1)\nprint('trained')", inside, **environ)
    assert (done.returncode, done.stdout) == (0, "trained\n")
    assert done.stderr.count("RuntimeWarning") == 1
    assert "refuses access (401)" in done.stderr
    assert "runproj sync" in done.stderr
    assert not here.store.history(here.run.id, "m")


def test_children_of_a_fork_log_too(here, inside):
    code = """
import os, runproj
runproj.log_metric("m", 1)
for number in range(4):
    if os.fork() == 0:
        for step in range(20):
            runproj.log_metric("child%d" % number, step)
        os._exit(0)
for number in range(4):
    assert os.wait()[1] == 0
runproj.log_metric("m", 2)
"""
    done = run(BARE, code, inside, **environment(here))
    assert (done.returncode, done.stderr) == (0, "")
    assert [len(here.store.history(here.run.id, f"child{number}")) for number in range(4)] == [20] * 4
    assert len(here.store.history(here.run.id, "m")) == 2


def test_it_gives_way_to_an_installed_runproj(inside):
    code = "import runproj, runproj.settings; print(runproj.__file__, runproj.__version__, callable(runproj.log_metric))"
    done = run([sys.executable], code, inside)
    assert done.stdout.split() == [runproj.__file__, runproj.__version__, "True"], done.stderr
