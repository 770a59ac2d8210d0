"""The record in memory: the protocol in its plainest form, for tests and for what need not outlive the process."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from dataclasses import replace

from runproj.core.run import Experiment, Metric, NewRun, Param, Run, RunChanges, RunQuery, Tag, TagName
from runproj.errors import NotFoundError, RefusedError
from runproj.tracking.names import run_name
from runproj.tracking.rows import pack


class MemoryStore:
    """A `TrackingStore` that is gone with the process.  Safe for threads."""

    def __init__(self) -> None:
        now = int(time.time() * 1000)
        self._experiments = {"Default": Experiment("0", "Default", "mlflow-artifacts:/0", created=now, updated=now)}
        self._runs: dict[str, Run] = {}
        self._points: dict[tuple[str, str], dict[tuple[int, int, float, int], Metric]] = {}
        self._lock = threading.RLock()

    def experiment(self, name: str, *, make: bool = True) -> Experiment:
        with self._lock:
            if name not in self._experiments:
                if not make:
                    raise NotFoundError(f"There is no experiment {name!r}")
                number, now = str(len(self._experiments)), int(time.time() * 1000)
                self._experiments[name] = Experiment(number, name, f"mlflow-artifacts:/{number}", created=now, updated=now)
            return self._experiments[name]

    def experiment_by_id(self, experiment_id: str) -> Experiment:
        with self._lock:
            found = next((item for item in self._experiments.values() if item.id == experiment_id), None)
        if found is None:
            raise NotFoundError(f"There is no experiment with id {experiment_id!r}")
        return found

    def create_run(self, new: NewRun) -> Run:
        with self._lock:
            home = self.experiment_by_id(new.experiment_id)
            run_id = new.id or os.urandom(16).hex()
            if run_id in self._runs:
                raise RefusedError(f"There is already a run with id {run_id}")
            tags = {tag.key: tag.value for tag in new.tags}
            tags[TagName.RUN_NAME] = name = new.name or tags.get(TagName.RUN_NAME) or run_name()
            run = Run(run_id, home.id, name, new.status, new.start, user=new.user)
            run = replace(run, artifact_uri=f"{home.artifact_location}/{run_id}/artifacts", tags=_tags(tags))
            self._runs[run_id] = replace(run, params=_with_params(run, new.params))
            return self._runs[run_id]

    def get_run(self, run_id: str) -> Run:
        with self._lock:
            if run_id not in self._runs:
                raise NotFoundError(f"There is no run with id {run_id!r}")
            return self._runs[run_id]

    def update(self, run_id: str, changes: RunChanges) -> None:
        with self._lock:
            run = self.get_run(run_id)
            params = _with_params(run, changes.params)  # the one thing that can be refused comes first
            tags = {tag.key: tag.value for tag in (*run.tags, *changes.tags)}
            if changes.name:
                tags[TagName.RUN_NAME] = changes.name
            for key in changes.deleted_tags:
                tags.pop(key, None)
            for metric in changes.metrics:
                self._points.setdefault((run_id, metric.key), {})[_place(metric)] = metric
            self._runs[run_id] = replace(
                run,
                status=changes.status or run.status,
                end=run.end if changes.end is None else changes.end,
                lifecycle=changes.lifecycle or run.lifecycle,
                name=tags.get(TagName.RUN_NAME, run.name),
                params=params,
                metrics=self._latest(run_id),
                tags=_tags(tags),
            )

    def search(self, query: RunQuery) -> Sequence[Run]:
        with self._lock:
            found = sorted((run for run in reversed(self._runs.values()) if _fits(run, query)), key=lambda run: -run.start)
        return found[query.offset : query.offset + query.limit]

    def history(self, run_id: str, key: str) -> Sequence[Metric]:
        with self._lock:
            points = self._points.get((run_id, key), {})
            return [points[place] for place in sorted(points)]

    def _latest(self, run_id: str) -> tuple[Metric, ...]:
        """Of each key the point with the greatest step, then time, then value; NaN counts as 0, and the earlier one stays."""
        found = []
        for (owner, _), points in sorted(self._points.items()):
            if owner == run_id:
                found.append(max(points.values(), key=lambda metric: (metric.step, metric.timestamp, pack(metric.value)[0])))
        return tuple(found)


def _place(metric: Metric) -> tuple[int, int, float, int]:
    """What tells points of a metric apart, in the order of a history."""
    return (metric.timestamp, metric.step, *pack(metric.value))


def _with_params(run: Run, params: Sequence[Param]) -> tuple[Param, ...]:
    known = {param.key: param.value for param in run.params}
    for param in params:
        if known.setdefault(param.key, param.value) != param.value:
            raise RefusedError(
                f"The parameter {param.key!r} of run {run.id} is {known[param.key]!r} and cannot become {param.value!r}",
                why="Parameters are written once.",
                fix="Record what changes during a run as a metric or a tag.",
            )
    return tuple(Param(key, known[key]) for key in sorted(known))


def _tags(tags: dict[str, str]) -> tuple[Tag, ...]:
    return tuple(Tag(key, tags[key]) for key in sorted(tags))


def _fits(run: Run, query: RunQuery) -> bool:
    return (
        (not query.experiments or run.experiment_id in query.experiments)
        and (query.lifecycle is None or run.lifecycle is query.lifecycle)
        and (not query.statuses or run.status in query.statuses)
        and (query.prefix is None or run.id.startswith(query.prefix))
        and (query.name is None or run.name == query.name)
        and all(run.tag(tag.key) == tag.value for tag in query.tags)
    )
