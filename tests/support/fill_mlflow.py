"""Run by an interpreter that has MLflow: fills stores with what its users make.  Arguments: URI and number of runs, repeated."""

from __future__ import annotations

import math
import sys

import mlflow
import numpy
from mlflow.entities import LoggedModelInput, Metric, Param
from sklearn.linear_model import LinearRegression

STATES = ("FINISHED", "FAILED", "KILLED")
ODD = (math.nan, math.inf, -math.inf, -0.0, 5e-324, 1e300)


def runs(client: mlflow.MlflowClient, experiments: list[str], count: int) -> list[str]:
    made = []
    for number in range(count):
        experiment = experiments[number % len(experiments)]
        run_id = client.create_run(experiment, run_name=f"run {number}", tags={"n": str(number), "text": "Größe\nx"}).info.run_id
        loss = [Metric("loss", 1 / (step + 1), 1_700_000_000_000 + step, step) for step in range(200)]
        deep = [Metric("val/acc", step * 0.1, 1_700_000_000_000 - step, step) for step in range(10)]
        odd = [Metric("odd", value, 1_700_000_000_000 + step, step) for step, value in enumerate(ODD)]
        params = [Param("lr", repr(0.1 * number)), Param("depth/x", str(number)), Param("empty", "")]
        client.log_batch(run_id, metrics=loss + deep + odd, params=params)
        if number % 5 == 0:
            client.log_text(run_id, f"text of {number}\n" * 1000, "notes/a file.txt")
        client.set_terminated(run_id, STATES[number % 3])
        made.append(run_id)
    return made


def models(client: mlflow.MlflowClient) -> str:
    """Two logged models, each a version of a registered one; returns the id of the last."""
    mlflow.set_experiment("first Größe")
    table = numpy.arange(10).reshape(-1, 1)
    for number in range(2):
        with mlflow.start_run(run_name=f"model {number}"):
            mlflow.log_input(mlflow.data.from_numpy(table, name="train"), context="training")
            mlflow.log_param("number", number)
            trained = LinearRegression().fit(table, table[:, 0] * (number + 2))
            model = mlflow.sklearn.log_model(trained, name="model", pip_requirements=["scikit-learn"])
            mlflow.log_metric("acc", 0.5 + number, step=1, model_id=model.model_id)
            with mlflow.start_run(nested=True, run_name="child"):
                mlflow.log_param("x", 1)
        mlflow.register_model(model.model_uri, "Regressor")
    client.set_registered_model_alias("Regressor", "champion", "1")
    client.set_registered_model_tag("Regressor", "task", "regression")
    client.update_registered_model("Regressor", "describes it")
    client.update_model_version("Regressor", "2", "the second one")
    client.set_model_version_tag("Regressor", "2", "good", "yes")
    client.transition_model_version_stage("Regressor", "2", "Production")
    return str(model.model_id)


def fill(uri: str, count: int) -> None:
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    client = mlflow.MlflowClient()
    if not count:
        client.search_experiments()  # makes the tables
        return
    first = client.create_experiment("first Größe", tags={"team": "a", "mlflow.note.content": "notes\nmore"})
    experiments = [first, client.create_experiment("second"), client.create_experiment("gone")]
    made = runs(client, experiments, count)
    client.delete_run(made[3])
    client.log_inputs(made[0], models=[LoggedModelInput(models(client))])
    client.create_model_version("Regressor", f"runs:/{made[0]}/notes", made[0])
    client.delete_model_version("Regressor", "3")
    client.delete_experiment(experiments[2])


for place, number in zip(sys.argv[1::2], sys.argv[2::2], strict=True):
    fill(place, int(number))
