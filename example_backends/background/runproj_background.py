"""A backend for runproj in a package of its own: each job is a process in the background of this machine."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from runproj.backends.catalogue import BackendContext
from runproj.backends.shared import follow_file
from runproj.core.backend import Demand, Job, JobHandle, JobState, JobStatus, Option, OptionKind
from runproj.errors import BackendError


class Background:
    options = (Option("nice", OptionKind.NUMBER, "Niceness of the process, 0 to 19."),)
    elsewhere = True
    batches = False

    def __init__(self, home: Path) -> None:
        self.home = home

    def check(self, demand: Demand) -> None:
        if (demand.resources.nodes or 1) > 1:
            raise BackendError("A process in the background cannot have several nodes", fix="Leave out 'nodes'.")

    def submit(self, jobs: Sequence[Job], *, at_once: int | None = None) -> Sequence[JobHandle]:
        del at_once  # nothing here waits
        return [self._start(job) for job in jobs]

    def _start(self, job: Job) -> JobHandle:
        log = (job.parcel.folder / "executor.log").open("ab")
        command = ["nice", "-n", str(job.demand.options.get("nice", 0)), *job.parcel.command]
        process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True)
        (job.parcel.folder / "pid").write_text(str(process.pid))
        return JobHandle("background", str(process.pid), os.uname().nodename, job.run_id)

    def status(self, handles: Sequence[JobHandle]) -> Sequence[JobStatus]:
        return [JobStatus(JobState.RUNNING if self._alive(handle) else JobState.ENDED) for handle in handles]

    def _pid(self, handle: JobHandle) -> int:
        with contextlib.suppress(OSError, ValueError):  # a job whose handle was never written is found by its run
            return int(handle.id or (self.home / "parcels" / handle.run_id / "pid").read_text())
        return 0

    def _alive(self, handle: JobHandle) -> bool:
        with contextlib.suppress(ChildProcessError, OSError):  # one of our own would stay a zombie
            os.waitpid(self._pid(handle), os.WNOHANG)
        with contextlib.suppress(OSError):  # a pid that is used again is not ours
            return handle.run_id.encode() in Path(f"/proc/{self._pid(handle)}/cmdline").read_bytes()
        return False

    def cancel(self, handle: JobHandle) -> None:
        if self._alive(handle):
            os.kill(self._pid(handle), signal.SIGTERM)

    def logs(self, handle: JobHandle, *, stream: str = "stdout", follow: bool = False) -> Iterator[bytes]:
        path = self.home / "runs" / handle.run_id / "logs" / f"{stream}.log"
        return follow_file(path, lambda: follow and self._alive(handle))

    def collect(self, handle: JobHandle, into: Path) -> None:
        """The executor wrote there itself."""


def make(context: BackendContext) -> Background:
    return Background(context.home)
