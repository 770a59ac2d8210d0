"""Earlier runs of the same recipe, and how their metrics varied."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from runproj import references
from runproj.core.plan import Plan
from runproj.core.recipe import recipe_of
from runproj.core.record import RunRecord
from runproj.core.run import Run, RunQuery, RunStatus, Tag, TagName
from runproj.core.services import Services
from runproj.core.verdict import Noise, NoiseFloor
from runproj.core.views import RunView
from runproj.reproduce.tolerance import FEWEST, noise_of

MOST = 100
"""Runs that are looked at, the newest first."""


def noise_before(view: RunView, plan: Plan, use: Services) -> dict[str, Noise]:
    """How each metric varied over runs of the recipe with the same inputs, or, where they are few, what the run itself knows."""
    runs = [*siblings(view, plan, use)]
    noise = {item.name: item for item in noise_of(values_of(runs))}
    stored = references.read_document(NoiseFloor, view.run, "runproj/noise.json", use.artifacts, use.home / "cache" / "views")
    for item in stored.noise if stored else ():
        if item.name not in noise or noise[item.name].n < FEWEST:
            noise[item.name] = item
    return noise


def siblings(view: RunView, plan: Plan, use: Services) -> Iterator[Run]:
    """The run, and finished runs of the same recipe with the same inputs."""
    yield view.run
    query = RunQuery(statuses=(RunStatus.FINISHED,), tags=(Tag(TagName.RECIPE, recipe_of(plan)),), limit=MOST)
    for run in use.tracking.search(query):
        if run.id == view.run.id or run.tag(TagName.VERDICT):  # what was judged is no yardstick
            continue
        if not plan.entry_point.inputs or _inputs(run, use) == _digests(view.record):
            yield run


def values_of(runs: Sequence[Run]) -> dict[str, list[float]]:
    """The latest values of each metric that all of the runs have."""
    found: dict[str, list[float]] = {}
    for run in runs:
        for metric in run.metrics:
            found.setdefault(metric.key, []).append(metric.value)
    return found


def _inputs(run: Run, use: Services) -> set[tuple[str, str, str]]:
    return _digests(references.read_document(RunRecord, run, "runproj/record.json", use.artifacts, use.home / "cache" / "views"))


def _digests(record: RunRecord | None) -> set[tuple[str, str, str]]:
    return {(item.kind, item.name, item.sha256) for item in (record.inputs if record else ())}
