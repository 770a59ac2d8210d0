"""What is recorded of an execution beside the plan: where it ran, what came out, how long it took."""

from __future__ import annotations

from dataclasses import field

from runproj.core.values import dataclass


@dataclass(frozen=True)
class Machine:
    """The machine that ran the command.  `memory` in bytes; `threads` holds the command's variables for threads and kernels."""

    host: str
    system: str
    kernel: str
    architecture: str
    cpu: str
    cores: int
    memory: int
    libc: str = ""
    gpus: tuple[str, ...] = ()
    gpu_driver: str = ""
    threads: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Input:
    """Data the run was given.  `uri` as declared, without credentials; a folder's sha256 is that of its sorted listing.

    kind: "input" for a declared one, "parameter" for what a `path` parameter led to outside of the code.
    """

    name: str
    uri: str
    size: int
    sha256: str
    kind: str = "input"


@dataclass(frozen=True)
class Output:
    """A file the run left behind.  `path` is relative to the run's artifacts."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Timing:
    """How long a phase took, in seconds of a clock that never steps; `queue`: the wait for an engine, by two machines' clocks."""

    phase: str
    seconds: float


@dataclass(frozen=True)
class ReadFile:
    """A file that the command read and nobody had declared, as it was when the command had ended.  `path` is absolute."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Connection:
    """An address that the command connected to, or tried to."""

    host: str
    port: int


@dataclass(frozen=True)
class Audit:
    """What `--audit` found outside of checkout, environment, interpreter, system and declared inputs.

    more: how many files and connections there were beyond those that are listed.
    """

    files: tuple[ReadFile, ...] = ()
    connections: tuple[Connection, ...] = ()
    more: int = 0


@dataclass(frozen=True)
class RunRecord:
    """Stored with each run as `runproj/record.json`.

    exit_code: the command's own, or 128+n for signal n; None where it was never started.
    env_names: names of the variables the command was given; values are not recorded.
    variables: of those that may decide a result, a short hash of the value (`sha256:…`), or the value of a locale or time zone.
    cpu, memory: seconds and peak bytes of the command.
    audit: what was read undeclared; None where nobody looked.
    """

    run_id: str
    status: str
    phase: str
    argv: tuple[str, ...] = ()
    exit_code: int | None = None
    signal: int | None = None
    reason: str = ""
    machine: Machine | None = None
    interpreter: str = ""
    env_names: tuple[str, ...] = ()
    variables: tuple[tuple[str, str], ...] = ()
    inputs: tuple[Input, ...] = ()
    outputs: tuple[Output, ...] = ()
    timings: tuple[Timing, ...] = ()
    cpu: float = 0.0
    memory: int = 0
    started: str = ""
    ended: str = ""
    user: str = ""
    runproj: str = ""
    notes: tuple[str, ...] = field(default_factory=tuple)
    audit: Audit | None = None
