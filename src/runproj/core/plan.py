"""Request → Plan: everything decided before anything starts.  A Plan is a plain, published JSON document."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any

from runproj.core.call import Call, Given
from runproj.core.environment import EnvLock, LockOptions
from runproj.core.project import EntryPoint
from runproj.core.source import Pin, Source
from runproj.core.values import dataclass

PLAN_VERSION = 1


@dataclass(frozen=True)
class RunOptions:
    """How to run, as opposed to what.  `timeout` and `grace` in seconds; `keep`: "never", "failed", "always".

    backend: in a request, empty for what the entry point says.
    docker_args: what the user gives the run's container beside what the project asks for, as `docker run` has it: "memory=2g".
    backend_options: what was said to the backend, beside `resources`: as in `--backend-config`.
    audit: "never", "note" or "strict": whether files and addresses that nobody declared are noted, or make the run fail.
    """

    backend: str = "local"
    backend_options: Mapping[str, Any] = field(default_factory=dict)
    experiment: str | None = None
    run_name: str | None = None
    tags: tuple[tuple[str, str], ...] = ()
    timeout: float | None = None
    grace: float = 10.0
    keep: str = "never"
    clean_env: bool = False
    deterministic: bool = False
    parent_run: str | None = None
    docker_args: tuple[str, ...] = ()
    audit: str = "never"


@dataclass(frozen=True)
class Request:
    """What was asked for.  `trust`: the project may have what it asks of this machine, now and later at this commit."""

    source: Source
    entry_point: str = "main"
    parameters: tuple[Given, ...] = ()
    strict: bool = False
    require_clean: bool = False
    lock: LockOptions = field(default_factory=LockOptions)
    options: RunOptions = field(default_factory=RunOptions)
    trust: bool = False


@dataclass(frozen=True)
class Plan:
    """What will be run, complete: whoever holds it can do the same run again, anywhere.

    `entry_point` is the declaration that `call` was bound from.  Secrets are named in `call`, never held.
    `rerun_of` is the id of the run this plan was taken from.
    scope: sha256 over the files of the code that the entry point says decide its result, and over data in the code that it is
           given; empty where all of the code does.
    after: entry points that were done before without any of their outputs being an input, each with its run.
    """

    code: Pin
    call: Call
    lock: EnvLock
    entry_point: EntryPoint
    project: str
    descriptor: str | None = None
    options: RunOptions = field(default_factory=RunOptions)
    notes: tuple[str, ...] = ()
    rerun_of: str | None = None
    runproj: str = ""
    version: int = PLAN_VERSION
    after: tuple[tuple[str, str], ...] = ()
    scope: str = ""
