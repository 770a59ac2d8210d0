"""This machine: the executor runs in this process, or, detached, in one of its own."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from runproj import proc
from runproj.codec import to_json
from runproj.core.backend import Job, JobHandle, JobState
from runproj.core.environment import EnvPlace
from runproj.core.project import Resources
from runproj.errors import BackendError, NotFoundError
from runproj.files import atomic_write
from runproj.leases import Lease, LeaseInfo, Leases
from runproj.settings import parse_size

_POLL = 0.1


@dataclass(frozen=True)
class LocalBackend:
    """Runs jobs here.  `execute` executes a job in this process and returns when it has ended."""

    leases: Leases
    runs: Path
    execute: Callable[[Job], None]

    def check(self, place: EnvPlace, resources: Resources) -> None:
        del place  # both: whether there is an engine for images has been found out by who pinned one
        for what, asked, there in _needs(resources):
            if asked > there:
                raise BackendError(
                    f"The entry point needs more {what} than this machine has: {asked:g}, not {there:g}",
                    fix="Run it on a larger machine, or ask for less under 'resources:' of the descriptor.",
                )

    def submit(self, job: Job) -> JobHandle:
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
        return JobHandle("local", job.run_id, socket.gethostname())

    def status(self, handles: Sequence[JobHandle]) -> Sequence[JobState]:
        held = {info.run_id: info for info in self.leases.all()}
        return [self._state(handle, held.get(handle.id)) for handle in handles]

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
            if info.run_id == handle.id:
                if info.host != socket.gethostname():
                    raise BackendError(f"The run is on {info.host}", fix=f"Run `runproj runs stop {handle.id[:8]}` there.")
                if info.process.alive:
                    proc.send([info.process.pid], signal.SIGTERM)

    def logs(self, handle: JobHandle, *, follow: bool) -> Iterator[bytes]:
        path = self.runs / handle.id / "logs" / "stdout.log"
        return follow_file(path, lambda: follow and self.status([handle])[0] is JobState.RUNNING)


def _needs(resources: Resources) -> Iterator[tuple[str, float, float]]:
    """What is needed, how much of it was asked for, and how much this machine has."""
    if resources.nodes:
        yield "nodes", resources.nodes, 1
    if resources.cpus:
        yield "CPUs", resources.cpus, len(os.sched_getaffinity(0))
    if resources.gpus:
        yield "GPUs", resources.gpus, len(list(Path("/proc/driver/nvidia/gpus").glob("*")))
    if resources.memory:
        yield "bytes of memory", parse_size(resources.memory), os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def follow_file(path: Path, going_on: Callable[[], bool]) -> Iterator[bytes]:
    """What is in a file and what comes, until `going_on` says no; a file that is moved when it is complete is read to its end."""
    while True:
        more_may_come = going_on()
        try:
            file = path.open("rb")
            break
        except FileNotFoundError:
            if not more_may_come:
                return
            time.sleep(_POLL)
    with file:
        while True:
            more_may_come = going_on()
            while data := file.read(1 << 16):
                yield data
            if not more_may_come:
                return
            time.sleep(_POLL)
