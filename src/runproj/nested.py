"""Runs that a command began inside its own: they end with it, whoever was to end them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

from runproj.core.run import Run, RunChanges, RunQuery, RunStatus, Tag, TagName
from runproj.core.tracking import TrackingStore

_ACTIVE = (RunStatus.SCHEDULED, RunStatus.RUNNING)
_MANY = 10_000


def open_below(run_id: str, tracking: TrackingStore) -> Iterator[Run]:
    """Runs inside that one, directly or not, that are not over and have no executor of their own to end them."""
    for run in tracking.search(RunQuery(tags=(Tag(TagName.PARENT, run_id),), lifecycle=None, limit=_MANY)):
        if run.tag(TagName.ATTEMPT) is None and run.id != run_id:
            if run.status in _ACTIVE:
                yield run
            yield from open_below(run.id, tracking)


def close(run_ids: Iterable[str], tracking: TrackingStore, reason: str) -> None:
    """End runs as FAILED, for that reason."""
    changes = RunChanges(status=RunStatus.FAILED, end=int(time.time() * 1000), tags=(Tag(TagName.REASON, reason),))
    for run_id in run_ids:
        tracking.update(run_id, changes)
