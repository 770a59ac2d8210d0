"""The record on a server that speaks MLflow's REST protocol."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import TypeVar

from runproj.core.finding import RunSearch
from runproj.core.run import (
    Experiment,
    Lifecycle,
    Metric,
    NewRun,
    Param,
    Run,
    RunChanges,
    RunQuery,
    RunStatus,
    Tag,
)
from runproj.errors import AlreadyExistsError, NotFoundError, RefusedError, TrackingError
from runproj.remote import Document, Remote
from runproj.tracking.names import no_experiment

T = TypeVar("T")

_PAGE = 1000
_BATCH = 100
_METRIC_BATCH = 500
_VIEWS = {Lifecycle.ACTIVE: "ACTIVE_ONLY", Lifecycle.DELETED: "DELETED_ONLY", None: "ALL"}


class HttpStore:
    """A `TrackingStore` on a server.  Ids of runs are the server's to choose: `NewRun.id` is passed over."""

    def __init__(self, remote: Remote) -> None:
        self.remote = remote

    def experiment(self, name: str, *, make: bool = True) -> Experiment:
        try:
            found = self._named(name)
        except NotFoundError:
            if not make:
                raise no_experiment(name) from None
            try:
                created = self.remote.post("experiments/create", {"name": name}, repeat=False)
                found = self.experiment_by_id(str(created.get("experiment_id")))
            except AlreadyExistsError:  # somebody else was faster
                found = self._named(name)
        if found.lifecycle is Lifecycle.DELETED:
            fix = f"Choose another name, or restore it: runproj experiments restore {name!r}"
            raise RefusedError(f"The experiment {name!r} was deleted", fix=fix)
        return found

    def experiment_by_id(self, experiment_id: str) -> Experiment:
        """Raises `NotFoundError`."""
        return experiment_of(_message(self.remote.get("experiments/get", experiment_id=experiment_id), "experiment"))

    def create_run(self, new: NewRun) -> Run:
        message: dict[str, object] = {
            "experiment_id": new.experiment_id,
            "start_time": new.start,
            "user_id": new.user,
            "tags": [{"key": tag.key, "value": tag.value} for tag in new.tags],
        }
        if new.name:
            message["run_name"] = new.name
        run = run_of(_message(self.remote.post("runs/create", message, repeat=False), "run"))
        status = new.status if new.status is not run.status else None
        if not new.params and status is None:
            return run
        self.update(run.id, RunChanges(params=new.params, status=status))
        return self.get_run(run.id)

    def get_run(self, run_id: str) -> Run:
        return run_of(_message(self.remote.get("runs/get", run_id=run_id), "run"))

    def update(self, run_id: str, changes: RunChanges) -> None:
        post = self.remote.post
        if changes.lifecycle is Lifecycle.ACTIVE:
            post("runs/restore", {"run_id": run_id})
        for params in _batches(changes.params, _BATCH):
            post("runs/log-batch", {"run_id": run_id, "params": [{"key": p.key, "value": p.value} for p in params]})
        for metrics in _batches(changes.metrics, _METRIC_BATCH):
            post("runs/log-batch", {"run_id": run_id, "metrics": [_point(metric) for metric in metrics]})
        for tags in _batches(changes.tags, _BATCH):
            post("runs/log-batch", {"run_id": run_id, "tags": [{"key": t.key, "value": t.value} for t in tags]})
        for key in changes.deleted_tags:
            self._delete_tag(run_id, key)
        fields = {"status": changes.status and changes.status.value, "end_time": changes.end, "run_name": changes.name}
        if given := {name: value for name, value in fields.items() if value is not None}:
            post("runs/update", {"run_id": run_id, **given})
        if changes.lifecycle is Lifecycle.DELETED:
            post("runs/delete", {"run_id": run_id})
        if changes == RunChanges():
            self.get_run(run_id)

    def search(self, query: RunQuery) -> Sequence[Run]:
        experiments = list(query.experiments) or self._experiments(query.lifecycle)
        if not experiments:
            return ()
        try:
            return list(islice(self._fitting(query, experiments, _filter(query)), query.offset, query.offset + query.limit))
        except RefusedError:  # an older server knows fewer filters; what it finds is looked at here in any case
            return list(islice(self._fitting(query, experiments, ""), query.offset, query.offset + query.limit))

    def find_runs(self, search: RunSearch) -> Sequence[Run]:
        """Active runs that fit a filter of the search language, as the server understands it."""
        experiments = list(search.experiments) or self._experiments(Lifecycle.ACTIVE)
        message = {
            "experiment_ids": experiments,
            "filter": search.filter,
            "run_view_type": _VIEWS[Lifecycle.ACTIVE],
            "max_results": min(_PAGE, search.limit),
            "order_by": list(search.order),
        }
        return list(islice(self._found(message), search.limit)) if experiments else ()

    def history(self, run_id: str, key: str) -> Sequence[Metric]:
        found: list[Metric] = []
        token: str | None = None
        while True:
            try:
                page = self.remote.get("metrics/get-history", run_id=run_id, metric_key=key, max_results=25_000, page_token=token)
            except NotFoundError:
                return ()
            found += [_metric(item) for item in _messages(page, "metrics")]
            token = _next(page)
            if token is None:
                return found

    def _named(self, name: str) -> Experiment:
        return experiment_of(_message(self.remote.get("experiments/get-by-name", experiment_name=name), "experiment"))

    def _delete_tag(self, run_id: str, key: str) -> None:
        try:
            self.remote.post("runs/delete-tag", {"run_id": run_id, "key": key})
        except NotFoundError:
            self.get_run(run_id)  # it was the tag that was not there, not the run

    def _experiments(self, lifecycle: Lifecycle | None) -> list[str]:
        """Ids of all experiments.  Deleted runs may be in active and in deleted ones."""
        found: list[str] = []
        token: str | None = None
        view = "ACTIVE_ONLY" if lifecycle is Lifecycle.ACTIVE else "ALL"
        while True:
            message = {"max_results": _PAGE, "view_type": view, "page_token": token or ""}
            page = self.remote.post("experiments/search", message)
            found += [_text(item, "experiment_id") for item in _messages(page, "experiments")]
            token = _next(page)
            if token is None:
                return found

    def _fitting(self, query: RunQuery, experiments: Sequence[str], text: str) -> Iterator[Run]:
        """Runs that fit, among those that the server finds with the filter `text`."""
        message = {
            "experiment_ids": list(experiments),
            "filter": text,
            "run_view_type": _VIEWS[query.lifecycle],
            "max_results": min(_PAGE, query.offset + query.limit),
            "order_by": ["attributes.start_time DESC"],
        }
        return (run for run in self._found(message) if _fits(run, query))

    def _found(self, message: Mapping[str, object]) -> Iterator[Run]:
        """What the server finds, page after page for as long as somebody asks for more."""
        token: str | None = None
        while True:
            page = self.remote.post("runs/search", {**message, "page_token": token or ""})
            yield from map(run_of, _messages(page, "runs"))
            token = _next(page)
            if token is None:
                return


def _batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _filter(query: RunQuery) -> str:
    """What of a query the server's filter language can say.  It has no escapes, so some values cannot be said."""
    clauses = [
        f"attributes.status != '{status.value}'" for status in RunStatus if query.statuses and status not in query.statuses
    ]
    if query.prefix and query.prefix.isalnum():
        clauses.append(f"attributes.run_id LIKE '{query.prefix}%'")
    if query.name is not None and (name := _quoted(query.name)):
        clauses.append(f"attributes.run_name = {name}")
    for tag in query.tags:
        if "`" not in tag.key and (value := _quoted(tag.value)):
            clauses.append(f"tags.`{tag.key}` = {value}")
    return " AND ".join(clauses)


def _quoted(text: str) -> str:
    return f"'{text}'" if "'" not in text and "\\" not in text and text.isprintable() and text else ""


def _fits(run: Run, query: RunQuery) -> bool:
    return (
        (not query.statuses or run.status in query.statuses)
        and (not query.prefix or run.id.startswith(query.prefix))
        and (query.name is None or run.name == query.name)
        and all(run.tag(tag.key) == tag.value for tag in query.tags)
    )


def _point(metric: Metric) -> dict[str, object]:
    value: object = metric.value
    if math.isnan(metric.value):
        value = "NaN"
    elif math.isinf(metric.value):
        value = "Infinity" if metric.value > 0 else "-Infinity"
    return {"key": metric.key, "value": value, "timestamp": metric.timestamp, "step": metric.step}


def run_of(message: Document) -> Run:
    info, data = _message(message, "info"), _message(message, "data", optional=True)
    tags = tuple(Tag(_text(item, "key"), _text(item, "value")) for item in _messages(data, "tags"))
    end = info.get("end_time")
    return Run(
        id=_text(info, "run_id") or _text(info, "run_uuid"),
        experiment_id=_text(info, "experiment_id"),
        name=_text(info, "run_name") or next((tag.value for tag in tags if tag.key == "mlflow.runName"), ""),
        status=RunStatus(_text(info, "status") or "RUNNING"),
        start=_integer(info.get("start_time")),
        end=_integer(end) or None,
        artifact_uri=_text(info, "artifact_uri"),
        user=_text(info, "user_id"),
        lifecycle=Lifecycle(_text(info, "lifecycle_stage") or "active"),
        params=tuple(Param(_text(item, "key"), _text(item, "value")) for item in _messages(data, "params")),
        metrics=tuple(_metric(item) for item in _messages(data, "metrics")),
        tags=tags,
    )


def experiment_of(message: Document) -> Experiment:
    return Experiment(
        id=_text(message, "experiment_id"),
        name=_text(message, "name"),
        artifact_location=_text(message, "artifact_location"),
        lifecycle=Lifecycle(_text(message, "lifecycle_stage") or "active"),
        created=_integer(message.get("creation_time")),
        updated=_integer(message.get("last_update_time")),
        tags=tuple(Tag(_text(item, "key"), _text(item, "value")) for item in _messages(message, "tags")),
    )


def _metric(message: Document) -> Metric:
    value = message.get("value")
    number = float(value) if isinstance(value, int | float | str) else math.nan
    return Metric(_text(message, "key"), number, _integer(message.get("timestamp")), _integer(message.get("step")))


def _message(message: Mapping[str, object], name: str, *, optional: bool = False) -> Document:
    found = message.get(name)
    if isinstance(found, dict):
        return found
    if optional and found is None:
        return {}
    raise TrackingError(f"The tracking server's answer lacks {name!r}", fix="Check that the tracking URI names an MLflow server.")


def _messages(message: Mapping[str, object], name: str) -> list[Document]:
    found = message.get(name)
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []


def _text(message: Mapping[str, object], name: str) -> str:
    found = message.get(name)
    return "" if found is None else str(found)


def _integer(value: object) -> int:
    """Some servers send 64-bit numbers as strings."""
    return int(value) if isinstance(value, int | str | float) and value != "" else 0


def _next(page: Mapping[str, object]) -> str | None:
    return _text(page, "next_page_token") or None
