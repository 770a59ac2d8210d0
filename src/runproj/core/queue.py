"""The queue of one machine: what waits in it, who takes from it, and who is next."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field
from enum import Enum

from runproj.core.outcome import Outcome
from runproj.core.values import dataclass


@dataclass(frozen=True)
class Taken:
    """By whom a run was taken.  gpus: ids of those that it was given;  since: in milliseconds since the epoch."""

    worker: str
    gpus: tuple[str, ...]
    since: int


@dataclass(frozen=True)
class Entry:
    """A run in the queue.

    order:     among those of one priority the lowest is first;  submitted: in milliseconds since the epoch;
    slots, gpus: what it takes of its worker; without a word about GPUs it gets one where there are any;
    requeue:   it begins again where its executor vanished with its worker, or both were told to end;
    group, at_once: it was submitted with others, of which so many may run at a time;
    command:   starts its executor, with `variables` beside those of the worker;
    attempts:  how often it was begun;  ending: how it ended, where its executor could not say so.
    """

    run: str
    name: str
    order: int
    submitted: int
    command: tuple[str, ...]
    priority: int = 0
    slots: int = 1
    gpus: int | None = None
    requeue: bool = True
    group: str = ""
    at_once: int | None = None
    variables: Mapping[str, str] = field(default_factory=dict, repr=False)
    taken: Taken | None = None
    attempts: int = 0
    ending: Outcome | None = None


@dataclass(frozen=True)
class Worker:
    """Takes runs from the queue.  parallel: its slots;  gpus: ids of those that it gives to runs, one run each at a time."""

    id: str
    pid: int
    parallel: int
    gpus: tuple[str, ...] = ()
    started: int = 0

    def gpus_for(self, entry: Entry) -> int:
        """How many a run gets."""
        return entry.gpus if entry.gpus is not None else min(1, len(self.gpus))

    def lacks(self, entry: Entry) -> str:
        """What a run needs that this worker never has, in words; empty where it can take it."""
        if entry.slots > self.parallel:
            return f"{entry.slots} slots, and the worker has {self.parallel}"
        if self.gpus_for(entry) > len(self.gpus):
            return f"{_count(self.gpus_for(entry), 'GPU')}, and the worker has {len(self.gpus) or 'none'}"
        return ""


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def in_line(entries: Iterable[Entry]) -> list[Entry]:
    """Highest priority first, then first come."""
    return sorted(entries, key=lambda entry: (-entry.priority, entry.order, entry.run))


def chosen(
    waiting: Iterable[Entry], running: Sequence[Entry], worker: Worker, slots: int, gpus: Sequence[str]
) -> list[tuple[Entry, tuple[str, ...]]]:
    """What a worker begins now, with so many slots and these GPUs free; each with the GPUs it gets.

    Who is first in line and needs more than is free keeps what there is, so that nobody behind it delays it; what it does not
    need is for those behind it.
    """
    free, taken = list(gpus), []
    groups = [entry.group for entry in running if entry.group]
    for entry in in_line(waiting):
        full = entry.at_once is not None and groups.count(entry.group) >= entry.at_once
        if worker.lacks(entry) or full:
            continue
        count = worker.gpus_for(entry)
        given, free = free[:count], free[count:]
        if entry.slots <= slots and len(given) == count:
            taken.append((entry, tuple(given)))
            groups.append(entry.group)
        slots = max(0, slots - entry.slots)
    return taken


class QueueState(Enum):
    WAITING = "waiting"
    RUNNING = "running"
    ENDED = "ended"


@dataclass(frozen=True)
class QueueEntry:
    """A run in the queue, as it is shown.

    position: 1 is the next;  waits: why it cannot begin, where it is not its turn alone;
    needs:    how many GPUs it asks for, None where it says nothing;  gpus: ids of those that it has;
    worker:   who runs it.
    """

    run: str
    name: str
    state: QueueState
    priority: int
    slots: int
    submitted: int
    position: int | None = None
    waits: str = ""
    needs: int | None = None
    gpus: tuple[str, ...] = ()
    worker: str = ""
    since: int | None = None


@dataclass(frozen=True)
class QueueList:
    """`queue list`, and what `queue move` and `queue remove` left."""

    entries: tuple[QueueEntry, ...]
    workers: tuple[Worker, ...]


def why_waiting(entry: Entry, workers: Sequence[Worker]) -> str:
    """Why a run is not begun, for people; empty where it waits for its turn."""
    if not workers:
        return "no worker runs (`runproj worker` starts one)"
    lacking = [worker.lacks(entry) for worker in workers]
    return f"it needs {lacking[0]}" if all(lacking) else ""
