"""The queue on disk: `HOME/queue/`.  All changes are made under one lock; locks that die with their holder say who runs what.

RUN.json     an entry, for the owner's eyes only: it may hold values of variables
RUN.lock     held by the run's executor, which inherited it from the worker that began it
gpus/ID.lock held by the executor that has this GPU
workers/     ID.json and ID.lock, held by the worker
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from runproj.codec import DocumentError, from_json, to_json
from runproj.core.outcome import Outcome
from runproj.core.queue import Entry, QueueEntry, QueueList, QueueState, Worker, in_line, why_waiting
from runproj.files import Lock, LockedElsewhere, atomic_write

T = TypeVar("T")

_MODE = 0o600


class QueueFolder:
    """The queue of one home."""

    def __init__(self, home: Path) -> None:
        self.root = home / "queue"
        self._home = home
        self._known: dict[str, tuple[tuple[int, int], Entry]] = {}

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody else looks at it or changes it."""
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        with Lock(self.root / ".lock"):
            yield

    # -- entries

    def entries(self) -> list[Entry]:
        """All there are; those that are over, and need not be told of, are dropped."""
        found, seen = [], {}
        for path in self.root.glob("*.json"):
            with contextlib.suppress(FileNotFoundError, DocumentError):
                status = path.stat()
                stamp = (status.st_mtime_ns, status.st_ino)
                known = self._known.get(path.stem)
                entry = known[1] if known and known[0] == stamp else from_json(Entry, path.read_bytes())
                seen[path.stem] = stamp, entry
                found.append(entry)
        self._known = seen
        return [entry for entry in found if not self._dropped(entry)]

    def entry(self, run: str) -> Entry | None:
        return _read(Entry, self.root / f"{run}.json")

    def write(self, entry: Entry) -> None:
        atomic_write(self.root / f"{entry.run}.json", to_json(entry), mode=_MODE)

    def remove(self, run: str) -> None:
        """Take an entry out that nobody runs."""
        (self.root / f"{run}.json").unlink(missing_ok=True)
        self.lock_of(run).path.unlink(missing_ok=True)

    def sweep(self) -> None:
        """Remove the locks of runs that are not in the queue any more, and what was not written to its end."""
        for path in self.root.glob(".*.tmp"):
            path.unlink(missing_ok=True)
        for path in self.root.glob("*.lock"):
            if path.name != ".lock" and not path.with_suffix(".json").exists() and not self.held(path.stem):
                path.unlink(missing_ok=True)

    def last(self, priority: int, *, first: bool = False) -> int:
        """The `order` of one that comes after all others of its priority, or before them."""
        orders = [entry.order for entry in self.entries() if entry.priority == priority]
        if first:
            return min(orders, default=time.time_ns()) - 1
        return max([*orders, time.time_ns() - 1]) + 1

    def _dropped(self, entry: Entry) -> bool:
        """Drop an entry that is over, unless whoever brings its record here has not heard how it ended."""
        there = self.parcel(entry.run).exists()
        if self.state(entry) is not QueueState.ENDED or (entry.ending and there):
            return False
        if not self.held(entry.run):
            self.remove(entry.run)
        return True

    # -- runs

    def parcel(self, run: str) -> Path:
        return self._home / "parcels" / run

    def lock_of(self, run: str) -> Lock:
        """Held while the run is executed."""
        return Lock(self.root / f"{run}.lock")

    def gpu(self, name: str) -> Lock:
        """Held while a run has that GPU."""
        digest = hashlib.sha256(name.encode()).hexdigest()[:16]
        return Lock(self.root / "gpus" / (f"{name}.lock" if name.isalnum() else f"{digest}.lock"))

    def held(self, run: str) -> bool:
        """Whether an executor is at it."""
        return _held(self.lock_of(run))

    def outcome(self, run: str) -> Outcome | None:
        """How the run ended, where its record is complete and was not taken away yet."""
        return _read(Outcome, self.parcel(run) / "record" / "ended.json")

    def begun(self, run: str) -> bool:
        """Whether an executor has begun with it."""
        return (self.parcel(run) / "record" / "begun").exists()

    def given_up(self, run: str) -> bool:
        return (self.parcel(run) / "given-up").exists()

    def state(self, entry: Entry) -> QueueState:
        """What becomes of it just now."""
        parcel = self.parcel(entry.run)
        if entry.ending or not parcel.exists() or (parcel / "record" / "ended.json").exists():
            return QueueState.ENDED
        if entry.taken and self.held(entry.run):
            return QueueState.RUNNING
        if self.given_up(entry.run):
            return QueueState.ENDED
        if entry.taken and self.alive(entry.taken.worker):  # which will say in a moment what became of it
            return QueueState.RUNNING
        return QueueState.WAITING

    # -- workers

    def register(self, worker: Worker) -> Lock:
        """Say that a worker is there, as long as it holds what is returned."""
        lock = self._worker_lock(worker.id)
        lock.acquire()
        atomic_write(self.root / "workers" / f"{worker.id}.json", to_json(worker))
        return lock

    def workers(self) -> list[Worker]:
        """Those that are there, the oldest first; what others left is removed."""
        found = []
        for path in (self.root / "workers").glob("*.json"):
            if not self.alive(path.stem):
                self.unregister(path.stem)
            elif (worker := _read(Worker, path)) is not None:
                found.append(worker)
        return sorted(found, key=lambda worker: (worker.started, worker.id))

    def unregister(self, worker: str) -> None:
        (self.root / "workers" / f"{worker}.json").unlink(missing_ok=True)
        self._worker_lock(worker).path.unlink(missing_ok=True)

    def alive(self, worker: str) -> bool:
        return _held(self._worker_lock(worker))

    def _worker_lock(self, worker: str) -> Lock:
        return Lock(self.root / "workers" / f"{worker}.lock")

    # -- for people

    def listed(self) -> QueueList:
        """All that run, and all that wait, in the order in which they will begin."""
        workers, entries = self.workers(), self.entries()
        states = {entry.run: self.state(entry) for entry in entries}
        running = [entry for entry in entries if states[entry.run] is QueueState.RUNNING]
        running.sort(key=lambda entry: (entry.taken.since if entry.taken else 0, entry.run))
        waiting = in_line(entry for entry in entries if states[entry.run] is QueueState.WAITING)
        return QueueList((*map(_running, running), *_waiting(waiting, workers)), tuple(workers))


def _running(entry: Entry) -> QueueEntry:
    assert entry.taken is not None
    taken = entry.taken
    return replace(_shown(entry, QueueState.RUNNING), gpus=taken.gpus, worker=taken.worker, since=taken.since)


def _waiting(entries: Iterable[Entry], workers: Sequence[Worker]) -> Iterator[QueueEntry]:
    for position, entry in enumerate(entries, 1):
        yield replace(_shown(entry, QueueState.WAITING), position=position, waits=why_waiting(entry, workers))


def _shown(entry: Entry, state: QueueState) -> QueueEntry:
    return QueueEntry(entry.run, entry.name, state, entry.priority, entry.slots, entry.submitted, needs=entry.gpus)


def _held(lock: Lock) -> bool:
    """Whether somebody holds it.  To be asked under the queue's lock, since asking takes it for a moment."""
    if not lock.path.exists():
        return False
    try:
        lock.acquire(wait=False)
    except LockedElsewhere:
        return True
    lock.release()
    return False


def _read(kind: type[T], path: Path) -> T | None:
    try:
        return from_json(kind, path.read_bytes())
    except (FileNotFoundError, DocumentError):
        return None
