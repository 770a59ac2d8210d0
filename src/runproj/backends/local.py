"""This machine: the executor runs in this process, or, detached, in one of its own."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from runproj import leftovers, proc
from runproj.backends.shared import follow_file
from runproj.codec import to_json
from runproj.core.backend import Demand, Job, JobHandle, JobState, JobStatus, Option
from runproj.core.outcome import Outcome
from runproj.core.project import Resources
from runproj.core.run import RunStatus
from runproj.core.values import dataclass
from runproj.errors import BackendError, NotFoundError
from runproj.files import atomic_write
from runproj.leases import Lease, LeaseInfo, Leases
from runproj.settings import parse_size


@dataclass(frozen=True)
class LocalBackend:
    """Runs jobs here.  `execute` executes a job in this process and returns when it has ended."""

    leases: Leases
    runs: Path
    execute: Callable[[Job], None]
    options: tuple[Option, ...] = ()
    elsewhere: bool = False
    batches: bool = False

    def check(self, demand: Demand) -> None:
        # host or image: whether there is an engine for images has been found out by who pinned one
        for what, asked, there in needs(demand.resources):
            if asked > there:
                raise BackendError(
                    f"The entry point needs more {what} than this machine has: {asked:g}, not {there:g}",
                    fix="Run it on a larger machine, or ask for less under 'resources:' of the descriptor.",
                )

    def submit(self, jobs: Sequence[Job], *, at_once: int | None = None) -> Sequence[JobHandle]:
        del at_once  # attached jobs run one after another; the others are as many as there are
        return [self._submit(job) for job in jobs]

    def _submit(self, job: Job) -> JobHandle:
        if job.attached:
            self.execute(job)
            return self._handle(job)
        lease = self.leases.mine(job.token)
        if job.secrets:
            atomic_write(job.folder / "secrets.json", to_json(dict(job.secrets)), mode=0o600)
        command = [sys.executable, "-m", "runproj.cli.main", "execute-job", lease.info.token, str(lease.descriptor)]
        environment = {**os.environ, "RUNPROJ_HOME": str(self.leases.folder.parent)}
        log = job.folder / "supervisor.log"
        pid = proc.detach(command, cwd=job.folder, env=environment, log=log, keep=(lease.descriptor,))
        try:
            self._await_start(lease, pid, log)
        except BaseException:
            proc.end_tree([pid], grace=5)
            raise
        lease.hand_over()
        return self._handle(job)

    def _await_start(self, lease: Lease, pid: int, log: Path) -> None:
        """Return when the executor holds the lease, or has even ended it."""
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            alive = proc.start_time(pid) is not None
            try:
                if self.leases.read(lease.info.token).process != lease.info.process:
                    return
            except NotFoundError:
                return
            if not alive:
                break
            time.sleep(0.02)
        raise BackendError("The detached executor did not start", why=log.read_text(errors="replace")[-2000:])

    @staticmethod
    def _handle(job: Job) -> JobHandle:
        return JobHandle("local", job.run_id, socket.gethostname(), job.run_id)

    def status(self, handles: Sequence[JobHandle]) -> Sequence[JobStatus]:
        held = {info.run_id: info for info in self.leases.all()}
        return [JobStatus(self._state(handle, held.get(_run_id(handle)))) for handle in handles]

    @staticmethod
    def _state(handle: JobHandle, info: LeaseInfo | None) -> JobState:
        here = socket.gethostname()
        if info is None:
            return JobState.ENDED if handle.host in ("", here) else JobState.UNKNOWN
        if info.host != here:
            return JobState.UNKNOWN
        return JobState.RUNNING if info.process.alive else JobState.LOST

    def cancel(self, handle: JobHandle) -> None:
        for info in self.leases.all():
            if info.run_id == _run_id(handle):
                if info.host != socket.gethostname():
                    raise BackendError(f"The run is on {info.host}", fix=f"Run `runproj runs stop {info.run_id[:8]}` there.")
                if info.process.alive:
                    folder = self.runs / info.run_id
                    if not leftovers.has_begun(folder):  # it may end before it can record why
                        stopped = Outcome(RunStatus.KILLED, 128 + signal.SIGTERM, "stopped before it began")
                        leftovers.leave_outcome(folder, stopped)
                    proc.send([info.process.pid], signal.SIGTERM)

    def logs(self, handle: JobHandle, *, stream: str = "stdout", follow: bool = False) -> Iterator[bytes]:
        path = self.runs / _run_id(handle) / "logs" / f"{stream}.log"
        return follow_file(path, lambda: follow and self.status([handle])[0].state is JobState.RUNNING)

    def collect(self, handle: JobHandle, into: Path) -> None:
        """Nothing is to be brought: the executor records by itself."""


def _run_id(handle: JobHandle) -> str:
    """Handles of older records have it as the id of the job."""
    return handle.run_id or handle.id


def needs(resources: Resources) -> Iterator[tuple[str, float, float]]:
    """What is needed, how much of it was asked for, and how much this machine has."""
    if resources.nodes:
        yield "nodes", resources.nodes, 1
    if resources.cpus:
        yield "CPUs", resources.cpus, len(os.sched_getaffinity(0))
    if resources.gpus:
        yield "GPUs", resources.gpus, len(list(Path("/proc/driver/nvidia/gpus").glob("*")))
    if resources.memory:
        yield "bytes of memory", parse_size(resources.memory), os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
