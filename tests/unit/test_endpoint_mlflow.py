"""The real mlflow client, unmodified and unconfigured, in a process that has only what the executor gives it."""

from __future__ import annotations

import json
import math
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from runproj.core.models import ModelStatus
from runproj.core.run import RunQuery, RunStatus, TagName
from support.endpoint import Served, served
from support.mlflow import FIRST, SECOND, MakeEnvironment, mlflow_environment

pytestmark = [pytest.mark.slow, pytest.mark.network]

ANY_CLIENT = """
import json, os, sys
import mlflow

mlflow.log_param("lr", 0.1)
mlflow.log_params({"text": "it's \\n 文字", "n": 3})
for step in range(3):
    mlflow.log_metric("loss", 1 / (step + 1), step=step)
mlflow.log_metrics({"nan": float("nan"), "big": 2.0 ** 53})
mlflow.set_tag("kind", "test")
mlflow.set_tags({"a": "1", "b": "2"})
mlflow.log_text("hello", "notes/hello ü.txt")
mlflow.log_dict({"k": [1, 2]}, "notes/d.json")
with open("local file.bin", "wb") as file:
    file.write(bytes(range(256)) * 5000)
mlflow.log_artifact("local file.bin", "data")
os.makedirs("folder/sub", exist_ok=True)
open("folder/sub/x.txt", "w").write("x")
mlflow.log_artifacts("folder", "tree")
own = mlflow.active_run().info.run_id
with mlflow.start_run(run_name="inner", nested=True) as inner:
    mlflow.log_metric("score", 7)
client = mlflow.tracking.MlflowClient()
listed = sorted(item.path for item in client.list_artifacts(own))
found = [run.info.run_id for run in client.search_runs(["0"], "metrics.score > 5 and tags.mlflow.runName = 'inner'")]
history = [(point.step, point.value) for point in client.get_metric_history(own, "loss")]
try:
    mlflow.log_param("lr", 0.2)
    refused = ""
except Exception as error:
    refused = type(error).__name__
mlflow.end_run()
mlflow.set_experiment("another")
with mlflow.start_run(run_name="second"):
    mlflow.log_param("p", "q")
mlflow.start_run(run_name="left open")
print("RESULT" + json.dumps([own, inner.info.run_id, listed, found, history, refused]))
sys.stdout.flush()
os._exit(0)  # without the clean-up that would end the open run
"""


@pytest.fixture
def here(isolated: Path) -> Iterator[Served]:
    with served(isolated / "runproj home") as found:
        yield found


def run_client(python: Path, code: str, here: Served, folder: Path) -> list[object]:
    folder.mkdir(exist_ok=True)
    environment = mlflow_environment(**here.environment)
    done = subprocess.run([python, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("RESULT"))
    result: list[object] = json.loads(line.removeprefix("RESULT"))
    return result


@pytest.fixture(params=["newest", "2.x", "1.x"])
def client(request: pytest.FixtureRequest, cached_environment: MakeEnvironment) -> Path:
    if request.param == "newest":
        return Path(request.getfixturevalue("mlflow_python"))
    return cached_environment(SECOND if request.param == "2.x" else FIRST)


def test_what_it_logs_lands_in_the_run(client, here, tmp_path):
    own, inner, listed, found, history, refused = run_client(client, ANY_CLIENT, here, tmp_path / "work")
    assert own == here.run.id
    assert listed == ["data", "notes", "tree"]
    assert found == [inner]
    assert history == [[0, 1.0], [1, 0.5], [2, 1 / 3]]
    assert refused

    run = here.store.get_run(here.run.id)
    assert {param.key: param.value for param in run.params} == {"lr": "0.1", "text": "it's \n 文字", "n": "3"}
    metrics = {metric.key: metric.value for metric in run.metrics}
    assert (metrics["loss"], metrics["big"]) == (1 / 3, 2.0**53)
    assert math.isnan(metrics["nan"])
    assert (run.tag("kind"), run.tag("a"), run.tag("b")) == ("test", "1", "2")
    files = here.folder(run)
    assert (files / "notes/hello ü.txt").read_text() == "hello"
    assert (files / "data/local file.bin").read_bytes() == bytes(range(256)) * 5000
    assert (files / "tree/sub/x.txt").read_text() == "x"
    assert (run.status, run.end) == (RunStatus.RUNNING, None)
    assert here.endpoint.reported_status is RunStatus.FINISHED

    child = here.store.get_run(str(inner))
    assert (child.name, child.status, child.tag(TagName.PARENT)) == ("inner", RunStatus.FINISHED, here.run.id)
    (left,) = here.endpoint.open_runs()
    assert here.store.get_run(left).name == "left open"
    another = here.store.search(RunQuery((here.store.experiment("another").id,)))
    assert {item.name for item in another} == {"second", "left open"}


SKLEARN = """
import json, warnings
warnings.simplefilter("ignore")
import mlflow, mlflow.sklearn
import numpy as np
from sklearn.linear_model import ElasticNet

x = np.arange(60.0).reshape(20, 3)
y = x.sum(axis=1)
mlflow.sklearn.autolog(log_models=False, log_datasets=True)
mlflow.start_run()
model = ElasticNet(alpha=0.25).fit(x, y)
mlflow.log_metric("rmse", 0.5)
info = mlflow.sklearn.log_model(
    model, name="model", registered_model_name="Elastic", pip_requirements=["scikit-learn"], serialization_format="cloudpickle"
)
client = mlflow.MlflowClient()
client.set_registered_model_alias("Elastic", "best", 1)
again = mlflow.sklearn.load_model("models:/Elastic@best")
names = [item.name for item in client.search_registered_models()]
versions = [(item.version, item.run_id) for item in client.search_model_versions("name = 'Elastic'")]
downloaded = open(mlflow.artifacts.download_artifacts(info.model_uri) + "/MLmodel").read()
runs = mlflow.search_runs(experiment_ids=["0"], filter_string="params.alpha = '0.25'", output_format="list")
mlflow.end_run()
print("RESULT" + json.dumps([info.model_id, float(again.alpha), names, versions, "flavors" in downloaded, len(runs)]))
"""


def test_models_and_autologging(mlflow_python, here, tmp_path):
    model_id, alpha, names, versions, described, found = run_client(mlflow_python, SKLEARN, here, tmp_path / "work")
    assert (alpha, names, versions, described, found) == (0.25, ["Elastic"], [["1", here.run.id]], True, 1)
    run = here.store.get_run(here.run.id)
    assert {"alpha": "0.25", "max_iter": "1000"}.items() <= {param.key: param.value for param in run.params}.items()
    assert {"rmse", "training_r2_score"} <= {metric.key for metric in run.metrics}
    model = here.store.models.get(str(model_id))
    assert (model.status, model.source_run, model.name) == (ModelStatus.READY, run.id, "model")
    assert {item.path.rpartition("/")[2] for item in here.artifacts.list_at(model.artifact_uri)} >= {"MLmodel", "model.pkl"}
    lineage = here.store.lineages.of([run.id])[run.id]
    assert [made.model_id for made in lineage.models_out] == [model_id]
    assert lineage.datasets
    assert here.store.registry.get("Elastic").latest[0].model_id == model_id
    assert here.endpoint.open_runs() == set()
