"""Messages of MLflow's protocol about models, as a client reads them, and their fields, which servers leave out as they like."""

from __future__ import annotations

import re
from collections.abc import Mapping

from runproj.core.models import Alias, LoggedModel, ModelMetric, ModelStatus, ModelVersion, RegisteredModel, Stage
from runproj.core.run import Metric, Param, Tag
from runproj.remote import Document

MODEL_NUMBERS = {ModelStatus.PENDING: 1, ModelStatus.READY: 2, ModelStatus.UPLOAD_FAILED: 3}


def model_status(value: object) -> ModelStatus:
    """From a number or a name."""
    return next((status for status, number in MODEL_NUMBERS.items() if value in (number, status.value)), ModelStatus.PENDING)


def stage(value: object) -> Stage:
    return next((known for known in Stage if known.value == value), Stage.NONE)


def source_model(source: str) -> str:
    """The logged model that a version was made from, as its source tells; empty where it was none."""
    found = re.match(r"models:/(m-[^/]+)", source)
    return found[1] if found else ""


def registered_of(item: Document) -> RegisteredModel:
    """A registered model from its message, without its versions."""
    return RegisteredModel(
        name=text(item, "name"),
        created=number(item, "creation_timestamp"),
        updated=number(item, "last_updated_timestamp"),
        description=text(item, "description"),
        tags=tags(item),
        aliases=tuple(Alias(text(alias, "alias"), number(alias, "version")) for alias in messages(item, "aliases")),
    )


def version_of(item: Document) -> ModelVersion:
    """A version from its message."""
    source, aliases = text(item, "source"), item.get("aliases")
    return ModelVersion(
        name=text(item, "name"),
        version=number(item, "version"),
        source=source,
        storage=source,
        created=number(item, "creation_timestamp"),
        updated=number(item, "last_updated_timestamp"),
        run_id=text(item, "run_id"),
        run_link=text(item, "run_link"),
        model_id=text(item, "model_id") or source_model(source),
        user=text(item, "user_id"),
        stage=stage(item.get("current_stage")),
        description=text(item, "description"),
        tags=tags(item),
        aliases=tuple(map(str, aliases)) if isinstance(aliases, list) else (),
    )


def model_of(item: Document) -> LoggedModel:
    """A logged model from its message."""
    info, data = message_in(item, "info"), message_in(item, "data")
    model_id = text(info, "model_id")
    return LoggedModel(
        id=model_id,
        experiment_id=text(info, "experiment_id"),
        name=text(info, "name"),
        artifact_uri=text(info, "artifact_uri"),
        status=model_status(info.get("status")),
        created=number(info, "creation_timestamp_ms"),
        updated=number(info, "last_updated_timestamp_ms"),
        model_type=text(info, "model_type"),
        source_run=text(info, "source_run_id"),
        params=tuple(Param(text(param, "key"), text(param, "value")) for param in messages(data, "params")),
        tags=tags(info),
        metrics=tuple(_model_metric(metric, model_id) for metric in messages(data, "metrics")),
    )


def _model_metric(item: Document, model_id: str) -> ModelMetric:
    value = item.get("value")
    measured = float(value) if isinstance(value, int | float | str) else float("nan")
    metric = Metric(text(item, "key"), measured, number(item, "timestamp"), number(item, "step"))
    return ModelMetric(metric, model_id, text(item, "run_id"), text(item, "dataset_name"), text(item, "dataset_digest"))


def messages(item: Mapping[str, object], field: str) -> list[Document]:
    found = item.get(field)
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def message_in(item: Mapping[str, object], field: str) -> Document:
    found = item.get(field)
    return found if isinstance(found, dict) else {}


def tags(item: Mapping[str, object]) -> tuple[Tag, ...]:
    return tuple(Tag(text(tag, "key"), text(tag, "value")) for tag in messages(item, "tags"))


def text(item: Mapping[str, object], field: str) -> str:
    value = item.get(field)
    return "" if value is None else str(value)


def number(item: Mapping[str, object], field: str) -> int:
    """64-bit numbers may be strings."""
    value = item.get(field)
    return int(value) if isinstance(value, int | float | str) and value != "" else 0
