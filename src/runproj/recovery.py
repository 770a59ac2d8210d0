"""After a crash: close the runs whose executor vanished, end what they left running, remove what nobody owns."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from runproj import leftovers, nested, proc
from runproj.core.run import Run, RunChanges, RunQuery, RunStatus, Tag, TagName
from runproj.core.tracking import ArtifactStore, TrackingStore
from runproj.core.values import dataclass
from runproj.errors import NotFoundError, RunprojError
from runproj.files import remove_tree, sweep_trash
from runproj.leases import Lease, Leases

_DYING = 30.0
"""Seconds in which a process that was killed is gone, on a machine that is very busy."""


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
                if end_processes(run.id, runs):
                    _salvage(lease.info.tracking_uri, runs, run.id)
                if _close(run, stores, runs / run.id):
                    closed.append(run.id)
            with contextlib.suppress(OSError):  # what cannot be removed must not keep any command from its work
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


def end_processes(run_id: str, runs: Path) -> bool:
    """Kill what still carries the run's mark: its guard does so itself unless it was killed too.

    Returns whether it had a container, which is gone now.
    """
    from runproj import containers

    deadline = time.monotonic() + _DYING
    while time.monotonic() < deadline:
        pids = [pid for pid in proc.marked("RUNPROJ_GUARDED", run_id) if pid != os.getpid()]
        if not pids:
            break
        proc.send(pids, signal.SIGKILL)
        time.sleep(0.02)
    return containers.end_of_run(runs / run_id, run_id)


def _salvage(tracking_uri: str, runs: Path, run_id: str) -> None:
    """Keep what a container logged and did not send, for `runproj sync`."""
    from runproj.salvage import salvage

    about = {"uri": tracking_uri, "home_uri": tracking_uri, "run": run_id}
    target = runs.parent / "spool" / f"run-{run_id}"
    salvage(runs / run_id / "spool", target, about, files=not tracking_uri.startswith("http"))


def keep_what_is_left(run: Run, stores: Stores, folder: Path) -> None:
    """Of a run whose executor is gone: its logs are kept, and the runs that were begun in it are ended."""
    logs = folder / "logs"
    for path in sorted(logs.iterdir()) if logs.is_dir() else ():
        with contextlib.suppress(RunprojError, FileNotFoundError):
            stores.artifacts.adopt(run, path, f"logs/{path.name}")
    left = [inner.id for inner in nested.open_below(run.id, stores.tracking)]
    nested.close(left, stores.tracking, "lost: the run it was begun in ended without ending it")


def _close(run: Run, stores: Stores, folder: Path) -> bool:
    """Store what the executor could not; whether the run was still open."""
    keep_what_is_left(run, stores, folder)
    if run.over:
        return False
    phase = leftovers.phase_of(folder).value
    if outcome := leftovers.outcome_of(folder):
        status, reason = outcome.status, outcome.reason
        tags = [Tag(TagName.EXIT_CODE, str(outcome.exit_code)), Tag(TagName.PHASE, phase)]
    else:
        status, reason = RunStatus.FAILED, f"lost: its executor vanished during phase {phase!r} without closing the run"
        tags = [Tag(TagName.LOST, "1"), Tag(TagName.PHASE, phase)]
    if reason:
        tags.append(Tag(TagName.REASON, reason[:2000]))
    stores.tracking.update(run.id, RunChanges(status=status, end=int(time.time() * 1000), tags=tuple(tags)))
    return True
