"""What a sweep searches and how, decided with its plan, before anything starts."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import replace
from enum import Enum
from typing import TypeVar

from runproj import runner
from runproj.core import space as spaces
from runproj.core.call import Call, Given
from runproj.core.parameters import bind
from runproj.core.plan import Request
from runproj.core.project import EntryPoint, ParameterType, Project, SweepWishes
from runproj.core.services import Services
from runproj.core.source import Checkout
from runproj.core.space import Choices, Range, Space, Values
from runproj.core.sweep import Goal, Method, Pruning, Sweep
from runproj.core.values import dataclass
from runproj.errors import ParameterError, StartError, UsageError

_TYPED = "-P"
MODELS = (Method.TPE, Method.CMAES)
"""What the next trial tries depends on those before."""
_LEARNING = 4
"""Trials of these at a time on an engine, unless the user says otherwise: each one more is chosen knowing one less."""


@dataclass(frozen=True)
class Table:
    """A CSV file of trials: what is in it, and its name for people."""

    text: str
    origin: str


def plan(request: Request, wishes: SweepWishes, table: Table | None, use: Services) -> tuple[runner.Planned, Sweep]:
    """Decide the plan that all trials share, and what they try.  Everything that cannot be bound fails here."""
    decided: list[Sweep] = []

    def choose(project: Project, entry_point: EntryPoint) -> Sequence[Given]:
        sweep, given = decide(project, entry_point, request, wishes, table)
        decided.append(sweep)
        return given

    planned = runner.plan(request, use, choose)
    (sweep,) = decided
    if not sweep.parallel:
        elsewhere = use.backends.open(planned.plan.options.backend).elsewhere
        sweep = replace(sweep, parallel=1 if not elsewhere else _LEARNING if sweep.method in MODELS else sweep.trials)
    return planned, sweep


def decide(
    project: Project, entry_point: EntryPoint, request: Request, wishes: SweepWishes, table: Table | None
) -> tuple[Sweep, Sequence[Given]]:
    """The sweep, and the values of one trial of it."""
    said = dict(project.sweeps).get(entry_point.name, SweepWishes())
    wishes = _together(wishes, said)
    axes, fixed = _axes(entry_point, request.parameters, said, with_space=table is None)
    rows = spaces.rows_of(table.text, table.origin) if table else ()
    if table:
        spaces.check_rows(entry_point, rows, table.origin)
        if axes:
            raise UsageError(f"{table.origin} says all trials, so {axes[0].name!r} cannot be searched beside it")
    if not axes and not rows:
        names = [one.name for one in entry_point.parameters if one.type in (ParameterType.INT, ParameterType.FLOAT)]
        raise UsageError(
            "There is nothing to search: every parameter has one value",
            fix=f"Give several: -P {(names or ['lr'])[0]}=1,2,3 or a range: -P {(names or ['lr'])[0]}=1..8 (see 'sweep:').",
        )
    listed = tuple(one for one in axes if isinstance(one, Choices))
    space = Space(listed, tuple(one for one in axes if isinstance(one, Range)), rows)
    secret = {one.name for one in entry_point.parameters if one.type is ParameterType.SECRET}
    kept = tuple(item for item in fixed if item.name not in secret)
    sweep = _how(space, wishes, kept)
    samples = [_given(values, fixed) for values in spaces.samples(space)]
    for given in samples:
        bind(entry_point, given, strict=request.strict)
    return sweep, samples[0]


def _together(typed: SweepWishes, said: SweepWishes) -> SweepWishes:
    """What was typed, and where nothing was, what the project says."""
    chosen = {name: value for name, value in vars(typed).items() if value not in (None, ())}
    return replace(said, **chosen)


def _axes(
    entry_point: EntryPoint, given: Sequence[Given], said: SweepWishes, *, with_space: bool
) -> tuple[list[Choices | Range], list[Given]]:
    axes: list[Choices | Range] = []
    fixed: list[Given] = []
    names = {item.name for item in given}
    asked: list[tuple[Given, str | tuple[str, ...]]] = [(item, item.value) for item in given]
    if with_space:
        declared = [(name, text) for name, text in said.space if name not in names]
        asked += [(Given(name, text if isinstance(text, str) else "", "sweep"), text) for name, text in declared]
    for item, text in asked:
        if item.source not in (_TYPED, "sweep"):  # a file of parameters says what the values are
            fixed.append(item)
            continue
        found = spaces.axis(entry_point, item.name, text)
        if isinstance(found, str):
            fixed.append(replace(item, value=found))
        elif isinstance(found, Choices) and len(found.values) == 1:
            fixed.append(replace(item, value=found.values[0]))
        else:
            axes.append(found)
    return axes, fixed


Word = TypeVar("Word", bound=Enum)


def _word(kind: type[Word], text: str, option: str) -> Word:
    words = [str(one.value) for one in kind]
    if text not in words:
        raise UsageError(f"{text!r} is no value of {option}", fix=f"One of {', '.join(words)}.")
    return kind(text)


def _how(space: Space, wishes: SweepWishes, fixed: tuple[Given, ...]) -> Sweep:
    there_are = spaces.count(space)
    usual = Method.GRID if there_are is not None else Method.RANDOM
    method = _word(Method, wishes.method, "--method") if wishes.method else usual
    prune = _word(Pruning, wishes.prune or "none", "--prune")
    goal = _word(Goal, wishes.goal, "--goal") if wishes.goal else None
    if space.rows and method is not Method.GRID:
        raise UsageError(f"The rows of a file are tried as they are, not by {method.value}", fix="Leave out --method.")
    if method is Method.GRID and (name := spaces.endless(space)):
        raise UsageError(
            f"A grid cannot go through all values of {name!r}", fix=f"Give a step (-P {name}=LOW..HIGH:STEP), or --method random."
        )
    if not wishes.metric and (method in MODELS or prune is not Pruning.NONE):
        raise UsageError(f"{'Pruning' if prune is not Pruning.NONE else method.value} needs a metric", fix="--metric NAME")
    if wishes.metric and goal is None:
        raise UsageError(f"Is more or less of {wishes.metric!r} better?", fix="Say --maximize or --minimize.")
    if method in MODELS:
        _require_optuna(method)
    trials = min(filter(None, (wishes.trials, there_are if method is Method.GRID else None)), default=None)
    if trials is None:
        raise UsageError("How many trials?", why="There is no end of values to try.", fix="--trials 20")
    return Sweep(
        space=space,
        method=method,
        trials=trials,
        fixed=fixed,
        metric=wishes.metric,
        goal=goal or Goal.MAXIMIZE,
        parallel=wishes.parallel or 0,
        seed=wishes.seed or 0,
        prune=prune,
        max_time=wishes.max_time,
        max_failures=wishes.max_failures,
    )


def _require_optuna(method: Method) -> None:
    needed = ["optuna", *(["cmaes"] if method is Method.CMAES else [])]
    if missing := [name for name in needed if importlib.util.find_spec(name) is None]:
        raise StartError(f"--method {method.value} needs {missing[0]}", fix="pip install 'runproj[sweep]'")


def _given(values: Values, fixed: Sequence[Given]) -> list[Given]:
    taken = {name for name, _ in values}
    if twice := [item.name for item in fixed if item.name in taken]:
        raise ParameterError(f"Parameter {twice[0]!r} has one value for all trials, and others in the file of trials")
    return [*fixed, *(Given(name, value, "sweep") for name, value in values)]


class Binder:
    """Makes the call of each trial from the plan that they share."""

    def __init__(self, planned: runner.Planned, sweep: Sweep, use: Services) -> None:
        self._planned, self._sweep, self._use = planned, sweep, use
        self._checkout: Checkout | None = planned.checkout

    def call(self, values: Values) -> Call:
        entry_point = self._planned.plan.entry_point
        secrets = [Given(name, value) for name, value in self._planned.secrets.items()]
        call, _ = bind(entry_point, _given(values, [*self._sweep.fixed, *secrets]))
        if all(value.type is not ParameterType.PATH for value in call.values):
            return call
        if self._checkout is None:
            self._checkout = self._use.sources.checkout(self._planned.plan.code, self._use.sources.scratch())
        return self._use.projects.resolve_paths(call, self._checkout.project, self._use.cwd)
