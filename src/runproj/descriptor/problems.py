"""Problems of a descriptor: each with its place and what to do about it, collected so that all are seen at once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import field
from enum import Enum
from typing import Protocol

from runproj.core.values import dataclass
from runproj.errors import DescriptorError


class Severity(Enum):
    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True)
class Problem:
    """Something wrong in a file.  `line` and `column` count from 1; 0 where the file as a whole is meant.

    entry_point: the one it belongs to; a problem of an MLproject's entry point matters only when that one is run.
    """

    file: str
    line: int
    column: int
    message: str
    hint: str = ""
    severity: Severity = Severity.ERROR
    entry_point: str = ""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        return f"{place}: {self.message}" + (f" ({self.hint})" if self.hint else "")


class Place(Protocol):
    """Anything with a position in the file."""

    @property
    def line(self) -> int: ...
    @property
    def column(self) -> int: ...


@dataclass
class Problems:
    """Collects the problems of one file.

    lenient:  unknown keys are warnings (MLproject).
    thorough: look also for what shows only when parameters are bound.
    """

    file: str
    lenient: bool = False
    thorough: bool = False
    entry_point: str = ""
    found: list[Problem] = field(default_factory=list)

    def error(self, at: Place | None, message: str, hint: str = "") -> None:
        self._add(at, message, hint, Severity.ERROR)

    def warning(self, at: Place | None, message: str, hint: str = "") -> None:
        self._add(at, message, hint, Severity.WARNING)

    def _add(self, at: Place | None, message: str, hint: str, severity: Severity) -> None:
        line, column = (at.line, at.column) if at else (0, 0)
        self.found.append(Problem(self.file, line, column, message, hint, severity, self.entry_point))


class DescriptorProblems(DescriptorError):
    """A descriptor has errors; all of them are listed."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        count = len(self.problems)
        file = self.problems[0].file if self.problems else "The descriptor"
        super().__init__(
            f"{file} has {'an error' if count == 1 else f'{count} errors'}",
            why="\n".join(str(problem) for problem in self.problems),
            fix="`runproj validate` checks it again.",
        )
