"""Metrics in requests: a batch holds a thousand of them, so what is written plainly is read without detours."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from runproj.core.models import ModelMetric
from runproj.core.run import Metric
from runproj.server import limits
from runproj.server.fields import Fields
from runproj.server.protocol import invalid

_check_key = lru_cache(maxsize=50_000)(limits.check_key)
_LATEST = (1 << 63) - 1


def read_metric(fields: Fields) -> Metric:
    """One metric.  Raises `Problem`."""
    key = _check_key(fields.required("key"))
    value, timestamp = fields.number("value"), fields.time("timestamp")
    if value is None or timestamp is None:
        raise invalid(f"Missing value for required parameter '{'value' if value is None else 'timestamp'}' of metric {key!r}.")
    if timestamp < 0:
        raise invalid(f"Invalid value {timestamp} for parameter 'timestamp' supplied: it must not be negative.")
    return Metric(key, value, timestamp, fields.integer("step") or 0)


def read_metrics(items: Sequence[object]) -> tuple[Metric, ...]:
    """The metrics of a batch.  Raises `Problem`."""
    return tuple([_plain(item) or read_metric(_message(item)) for item in items])


def _plain(item: object) -> Metric | None:
    """A metric whose fields have the names and types that clients in Python give them; None for any other."""
    if type(item) is not dict:
        return None
    key, value, timestamp, step = item.get("key"), item.get("value"), item.get("timestamp"), item.get("step", 0)
    if type(key) is not str or not key or type(value) is not float or type(timestamp) is not int or type(step) is not int:
        return None
    if not (0 <= timestamp <= _LATEST and -_LATEST <= step <= _LATEST):
        return None
    return Metric(_check_key(key), value, timestamp, step)


def of_models(run_id: str, items: Sequence[object], metrics: Sequence[Metric]) -> list[ModelMetric]:
    """Those of a batch's metrics that belong to a logged model as well as to the run."""
    found = []
    for item, metric in zip(items, metrics, strict=True):
        if isinstance(item, dict) and ("model_id" in item or "modelId" in item):
            fields = Fields(item)
            if model := fields.text("model_id"):
                data, digest = fields.text("dataset_name") or "", fields.text("dataset_digest") or ""
                found.append(ModelMetric(metric, model, run_id, data, digest))
    return found


def _message(item: object) -> Fields:
    if not isinstance(item, dict):
        raise invalid("Invalid value for parameter 'metrics' supplied: objects are expected.")
    return Fields(item)
