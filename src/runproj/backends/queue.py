"""The queue of this machine: a run waits in a folder until a worker (`runproj worker`) starts its executor."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from runproj import proc
from runproj.backends.catalogue import BackendContext
from runproj.backends.local import needs
from runproj.backends.queue_folder import QueueFolder
from runproj.backends.shared import follow_file
from runproj.core.backend import Demand, Job, JobHandle, JobState, JobStatus, Option, OptionKind
from runproj.core.queue import Entry, QueueState, Worker, why_waiting
from runproj.errors import BackendError, UsageError

_PASSED_ON = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "SSL_CERT_FILE")
"""Variables that a run has from the shell that submitted it; all others are its worker's."""


class QueueBackend:
    """See `runproj.core.backend.Backend`."""

    elsewhere = True
    batches = False
    options = (
        Option("priority", OptionKind.NUMBER, "Runs of a higher one come first; 0 by default, and it may be negative."),
        Option("slots", OptionKind.NUMBER, "How many of its worker's slots the run takes; 1 by default."),
        Option("requeue", OptionKind.FLAG, "Whether the run begins again that ended with its worker; true by default."),
        Option("variables", OptionKind.LIST, "Names of variables of this shell that the run gets too."),
    )

    def __init__(self, context: BackendContext) -> None:
        self._home, self._environ = context.home, context.environ
        self._queue = QueueFolder(context.home)

    def check(self, demand: Demand) -> None:
        for what, asked, there in needs(demand.resources):
            if asked > there and what != "GPUs":
                raise BackendError(
                    f"The run needs more {what} than this machine has: {asked:g}, not {there:g}",
                    fix="Ask for less, or choose another backend.",
                )
        entry = _entry(demand)
        if not self._queue.root.exists():
            return
        with self._queue.locked():
            workers = self._queue.workers()
        if workers and (why := why_waiting(entry, workers)):
            raise BackendError(
                f"No worker of the queue can take this run: {why}",
                fix="Ask for less, or start a worker with more: runproj worker --parallel N --gpus 0,1",
            )

    def submit(self, jobs: Sequence[Job], *, at_once: int | None = None) -> Sequence[JobHandle]:
        variables = self._variables(jobs[0].demand)
        ready = [(job, job.parcel.command) for job in jobs]
        group = jobs[0].run_id if at_once else ""
        with self._queue.locked():
            for job, command in ready:
                if self._queue.entry(job.run_id) is None:
                    self._put(job, command, variables, group, at_once)
        return [JobHandle("queue", job.run_id, run_id=job.run_id) for job in jobs]

    def _put(self, job: Job, command: tuple[str, ...], variables: Mapping[str, str], group: str, at_once: int | None) -> None:
        order = time.time_ns()
        asked = replace(_entry(job.demand), order=order, submitted=order // 1_000_000, group=group, at_once=at_once)
        self._queue.write(replace(asked, run=job.run_id, name=job.name, command=command, variables=variables))

    def _variables(self, demand: Demand) -> dict[str, str]:
        wanted = (*_PASSED_ON, *demand.options.get("variables", ()))
        return {name: self._environ[name] for name in wanted if name in self._environ}

    def status(self, handles: Sequence[JobHandle]) -> Sequence[JobStatus]:
        queue = self._queue
        with queue.locked():
            workers = queue.workers()
            found = {entry.run: (entry, queue.state(entry)) for entry in queue.entries()}
        return [_status(found.get(handle.run_id), workers) for handle in handles]

    def cancel(self, handle: JobHandle) -> None:
        queue, run = self._queue, handle.run_id
        with queue.locked():
            entry = queue.entry(run)
            if entry is None:
                return
            state = queue.state(entry)
            if state is not QueueState.RUNNING:
                if not entry.ending:
                    queue.remove(run)
                return
        proc.send(proc.running("execute-parcel", str(queue.parcel(run))), signal.SIGTERM)

    def logs(self, handle: JobHandle, *, stream: str = "stdout", follow: bool = False) -> Iterator[bytes]:
        path = self._home / "runs" / handle.run_id / "logs" / f"{stream}.log"
        parcel = self._queue.parcel(handle.run_id)

        def going_on() -> bool:  # the parcel goes when the run has been closed
            return follow and parcel.exists() and not (parcel / "record" / "ended.json").exists()

        return follow_file(path, going_on)

    def collect(self, handle: JobHandle, into: Path) -> None:
        """The executor wrote there itself."""


def _status(found: tuple[Entry, QueueState] | None, workers: Sequence[Worker]) -> JobStatus:
    """What is said of a run.  It runs on this machine: whatever its executor wrote is seen here."""
    if found is None:  # taken out, or ended and recorded; or it never came here
        return JobStatus(JobState.LOST, seen=True)
    entry, state = found
    match state:
        case QueueState.WAITING:
            return JobStatus(JobState.PENDING, note=why_waiting(entry, workers) or "its turn in the queue")
        case QueueState.RUNNING:
            return JobStatus(JobState.RUNNING)
        case QueueState.ENDED:
            return JobStatus(JobState.ENDED, outcome=entry.ending, seen=True)


def _entry(demand: Demand) -> Entry:
    """What a demand comes to here, of a run that is not known yet.  Raises `UsageError` where it has no meaning."""
    options, gpus = demand.options, demand.resources.gpus
    slots, priority = _whole(options, "slots", 1), _whole(options, "priority", 0)
    if slots < 1 or (gpus or 0) < 0:
        raise UsageError("A run in the queue takes one slot or more, and no fewer than 0 GPUs")
    again = bool(options.get("requeue", True))
    return Entry("", "", 0, 0, (), priority=priority, slots=slots, gpus=gpus, requeue=again)


def _whole(options: Mapping[str, Any], name: str, usual: int) -> int:
    value = options.get(name, usual)
    if value != int(value):
        raise UsageError(f"The option {name!r} of the backend 'queue' is a whole number, not {value!r}")
    return int(value)


def make(context: BackendContext) -> QueueBackend:
    """See `runproj.backends.catalogue`."""
    return QueueBackend(context)
