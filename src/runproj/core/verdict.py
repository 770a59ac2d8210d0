"""The verdict on a replay: how much of what a run recorded has come back, check by check and as a level."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum

from runproj.core.values import dataclass


class Level(Enum):
    """How much came back.  Each level demands all that those below it demand, and something to show it by.

    R4: at least one output, the same set of outputs with the same sha256, and every metric exactly equal.
    R3: as R4, but outputs only have to be equal by value.
    R2: at least one metric, and every metric exactly equal, bit by bit.
    R1: at least one metric, and every metric within its tolerance.
    R0: it ran, and its results differ, or nothing was recorded that could show more.
    FAILED: something could not be restored, the environment not rebuilt, or the run itself did not finish.
    """

    R4 = "R4"
    R3 = "R3"
    R2 = "R2"
    R1 = "R1"
    R0 = "R0"
    FAILED = "FAILED"

    @property
    def rank(self) -> int:
        """The greater, the better."""
        return len(Level) - 1 - list(Level).index(self)

    @property
    def exit_code(self) -> int:
        """Of `runproj reproduce`: one for each level, away from those that shells, git bisect and errors use."""
        return _EXIT_CODES[self]

    @property
    def words(self) -> str:
        return _WORDS[self]


_EXIT_CODES = {Level.R4: 0, Level.R3: 13, Level.R2: 12, Level.R1: 11, Level.R0: 10, Level.FAILED: 20}
_WORDS = {
    Level.R4: "reproduced bit by bit",
    Level.R3: "reproduced: every output is equal by value",
    Level.R2: "reproduced: every metric is exactly equal",
    Level.R1: "reproduced within tolerance",
    Level.R0: "not reproduced: it ran, and its results differ",
    Level.FAILED: "not reproduced: it could not be repeated",
}


class Sameness(Enum):
    """What became of one output or metric."""

    EXACT = "exact"  # the same bytes, the same bits
    EQUAL = "equal"  # an output: equal by value
    WITHIN = "within"  # a metric: within its tolerance
    DIFFERENT = "different"
    MISSING = "missing"  # the replay has none
    NEW = "new"  # only the replay has it


@dataclass(frozen=True)
class OutputCheck:
    """An output of both runs.  `how` says in words how they were compared, or why they could only be compared by bytes."""

    path: str
    same: Sameness
    how: str = ""


@dataclass(frozen=True)
class MetricCheck:
    """A metric's latest value in both runs.  `tolerance` says in words what was demanded; `low` and `high` are its bounds."""

    name: str
    same: Sameness
    original: float | None = None
    replay: float | None = None
    tolerance: str = ""
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Replay:
    """One replay.  `run` is None where it failed before it was recorded; `reason`: why it failed, or what limits the level."""

    level: Level
    run: str | None = None
    reason: str = ""
    seconds: float = 0.0
    outputs: tuple[OutputCheck, ...] = ()
    metrics: tuple[MetricCheck, ...] = ()


@dataclass(frozen=True)
class Noise:
    """How a metric varied over runs of one recipe.  `sd` is that of a sample; `cv` = sd / |mean|, None for a mean of 0."""

    name: str
    n: int
    mean: float
    sd: float
    cv: float | None = None
    least: float | None = None
    greatest: float | None = None


@dataclass(frozen=True)
class NoiseFloor:
    """The metrics of several runs of one recipe: `run --repeat`, and `runproj/noise.json` of each of these runs."""

    recipe: str
    runs: tuple[str, ...]
    noise: tuple[Noise, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """`reproduce`.  `level` is the weakest of the replays; `words` says it in a sentence; `ignored`: patterns left out.

    suspects: what was not the same for the weakest replay, in words, where its results are not the same either.
    """

    run: str
    level: Level
    words: str
    replays: tuple[Replay, ...] = ()
    noise: tuple[Noise, ...] = ()
    ignored: tuple[str, ...] = ()
    suspects: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def words_of(replay: Replay) -> str:
    """The level in a sentence."""
    if replay.level is Level.R0 and not replay.outputs and not replay.metrics:
        return "not shown: it ran, and nothing was recorded that could be compared"
    return replay.level.words


def level_of(outputs: Sequence[OutputCheck], metrics: Sequence[MetricCheck]) -> Level:
    """The highest level that holds (see `Level`)."""
    if not _all(metrics, {Sameness.EXACT}):
        return Level.R1 if _all(metrics, {Sameness.EXACT, Sameness.WITHIN}) else Level.R0
    if outputs and _all(outputs, {Sameness.EXACT}):
        return Level.R4
    if outputs and _all(outputs, {Sameness.EXACT, Sameness.EQUAL}):
        return Level.R3
    return Level.R2 if metrics else Level.R0


def _all(checks: Iterable[OutputCheck | MetricCheck], good: set[Sameness]) -> bool:
    return all(check.same in good for check in checks)


def limit(outputs: Sequence[OutputCheck], metrics: Sequence[MetricCheck]) -> str:
    """What the evidence cannot show, in words, where the runs recorded less than every level looks at."""
    if not outputs and not metrics:
        return "The run recorded neither outputs nor metrics, so nothing can be compared: R0 is the most that can be shown."
    if not outputs:
        return "The run recorded no outputs, so R2 is the most that can be shown."
    if not metrics:
        return "The run recorded no metrics, so its outputs alone decide: R4, R3 or R0."
    return ""
