"""A sweep: what is searched, how, and what came of it.  The document is stored with the parent run; trials are its child runs."""

from __future__ import annotations

from dataclasses import field
from enum import Enum

from runproj.core.call import Given
from runproj.core.correlation import Correlation
from runproj.core.space import Space
from runproj.core.values import dataclass

SWEEP_VERSION = 1


class Method(Enum):
    """Who chooses the values of the next trial."""

    GRID = "grid"
    RANDOM = "random"
    TPE = "tpe"
    CMAES = "cmaes"


class Goal(Enum):
    MAXIMIZE = "maximize"
    MINIMIZE = "minimize"

    def better(self, value: float, than: float) -> bool:
        return value > than if self is Goal.MAXIMIZE else value < than


class Pruning(Enum):
    """How hopeless trials are found while they run."""

    NONE = "none"
    MEDIAN = "median"
    ASHA = "asha"


@dataclass(frozen=True)
class Sweep:
    """What is searched and how; with the plan beside it all that is needed to go on after a crash.

    fixed:        values that are the same in every trial.
    trials:       how many are wanted.
    max_time:     seconds after which no further trial is begun.
    max_failures: so many failed trials end the sweep; None: it goes on.
    """

    space: Space
    method: Method
    trials: int
    fixed: tuple[Given, ...] = ()
    metric: str | None = None
    goal: Goal = Goal.MAXIMIZE
    parallel: int = 1
    seed: int = 0
    prune: Pruning = Pruning.NONE
    max_time: float | None = None
    max_failures: int | None = None
    version: int = SWEEP_VERSION


@dataclass(frozen=True)
class TrialView:
    """One trial.  `value`: of the sweep's metric; `pruned`: the step at which it was stopped as hopeless."""

    number: int
    run: str
    status: str
    params: tuple[tuple[str, str], ...] = ()
    value: float | None = None
    seconds: float | None = None
    reason: str = ""
    pruned: int | None = None


@dataclass(frozen=True)
class SweepView:
    """`sweep`, `sweep resume` and `sweep show`.  `best`: numbers of trials, the best first; `rerun` runs the best again.

    stopped: why it ended before all wanted trials had run.
    """

    run: str
    name: str
    status: str
    sweep: Sweep
    trials: tuple[TrialView, ...] = ()
    best: tuple[int, ...] = ()
    rerun: str = ""
    importance: Correlation | None = None
    stopped: str = ""
    notes: tuple[str, ...] = field(default_factory=tuple)
