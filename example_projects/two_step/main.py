"""Both steps, each as a run of its own below this one."""

import argparse

import mlflow
import mlflow.projects

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--rows", type=int, required=True)
parser.add_argument("--ridge", type=float, required=True)
options = parser.parse_args()


def step(entry_point: str, **parameters: object) -> str:
    """Run an entry point of this project as a child run, in the environment we are already in; returns its run id."""
    child = mlflow.projects.run(".", entry_point, parameters=parameters, env_manager="local", run_name=entry_point)
    return child.run_id


with mlflow.start_run():
    prepared = step("prepare", rows=options.rows)
    data = mlflow.artifacts.download_artifacts(run_id=prepared, artifact_path="data.csv")
    fitted = step("fit", data=data, ridge=options.ridge)
    mlflow.log_metric("rmse", mlflow.get_run(fitted).data.metrics["rmse"])
