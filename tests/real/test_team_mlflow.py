"""The real mlflow client, unmodified, against the team's server with users: what it logs it reads back equal."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from support.mlflow import SECOND, MakeEnvironment, mlflow_environment
from support.program import Cli
from support.team import team_server

pytestmark = [pytest.mark.slow, pytest.mark.network]

SCRIPT = """
import json, math, os, sys, warnings
warnings.simplefilter("ignore")
import mlflow
from mlflow.exceptions import MlflowException

client = mlflow.MlflowClient()
mlflow.set_experiment("team of Größe")
with mlflow.start_run(run_name="first", tags={"kind": "test"}, description="a note") as run:
    mlflow.log_params({"lr": 0.1, "text": "it's \\n 文字", "long": "x" * 5000})
    for step in range(50):
        mlflow.log_metric("loss", 1 / (step + 1), step=step)
    mlflow.log_metrics({"nan": float("nan"), "inf": float("inf"), "big": 2.0 ** 53, "tiny": 5e-324})
    mlflow.set_tags({"a": "1", "b": "2"})
    mlflow.log_text("hello", "notes/hello ü.txt")
    mlflow.log_dict({"k": [1, 2]}, "notes/d.json")
    open("big file.bin", "wb").write(bytes(range(256)) * 8000)
    mlflow.log_artifact("big file.bin", "data")
    with mlflow.start_run(run_name="inner", nested=True) as inner:
        mlflow.log_metric("score", 7)
run_id = run.info.run_id
found = client.get_run(run_id)
assert found.info.status == "FINISHED" and found.info.run_name == "first"
assert found.data.params == {"lr": "0.1", "text": "it's \\n 文字", "long": "x" * 5000}
assert found.data.metrics["loss"] == 1 / 50 and math.isnan(found.data.metrics["nan"])
assert found.data.metrics["inf"] == math.inf and found.data.metrics["big"] == 2.0 ** 53 and found.data.metrics["tiny"] == 5e-324
assert found.data.tags["mlflow.note.content"] == "a note" and found.data.tags["b"] == "2"
assert [(p.step, p.value) for p in client.get_metric_history(run_id, "loss")] == [(s, 1 / (s + 1)) for s in range(50)]
assert client.get_run(inner.info.run_id).data.tags["mlflow.parentRunId"] == run_id
where = mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path="data/big file.bin")
assert open(where, "rb").read() == bytes(range(256)) * 8000
where = mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path="notes/hello ü.txt")
assert open(where, encoding="utf-8").read() == "hello"
assert sorted(item.path for item in client.list_artifacts(run_id, "notes")) == ["notes/d.json", "notes/hello ü.txt"]
runs = client.search_runs([run.info.experiment_id], "metrics.loss < 0.1 and params.lr = '0.1' and tags.kind = 'test'")
assert [one.info.run_id for one in runs] == [run_id]
refused = []
for attempt in (
    lambda: client.log_param(run_id, "lr", 0.2),
    lambda: client.get_run("0" * 32),
    lambda: client.get_run(os.environ["FOREIGN_RUN"]),
    lambda: client.log_metric(os.environ["FOREIGN_RUN"], "m", 1),
    lambda: client.create_registered_model("not mine"),
):
    try:
        attempt()
    except MlflowException as error:
        refused.append(error.error_code)
names = sorted(item.name for item in client.search_experiments())
print("RESULT" + json.dumps([run_id, refused, names]))
"""

MODELS = """
import json, warnings
warnings.simplefilter("ignore")
import matplotlib
matplotlib.use("Agg")
import matplotlib.pyplot as plt
import mlflow, mlflow.sklearn
import numpy as np
from sklearn.linear_model import ElasticNet

client = mlflow.MlflowClient()
mlflow.set_experiment("models of the team")
x = np.arange(60.0).reshape(20, 3)
y = x.sum(axis=1)
mlflow.sklearn.autolog(log_models=False)
with mlflow.start_run() as run:
    model = ElasticNet(alpha=0.25).fit(x, y)
    figure, axes = plt.subplots()
    axes.plot([1, 2, 3])
    mlflow.log_figure(figure, "plots/line.png")
    info = mlflow.sklearn.log_model(
        model, name="model", registered_model_name="Elastic", pip_requirements=["scikit-learn"],
        serialization_format="cloudpickle",
    )
client.set_registered_model_alias("Elastic", "best", 1)
client.set_registered_model_tag("Elastic", "team", "a")
again = mlflow.sklearn.load_model("models:/Elastic@best")
assert np.array_equal(again.predict(x), model.predict(x))
assert mlflow.sklearn.load_model(info.model_uri).alpha == 0.25
assert client.get_model_version_by_alias("Elastic", "best").run_id == run.info.run_id
frame = mlflow.search_runs(experiment_names=["models of the team"], filter_string="params.alpha = '0.25'")
assert list(frame["run_id"]) == [run.info.run_id]
picture = mlflow.artifacts.download_artifacts(run_id=run.info.run_id, artifact_path="plots/line.png")
assert open(picture, "rb").read(8) == b"\\x89PNG\\r\\n\\x1a\\n"
assert any("training" in key for key in client.get_run(run.info.run_id).data.metrics)
print("RESULT" + json.dumps([again.alpha, [item.name for item in client.search_registered_models()]]))
"""


def run_script(python: Path, code: str, folder: Path, **variables: str) -> list:
    folder.mkdir(exist_ok=True)
    environment = mlflow_environment(**variables)
    done = subprocess.run([python, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("RESULT"))
    return json.loads(line.removeprefix("RESULT"))


def with_password(cli: Cli, name: str, password: str) -> None:
    command = cli.command("user", "add", name, "--password-stdin")
    subprocess.run(command, input=password + "\n", text=True, env=cli.env, cwd=cli.home, check=True, capture_output=True)


@pytest.mark.parametrize("version", ["newest", "2.x"])
def test_a_user_logs_and_reads_back(version, cli, mlflow_python, cached_environment: MakeEnvironment, tmp_path):
    python = mlflow_python if version == "newest" else cached_environment(SECOND)
    cli("user", "add", "boss", "--admin")
    boss = cli.json("user", "token", "boss")["token"]
    with_password(cli, "ada", "a long password")
    with team_server() as team:
        foreign = team.ask(
            "POST",
            "/api/2.0/mlflow/runs/create",
            json.dumps({"experiment_id": "0"}),
            Content_Type="application/json",
            Authorization=f"Bearer {boss}",
        ).message["run"]["info"]["run_id"]
        run_id, refused, names = run_script(
            python,
            SCRIPT,
            tmp_path / "work",
            MLFLOW_TRACKING_URI=team.url,
            MLFLOW_TRACKING_USERNAME="ada",
            MLFLOW_TRACKING_PASSWORD="a long password",
            FOREIGN_RUN=foreign,
        )
        assert names == ["team of Größe"]
        assert refused[:2] == ["INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST"]
        assert refused[2:] == ["PERMISSION_DENIED"] * 3
        code, said = team.stop()
    assert (code, "Traceback" in said) == (0, False), said
    assert cli.json("runs", "show", run_id)["run"]["name"] == "first"


def test_models_are_registered_and_loaded(cli, mlflow_python, tmp_path):
    cli("user", "add", "ada")
    cli("user", "grant", "ada", "write", "--registry")
    token = cli.json("user", "token", "ada")["token"]
    with team_server() as team:
        alpha, names = run_script(
            mlflow_python, MODELS, tmp_path / "work", MLFLOW_TRACKING_URI=team.url, MLFLOW_TRACKING_TOKEN=token
        )
        code, said = team.stop()
    assert (alpha, names) == (0.25, ["Elastic"])
    assert (code, "Traceback" in said) == (0, False), said
