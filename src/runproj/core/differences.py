"""What differs between two runs: the documents that `why` and `diff` print."""

from __future__ import annotations

from runproj.core.source import FileChange
from runproj.core.values import dataclass
from runproj.core.verdict import MetricCheck, OutputCheck
from runproj.core.views import Difference

KINDS = (
    "code",
    "descriptor",
    "parameter",
    "lock",
    "interpreter",
    "image",
    "input",
    "variable",
    "hardware",
    "threads",
    "seed",
)
"""Kinds of factors, in the order in which they are looked at: what comes first explains most of what comes after it."""


@dataclass(frozen=True)
class Factor:
    """Something that can decide a result and is not the same in two runs.

    kind:   one of `KINDS`;  `name`: a file, parameter, package, input, variable, …
    before, after: its value in either run, None where a run has none;  `words`: all of it for people.
    """

    kind: str
    name: str
    before: str | None
    after: str | None
    words: str


@dataclass(frozen=True)
class Trial:
    """A hybrid that was run: the first run, with some factors as in the second.  `moved`: its results are not the first run's.

    arrived: its results are those of the second run.  `problem`: why it could not be run.
    """

    swapped: tuple[str, ...]
    moved: bool = False
    arrived: bool = False
    run: str | None = None
    problem: str = ""


@dataclass(frozen=True)
class Bisection:
    """`why --bisect`.  `cause`: the factors that moved the results, in words; empty where none did."""

    cause: tuple[str, ...]
    words: str
    trials: tuple[Trial, ...] = ()


@dataclass(frozen=True)
class Why:
    """`why`.  `first` is the first factor that differs; None where nothing that is recorded does."""

    runs: tuple[str, str]
    words: str
    same_results: bool
    first: Factor | None = None
    factors: tuple[Factor, ...] = ()
    notes: tuple[str, ...] = ()
    bisection: Bisection | None = None


@dataclass(frozen=True)
class Diff:
    """`diff`.  `patch` is the difference of the code as a unified diff; `differences` holds everything but code and results."""

    runs: tuple[str, str]
    files: tuple[FileChange, ...] = ()
    patch: str = ""
    differences: tuple[Difference, ...] = ()
    metrics: tuple[MetricCheck, ...] = ()
    outputs: tuple[OutputCheck, ...] = ()
    notes: tuple[str, ...] = ()
