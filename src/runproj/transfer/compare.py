"""Whether a run or logged model in the target is that of the source."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

from runproj.core.models import LoggedModel
from runproj.core.run import Run, Tag, TagName
from runproj.core.transfer import Fingerprint, MovedModel, MovedRun


def named(run: Run) -> Run:
    """The run with a name, which is a tag of it too, as everywhere today; older stores had the one or the other."""
    name = run.name or run.tag(TagName.RUN_NAME) or f"run-{run.id[:8]}"
    if run.name == name and run.tag(TagName.RUN_NAME) == name:
        return run
    tags = (*(tag for tag in run.tags if tag.key != TagName.RUN_NAME), Tag(TagName.RUN_NAME, name))
    return replace(run, name=name, tags=tags)


def run_differences(wanted: Fingerprint, found: Fingerprint) -> tuple[str, ...]:
    """What a run has another number of in the target, or that it differs."""
    counts = (("parameters", "params"), ("tags", "tags"), ("points of metrics", "points"))
    told = [
        f"{getattr(found, field)} {words} instead of {getattr(wanted, field)}"
        for words, field in counts
        if getattr(found, field) != getattr(wanted, field)
    ]
    return tuple(told) if told or found == wanted else ("its values differ",)


def missing(wanted: LoggedModel, found: LoggedModel) -> tuple[str, ...]:
    """What a logged model lacks in the target."""
    counts = (
        ("parameters", wanted.params, found.params),
        ("tags", wanted.tags, found.tags),
        ("metrics", wanted.metrics, found.metrics),
    )
    return tuple(f"{len(there)} {words} instead of {len(had)}" for words, had, there in counts if len(there) < len(had))


def model_differences(wanted: LoggedModel, found: LoggedModel) -> tuple[str, ...]:
    """How a logged model that nobody was to change differs in the target."""
    return missing(wanted, found) or (() if _told(wanted) == _told(found) else ("its values differ",))


def _told(model: LoggedModel) -> tuple[object, ...]:
    """What every kind of store keeps of a logged model."""
    pairs = [sorted((item.key, item.value) for item in items) for items in (model.params, model.tags)]
    measured = sorted((item.metric.key, item.metric.timestamp, item.metric.step) for item in model.metrics)
    return (model.name, model.status, model.model_type, model.source_run, pairs, measured)


def state_of(moved: MovedRun | MovedModel) -> str:
    """A digest of all that a source tells of a thing before its history is read."""
    from runproj.codec import to_plain

    return hashlib.sha256(json.dumps(to_plain(moved), sort_keys=True, default=str).encode()).hexdigest()
