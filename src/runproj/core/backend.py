"""Job and JobHandle: what a backend may know, and how any process finds a job again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Protocol

from runproj.core.environment import EnvPlace
from runproj.core.project import Resources


@dataclass(frozen=True)
class Job:
    """One execution of the executor.

    token:  the lease of the run, held by the process that submits.
    folder: holds the plan and whatever the executor writes; it exists.
    """

    run_id: str
    token: str
    folder: Path
    resources: Resources
    attached: bool = True
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class JobHandle:
    """Plain data, stored on the run: any process can follow or stop the job with it."""

    backend: str
    id: str
    host: str = ""


class JobState(Enum):
    PENDING = "pending"
    RUNNING = "running"
    ENDED = "ended"
    LOST = "lost"  # its supervisor vanished without closing the run
    UNKNOWN = "unknown"  # on another machine, or the engine does not answer: no reason to call it dead


class Backend(Protocol):
    """Starts executors somewhere.  Sees only a Job."""

    def check(self, place: EnvPlace, resources: Resources) -> None:
        """Raise `BackendError` if such a job can never run here.  Starts nothing."""

    def submit(self, job: Job) -> JobHandle:
        """Start the executor.  On return the job will run, or has run, even if this process dies now (unless attached)."""

    def status(self, handles: Sequence[JobHandle]) -> Sequence[JobState]:
        """The state of many jobs in one query, in their order."""

    def cancel(self, handle: JobHandle) -> None:
        """Ask the executor to stop its job; it closes the run as KILLED.  Does nothing where the job has ended."""

    def logs(self, handle: JobHandle, *, follow: bool) -> Iterator[bytes]:
        """The job's output so far; with `follow`, until it ends."""
