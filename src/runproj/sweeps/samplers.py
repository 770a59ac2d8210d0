"""Who chooses the values of the next trial.  The record is the truth: what is known of trials is told again after a crash."""

from __future__ import annotations

from typing import Protocol

from runproj.core import space as spaces
from runproj.core.space import Values
from runproj.core.sweep import Method, Sweep


class Sampler(Protocol):
    """Asked for each trial, told of each that has ended.  Trials are numbered from 1."""

    def ask(self, number: int) -> Values:
        """The values of a trial that was not asked for before."""

    def tell(self, number: int, values: Values, value: float | None) -> None:
        """What came of a trial, perhaps of an earlier process's; None where it has no value."""


class Listed:
    """Trials that are known from the start: a grid, or rows of a file."""

    def __init__(self, sweep: Sweep) -> None:
        self._space = sweep.space

    def ask(self, number: int) -> Values:
        return spaces.grid(self._space, number - 1)

    def tell(self, number: int, values: Values, value: float | None) -> None:
        """Nothing is learned."""


class Drawn:
    """Random trials, each by its number and the seed alone."""

    def __init__(self, sweep: Sweep) -> None:
        self._sweep = sweep

    def ask(self, number: int) -> Values:
        return spaces.drawn(self._sweep.space, self._sweep.seed, number)

    def tell(self, number: int, values: Values, value: float | None) -> None:
        """Nothing is learned."""


def sampler_of(sweep: Sweep) -> Sampler:
    match sweep.method:
        case Method.GRID:
            return Listed(sweep)
        case Method.RANDOM:
            return Drawn(sweep)
        case Method.TPE | Method.CMAES:
            from runproj.sweeps.learned import Learned

            return Learned(sweep)
