"""Values → the JSON messages of MLflow's protocol."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import starmap
from math import isfinite

import msgspec

from runproj.core.models import DatasetInput, Lineage, LoggedModel, ModelMetric, ModelVersion, RegisteredModel
from runproj.core.run import Experiment, Metric, Param, Run, Tag
from runproj.tracking.rows import RunRow, as_run


def run_info(run: Run) -> dict[str, object]:
    info: dict[str, object] = {
        "run_id": run.id,
        "run_uuid": run.id,
        "run_name": run.name,
        "experiment_id": run.experiment_id,
        "user_id": run.user,
        "status": run.status.value,
        "start_time": run.start,
        "artifact_uri": run.artifact_uri,
        "lifecycle_stage": run.lifecycle.value,
    }
    return info if run.end is None else info | {"end_time": run.end}


def metric_document(metric: Metric) -> dict[str, object]:
    return {"key": metric.key, "value": double(metric.value), "timestamp": metric.timestamp, "step": metric.step}


def metric_documents(metrics: Sequence[Metric]) -> Sequence[object]:
    """Metrics as JSON has them: as they are, where all have a value that is a number there."""
    if all(isfinite(metric.value) for metric in metrics):
        return metrics
    return [metric_document(metric) for metric in metrics]


def double(value: float) -> float | str:
    """A double, as JSON has it: NaN and the infinities are words."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return value


def pairs(items: Sequence[Param | Tag]) -> Sequence[object]:
    """Keys and values: the encoder writes their fields, `key` and `value`, under these names."""
    return items


def experiment_document(experiment: Experiment) -> dict[str, object]:
    return compact(
        {
            "experiment_id": experiment.id,
            "name": experiment.name,
            "artifact_location": experiment.artifact_location,
            "lifecycle_stage": experiment.lifecycle.value,
            "creation_time": experiment.created,
            "last_update_time": experiment.updated,
            "tags": pairs(experiment.tags),
        }
    )


def compact(document: Mapping[str, object]) -> dict[str, object]:
    """Without empty lists and absent fields, as MLflow leaves them out."""
    return {key: value for key, value in document.items() if value is not None and value != [] and value != ()}


def run_document(run: Run, lineage: Lineage | None = None) -> dict[str, object]:
    data = {"metrics": metric_documents(run.metrics), "params": pairs(run.params), "tags": pairs(run.tags)}
    return _document(run, data, lineage or Lineage())


class _Pair(msgspec.Struct, gc=False):
    """A parameter or tag in a page of thousands, where dictionaries would cost more than everything else."""

    key: str
    value: str


class _Point(msgspec.Struct, gc=False):
    key: str
    value: float | str
    timestamp: int
    step: int


def row_document(row: RunRow, lineage: Lineage | None = None) -> dict[str, object]:
    """As `run_document`, of a plain row."""
    points = list(starmap(_Point, row.metrics))
    for point in points:
        if not isfinite(float(point.value)):
            point.value = double(float(point.value))
    data = {"metrics": points, "params": list(starmap(_Pair, row.params)), "tags": list(starmap(_Pair, row.tags))}
    return _document(as_run(row._replace(params=[], metrics=[], tags=[])), data, lineage or Lineage())


def _document(run: Run, data: Mapping[str, object], known: Lineage) -> dict[str, object]:
    inputs = {
        "dataset_inputs": [_dataset_input(used) for used in known.datasets],
        "model_inputs": [{"model_id": model} for model in known.models_in],
    }
    outputs = {"model_outputs": [{"model_id": made.model_id, "step": made.step} for made in known.models_out]}
    document: dict[str, object] = {"info": run_info(run), "data": compact(data), "inputs": compact(inputs)}
    return document | ({"outputs": outputs} if known.models_out else {})


def _dataset_input(used: DatasetInput) -> dict[str, object]:
    data = used.dataset
    texts = {
        "name": data.name,
        "digest": data.digest,
        "source_type": data.source_type,
        "source": data.source,
        "schema": data.schema or None,
        "profile": data.profile or None,
    }
    return compact({"tags": pairs(used.tags), "dataset": compact(texts)})


def logged_model_document(model: LoggedModel) -> dict[str, object]:
    info = {
        "model_id": model.id,
        "experiment_id": model.experiment_id,
        "name": model.name,
        "creation_timestamp_ms": model.created,
        "last_updated_timestamp_ms": model.updated,
        "artifact_uri": model.artifact_uri,
        "status": model.status.value,
        "model_type": model.model_type or None,
        "source_run_id": model.source_run or None,
        "tags": pairs(model.tags),
    }
    data = {"params": pairs(model.params), "metrics": [_model_metric(item) for item in model.metrics]}
    return {"info": compact(info), "data": compact(data)}


def _model_metric(item: ModelMetric) -> dict[str, object]:
    return compact(
        {
            **metric_document(item.metric),
            "model_id": item.model_id,
            "run_id": item.run_id,
            "dataset_name": item.dataset_name or None,
            "dataset_digest": item.dataset_digest or None,
        }
    )


def registered_model_document(model: RegisteredModel) -> dict[str, object]:
    return compact(
        {
            "name": model.name,
            "creation_timestamp": model.created,
            "last_updated_timestamp": model.updated,
            "description": model.description,
            "latest_versions": [version_document(version) for version in model.latest],
            "tags": pairs(model.tags),
            "aliases": [{"alias": alias.alias, "version": str(alias.version)} for alias in model.aliases],
        }
    )


def version_document(version: ModelVersion) -> dict[str, object]:
    return compact(
        {
            "name": version.name,
            "version": str(version.version),
            "creation_timestamp": version.created,
            "last_updated_timestamp": version.updated,
            "user_id": version.user or None,
            "current_stage": version.stage.value,
            "description": version.description,
            "source": version.source,
            "run_id": version.run_id,
            "run_link": version.run_link,
            "status": "READY",
            "model_id": version.model_id or None,
            "tags": pairs(version.tags),
            "aliases": list(version.aliases),
        }
    )
