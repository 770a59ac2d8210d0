"""Which running trials are hopeless, by what they and the others have logged so far."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from runproj.core.sweep import Goal, Pruning

Curve = Sequence[tuple[int, float]]
"""(step, value), by step: what a trial logged of the metric."""

ENOUGH = 4
"""Other trials that a trial is compared with at the least."""
_REDUCTION = 3


def hopeless(rule: Pruning, goal: Goal, number: int, curves: Mapping[int, Curve]) -> int | None:
    """The step at which trial `number` is found hopeless, compared with the others; None where it is not."""
    mine = curves.get(number, ())
    others = [curve for other, curve in curves.items() if other != number and curve]
    match rule:
        case Pruning.NONE:
            return None
        case Pruning.MEDIAN:
            return _median(goal, mine, others)
        case Pruning.ASHA:
            return _asha(goal, mine, others)


def _best(goal: Goal, curve: Curve, step: int) -> float | None:
    """The best value up to a step, where the trial has come so far."""
    if not curve or curve[-1][0] < step:
        return None
    values = [value for at, value in curve if at <= step and value == value]
    return (max(values) if goal is Goal.MAXIMIZE else min(values)) if values else None


def _median(goal: Goal, mine: Curve, others: Sequence[Curve]) -> int | None:
    """The best it has had is worse than the median of what the others had at its last step (not at its first)."""
    if len(mine) < 2:
        return None
    step = mine[-1][0]
    own = _best(goal, mine, step)
    there = [best for curve in others if (best := _best(goal, curve, step)) is not None]
    if len(there) < ENOUGH:
        return None
    return step if own is None or goal.better(statistics.median(there), than=own) else None


def _asha(goal: Goal, mine: Curve, others: Sequence[Curve]) -> int | None:
    """Successive halving without waiting: at each rung (its 3rd, 9th, 27th… value) only the best third goes on.

    After Li et al., A System for Massively Parallel Hyperparameter Tuning (2020).  Here trials are looked at from time to time,
    so that one may have passed several rungs: the last of them that enough others have reached decides.
    """
    rungs = []
    rung = _REDUCTION
    while rung <= len(mine):
        rungs.append(mine[rung - 1][0])
        rung *= _REDUCTION
    for step in reversed(rungs):
        there = [best for curve in others if (best := _best(goal, curve, step)) is not None]
        if len(there) < ENOUGH:
            continue
        own = _best(goal, mine, step)
        ahead = len(there) if own is None else sum(goal.better(best, than=own) for best in there)
        return step if ahead >= max(1, (len(there) + 1) // _REDUCTION) else None
    return None
