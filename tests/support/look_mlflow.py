"""Run by an interpreter that has MLflow: reads names of stores, and writes what its client sees in each, as lines of JSON.

Ids of experiments, places of files, and what only one kind of store tells are left out: two stores with the same content
give the same text.  Ids of runs and models are those that they had before they were moved.
"""

from __future__ import annotations

import json
import sys

import mlflow
import numpy

ORIGIN = "runproj.imported_from"
LEFT_OUT = ("artifact_uri", "experiment_id", f"tags.{ORIGIN}")


def look(uri: str) -> dict[str, object]:
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    client = mlflow.MlflowClient()
    names = {found.experiment_id: found for found in client.search_experiments(view_type=3)}
    models = mlflow.search_logged_models(experiment_ids=list(names), output_format="list")
    ids = {model.model_id: model.tags.get(ORIGIN, model.model_id) for model in models}
    frame = mlflow.search_runs(experiment_ids=list(names), run_view_type=3, max_results=50_000)
    frame["experiment"] = [names[number].name for number in frame.experiment_id]
    runs = {}
    for row in json.loads(frame.to_json(orient="records", date_format="iso")):
        run = client.get_run(row["run_id"])
        histories = {
            key: sorted(
                (point.timestamp, point.step, repr(point.value)) for point in client.get_metric_history(run.info.run_id, key)
            )
            for key in sorted(run.data.metrics)
        }
        ids[run.info.run_id] = run.data.tags.get(ORIGIN, run.info.run_id)
        runs[ids[run.info.run_id]] = {
            "row": {key: value for key, value in sorted(row.items()) if key not in (*LEFT_OUT, "run_id") and value is not None},
            "state": [run.info.status, run.info.lifecycle_stage, run.info.start_time, run.info.end_time, run.info.user_id],
            "histories": histories,
            "datasets": [[used.dataset.name, used.dataset.digest, used.dataset.profile] for used in run.inputs.dataset_inputs],
            "used": [ids[used.model_id] for used in run.inputs.model_inputs],
            "made": [[ids[made.model_id], made.step] for made in run.outputs.model_outputs],
        }
    told = json.dumps({"runs": runs, "models": [_model(model, ids) for model in models], "registry": _registry(client)})
    for new, old in ids.items():  # parent runs and histories of models name them too
        told = told.replace(new, old)
    found = json.loads(told)
    found["models"].sort(key=lambda model: model["id"])
    found["experiments"] = sorted([known.name, known.lifecycle_stage, sorted(known.tags.items())] for known in names.values())
    found["answer"] = mlflow.pyfunc.load_model("models:/Regressor@champion").predict(numpy.array([[3]])).tolist()
    return dict(found)


def _model(model: object, ids: dict[str, str]) -> dict[str, object]:
    return {
        "id": ids[model.model_id],
        "name": model.name,
        "status": str(model.status),
        "run": model.source_run_id,
        "params": model.params,
        "tags": {key: value for key, value in model.tags.items() if key != ORIGIN},
        "metrics": sorted([point.key, point.value, point.timestamp, point.step, point.run_id] for point in model.metrics or ()),
    }


def _registry(client: mlflow.MlflowClient) -> list[object]:
    found = []
    for model in client.search_registered_models():
        versions = sorted(client.search_model_versions(f"name = '{model.name}'"), key=lambda version: int(version.version))
        told = [[int(v.version), v.run_id, v.current_stage, v.description or "", v.tags, v.source] for v in versions]
        aliases = {alias: int(number) for alias, number in client.get_registered_model(model.name).aliases.items()}
        found.append([model.name, model.description, model.tags, aliases, told])
    return found


for line in sys.stdin:
    print(json.dumps(look(json.loads(line))), flush=True)
