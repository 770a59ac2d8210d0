"""A worker of the queue: begins runs as slots and GPUs become free, and sees how they end.

Whatever is killed, no run is lost and none runs twice at once: an executor inherits the locks of its run and of its GPUs from
the worker.  It goes on when the worker is killed, and another worker looks after it.  A run whose lock is free and that has
not ended begins again.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from runproj import proc
from runproj.backends.queue_folder import QueueFolder
from runproj.core.backend import Engine
from runproj.core.outcome import Outcome
from runproj.core.queue import Entry, QueueState, Taken, Worker, chosen
from runproj.core.run import RunStatus
from runproj.errors import StartError, UsageError
from runproj.files import Lock, LockedElsewhere
from runproj.recovery import end_processes

_SHORT, _LONG = 0.1, 0.3
"""Seconds between two looks at the queue's folder: while something runs, and else."""
_FULL = 1.0
"""Seconds after which it is read even if nothing in it has changed: locks fall without a trace."""
_ATTEMPTS = 5
"""How often a run is begun that never gets to its end."""
_TOLD = (128 + signal.SIGTERM, -signal.SIGTERM)


class Watcher(Protocol):
    """Told what a worker does."""

    def began(self, entry: Entry, gpus: Sequence[str], *, adopted: bool) -> None:
        """A run has begun, or is looked after from now on."""

    def ended(self, entry: Entry, outcome: Outcome | None) -> None:
        """A run is over; None where its record has been taken away, and tells how."""

    def returned(self, entry: Entry) -> None:
        """A run is in the queue again."""

    def left(self, entry: Entry, why: str) -> None:
        """A run cannot be taken by this worker, whatever becomes free."""

    def passing(self, *, busy: bool) -> None:
        """Time passes."""


@dataclass
class Working:
    """One worker.  stops: how often it has been asked to end, so far;  drain: it ends when it can take nothing more."""

    home: Path
    worker: Worker
    watcher: Watcher
    stops: Sequence[int]
    drain: bool = False
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    _running: dict[str, tuple[Entry, subprocess.Popen[bytes] | None]] = field(default_factory=dict)
    _refused: set[str] = field(default_factory=set)
    _seen: int = -1
    _next: float = 0.0
    _idle: bool = False
    _asked: int = 0

    def __post_init__(self) -> None:
        self._queue = QueueFolder(self.home)

    def run(self) -> None:
        """Work until it is asked to end, or, where it drains, until nothing is left.  Raises `UsageError`.

        Asked once, it begins nothing more and waits for what runs; asked again, it stops that and puts it back.
        """
        with self._registered():
            while True:
                if len(self.stops) > max(1, self._asked):  # each further time, so that none waits for its grace
                    self._stop_all()
                self._reap()
                if not self.stops:
                    self._look()
                if not self._running and (self.stops or (self.drain and self._idle)):
                    return
                self.watcher.passing(busy=bool(self._running))
                time.sleep(_SHORT if self._running or self.drain else _LONG)

    @contextlib.contextmanager
    def _registered(self) -> Iterator[None]:
        queue, worker = self._queue, self.worker
        with queue.locked():
            for other in queue.workers():
                if both := sorted({*other.gpus} & {*worker.gpus}):
                    raise UsageError(
                        f"GPU {', '.join(both)} is given out by another worker already (process {other.pid})",
                        fix="Choose others, or end that worker.",
                    )
            queue.sweep()
            lock = queue.register(worker)
        try:
            yield
        finally:
            with queue.locked():
                queue.unregister(worker.id)
            lock.release()

    # -- beginning

    def _look(self) -> None:
        """Begin what can begin, if anything has changed."""
        with contextlib.suppress(FileNotFoundError):
            seen = self._queue.root.stat().st_mtime_ns
            if seen == self._seen and time.monotonic() < self._next:
                return
            self._seen, self._next = seen, time.monotonic() + _FULL
        with self._queue.locked():
            self._take()

    def _take(self) -> None:
        queue, worker = self._queue, self.worker
        states: dict[QueueState, list[Entry]] = {state: [] for state in QueueState}
        for entry in queue.entries():
            states[queue.state(entry)].append(entry)
        running = states[QueueState.RUNNING]
        for entry in running:
            if entry.taken and entry.run not in self._running and not queue.alive(entry.taken.worker):
                self._adopt(entry)
        waiting = [entry for entry in states[QueueState.WAITING] if not entry.taken or self._again(entry)]
        for entry in waiting:
            if (why := worker.lacks(entry)) and entry.run not in self._refused:
                self._refused.add(entry.run)
                self.watcher.left(entry, why)
        slots = worker.parallel - sum(entry.slots for entry, _ in self._running.values())
        with self._free_gpus() as free:
            for entry, gpus in chosen(waiting, running, worker, max(0, slots), list(free)):
                self._begin(entry, gpus, [free[name] for name in gpus])
        self._idle = all(worker.lacks(entry) for entry in waiting)

    def _adopt(self, entry: Entry) -> None:
        """Look after a run whose worker is gone."""
        assert entry.taken is not None
        entry = replace(entry, taken=replace(entry.taken, worker=self.worker.id))
        self._queue.write(entry)
        self._running[entry.run] = entry, None
        self.watcher.began(entry, entry.taken.gpus if entry.taken else (), adopted=True)

    def _again(self, entry: Entry) -> bool:
        """Whether a run that was taken, and whose executor and worker are gone, may begin again."""
        if entry.attempts < _ATTEMPTS and (entry.requeue or not self._queue.begun(entry.run)):
            return True
        reason = "lost: its executor and its worker were killed, or the machine went down"
        outcome = Outcome(RunStatus.FAILED, 1, reason + (f", {entry.attempts} times" if entry.attempts > 1 else ""))
        self._close(entry, outcome)
        return False

    @contextlib.contextmanager
    def _free_gpus(self) -> Iterator[dict[str, Lock]]:
        """Those that no run has, locked for the block."""
        free: dict[str, Lock] = {}
        for name in self.worker.gpus:
            lock = self._queue.gpu(name)
            with contextlib.suppress(LockedElsewhere):
                lock.acquire(wait=False)
                free[name] = lock
        try:
            yield free
        finally:
            for lock in free.values():
                lock.release()

    def _begin(self, entry: Entry, gpus: tuple[str, ...], locks: Sequence[Lock]) -> None:
        queue, mine = self._queue, self._queue.lock_of(entry.run)
        try:
            mine.acquire(wait=False)
        except LockedElsewhere:
            return
        with mine:
            if entry.attempts:  # nothing of the last time may still be going on
                end_processes(entry.run, self.home / "runs")
            taken = Taken(self.worker.id, gpus, int(time.time() * 1000))
            entry = replace(entry, taken=taken, attempts=entry.attempts + 1)
            queue.write(entry)
            keep = (mine.descriptor, *(lock.descriptor for lock in locks))
            log = queue.parcel(entry.run) / "executor.log"
            try:
                process = proc.depart(entry.command, cwd=queue.root, env=self._variables(entry, gpus), log=log, keep=keep)
            except StartError as error:
                self._close(entry, Outcome(RunStatus.FAILED, error.exit_code, f"its executor could not be started: {error}"))
                return
        self._running[entry.run] = entry, process
        self.watcher.began(entry, gpus, adopted=False)

    def _variables(self, entry: Entry, gpus: tuple[str, ...]) -> dict[str, str]:
        """Those of an executor: the worker's own, those that came with the run, and its GPUs."""
        ours = (Engine.ENDS, Engine.TOLD, Engine.REQUEUED, Engine.GPUS)  # of a job that the worker itself may be in
        variables = {name: value for name, value in self.environ.items() if name not in ours} | dict(entry.variables)
        if entry.requeue:
            variables[Engine.REQUEUED] = "1"
        if self.worker.gpus or entry.gpus is not None:
            variables |= {"CUDA_VISIBLE_DEVICES": ",".join(gpus), Engine.GPUS: ",".join(gpus)}
            variables.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # in which nvidia-smi counts them
        return variables

    # -- ending

    def _stop_all(self) -> None:
        self._asked = len(self.stops)
        for entry, process in self._running.values():
            found = [process.pid] if process else proc.running("execute-parcel", str(self._queue.parcel(entry.run)))
            proc.send(found, signal.SIGTERM)

    def _reap(self) -> None:
        """See which runs are over."""
        for run, (entry, process) in list(self._running.items()):
            code = process.poll() if process else None
            if process and code is None:
                continue
            with self._queue.locked():
                if not process and self._queue.held(run):
                    continue
                del self._running[run]
                self._seen = -1
                self._settle(entry, code)

    def _settle(self, entry: Entry, code: int | None) -> None:
        """A run whose executor is gone.  code: that of the executor, negative for a signal; None where nobody saw it."""
        queue, run = self._queue, entry.run
        outcome = queue.outcome(run)
        if outcome or queue.given_up(run) or not queue.parcel(run).exists():
            if outcome is None and queue.given_up(run):
                outcome = Outcome(RunStatus.KILLED, 128 + signal.SIGTERM, "stopped")
            elif outcome is None and code == 0:
                outcome = Outcome(RunStatus.FINISHED, 0)
            queue.remove(run)
            self.watcher.ended(entry, outcome)
            return
        entry = queue.entry(run) or entry  # it may have been moved
        if (code is None or code in _TOLD) and (entry.requeue or not queue.begun(run)) and entry.attempts < _ATTEMPTS:
            queue.write(replace(entry, taken=None, attempts=1 if self._asked else entry.attempts))
            self.watcher.returned(entry)
            return
        self._close(entry, Outcome(RunStatus.FAILED, _exit_code(code), f"its executor {_ended(code, queue.parcel(run))}"))

    def _close(self, entry: Entry, outcome: Outcome) -> None:
        """Say how a run ended whose executor cannot."""
        self._queue.write(replace(entry, taken=None, ending=outcome))
        self.watcher.ended(entry, outcome)


def _exit_code(code: int | None) -> int:
    """That of the run, for that of its executor, which is negative for a signal, and None where nobody saw it."""
    return 128 - code if code and code < 0 else code or 1


def _ended(code: int | None, parcel: Path) -> str:
    """How an executor ended that recorded nothing."""
    if code is None:
        return "is gone"
    if code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    said = ""
    with contextlib.suppress(OSError):
        said = (parcel / "executor.log").read_text(errors="replace").strip()[-500:]
    return f"ended with exit code {code} and recorded nothing" + (f": {said}" if said else "")
