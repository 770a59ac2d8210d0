"""Job and JobHandle: what a backend may know, and how any process finds a job again."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field, fields, replace
from enum import Enum
from pathlib import Path
from typing import Any, Protocol

from runproj.core.environment import DockerSpec, EnvPlace
from runproj.core.outcome import Outcome
from runproj.core.project import Resources
from runproj.core.values import dataclass
from runproj.errors import UsageError


class OptionKind(Enum):
    TEXT = "text"
    NUMBER = "number"
    FLAG = "flag"
    LIST = "list"
    TABLE = "table"


@dataclass(frozen=True)
class Option:
    """Something that a backend lets be said in `--backend-config` or a profile, beside the names of `Resources`."""

    name: str
    kind: OptionKind
    help: str


@dataclass(frozen=True)
class Demand:
    """What a job asks of a backend.

    options: the backend's own, found to be of their kind;  timeout: in seconds;
    image: of an environment that is an image, by digest or id;  asked: what its project asks for beside it;
    arguments: what the user asks of its container (`-A`).
    """

    place: EnvPlace = EnvPlace.HOST
    resources: Resources = field(default_factory=Resources)
    options: Mapping[str, Any] = field(default_factory=dict)
    timeout: float | None = None
    image: str = ""
    asked: DockerSpec | None = None
    arguments: tuple[str, ...] = ()


class Parcel(Protocol):
    """What an executor elsewhere needs: plan, run and secrets in a folder, which gets the record while it runs.

    folder:  `record/` in it is where the executor writes; it is all that has to come back;
    command: starts the executor with the parcel, on a machine that sees this home under the same path.
    """

    @property
    def folder(self) -> Path: ...

    @property
    def command(self) -> tuple[str, ...]: ...

    def complete(self, most: int | None = None) -> Path:
        """Add the code, for a machine that does not see this home; returns the folder, which is then all that is needed.

        most: bytes that there is room for; where the code is larger, its history stays behind, and then the code itself, which
        the executor gets from its remote.  Code that is only here is added in any case.
        There: `python -m runproj execute-parcel FOLDER`.  Raises `SourceError`.
        """


@dataclass(frozen=True)
class Job:
    """One execution of the executor.

    token:  the lease of the run, held by the process that submits;
    folder: of the run, in this home: holds the plan, and the logs while it runs; it exists;
    grace:  seconds between being asked to end and being killed.
    """

    run_id: str
    token: str
    folder: Path
    parcel: Parcel
    name: str = ""
    demand: Demand = field(default_factory=Demand)
    grace: float = 10.0
    attached: bool = True
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class JobHandle:
    """Plain data, stored on the run: any process can follow or stop the job with it.

    id:      what the engine calls the job; empty where it is not known whether it was submitted: `status` finds out by `run_id`;
    details: what else the backend needs to find it (address, namespace, folder), no secrets.
    """

    backend: str
    id: str
    host: str = ""
    run_id: str = ""
    details: Mapping[str, str] = field(default_factory=dict)


class JobState(Enum):
    PENDING = "pending"
    RUNNING = "running"
    ENDED = "ended"
    LOST = "lost"  # its supervisor vanished without closing the run, or the engine knows nothing of it
    UNKNOWN = "unknown"  # on another machine, or the engine does not answer: no reason to call it dead


@dataclass(frozen=True)
class JobStatus:
    """What an engine says of a job.

    note:    why it waits, for people;
    outcome: how the engine ended it (memory, time, node, cancelled); None where the executor itself knows better;
    seen:    of a job that is over: what its executor wrote is here, and nothing more will come;
    last:    what it said last, for a run of which nobody has recorded the end;
    image:   what it really ran in, where its engine starts jobs in images: by digest, or the engine's id.
    """

    state: JobState
    note: str = ""
    outcome: Outcome | None = None
    seen: bool = False
    last: str = ""
    image: str = ""


class Backend(Protocol):
    """Starts executors somewhere.  Sees only a Job.

    options:   what can be said to it;
    elsewhere: its executors are started by an engine, with a parcel; they may run on another machine, after this process is gone;
    batches:   its engine takes many jobs at once, and lets so many run at a time as it is told; where it does not, no more are
               submitted than may run;
    images:    (may be left out) its engine starts jobs in images, and `status` tells which one it really was.
    """

    @property
    def options(self) -> tuple[Option, ...]: ...

    @property
    def elsewhere(self) -> bool: ...
    @property
    def batches(self) -> bool: ...

    def check(self, demand: Demand) -> None:
        """Raise `BackendError` if such a job can never run here, or the engine cannot be used.  Starts nothing."""

    def submit(self, jobs: Sequence[Job], *, at_once: int | None = None) -> Sequence[JobHandle]:
        """Start an executor for each job, of which `at_once` may run at a time; all have the same demand.

        On return the jobs will run, or have run, even if this process dies now (unless attached).  Submitting a run
        that the engine knows already gives its handle.
        """

    def status(self, handles: Sequence[JobHandle]) -> Sequence[JobStatus]:
        """The state of many jobs in one query, in their order."""

    def cancel(self, handle: JobHandle) -> None:
        """Ask the executor to stop its job; it closes the run as KILLED.  Does nothing where the job has ended.

        A job that waits is taken out.
        """

    def logs(self, handle: JobHandle, *, stream: str = "stdout", follow: bool = False) -> Iterator[bytes]:
        """The job's output ("stdout" or "stderr") so far; with `follow`, until it ends."""

    def collect(self, handle: JobHandle, into: Path) -> None:
        """Bring the record that the executor has written by now here: `into` is the parcel's `record/` folder.

        Nothing is to be done where the executor wrote there.  Raises `BackendError` where it cannot be had now.
        """


class Engine:
    """Variables with which a backend tells its executors about the engine that started them."""

    ENDS = "RUNPROJ_JOB_ENDS"
    """When the engine ends the job, in seconds since 1970: the executor ends its command before that."""
    LASTS = "RUNPROJ_JOB_LASTS"
    """How many seconds the command may take, from the executor's start."""
    INSIDE = "RUNPROJ_JOB_INSIDE"
    """Set where the executor runs in the image that is the environment of its project."""
    TOLD = "RUNPROJ_JOB_TOLD"
    """Set where the engine sends SIGTERM to every process of the job."""
    REQUEUED = "RUNPROJ_JOB_REQUEUED"
    """Set where a job that the engine stopped is started again: SIGTERM does not end its run."""
    GPUS = "RUNPROJ_JOB_GPUS"
    """Ids of the GPUs that the job has, with commas between them; a container that asks for GPUs is given these."""


RESOURCES = tuple(item.name for item in fields(Resources))


def resources_with(declared: Resources, options: Mapping[str, Any]) -> Resources:
    """What the descriptor asks for, with what was said beside it: `--backend-config` and profiles may use the same names."""
    given = {"partition": options["queue"]} if "queue" in options else {}
    given |= {name: options[name] for name in RESOURCES if name in options}
    kinds = {"cpus": float, "gpus": int, "nodes": int}
    try:
        changed = {name: kinds.get(name, str)(value) for name, value in given.items()}
    except (TypeError, ValueError):
        raise UsageError(f"These resources have no meaning: {given}", fix="cpus, gpus and nodes are numbers.") from None
    return replace(declared, **changed)


_KINDS: Mapping[OptionKind, tuple[type, ...]] = {
    OptionKind.TEXT: (str, int, float),
    OptionKind.NUMBER: (int, float),
    OptionKind.FLAG: (bool,),
    OptionKind.LIST: (list, tuple),
    OptionKind.TABLE: (dict,),
}


def _fits(value: object, kind: OptionKind) -> bool:
    return isinstance(value, _KINDS[kind]) and isinstance(value, bool) == (kind is OptionKind.FLAG)


def checked(options: Mapping[str, Any], known: Sequence[Option], backend: str) -> dict[str, Any]:
    """The backend's own of the given options.  Raises `UsageError` for unknown ones, with what may be meant, and wrong kinds."""
    kinds = {option.name: option.kind for option in known}
    names = [*kinds, *RESOURCES, "queue"]
    for name, value in options.items():
        if name not in names:
            close = difflib.get_close_matches(name, names, 1)
            fix = f"Did you mean {close[0]!r}?" if close else f"It knows: {', '.join(sorted(names))}."
            raise UsageError(f"The backend {backend!r} has no option {name!r}", fix=fix)
        if name in kinds and not _fits(value, kinds[name]):
            wanted = kinds[name].value
            raise UsageError(f"The option {name!r} of the backend {backend!r} has to be a {wanted}, not {value!r}")
    return {name: value for name, value in options.items() if name in kinds}
