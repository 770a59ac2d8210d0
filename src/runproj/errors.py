"""The errors a user can cause or meet: one root, a kind per exit code; each says what failed, why, and how to fix it.

Only `cli/main.py` turns them into words and an exit code.  Any other exception is a bug and keeps its traceback.
"""

from __future__ import annotations

from typing import ClassVar


class RunprojError(Exception):
    """A failure that is for the user to read.

    what:  what failed, one sentence without a full stop.
    why:   the cause in the words of whoever knows it (git, the resolver, the file system); may span lines.
    fix:   what the user can do about it, preferably a command to type.
    """

    exit_code: ClassVar[int] = 1
    kind: ClassVar[str] = "error"

    def __init__(self, what: str, *, why: str = "", fix: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.why = why
        self.fix = fix

    def __str__(self) -> str:
        return "\n".join(part for part in (self.what, self.why, self.fix) if part)


class NotFoundError(RunprojError):
    """A run, experiment or artifact that was named does not exist, or the name fits several."""

    kind = "not-found"


class UsageError(RunprojError):
    """The command line asks for something that has no meaning (exit code 2, as by convention)."""

    exit_code = 2
    kind = "usage"


class ParameterError(UsageError):
    """A parameter is missing, unknown, repeated, or its value is not of its type."""

    kind = "parameter"


class StartError(RunprojError):
    """The project could not be started, for whatever reason.

    125 tells `git bisect run` to skip this commit, and sets the failure apart from the exit codes of the project itself.
    """

    exit_code = 125
    kind = "start"


class SourceError(StartError):
    """The code cannot be had: unreachable remote, unknown revision, hostile repository, nothing cached when offline."""

    kind = "source"


class DescriptorError(StartError):
    """The project's descriptor is invalid, or lacks the entry point that was asked for."""

    kind = "descriptor"


class EnvironmentFailure(StartError):
    """The environment cannot be locked, built or used."""

    kind = "environment"


class TrustError(StartError):
    """The project asks for something of this machine that only projects get which the user trusts."""

    kind = "trust"


class BackendError(StartError):
    """The machine or engine that should run the job cannot, or does not answer."""

    kind = "backend"


class TrackingError(StartError):
    """The record cannot be written or read: store unreachable, newer schema, immutable parameter."""

    kind = "tracking"


class RefusedError(TrackingError):
    """The store refuses what it was asked to record: another value for a parameter, a deleted run, an invalid name."""


class AlreadyExistsError(RefusedError):
    """There is already something of that name."""


class StorageError(StartError):
    """A file cannot be written or read: disk full, no permission, damaged content."""

    kind = "storage"


class DamagedError(StorageError):
    """A file is not what was stored."""


class Interrupted(KeyboardInterrupt):
    """SIGINT, SIGTERM or SIGHUP arrived: whatever is under way stops, cleans up and says so.  Not an error."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number
