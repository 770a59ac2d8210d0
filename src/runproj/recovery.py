"""After a crash: close the runs whose executor vanished, end what they left running, remove what nobody owns."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from runproj import proc
from runproj.core.run import Phase, Run, RunChanges, RunQuery, RunStatus, Tag, TagName
from runproj.core.tracking import ArtifactStore, TrackingStore
from runproj.errors import NotFoundError, RunprojError
from runproj.files import remove_tree, sweep_trash
from runproj.leases import Lease, Leases


@dataclass(frozen=True)
class Stores:
    """The stores of one tracking URI."""

    tracking: TrackingStore
    artifacts: ArtifactStore


def recover(leases: Leases, runs: Path, open_stores: Callable[[str], Stores]) -> list[str]:
    """Close every run whose holder is gone.  Returns their ids.

    Called by each command that looks at runs, so that a status that is shown is true.  A store that cannot be reached keeps
    its leases: the next command tries again.
    """
    closed = []
    for lease in leases.orphans():
        try:
            stores = open_stores(lease.info.tracking_uri)
            run = _run_of(lease, stores.tracking)
            if run is not None:
                _end_processes(run.id)
                _close(run, stores, runs / run.id)
                closed.append(run.id)
            if lease.info.folder:
                remove_tree(Path(lease.info.folder))
            sweep_trash(runs)
        except RunprojError:
            lease.abandon()
        else:
            lease.end()
    return closed


def _run_of(lease: Lease, tracking: TrackingStore) -> Run | None:
    """The lease's run; None where it died before the run was recorded."""
    if lease.info.run_id:
        try:
            return tracking.get_run(lease.info.run_id)
        except NotFoundError:
            return None
    found = tracking.search(RunQuery(tags=(Tag(TagName.ATTEMPT, lease.info.token),), lifecycle=None, limit=1))
    return found[0] if found else None


def _end_processes(run_id: str) -> None:
    """Kill what still carries the run's mark: its guard does so itself unless it was killed too."""
    for _ in range(50):
        pids = [pid for pid in proc.marked("RUNPROJ_GUARDED", run_id) if pid != os.getpid()]
        if not pids:
            return
        proc.send(pids, signal.SIGKILL)
        time.sleep(0.02)


def _close(run: Run, stores: Stores, folder: Path) -> None:
    logs = folder / "logs"
    for path in sorted(logs.iterdir()) if logs.is_dir() else ():
        with contextlib.suppress(RunprojError, FileNotFoundError):
            stores.artifacts.adopt(run, path, f"logs/{path.name}")
    if run.status.final:
        return
    phase = run.tag(TagName.PHASE) or Phase.START.value
    tags = (
        Tag(TagName.LOST, "1"),
        Tag(TagName.PHASE, phase),
        Tag(TagName.REASON, f"lost: its executor vanished during phase {phase!r} without closing the run"),
    )
    stores.tracking.update(run.id, RunChanges(status=RunStatus.FAILED, end=int(time.time() * 1000), tags=tags))
