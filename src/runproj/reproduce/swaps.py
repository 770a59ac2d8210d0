"""Factors that can be swapped: a plan with one thing as another run had it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from runproj.core.call import BoundValue, Call, Given
from runproj.core.differences import Factor
from runproj.core.environment import EnvLock
from runproj.core.parameters import bind
from runproj.core.plan import Plan
from runproj.core.record import RunRecord
from runproj.core.values import dataclass
from runproj.core.views import RunView
from runproj.environments.hybrids import with_package
from runproj.machine import THREAD_VARIABLES

Change = Callable[[Plan], Plan]
"""A plan → the same plan with something as the second run had it."""


@dataclass(frozen=True)
class Swap:
    """Factors that are swapped together.  `change` is None where that cannot be done, and `problem` says why.

    parts: the same, one by one, for finding out which of several it was.
    """

    words: str
    change: Change | None = None
    problem: str = ""
    parts: tuple[Swap, ...] = ()


def swaps(plans: tuple[Plan, Plan], views: tuple[RunView, RunView], factors: tuple[Factor, ...]) -> tuple[Swap, ...]:
    """What can be swapped from the first run to the second, and what cannot, in the order of the factors."""
    code = _code(plans, views[1].record, factors)
    return (*code, *_values(plans, factors), *_lock(plans, factors), *_surroundings(plans, views, factors))


def _said(factors: list[Factor]) -> str:
    words = [factor.words for factor in factors]
    return ", ".join(words[:3]) + (f" and {len(words) - 3} more" if len(words) > 3 else "")


def _code(plans: tuple[Plan, Plan], record: RunRecord | None, factors: tuple[Factor, ...]) -> Iterator[Swap]:
    other = plans[1]
    inside = _inside(other)
    found = [factor for factor in factors if factor.kind == "code" or (factor.kind == "input" and factor.name in inside)]
    if found:
        digests = {item.name: item.sha256 for item in (record.inputs if record else ()) if item.name in inside}
        yield Swap(_said(found), lambda plan: _with_digests(replace(plan, code=other.code, scope=other.scope), digests))
    declared = [factor for factor in factors if factor.kind == "descriptor" and factor.name != other.descriptor]
    if declared:
        yield Swap(_said(declared), lambda plan: _with_descriptor(plan, plans[0], other))


def _with_digests(plan: Plan, digests: Mapping[str, str]) -> Plan:
    """The plan with other content of the inputs that are part of the code."""
    inputs = tuple(replace(spec, sha256=digests.get(spec.name, spec.sha256)) for spec in plan.entry_point.inputs)
    return replace(plan, entry_point=replace(plan.entry_point, inputs=inputs))


def _with_descriptor(plan: Plan, original: Plan, other: Plan) -> Plan:
    """The entry point of another plan, with the values and variables that were given to this one.  Raises `ParameterError`."""
    given = [Given(v.name, v.value, v.source) for v in plan.call.values if v.value is not None and v.source != "default"]
    known = {parameter.name for parameter in other.entry_point.parameters}
    call, _ = bind(other.entry_point, [item for item in given if item.name in known or other.entry_point.open])
    resolved = {value.name: value.resolved for value in (*other.call.values, *plan.call.values)}
    values = tuple(replace(value, resolved=resolved.get(value.name)) for value in call.values)
    added = _added(plan, original, {name for name, _ in other.entry_point.env})
    taken = {spec.name: spec for spec in plan.entry_point.inputs if spec.step}  # what other steps put out stays what it was
    inputs = tuple(taken.get(spec.name, spec) for spec in other.entry_point.inputs)
    point = replace(other.entry_point, env=(*other.entry_point.env, *added), inputs=inputs)
    swapped = replace(plan, entry_point=point, call=replace(call, values=values), descriptor=other.descriptor)
    return _with_digests(swapped, {spec.name: spec.sha256 for spec in plan.entry_point.inputs if spec.sha256})


def _added(plan: Plan, original: Plan, declared: set[str]) -> tuple[tuple[str, str], ...]:
    """Variables that the plan gives its command and its descriptor does not."""
    own = {name for name, _ in original.entry_point.env} | declared
    return tuple((name, value) for name, value in plan.entry_point.env if name not in own)


def _values(plans: tuple[Plan, Plan], factors: tuple[Factor, ...]) -> Iterator[Swap]:
    theirs = {value.name: value for value in plans[1].call.values}
    ours = {value.name for value in plans[0].call.values}
    for factor in factors:
        if factor.kind in ("parameter", "seed") and factor.name in theirs.keys() | ours:
            yield Swap(factor.words, _with_value(factor.name, theirs.get(factor.name)))


def _with_value(name: str, value: BoundValue | None) -> Change:
    def change(plan: Plan) -> Plan:
        kept = [item for item in plan.call.values if item.name != name]
        values = tuple([*kept, value] if value is not None else kept)
        return replace(plan, call=Call(plan.call.entry_point, plan.call.command, values))

    return change


def _lock(plans: tuple[Plan, Plan], factors: tuple[Factor, ...]) -> Iterator[Swap]:
    found = [factor for factor in factors if factor.kind in ("lock", "interpreter", "image")]
    if not found:
        return
    other = plans[1].lock
    packages = [factor for factor in found if factor.kind == "lock" and factor.name not in ("manager", "digest")]
    alike = plans[0].lock.manager is other.manager and not other.installed
    parts = tuple(Swap(factor.words, _with_package(other, factor.name)) for factor in packages) if alike else ()
    yield Swap(_said(found), lambda plan: replace(plan, lock=other), parts=parts if len(found) > 1 else ())


def _with_package(other: EnvLock, name: str) -> Change:
    return lambda plan: replace(plan, lock=with_package(plan.lock, other, name))


def _surroundings(plans: tuple[Plan, Plan], views: tuple[RunView, RunView], factors: tuple[Factor, ...]) -> Iterator[Swap]:
    options = plans[1].options
    switches: Mapping[str, Change] = {
        "--deterministic": lambda plan: _deterministic(plan, plans[0], wanted=options.deterministic),
        "--clean-env": lambda plan: replace(plan, options=replace(plan.options, clean_env=options.clean_env)),
        "--docker-args": lambda plan: replace(plan, options=replace(plan.options, docker_args=options.docker_args)),
    }
    known = tuple(known_variables(view.record) for view in views)
    made = {value.name for plan in plans for value in plan.call.values}
    swapped = _inside(plans[1]) | {factor.name for factor in factors if factor.kind == "parameter"}  # with what they come with
    for factor in factors:
        if factor.name in switches:
            yield Swap(factor.words, switches[factor.name])
        elif factor.kind in ("variable", "threads") or (factor.kind == "seed" and factor.name not in made):
            yield _variable(factor, known[0].get(factor.name), known[1].get(factor.name))
        elif factor.kind == "hardware":
            yield Swap(factor.words, problem="it is another machine")
        elif factor.kind == "input" and factor.name not in swapped:
            yield Swap(factor.words, problem="its content is not kept")


def _deterministic(plan: Plan, original: Plan, *, wanted: bool) -> Plan:
    """The plan with or without the profile, whose variables must not be hidden by those that the first run happened to have."""
    added = {name for name, _ in _added(plan, original, set())}
    env = tuple((name, value) for name, value in plan.entry_point.env if name not in added)
    return replace(plan, options=replace(plan.options, deterministic=wanted), entry_point=replace(plan.entry_point, env=env))


def _inside(plan: Plan) -> set[str]:
    """The declared inputs that are part of the code."""
    paths = (spec for spec in plan.entry_point.inputs if not spec.step)
    return {spec.name for spec in paths if ":" not in spec.uri and not spec.uri.startswith("/")}


def known_variables(record: RunRecord | None) -> dict[str, str]:
    """Variables of a run's command whose values are recorded."""
    if record is None:
        return {}
    found = {name: value for name, value in record.variables if not value.startswith("sha256:")}
    return found | (dict(record.machine.threads) if record.machine else {})


def _variable(factor: Factor, before: str | None, after: str | None) -> Swap:
    name = factor.name
    if (factor.before is not None and before is None) or (factor.after is not None and after is None):
        return Swap(factor.words, problem="only that it differs is recorded, not its values")
    if None in (before, after) and name in os.environ:  # a plan can set a variable, and not take one away
        return Swap(factor.words, problem=f"{name} is set here; unset it to find out")
    return Swap(factor.words, lambda plan: with_variable(plan, name, after))


def with_variable(plan: Plan, name: str, value: str | None) -> Plan:
    """The plan with a variable that its command is given, or, for None, is not given by the plan."""
    env = tuple((key, text) for key, text in plan.entry_point.env if key != name)
    return replace(plan, entry_point=replace(plan.entry_point, env=(*env, (name, value)) if value is not None else env))


def as_recorded(plan: Plan, record: RunRecord | None) -> Plan:
    """The plan with the variables for threads and kernels, locale and time zone that its run had, whatever is set now."""
    fixed = {name for name, _ in plan.entry_point.env}
    for name, value in known_variables(record).items():
        if name not in fixed and (name in THREAD_VARIABLES or os.environ.get(name) != value) and not plan.options.deterministic:
            plan = with_variable(plan, name, value)
    return plan
