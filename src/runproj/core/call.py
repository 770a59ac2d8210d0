"""EntryPoint + parameters → Call: the one place where values meet a command line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from runproj.core.project import Command, ParameterType


@dataclass(frozen=True)
class Given:
    """A parameter value as the user gave it, and where ("-P", "params.yaml", the run it was taken from)."""

    name: str
    value: str
    source: str = "-P"


@dataclass(frozen=True)
class BoundValue:
    """A parameter with its value.  `value` is None for a secret, which is never held in a record.

    source:   "default", or where the user gave it.
    declared: False for a value that the entry point does not declare; it is appended as `--name value`.
    """

    name: str
    value: str | None
    type: ParameterType = ParameterType.STRING
    source: str = "default"
    declared: bool = True


@dataclass(frozen=True)
class Call:
    """An entry point bound to values, ready to become an argv."""

    entry_point: str
    command: Command
    values: tuple[BoundValue, ...] = ()

    def argv(self, secrets: Mapping[str, str]) -> tuple[str, ...]:
        """What to execute.  Every value arrives byte-identical in the argv of the command, and none is ever executed."""
        raise NotImplementedError

    def shown(self) -> str:
        """The command for people: as it would be typed into a shell, secrets masked."""
        raise NotImplementedError
