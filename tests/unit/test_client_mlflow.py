"""The Python client against a real MLflow server, which gives ids of its own."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from support.clients import Speechless, Unreliable, python, spools
from support.mlflow import mlflow_environment

pytestmark = [pytest.mark.slow, pytest.mark.network, pytest.mark.timeout(3000)]

TRAINING = """
import json, os, runproj
runproj.set_experiment(EXPERIMENT)
with runproj.start_run("outer", tags={"t": "it's 文字"}) as outer:
    runproj.log_params({"p%d" % i: i for i in range(150)})
    for step in range(1500):
        runproj.log_metric("m", step, step=step)
    for step, value in enumerate([float("nan"), -0.0, 5e-324, 2.0**53 + 2, 1e300]):
        runproj.log_metric("odd", value, step=step)
    with runproj.start_run("inner", nested=True) as inner:
        runproj.log_metric("m", 1)
    runproj.log_table({"a": [1, 2], "b": ["x", None]}, "tables/t.json")
    runproj.log_table({"a": [3], "c": [0.5]}, "tables/t.json")
    runproj.log_text("hello", "deep/note.txt")
    if os.fork() == 0:
        runproj.log_metric("of a fork", 1)
        os._exit(0)
    os.wait()
done = runproj.flush(280)
found = runproj.search_runs(experiments=[EXPERIMENT], output="list")
print(json.dumps([done, outer.id, inner.id, [run["run_name"] for run in found]]))
"""

READING = """
import json, sys, mlflow
client = mlflow.MlflowClient()
run = client.get_run(sys.argv[1])
inner = client.get_run(sys.argv[2])
mlflow.set_experiment(experiment_id=run.info.experiment_id)
table = mlflow.load_table("tables/t.json", run_ids=[sys.argv[1]])
print(json.dumps({
    "status": run.info.status, "params": len(run.data.params), "t": run.data.tags["t"],
    "m": [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, "m")],
    "odd": [repr(point.value) for point in client.get_metric_history(run.info.run_id, "odd")],
    "fork": run.data.metrics["of a fork"],
    "parent": inner.data.tags["mlflow.parentRunId"], "inner": inner.data.metrics["m"],
    "table": json.loads(table.to_json(orient="split", index=False)),
    "text": mlflow.artifacts.load_text("runs:/" + sys.argv[1] + "/deep/note.txt"),
    "runs": len(client.search_runs([run.info.experiment_id])),
}))
"""


def read(mlflow_python: Path, server: str, *arguments: str) -> dict:
    environ = mlflow_environment(MLFLOW_TRACKING_URI=server)
    done = subprocess.run([str(mlflow_python), "-c", READING, *arguments], env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("unreliable", [False, True], ids=["as it is", "behind an unreliable connection"])
def test_everything_arrives_once(
    mlflow_server: str, mlflow_python: Path, tmp_path: Path, isolated: Path, unreliable: bool
) -> None:
    name = f"client {unreliable}"
    code = TRAINING.replace("EXPERIMENT", repr(name))
    with Unreliable(mlflow_server) as proxy:
        done = python(code, tmp_path, RUNPROJ_TRACKING_URI=proxy.url if unreliable else mlflow_server)
    assert (done.returncode, done.stderr) == (0, "")
    sent, outer, inner, found = json.loads(done.stdout)
    assert (sent, sorted(found)) == (True, ["inner", "outer"])
    seen = read(mlflow_python, mlflow_server, outer, inner)
    assert seen.pop("m") == [[step, step] for step in range(1500)]
    assert seen == {
        "status": "FINISHED",
        "params": 150,
        "t": "it's 文字",
        "odd": ["nan", "0.0", "5e-324", "9007199254740994.0", "1e+300"],  # a negative zero is none in its database
        "fork": 1.0,
        "parent": outer,
        "inner": 1.0,
        "table": {"columns": ["a", "b", "c"], "data": [[1, "x", None], [2, None, None], [3, None, 0.5]]},
        "text": "hello",
        "runs": 2,
    }
    assert not spools(isolated / "runproj home" / "spool")


@pytest.mark.parametrize("spool", ["a folder", "nothing but memory"])
def test_a_run_whose_creation_was_not_answered_is_made_once(
    mlflow_server: str, tmp_path: Path, isolated: Path, spool: str
) -> None:
    name = f"unanswered, with {spool}"
    (tmp_path / "file").touch()
    code = f"""
import runproj
with runproj.start_run("only", experiment={name!r}):
    runproj.log_metric("m", 1)
    assert runproj.flush(280)
print(len(runproj.search_runs(experiments=[{name!r}], output="list")))
"""
    place = {} if spool == "a folder" else {"RUNPROJ_SPOOL": str(tmp_path / "file")}
    with Speechless(mlflow_server) as proxy:
        done = python(code, tmp_path, RUNPROJ_TRACKING_URI=proxy.url, **place)
        assert proxy.outages == 1
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr
