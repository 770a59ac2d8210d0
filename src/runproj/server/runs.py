"""Calls about runs, their parameters, metrics and tags."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from runproj.core.finding import RunPage
from runproj.core.models import Dataset, DatasetInput, Lineage, ModelMetric, ModelOutput
from runproj.core.ordering import place
from runproj.core.run import Lifecycle, NewRun, Param, Run, RunChanges, RunStatus, Tag, TagName
from runproj.core.search import RUNS, parse_filter, parse_order
from runproj.errors import NotFoundError, RefusedError
from runproj.server import limits
from runproj.server.access import ANY_USER, READ_RUN, WRITE_EXPERIMENT, WRITE_RUN
from runproj.server.fields import Fields
from runproj.server.measurements import of_models, read_metric, read_metrics
from runproj.server.paging import bounded, offset_of, page, view
from runproj.server.protocol import Problem, invalid, missing
from runproj.server.tokens import mark, start_of, token_after
from runproj.server.wire import compact, metric_document, metric_documents, row_document, run_document, run_info
from runproj.tracking.rows import as_run

if TYPE_CHECKING:
    from runproj.server.rest import Context
    from runproj.server.routes import Calls

_STATUSES = (RunStatus.RUNNING, RunStatus.SCHEDULED, RunStatus.FINISHED, RunStatus.FAILED, RunStatus.KILLED)
_EMPTY: Mapping[str, object] = {}
_RUN_ID = re.compile(r"[a-zA-Z0-9][\w\-]{0,255}", re.ASCII)


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
    start = fields.time("start_time")
    new = NewRun(
        experiment_id=experiment,
        start=int(time.time() * 1000) if start is None else start,
        name=name or tagged or None,
        user=fields.text("user_id") or "",
        tags=tuple(tags),
    )
    return {"run": run_document(_created(use, replace(new, id=_chosen_id(fields, tags))))}


def _chosen_id(fields: Fields, tags: Sequence[Tag]) -> str | None:
    """The id that a client with a spool chose, so that asking twice makes one run; None for all others."""
    chosen = fields.text("run_id")
    if not chosen or not any(tag.key == TagName.SPOOL for tag in tags):
        return None
    if not _RUN_ID.fullmatch(chosen):
        raise invalid(f"Invalid run ID: {chosen[:300]!r}")
    return chosen


def _created(use: Context, new: NewRun) -> Run:
    """The new run, or, where it was asked for before, the one that was made then."""
    try:
        return use.store.create_run(new)
    except RefusedError:
        if new.id is None:
            raise
        try:
            found = use.store.get_run(new.id)
        except NotFoundError:
            found = None
        spool = next(tag.value for tag in new.tags if tag.key == TagName.SPOOL)
        if found is None or (found.experiment_id, found.tag(TagName.SPOOL)) != (new.experiment_id, spool):
            raise
        return found


def get(use: Context, fields: Fields) -> Mapping[str, object]:
    run = use.store.get_run(run_id(fields))
    return {"run": run_document(run, use.store.lineages.of([run.id]).get(run.id))}


def search(use: Context, fields: Fields) -> Mapping[str, object]:
    limit, text, order = bounded(fields, 1000, 50_000), fields.text("filter") or "", fields.texts("order_by")
    condition, orders = parse_filter(text, RUNS), parse_order(order, RUNS)
    wanted, lifecycle = fields.texts("experiment_ids"), view(fields, "run_view_type")
    question = mark(text, order, sorted(wanted), lifecycle and lifecycle.value)
    start = start_of(fields.text("page_token"), orders, question)
    experiments = use.caller.narrowed(wanted)
    if not experiments:
        return _EMPTY
    asked = RunPage(experiments, condition, orders, lifecycle, limit + 1, start.offset, start.after)
    found = use.store.find_rows(asked)
    lineages = use.store.lineages.of([run.id for run in found[:limit]])
    documents = [row_document(run, lineages.get(run.id)) for run in found[:limit]]
    more = token_after(place(as_run(found[limit - 1]), orders), question) if len(found) > limit else None
    return compact({"runs": documents, "next_page_token": more})


def update(use: Context, fields: Fields) -> Mapping[str, object]:
    run = active(use, fields)
    changes = RunChanges(
        status=fields.choice("status", _STATUSES), end=fields.time("end_time"), name=fields.text("run_name") or None
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
    metric, model = read_metric(fields), fields.text("model_id")
    run = _log(use, fields, RunChanges(metrics=(metric,)))
    if model:
        data, digest = fields.text("dataset_name") or "", fields.text("dataset_digest") or ""
        use.store.models.log_metrics([ModelMetric(metric, model, run, data, digest)])
    return _EMPTY


def _log(use: Context, fields: Fields, changes: RunChanges) -> str:
    """Record changes of the run that is meant, which must not be deleted; returns its id."""
    run = run_id(fields)
    use.store.update(run, changes, only_active=True)
    return run


def log_param(use: Context, fields: Fields) -> Mapping[str, object]:
    _log(use, fields, RunChanges(params=(_param(fields),)))
    return _EMPTY


def set_tag(use: Context, fields: Fields) -> Mapping[str, object]:
    _log(use, fields, RunChanges(tags=(_tag(fields),)))
    return _EMPTY


def delete_tag(use: Context, fields: Fields) -> Mapping[str, object]:
    run, key = active(use, fields), fields.required("key")
    if run.tag(key) is None:
        raise missing(f"No tag with name: {key} in run with id {run.id}")
    use.store.update(run.id, RunChanges(deleted_tags=(key,)))
    return _EMPTY


def log_batch(use: Context, fields: Fields) -> Mapping[str, object]:
    points, params, tags = fields.raw_messages("metrics"), fields.messages("params"), fields.messages("tags")
    limits.check_batch(len(points), len(params), len(tags))
    metrics = read_metrics(points)
    changes = RunChanges(metrics=metrics, params=tuple(map(_param, params)), tags=tuple(map(_tag, tags)))
    if len({param.key for param in changes.params}) != len(changes.params):
        raise invalid("Duplicate parameter keys have been submitted.")
    run = _log(use, fields, changes)
    if measured := of_models(run, points, metrics):
        use.store.models.log_metrics(measured)
    return _EMPTY


def log_inputs(use: Context, fields: Fields) -> Mapping[str, object]:
    datasets = tuple(_dataset_input(item) for item in fields.messages("datasets"))
    models = tuple(item.required("model_id") for item in fields.messages("models"))
    if len(datasets) > 1000:
        raise invalid("At most 1000 datasets can be logged at once.")
    use.store.lineages.add(active(use, fields).id, Lineage(datasets, models))
    return _EMPTY


def _dataset_input(fields: Fields) -> DatasetInput:
    data = fields.message("dataset")
    texts = [data.text(name) or "" for name in ("source_type", "source", "schema", "profile")]
    dataset = Dataset(data.required("name"), data.required("digest"), *texts)
    lengths = (500, 36, 1_048_575, 65_535, 1_048_575, 16_777_215)
    values = (dataset.name, dataset.digest, dataset.source_type, dataset.source, dataset.schema, dataset.profile)
    if any(len(value) > most for value, most in zip(values, lengths, strict=True)):
        raise invalid(f"A field of the dataset {dataset.name[:100]!r} is too long.")
    return DatasetInput(dataset, tuple(Tag(tag.required("key"), tag.text("value") or "") for tag in fields.messages("tags")))


def log_outputs(use: Context, fields: Fields) -> Mapping[str, object]:
    if "models" not in fields:
        raise invalid("Missing value for required parameter 'models'.")
    made = tuple(ModelOutput(item.required("model_id"), item.integer("step") or 0) for item in fields.messages("models"))
    use.store.lineages.add(active(use, fields).id, Lineage(models_out=made))
    return _EMPTY


_MODEL_FIELDS = frozenset({"artifact_path", "flavors", "utc_time_created", "run_id"})
_MODEL_HISTORY = "mlflow.log-model.history"


def log_model(use: Context, fields: Fields) -> Mapping[str, object]:
    """What clients before MLflow 3 say of a model: kept in a tag of the run."""
    run, text = run_id(fields), fields.required("model_json")
    try:
        model = json.loads(text)
    except ValueError:
        raise invalid(f"Malformed model info: {text[:200]!r} is not valid JSON.") from None
    if not isinstance(model, dict) or not set(model) >= _MODEL_FIELDS:
        raise invalid(f"Model json is missing mandatory fields: it needs {', '.join(sorted(_MODEL_FIELDS))}.")
    use.store.extend_tag(run, _MODEL_HISTORY, model)
    return _EMPTY


def bulk_history(use: Context, fields: Fields) -> Mapping[str, object]:
    """Points of one metric of several runs, between two steps, thinned out to `max_results` a run as plots need them."""
    runs, key = fields.texts("run_ids") or fields.texts("run_id"), fields.required("metric_key")
    if not 0 < len(runs) <= 100:
        raise invalid(f"From 1 to 100 runs can be asked for, not {len(runs)}.")
    most = 2500 if "run_ids" in fields else 25_000
    limit, start, end = bounded(fields, 2500, most), fields.integer("start_step"), fields.integer("end_step")
    if (start is None) != (end is None) or (start is not None and end is not None and end < start):
        raise invalid("start_step and end_step need each other, and must not be the wrong way round.")
    steps = None if start is None or end is None else (start, end)
    found = use.store.thinned(list(dict.fromkeys(runs)), key, limit, steps)
    return compact({"metrics": [metric_document(point) | {"run_id": run} for run, points in found for point in points]})


def history(use: Context, fields: Fields) -> Mapping[str, object]:
    key = fields.required("metric_key")
    limit, offset = fields.integer("max_results"), offset_of(fields.text("page_token"))
    if limit is not None and limit < 1:
        raise invalid(f"Invalid value {limit} for parameter 'max_results' supplied: it must be at least 1.")
    points = use.store.history_page(run_id(fields), key, None if limit is None else limit + 1, offset)
    return page("metrics", metric_documents(points), len(points) if limit is None else limit, offset)


def run_id(fields: Fields) -> str:
    """The run that is meant; older clients say `run_uuid`."""
    return fields.required("run_id", "run_uuid")


def active(use: Context, fields: Fields) -> Run:
    """The run that is meant, which must not be deleted: nothing is added to deleted runs."""
    run = use.store.get_run(run_id(fields))
    if run.lifecycle is Lifecycle.DELETED:
        raise invalid(f"The run {run.id} must be in the 'active' state. Current state is deleted.")
    return run


def _param(fields: Fields) -> Param:
    return Param(limits.check_key(fields.required("key")), fields.text("value") or "")


def _tag(fields: Fields) -> Tag:
    return Tag(limits.check_key(fields.required("key")), fields.text("value") or "")


def _tags(fields: Fields, *, checked: bool) -> list[Tag]:
    found = [Tag(item.required("key"), item.text("value") or "") for item in fields.messages("tags")]
    return [Tag(limits.check_key(tag.key), tag.value) for tag in found] if checked else found


CALLS: Calls = {
    ("POST", "runs/create"): (create, WRITE_EXPERIMENT),
    ("GET", "runs/get"): (get, READ_RUN),
    ("POST", "runs/update"): (update, WRITE_RUN),
    ("POST", "runs/delete"): (delete, WRITE_RUN),
    ("POST", "runs/restore"): (restore, WRITE_RUN),
    ("POST", "runs/log-metric"): (log_metric, WRITE_RUN),
    ("POST", "runs/log-parameter"): (log_param, WRITE_RUN),
    ("POST", "runs/set-tag"): (set_tag, WRITE_RUN),
    ("POST", "runs/delete-tag"): (delete_tag, WRITE_RUN),
    ("POST", "runs/log-batch"): (log_batch, WRITE_RUN),
    ("POST", "runs/search"): (search, ANY_USER),
    ("POST", "runs/log-inputs"): (log_inputs, WRITE_RUN),
    ("POST", "runs/outputs"): (log_outputs, WRITE_RUN),
    ("POST", "runs/log-model"): (log_model, WRITE_RUN),
    ("GET", "metrics/get-history"): (history, READ_RUN),
    ("GET", "metrics/get-history-bulk"): (bulk_history, READ_RUN),
    ("GET", "metrics/get-history-bulk-interval"): (bulk_history, READ_RUN),
}
