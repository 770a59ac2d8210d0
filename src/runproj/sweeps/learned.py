"""Samplers of Optuna (extra `sweep`): they learn from the trials so far.  Its study lives in memory; our record is the truth."""

from __future__ import annotations

import math
import random
import warnings
from typing import TYPE_CHECKING

from runproj.core.space import Choices, Range, Values, text_of
from runproj.core.sweep import Goal, Method, Sweep

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler


class Learned:
    """Asks Optuna for values and tells it what came of them."""

    def __init__(self, sweep: Sweep) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._optuna = optuna
        self._axes = {axis.name: axis for axis in sweep.space.axes}
        self._distributions = {name: self._distribution(axis) for name, axis in self._axes.items()}
        directions = optuna.study.StudyDirection
        direction = directions.MAXIMIZE if sweep.goal is Goal.MAXIMIZE else directions.MINIMIZE
        self._study = optuna.create_study(direction=direction)
        self._sweep, self._begun = sweep, False
        self._asked: dict[int, int] = {}

    def _distribution(self, axis: Choices | Range) -> BaseDistribution:
        kinds = self._optuna.distributions
        if isinstance(axis, Choices):
            return kinds.CategoricalDistribution(axis.values)
        if axis.whole:
            step = 1 if axis.log else int(axis.step or 1)
            return kinds.IntDistribution(int(axis.low), int(axis.high), log=axis.log, step=step)
        return kinds.FloatDistribution(axis.low, axis.high, log=axis.log, step=axis.step)

    def _sampler(self, number: int) -> BaseSampler:
        """What chooses from trial `number` on.  A later process draws other numbers than the one before it did."""
        sweep, samplers = self._sweep, self._optuna.samplers
        seed = sweep.seed if number == 1 else random.Random(f"{sweep.seed}/{number}").getrandbits(32)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is experimental in it
            if sweep.method is Method.TPE:
                return samplers.TPESampler(seed=seed, constant_liar=sweep.parallel > 1)
            return samplers.CmaEsSampler(seed=seed)

    def ask(self, number: int) -> Values:
        if not self._begun:
            self._study.sampler, self._begun = self._sampler(number), True
        trial = self._study.ask(self._distributions)
        self._asked[number] = trial.number
        return tuple((name, self._text(axis, trial.params[name])) for name, axis in self._axes.items())

    @staticmethod
    def _text(axis: Choices | Range, value: object) -> str:
        return str(value) if isinstance(axis, Choices) else text_of(axis, float(str(value)))

    def tell(self, number: int, values: Values, value: float | None) -> None:
        states = self._optuna.trial.TrialState
        good = value is not None and math.isfinite(value)
        state = states.COMPLETE if good else states.FAIL
        if number in self._asked:
            self._study.tell(self._asked.pop(number), value if good else None, state=state)
            return
        params = {name: self._value(name, text) for name, text in values if name in self._axes}
        self._study.add_trial(
            self._optuna.trial.create_trial(
                params=params, distributions=self._distributions, value=value if good else None, state=state
            )
        )

    def _value(self, name: str, text: str) -> object:
        axis = self._axes[name]
        return text if isinstance(axis, Choices) else int(text) if axis.whole else float(text)
