"""The record that an executor wrote elsewhere → the store: news while it runs, and everything, once, when it has ended."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from runproj.codec import DocumentError, from_json, to_json
from runproj.core.run import Run, RunChanges, RunStatus, Tag
from runproj.core.tracking import TrackingStore
from runproj.core.transfer import ORIGIN, ItemMoved, Target, TransferReport
from runproj.core.values import dataclass
from runproj.errors import NotFoundError
from runproj.files import atomic_write
from runproj.parcels import Received

if TYPE_CHECKING:
    from runproj.tracking.store import SqlStore

RECORD = "runproj.db"
SNAPSHOT = "snapshot.db"
"""Of the record while it is being written: a whole database each time, moved there when it is complete."""
ARTIFACTS = "artifacts"
_MOST = 10_000
"""Points that are sent at once."""


class _Silent:
    """A `Reporter` of transfers that nobody asked for."""

    def phase(self, name: str, text: str) -> None: ...

    def progress(self, text: str) -> None: ...

    def done(self, text: str) -> None: ...

    def note(self, text: str) -> None: ...


@dataclass(frozen=True)
class Relay:
    """Merges records into the store of a tracking URI.

    target: opens that store for a transfer;  scratch: a folder of this machine for copies.
    """

    tracking: TrackingStore
    target: Callable[[], Target]
    scratch: Path

    def news(self, run: Run, parcel: Received) -> None:
        """What was logged into the run by now: parameters, tags and points.  May be repeated."""
        from runproj.tracking.store import SqlStore

        told = _told(parcel.folder / "told.json")
        with self._copy(parcel.record / SNAPSHOT) as path, contextlib.closing(SqlStore(path)) as store:
            there = store.get_run(run.id)
            params = tuple(param for param in there.params if param not in run.params)
            tags = tuple(tag for tag in there.tags if tag not in run.tags)
            if params or tags:
                self.tracking.update(run.id, RunChanges(params=params, tags=tags))
            for key in (metric.key for metric in there.metrics):
                while points := store.history_page(run.id, key, _MOST, told.get(key, 0)):
                    self.tracking.update(run.id, RunChanges(metrics=tuple(points)))
                    told[key] = told.get(key, 0) + len(points)
        atomic_write(parcel.folder / "told.json", to_json(told))

    def bring(self, run: Run, parcel: Received) -> str:
        """All of it: runs, points, files, models.  May be repeated, also after it was killed.  Returns what went wrong.

        Does nothing where the executor recorded into the store itself, or never began.
        """
        from runproj.artifacts import open_artifacts
        from runproj.tracking.full import FullStore
        from runproj.transfer.engine import Transfer, Wishes
        from runproj.transfer.journal import Entry, Journal
        from runproj.transfer.ours import OurStore

        if not (parcel.record / RECORD).exists():
            return ""
        target = self.target()
        if not target.keeps_ids:
            self.tracking.update(run.id, RunChanges(tags=(Tag(ORIGIN, run.id),)))
        with self._copy(parcel.record / RECORD) as path, contextlib.closing(FullStore(path)) as store:
            uri = f"sqlite:///{path}"
            last = _held_back(run, store)
            files = open_artifacts(uri, home=path.parent, environ={}, place=str(parcel.record / ARTIFACTS))
            with Journal(parcel.folder, "record", target.name) as known:
                if known.find("run", run.id) is None:  # it is no other run of that id that the store has: it is this one
                    known.add(Entry("", "", ItemMoved("run", run.id, run.id, "begun")))
                report = Transfer(OurStore(store, files, f"record of {run.id}"), target, known, _Silent(), Wishes()).move()
        if last is not None:
            self.tracking.update(run.id, last)
        return _problems(report)

    @contextlib.contextmanager
    def _copy(self, database: Path) -> Iterator[Path]:
        """A database that nobody else writes; what was not written to its end does not count in it."""
        self.scratch.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.scratch, prefix=".record-") as folder:
            path = Path(folder) / "record.db"
            shutil.copyfile(database, path)
            with contextlib.suppress(FileNotFoundError):
                shutil.copyfile(f"{database}-wal", f"{path}-wal")
            yield path


def _held_back(run: Run, store: SqlStore) -> RunChanges | None:
    """The end of a run, taken out of its record: whoever sees that a run is over looks for its files, so it comes last."""
    try:
        final = store.get_run(run.id)
    except NotFoundError:  # its executor was killed before it had begun one
        return None
    if run.status.final or not final.status.final:
        return None
    store.update(run.id, RunChanges(status=RunStatus.RUNNING))
    return RunChanges(status=final.status, end=final.end)


def _told(path: Path) -> dict[str, int]:
    """How many points of each metric were taken over."""
    try:
        return from_json(dict[str, int], path.read_bytes())
    except (FileNotFoundError, DocumentError):
        return {}


def _problems(report: TransferReport) -> str:
    """What did not arrive.  Tags are not counted: the run has some that say where its job is."""
    found = [problem for item in report.items if item.state == "wrong" for problem in item.problems]
    return "; ".join(dict.fromkeys(problem for problem in found if " tags instead of " not in problem))
