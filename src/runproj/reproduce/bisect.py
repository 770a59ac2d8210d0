"""Which of several factors moves the results: hybrids of two runs are run until it is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from runproj import references, runner
from runproj.core.call import Given
from runproj.core.differences import Bisection, Factor, Trial
from runproj.core.plan import Plan
from runproj.core.run import Run, RunStatus, TagName
from runproj.core.services import Services
from runproj.core.values import dataclass
from runproj.core.verdict import Level
from runproj.core.views import RunView
from runproj.errors import RunprojError, UsageError
from runproj.leases import Leases
from runproj.reproduce.history import noise_before
from runproj.reproduce.replay import pinned, stopped
from runproj.reproduce.results import compare
from runproj.reproduce.swaps import Swap, as_recorded, swaps
from runproj.reproduce.tolerance import Tolerances
from runproj.reproduce.why import Pair

_TAG = "bisect"
"""What hybrids are tagged with in place of a verdict: they are no yardstick."""


@dataclass(frozen=True)
class _Hybrid:
    """What a hybrid came to: its results, or why there are none."""

    view: RunView | None = None
    problem: str = ""


class Laboratory:
    """Runs hybrids of two runs, and judges their results by how well the first run itself comes back."""

    def __init__(self, pair: Pair, use: Services, leases: Leases, secrets: Sequence[Given] = ()) -> None:
        self._pair, self._use, self._leases, self._secrets = pair, use, leases, tuple(secrets)
        self._first, self._second = pair.views
        self._plan = as_recorded(pinned(pair.plans[0], self._first.record), self._first.record)
        self._tolerances = Tolerances({}, noise_before(self._first, pair.plans[0], use))
        self._trials: list[Trial] = []
        self._bar = Level.R0

    def bisect(self, factors: tuple[Factor, ...]) -> Bisection:
        """Name the factors that move the results.  Raises `Interrupted` where stopped, `UsageError` for runs without results."""
        for view in self._pair.views:
            if view.run.status is not RunStatus.FINISHED:
                raise UsageError(f"Run {view.run.id[:8]} is {view.run.status.value}, so it has no results that could move")
        baseline = self._run(self._plan, "the first run again")
        if baseline.view is None:
            return self._found((), f"the first run cannot be repeated: {baseline.problem}")
        level = self._level(self._first, baseline.view)
        self._bar = Level.R3 if level is Level.R4 else level  # how outputs happen to be written moves nothing
        if self._bar is Level.R0:
            return self._found((), "the first run does not come back itself, so nothing can be told from hybrids")
        if self._level(self._first, self._second).rank >= self._bar.rank:
            return self._found((), "the results of the second run differ no more than those of the first run's replay")
        possible = swaps(self._pair.plans, self._pair.views, factors)
        for swap in possible:
            if swap.change is None:
                self._trials.append(Trial((swap.words,), problem=swap.problem))
        return self._search([swap for swap in possible if swap.change is not None])

    def _search(self, possible: list[Swap]) -> Bisection:
        moving: list[Swap] = []
        for swap in possible:
            trial = self._try([swap])
            if trial.arrived:
                return self._named(swap)
            if trial.moved:
                moving.append(swap)
        if len(moving) == 1:
            return self._named(moving[0])
        if moving:
            words = tuple(swap.words for swap in moving)
            return self._found(words, f"each of these moves the results: {'; '.join(words)}")
        return self._together(possible)

    def _named(self, swap: Swap) -> Bisection:
        """The factor, and where it has parts, the part."""
        if swap.parts:
            moving = [part for part in swap.parts if self._try([part]).moved]
            if moving:
                words = tuple(part.words for part in moving)
                return self._found(words, f"{'; '.join(words)} moves the results")
        return self._found((swap.words,), f"{swap.words} moves the results")

    def _together(self, possible: list[Swap]) -> Bisection:
        """None moves them alone: all of them, then as few of them as still do."""
        left = "; ".join(f"{trial.swapped[0]} ({trial.problem})" for trial in self._trials if trial.problem)
        nothing = f"nothing that can be swapped moves the results{f'; not tried: {left}' if left else ''}"
        if len(possible) < 2 or not self._try(possible).moved:
            return self._found((), nothing)
        needed = list(possible)
        for swap in possible:
            fewer = [item for item in needed if item is not swap]
            if len(fewer) > 1 and self._try(fewer).moved:
                needed = fewer
        words = tuple(swap.words for swap in needed)
        return self._found(words, f"only together these move the results: {'; '.join(words)}")

    def _found(self, cause: tuple[str, ...], words: str) -> Bisection:
        return Bisection(cause, words, tuple(self._trials))

    def _try(self, chosen: Sequence[Swap]) -> Trial:
        plan, names = self._plan, tuple(swap.words for swap in chosen)
        try:
            for swap in chosen:
                plan = swap.change(plan) if swap.change else plan
        except RunprojError as error:
            trial = Trial(names, problem=f"it does not fit the first run: {error.what}")
        else:
            trial = self._judged(names, self._run(plan, "; ".join(names)))
        self._trials.append(trial)
        return trial

    def _judged(self, names: tuple[str, ...], hybrid: _Hybrid) -> Trial:
        if hybrid.view is None:
            return Trial(names, problem=hybrid.problem)
        moved = self._level(self._first, hybrid.view).rank < self._bar.rank
        arrived = moved and self._level(self._second, hybrid.view).rank >= self._bar.rank
        return Trial(names, moved, arrived, hybrid.view.run.id)

    def _level(self, one: RunView, other: RunView) -> Level:
        return compare(one, other, self._use, self._tolerances).level

    def _run(self, plan: Plan, what: str) -> _Hybrid:
        use = self._use
        use.reporter.phase("bisect", what)
        options = replace(plan.options, tags=(*plan.options.tags, (TagName.VERDICT, _TAG)), run_name=None)
        values = {item.name: item.value for item in self._secrets}
        names = {value.name for value in plan.call.values if value.value is None}
        secrets = {name: value for name, value in values.items() if name in names}
        planned = runner.Planned(replace(plan, options=options, rerun_of=self._first.run.id), secrets)
        try:
            ended = runner.start(planned, use, self._leases, on_created=lambda _: None)
        except RunprojError as error:
            return _Hybrid(problem=f"{error.what}. {error.why}".rstrip(". "))
        if ended.status is RunStatus.KILLED:
            raise stopped(ended)
        if ended.status is not RunStatus.FINISHED:
            return _Hybrid(problem=f"it does not run: {ended.tag(TagName.REASON) or ended.status.value}")
        return _Hybrid(self._view(ended))

    def _view(self, run: Run) -> RunView:
        use = self._use
        return references.view(use.tracking.get_run(run.id), use.artifacts, use.home / "cache" / "views")
