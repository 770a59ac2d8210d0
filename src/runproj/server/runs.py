"""Calls about runs, their parameters, metrics and tags."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from runproj.core.run import Lifecycle, Metric, NewRun, Param, Run, RunChanges, RunStatus, Tag, TagName
from runproj.server import limits
from runproj.server.fields import Fields
from runproj.server.protocol import Problem, invalid, missing
from runproj.server.wire import metric_document, page_of, run_document, run_info

if TYPE_CHECKING:
    from runproj.server.rest import Context, Handler

_STATUSES = (RunStatus.RUNNING, RunStatus.SCHEDULED, RunStatus.FINISHED, RunStatus.FAILED, RunStatus.KILLED)
_EMPTY: Mapping[str, object] = {}


def create(use: Context, fields: Fields) -> Mapping[str, object]:
    experiment = fields.text("experiment_id")
    if not experiment:
        raise Problem("BAD_REQUEST", "Missing value for required parameter 'experiment_id'.")
    tags = _tags(fields, checked=False)
    if len({tag.key for tag in tags}) != len(tags):
        raise Problem("BAD_REQUEST", "The tags of a run need different keys.")
    name, tagged = fields.text("run_name"), next((tag.value for tag in tags if tag.key == TagName.RUN_NAME), None)
    if name and tagged and name != tagged:
        raise invalid(
            f"Both 'run_name' argument and 'mlflow.runName' tag are specified, but with different values: {name!r}, {tagged!r}."
        )
    start = fields.integer("start_time")
    new = NewRun(
        experiment_id=experiment,
        start=int(time.time() * 1000) if start is None else start,
        name=name or tagged or None,
        user=fields.text("user_id") or "",
        tags=tuple(tags),
    )
    return {"run": run_document(use.store.create_run(new))}


def get(use: Context, fields: Fields) -> Mapping[str, object]:
    return {"run": run_document(use.store.get_run(run_id(fields)))}


def update(use: Context, fields: Fields) -> Mapping[str, object]:
    run = active(use, fields)
    changes = RunChanges(
        status=fields.choice("status", _STATUSES), end=fields.integer("end_time"), name=fields.text("run_name") or None
    )
    use.store.update(run.id, changes)
    return {"run_info": run_info(use.store.get_run(run.id))}


def delete(use: Context, fields: Fields) -> Mapping[str, object]:
    use.store.update(run_id(fields), RunChanges(lifecycle=Lifecycle.DELETED))
    return _EMPTY


def restore(use: Context, fields: Fields) -> Mapping[str, object]:
    use.store.update(run_id(fields), RunChanges(lifecycle=Lifecycle.ACTIVE))
    return _EMPTY


def log_metric(use: Context, fields: Fields) -> Mapping[str, object]:
    use.store.update(active(use, fields).id, RunChanges(metrics=(_metric(fields),)))
    return _EMPTY


def log_param(use: Context, fields: Fields) -> Mapping[str, object]:
    use.store.update(active(use, fields).id, RunChanges(params=(_param(fields),)))
    return _EMPTY


def set_tag(use: Context, fields: Fields) -> Mapping[str, object]:
    use.store.update(active(use, fields).id, RunChanges(tags=(_tag(fields),)))
    return _EMPTY


def delete_tag(use: Context, fields: Fields) -> Mapping[str, object]:
    run, key = active(use, fields), fields.required("key")
    if run.tag(key) is None:
        raise missing(f"No tag with name: {key} in run with id {run.id}")
    use.store.update(run.id, RunChanges(deleted_tags=(key,)))
    return _EMPTY


def log_batch(use: Context, fields: Fields) -> Mapping[str, object]:
    metrics, params, tags = fields.messages("metrics"), fields.messages("params"), fields.messages("tags")
    limits.check_batch(len(metrics), len(params), len(tags))
    changes = RunChanges(
        metrics=tuple(_metric(item) for item in metrics),
        params=tuple(_param(item) for item in params),
        tags=tuple(_tag(item) for item in tags),
    )
    if len({param.key for param in changes.params}) != len(changes.params):
        raise invalid("Duplicate parameter keys have been submitted.")
    use.store.update(active(use, fields).id, changes)
    return _EMPTY


def history(use: Context, fields: Fields) -> Mapping[str, object]:
    key = fields.required("metric_key")
    limit = fields.integer("max_results")
    if limit is not None and limit < 1:
        raise invalid(f"Invalid value {limit} for parameter 'max_results' supplied: it must be at least 1.")
    points = use.store.history(run_id(fields), key)
    return page_of("metrics", [metric_document(point) for point in points], limit, fields.text("page_token"))


def run_id(fields: Fields) -> str:
    """The run that is meant; older clients say `run_uuid`."""
    return fields.required("run_id", "run_uuid")


def active(use: Context, fields: Fields) -> Run:
    """The run that is meant, which must not be deleted: nothing is added to deleted runs."""
    run = use.store.get_run(run_id(fields))
    if run.lifecycle is Lifecycle.DELETED:
        raise invalid(f"The run {run.id} must be in the 'active' state. Current state is deleted.")
    return run


def _metric(fields: Fields) -> Metric:
    key = limits.check_key(fields.required("key"))
    value, timestamp = fields.number("value"), fields.integer("timestamp")
    if value is None or timestamp is None:
        raise invalid(f"Missing value for required parameter '{'value' if value is None else 'timestamp'}' of metric {key!r}.")
    if timestamp < 0:
        raise invalid(f"Invalid value {timestamp} for parameter 'timestamp' supplied: it must not be negative.")
    return Metric(key, value, timestamp, fields.integer("step") or 0)


def _param(fields: Fields) -> Param:
    return Param(limits.check_key(fields.required("key")), fields.text("value") or "")


def _tag(fields: Fields) -> Tag:
    return Tag(limits.check_key(fields.required("key")), fields.text("value") or "")


def _tags(fields: Fields, *, checked: bool) -> list[Tag]:
    found = [Tag(item.required("key"), item.text("value") or "") for item in fields.messages("tags")]
    return [Tag(limits.check_key(tag.key), tag.value) for tag in found] if checked else found


CALLS: dict[tuple[str, str], Handler] = {
    ("POST", "runs/create"): create,
    ("GET", "runs/get"): get,
    ("POST", "runs/update"): update,
    ("POST", "runs/delete"): delete,
    ("POST", "runs/restore"): restore,
    ("POST", "runs/log-metric"): log_metric,
    ("POST", "runs/log-parameter"): log_param,
    ("POST", "runs/set-tag"): set_tag,
    ("POST", "runs/delete-tag"): delete_tag,
    ("POST", "runs/log-batch"): log_batch,
    ("GET", "metrics/get-history"): history,
}
