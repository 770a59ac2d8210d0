"""The Python client outside of runs: exact values, how runs end, what is refused, files, forks and threads."""

from __future__ import annotations

import csv
import io
import json
import math
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from runproj.core.run import RunStatus
from runproj.tracking import open_full_store
from runproj.tracking.full import FullStore
from support.clients import NOBODY, Flaky, python, runs, spools
from support.program import Cli


@pytest.fixture
def home(isolated: Path) -> Path:
    return isolated / "runproj home"


@pytest.fixture
def store(home: Path) -> Iterator[FullStore]:
    """What this machine's own store holds: where everything goes when nothing is configured."""
    found = open_full_store(f"sqlite:///{home / 'runproj.db'}", home=home)
    yield found
    found.close()


def good(done: subprocess.CompletedProcess[str]) -> str:
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip()


VALUES = """
import runproj
points = [float("nan"), float("inf"), float("-inf"), -0.0, 0.0, 5e-324, -2.2250738585072014e-308]
points += [2.0**53 + 2, 1.7976931348623157e308, 0.1, 1e22]
with runproj.start_run("exact", tags={"t": "it's \\n 文字"}) as run:
    for value in points:
        runproj.log_metric("m", value)
    runproj.log_metric("far", 1, step=2**53 + 1, timestamp=2**53 + 1)
    runproj.log_metric("whole", 2**53 + 1)
    runproj.log_params({"p": 2**53 + 1, "empty": "", "long": "x" * 10000})
print(run.id)
"""


def test_values_are_exact(store: FullStore, tmp_path: Path) -> None:
    run_id = good(python(VALUES, tmp_path))
    points = [point.value for point in store.history(run_id, "m")]
    assert [math.copysign(1, value) for value in points if not math.isnan(value)].count(-1) == 3
    special = ["nan", "inf", "-inf", "-0.0", "0.0", "5e-324", "-2.2250738585072014e-308"]
    assert sorted(map(repr, points)) == sorted([*special, "9007199254740994.0", "1.7976931348623157e+308", "0.1", "1e+22"])
    [far] = store.history(run_id, "far")
    assert (far.step, far.timestamp) == (2**53 + 1, 2**53 + 1)
    assert [point.value for point in store.history(run_id, "whole")] == [2.0**53]
    run = store.get_run(run_id)
    assert {param.key: param.value for param in run.params} == {"p": "9007199254740993", "empty": "", "long": "x" * 10000}
    assert (run.status, run.name, run.tag("t")) == (RunStatus.FINISHED, "exact", "it's \n 文字")


def test_values_are_exact_from_client_to_csv(tmp_path: Path, home: Path, cli: Cli) -> None:
    """Through the server, its database and REST into a CSV file."""
    values = ["nan", "inf", "-inf", "-0.0", "5e-324", "9007199254740994.0", "1.7976931348623157e+308", "0.1"]
    code = f"""
import runproj
with runproj.start_run("exact") as run:
    for number, value in enumerate({values}):
        runproj.log_metric("m%d" % number, float(value))
print(run.id)
"""
    with Flaky(home) as server:
        run_id = good(python(code, tmp_path, RUNPROJ_TRACKING_URI=server.url))
        with urllib.request.urlopen(f"{server.url}/api/2.0/mlflow/runs/get?run_id={run_id}") as answer:
            metrics = json.load(answer)["run"]["data"]["metrics"]
    assert [repr(float(metric["value"])) for metric in sorted(metrics, key=lambda metric: metric["key"])] == values
    [row] = csv.DictReader(io.StringIO(cli("runs", "search", "--csv", "-").stdout))
    assert [repr(float(row[f"metrics.m{number}"])) for number in range(len(values))] == values


def test_it_records_in_postgresql(postgres: str, tmp_path: Path) -> None:
    run_id = good(python(VALUES, tmp_path, RUNPROJ_TRACKING_URI=postgres))
    store = open_full_store(postgres, home=tmp_path)
    assert [repr(point.value) for point in store.history(run_id, "m")].count("-0.0") == 1
    assert store.get_run(run_id).status is RunStatus.FINISHED
    store.close()


def test_how_it_ends(store: FullStore, tmp_path: Path) -> None:
    code = """
import runproj, sys
for error in (ValueError("x"), KeyboardInterrupt(), SystemExit(0), SystemExit(3)):
    try:
        with runproj.start_run(type(error).__name__ + str(getattr(error, "code", ""))):
            raise error
    except BaseException:
        pass
"""
    good(python(code, tmp_path))
    assert {run.name: run.status.value for run in runs(store)} == {
        "ValueError": "FAILED",
        "KeyboardInterrupt": "KILLED",
        "SystemExit0": "FINISHED",
        "SystemExit3": "FAILED",
    }


@pytest.mark.parametrize(
    ("ending", "status"), [("", "FINISHED"), ("raise ValueError('oh')", "FAILED"), ("raise KeyboardInterrupt", "KILLED")]
)
def test_the_end_of_the_process_ends_its_runs(store: FullStore, tmp_path: Path, ending: str, status: str) -> None:
    begin = "import runproj\nrunproj.start_run('outer')\nrunproj.start_run('inner', nested=True)\nrunproj.log_metric('m', 1)\n"
    done = python(begin + ending, tmp_path)
    assert (done.returncode == 0) == (status == "FINISHED")
    assert "RuntimeWarning" not in done.stderr
    outer, inner = sorted(runs(store), key=lambda run: run.name, reverse=True)
    assert (outer.status.value, inner.status.value) == (status, status)
    assert inner.tag("mlflow.parentRunId") == outer.id
    assert len(store.history(inner.id, "m")) == 1


FIRST = {
    "log_param": "runproj.log_param('p', 1)",
    "log_metrics": "runproj.log_metrics({'m': 1})",
    "set_tags": "runproj.set_tags({'t': 1})",
    "delete_tag": "runproj.delete_tag('t')",
    "log_text": "runproj.log_text('x', 'a.txt')",
    "log_table": "runproj.log_table({'a': [1]}, 'a.json')",
}


@pytest.mark.parametrize("first", FIRST.values(), ids=FIRST)
def test_what_is_logged_without_a_run_begins_one(store: FullStore, tmp_path: Path, first: str) -> None:
    code = f"import runproj\nassert runproj.active_run() is None\n{first}\nrunproj.log_metric('n', 2)\nprint(runproj.run_id())"
    run_id = good(python(code, tmp_path))
    [run] = runs(store)
    assert (run.id, run.status, [point.value for point in store.history(run.id, "n")]) == (run_id, RunStatus.FINISHED, [2.0])


def test_a_run_that_began_by_itself(store: FullStore, tmp_path: Path) -> None:
    """One for all threads, in the experiment that is set; it can be ended, and is not begun again by what ends the process."""
    code = """
import atexit, concurrent.futures, runproj, threading
atexit.register(runproj.log_metric, "late", 1)
runproj.set_experiment("mine")
barrier = threading.Barrier(8)
def work(number):
    barrier.wait()
    runproj.log_metric("m", number)
with concurrent.futures.ThreadPoolExecutor(8) as pool:
    list(pool.map(work, range(8)))
runproj.log_metric("m", 8)
try:
    runproj.start_run("second")
except runproj.Refused as error:
    assert "began with what was logged before start_run" in str(error), error
runproj.end_run()
runproj.log_metric("m", 0)
raise ValueError("oh")
"""
    done = python(code, tmp_path)
    assert (done.returncode, done.stderr.count("RuntimeWarning"), "this process is ending" in done.stderr) == (1, 1, True)
    first, second = runs(store)
    assert [run.status.value for run in (first, second)] == ["FINISHED", "FAILED"]
    assert [len(store.history(run.id, "m")) for run in (first, second)] == [9, 1]
    assert {run.experiment_id for run in (first, second)} == {store.experiment("mine", make=False).id}


def test_a_run_has_what_the_module_has(store: FullStore, home: Path, tmp_path: Path) -> None:
    code = """
import os, runproj
with runproj.start_run("a") as a, runproj.start_run("b", nested=True):
    for name in runproj.client.__all__:
        assert not name.startswith(("log_", "set_tag", "delete_")) or callable(getattr(a, name)), name
    a.log_text("x", "t.txt"), a.log_dict({"x": 1}, "d.json"), a.log_table([{"b": 2}], "table.json")
    os.mkdir("out"), open("out/f", "w").close()
    a.log_artifact("out/f", "one"), a.log_artifacts("out", "all")
    assert repr(a) == f"Run(name='a', id='{a.id}')"
"""
    good(python(code, tmp_path))
    a = next(run for run in runs(store) if run.name == "a")
    [folder] = (home / "artifacts").glob(f"*/{a.id}/artifacts")
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert found == {"t.txt", "d.json", "table.json", "one/f", "all/f"}


def test_mistakes_are_told_at_once(store: FullStore, tmp_path: Path) -> None:
    code = """
import runproj
def refused(call, *arguments, **named):
    try:
        call(*arguments, **named)
    except runproj.Refused as error:
        return bool(str(error))
with runproj.start_run() as run:
    runproj.log_param("p", 1)
    runproj.log_param("p", "1")
    assert refused(runproj.log_param, "p", 2)
    assert refused(runproj.log_params, {"new": 1, "p": 3})
    for name in ("a*b", "", "a//b", "../x", "x" * 251):
        assert all(refused(call, name, 1) for call in (runproj.log_metric, runproj.log_param, runproj.set_tag)), name
    for value in ("one", None, [1], 10**400):
        assert refused(runproj.log_metric, "m", value), value
    assert refused(runproj.log_metrics, {"fine": 1, "m": "one"})
    for step in (1.5, "2", 2**63):
        assert refused(runproj.log_metric, "m", 1, step=step), step
    assert refused(runproj.log_metric, "m", 1, timestamp=-1)
    assert refused(runproj.start_run)
    assert refused(runproj.log_text, "x", "../out") and refused(runproj.log_table, {"a": [1], "b": [1, 2]}, "t.json")
    assert refused(run.end, "DONE")
    assert refused(runproj.set_tracking_uri, "ftp://x")
"""
    good(python(code, tmp_path))
    [run] = runs(store)
    assert (run.metrics, [param.value for param in run.params]) == ((), ["1"])


def test_files_tables_and_pictures(store: FullStore, home: Path, tmp_path: Path) -> None:
    code = """
import os, runproj
class Figure:
    def savefig(self, path): open(path, "w").write("picture for " + path[-4:])
class Plot:
    def write_html(self, path): open(path, "w").write("<html>")
    def write_image(self, path): raise ValueError("no kaleido")
os.makedirs("out/deep")
for name in ("out/a.txt", "out/deep/b ü.txt"):
    open(name, "w").write(name)
with runproj.start_run():
    runproj.log_artifact("out")
    runproj.log_artifact("out/a.txt", "elsewhere")
    runproj.log_artifacts("out", "flat")
    open("out/a.txt", "w").write("changed in place")
    os.unlink("out/deep/b ü.txt")
    runproj.log_figure(Figure(), "plots/one.png")
    runproj.log_figure(Plot(), "plots/two.html")
    runproj.log_dict({"a": [1, None, float("nan")]}, "d.json")
    runproj.log_text("späť", "t.txt")
    for number in range(3):
        runproj.log_table({"n": [number], "x": [float("nan")]}, "tables/t.json")
    runproj.log_table([{"n": 3, "new": "y"}], "tables/t.json")
    try:
        runproj.log_figure(Plot(), "plots/two.png")
    except ValueError as error:
        print(error)
    try:
        runproj.log_artifact("nothing")
    except FileNotFoundError:
        print("missing")
"""
    assert good(python(code, tmp_path)).split("\n") == ["no kaleido", "missing"]
    [run] = runs(store)
    root = home / "artifacts" / "0" / run.id / "artifacts"
    found = {path.relative_to(root).as_posix(): path.read_text() for path in root.rglob("*") if path.is_file()}
    assert json.loads(found.pop("tables/t.json")) == {
        "columns": ["n", "x", "new"],
        "data": [[0, None, None], [1, None, None], [2, None, None], [3, None, "y"]],
    }
    assert json.loads(found.pop("d.json")) == {"a": [1, None, None]}
    texts = {"a.txt": "out/a.txt", "deep/b ü.txt": "out/deep/b ü.txt"}
    assert found == {
        **{f"out/{name}": text for name, text in texts.items()},
        **{f"flat/{name}": text for name, text in texts.items()},
        "elsewhere/a.txt": "out/a.txt",
        "plots/one.png": "picture for .png",
        "plots/two.html": "<html>",
        "t.txt": "späť",
    }
    assert json.loads(run.tag("mlflow.loggedArtifacts") or "") == [{"path": "tables/t.json", "type": "table"}]
    assert not spools(home / "spool")


def test_search_is_a_list_of_dicts_without_pandas(tmp_path: Path) -> None:
    code = """
import runproj, json
runproj.set_experiment("wine")
for depth in range(3):
    with runproj.start_run("run %d" % depth):
        runproj.log_param("depth", depth)
        runproj.log_metric("loss", 1 / (depth + 1))
found = runproj.search_runs("metrics.loss < 0.9", order_by="metrics.loss:desc", output="list")
print(json.dumps([[run["run_name"], run["params.depth"], run["metrics.loss"], run["status"]] for run in found]))
print(*(len(runproj.search_runs(experiments=[name], output="list")) for name in ("wine", "Default")))
try:
    runproj.search_runs("metrics.loss ~ 1")
except runproj.Refused as error:
    print("refused")
"""
    found, counts, refused = good(python(code, tmp_path)).split("\n")
    assert json.loads(found) == [["run 1", "1", 0.5, "FINISHED"], ["run 2", "2", 1 / 3, "FINISHED"]]
    assert (counts, refused) == ("3 0", "refused")


def test_a_fork_while_the_run_is_made_waits_for_nobody(store: FullStore, home: Path, tmp_path: Path) -> None:
    """It has a copy of the lock that its parent holds at that moment."""
    code = """
import os, time, runproj
from runproj.client import remote_runs
original, begun = remote_runs._make, []
def slowly(*arguments):
    begun.append(1)
    time.sleep(1)
    return original(*arguments)
remote_runs._make = slowly
runproj.start_run("outer")
runproj.log_metric("m", 0)
while not begun: time.sleep(0.01)
if os.fork() == 0:
    runproj.log_metric("fork", 1)
    os._exit(0 if runproj.flush(60) else 9)
assert os.wait()[1] == 0
"""
    good(python(code, tmp_path))
    [run] = runs(store)
    assert sorted(metric.key for metric in run.metrics) == ["fork", "m"]


def test_forks_and_pools_log_into_the_run_of_their_parent(store: FullStore, home: Path, tmp_path: Path) -> None:
    code = """
import multiprocessing, os, runproj
def work(number):
    for step in range(50):
        runproj.log_metric("pool%d" % number, step, step=step)
with runproj.start_run("forks"):
    runproj.log_metric("m", 0)
    with multiprocessing.get_context("fork").Pool(2) as pool:
        pool.map(work, range(4))
        pool.close()
        pool.join()
    for number in range(3):
        if os.fork() == 0:
            runproj.log_metric("fork%d" % number, number)
            with runproj.start_run("of a fork", nested=True):
                runproj.log_metric("m", 5)
            os._exit(0)
    for number in range(3):
        assert os.wait()[1] == 0
    runproj.log_metric("m", 1)
"""
    good(python(code, tmp_path))
    outer, *inner = sorted(runs(store), key=lambda run: run.name)
    assert (outer.name, [run.name for run in inner]) == ("forks", ["of a fork"] * 3)
    assert {run.tag("mlflow.parentRunId") for run in inner} == {outer.id}
    assert [len(store.history(outer.id, f"pool{number}")) for number in range(4)] == [50] * 4
    assert [len(store.history(outer.id, f"fork{number}")) for number in range(3)] == [1] * 3
    assert len(store.history(outer.id, "m")) == 2
    assert not spools(home / "spool")


def test_a_table_holds_the_rows_of_all_processes(store: FullStore, home: Path, tmp_path: Path) -> None:
    code = """
import os, runproj
runproj.start_run()
runproj.log_text("no table", "t.json")
runproj.log_table({"n": [1]}, "t.json")
assert runproj.flush()
if os.fork() == 0:
    runproj.log_table({"n": [2]}, "t.json")
    assert runproj.flush()
    os._exit(0)
assert os.wait()[1] == 0
runproj.log_table({"n": [3]}, "t.json")
"""
    good(python(code, tmp_path))
    [run] = runs(store)
    table = home / "artifacts" / "0" / run.id / "artifacts" / "t.json"
    assert json.loads(table.read_text())["data"] == [[1], [2], [3]]


def test_threads_log_into_one_run(store: FullStore, tmp_path: Path) -> None:
    code = """
import runproj, threading
def work(number):
    for step in range(500):
        runproj.log_metric("shared", number)
        runproj.log_metric("own%d" % number, step, step=step)
with runproj.start_run():
    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
"""
    good(python(code, tmp_path))
    [run] = runs(store)
    assert sorted(point.step for point in store.history(run.id, "shared")) == list(range(4000))
    assert [len(store.history(run.id, f"own{number}")) for number in range(8)] == [500] * 8


def test_logging_costs_little_and_loads_little(tmp_path: Path) -> None:
    code = """
import sys, time
before = len(sys.modules)
import runproj
print([name for name in ("json", "http.client", "sqlite3", "msgspec", "runproj.client") if name in sys.modules])
loaded = len(sys.modules) - before
runproj.start_run()
time.sleep(0.5)
calls = 0
def count(frame, event, _):
    global calls
    calls += "call" in event
sys.setprofile(count)
for step in range(1000):
    runproj.log_metric("m", 0.5, step=step)
sys.setprofile(None)
print(loaded < 30, calls / 1000 < 40, loaded, calls)
import os; os._exit(0)
"""
    done = python(code, tmp_path, RUNPROJ_TRACKING_URI=NOBODY)
    assert done.stdout.startswith("[]\nTrue True "), done.stdout + done.stderr
