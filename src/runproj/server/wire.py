"""Values → the JSON messages of MLflow's protocol."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterable, Mapping, Sequence

from runproj.core.run import Experiment, Metric, Param, Run, Tag
from runproj.server.protocol import invalid


def run_document(run: Run) -> dict[str, object]:
    data = {
        "metrics": [metric_document(metric) for metric in run.metrics],
        "params": pairs(run.params),
        "tags": pairs(run.tags),
    }
    return {"info": run_info(run), "data": compact(data), "inputs": {}}


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


def double(value: float) -> float | str:
    """A double, as JSON has it: NaN and the infinities are words."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return value


def pairs(items: Iterable[Param | Tag]) -> list[dict[str, str]]:
    return [{"key": item.key, "value": item.value} for item in items]


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
    return {key: value for key, value in document.items() if value is not None and value != []}


def token(offset: int) -> str:
    """The page token for what comes after `offset` items."""
    return base64.b64encode(json.dumps({"offset": offset}).encode()).decode()


def offset_of(page_token: str | None) -> int:
    """The number of items before the page.  Raises `Problem`."""
    if not page_token:
        return 0
    try:
        found = json.loads(base64.b64decode(page_token, validate=True))["offset"]
    except (ValueError, KeyError, TypeError):
        found = None
    if not isinstance(found, int) or isinstance(found, bool) or not 0 <= found < 1 << 62:
        raise invalid(f"Invalid page token {page_token!r}.")
    return found


def page_of(name: str, items: Sequence[object], limit: int | None, page_token: str | None) -> dict[str, object]:
    """A page of `items`, all of which are at hand."""
    start = offset_of(page_token)
    end = len(items) if limit is None else start + limit
    return compact({name: list(items[start:end]), "next_page_token": token(end) if end < len(items) else None})
