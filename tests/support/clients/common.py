"""What the scripts of this folder share.  They do what users do with the mlflow client, on any tracking server, in sections.

`SCRIPT PREFIX`, with MLFLOW_TRACKING_URI in the environment.  The last line printed is one JSON object: what was read back, by
section.  Ids, times and addresses are masked, so that what two servers answered can be compared.  A section that fails leaves its
error in its place.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
import traceback
import warnings

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

warnings.simplefilter("ignore")

PREFIX = sys.argv[1]
MAJOR = int(mlflow.__version__.split(".")[0])
SERVER = os.environ["MLFLOW_TRACKING_URI"]
NOISE = ("mlflow.user", "mlflow.source.name", "mlflow.source.type", "mlflow.source.git.commit", "mlflow.source.git.branch")
client = MlflowClient()
sections = []

try:
    import sklearn  # noqa: F401

    FULL = True
except ImportError:
    FULL = False


def section(first=1, last=9, full=False):
    """A section for clients of the major versions `first` to `last`; `full`: needs more than the skinny client."""

    def keep(function):
        if first <= MAJOR <= last and (not full or FULL):
            sections.append(function)
        return function

    return keep


def main():
    """Runs the sections, and prints what they found."""
    found = {}
    for function in sections:
        begin = time.monotonic()
        try:
            found[function.__name__] = tidy(function())
        except Exception as error:
            found[function.__name__] = ["failed", type(error).__name__, traceback.format_exc()]
            while mlflow.active_run():
                mlflow.end_run("FAILED")
        print(function.__name__, round(time.monotonic() - begin, 2), file=sys.stderr)
    print("RESULT" + json.dumps(found))


def tidy(value):
    """The value with ids, times and addresses masked."""
    if isinstance(value, dict):
        return {tidy(str(key)): tidy(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [tidy(item) for item in value]
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, (int, float)):
        return "<time>" if isinstance(value, int) and 1.7e12 < value < 3e12 else repr(value)
    text = str(value).replace(SERVER, "<server>")
    text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+", "<time>", text)
    text = re.sub(r"m-[0-9a-f]{32}", "<model>", text)
    text = re.sub(r"\b[0-9a-f]{32}\b", "<run>", text)
    return re.sub(r"mlflow-artifacts:/\d+/", "mlflow-artifacts:/<experiment>/", text)


def refused(function, *arguments, **named):
    """What the client raised, or `accepted` and what it returned."""
    try:
        return ["accepted", function(*arguments, **named)]
    except MlflowException as error:
        return [type(error).__name__, error.error_code]
    except Exception as error:
        return [type(error).__name__, ""]


def experiment(name="main", **named):
    """The id of an experiment of this script."""
    found = client.get_experiment_by_name(f"{PREFIX} {name}")
    return found.experiment_id if found else client.create_experiment(f"{PREFIX} {name}", **named)


def shown(run):
    """All that a run says of itself."""
    tags = {key: value for key, value in run.data.tags.items() if key not in NOISE}
    found = {
        "name": run.info.run_name,
        "status": run.info.status,
        "stage": run.info.lifecycle_stage,
        "ended": run.info.end_time is not None and run.info.end_time >= run.info.start_time,
        "uri": run.info.artifact_uri,
        "params": dict(sorted(run.data.params.items())),
        "metrics": dict(sorted(run.data.metrics.items())),
        "tags": dict(sorted(tags.items())),
        "noise": sorted(set(run.data.tags) & set(NOISE)),
    }
    inputs, outputs = getattr(run, "inputs", None), getattr(run, "outputs", None)
    if inputs and inputs.dataset_inputs:
        found["datasets"] = sorted(
            ([item.dataset.to_dictionary(), sorted((tag.key, tag.value) for tag in item.tags)] for item in inputs.dataset_inputs),
            key=str,
        )
    if getattr(inputs, "model_inputs", None):
        found["models in"] = [item.model_id for item in inputs.model_inputs]
    if getattr(outputs, "model_outputs", None):
        found["models out"] = [(item.model_id, item.step) for item in outputs.model_outputs]
    return found


def read(run_id):
    return shown(client.get_run(run_id))


def points(run_id, key):
    return [(point.step, point.timestamp, point.value) for point in client.get_metric_history(run_id, key)]


def files(run_id, path=None):
    """All files of a run below a path, with their sizes."""
    found = []
    for item in client.list_artifacts(run_id, path):
        found += files(run_id, item.path) if item.is_dir else [(item.path, item.file_size)]
    return found
