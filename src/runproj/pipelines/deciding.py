"""The plans of all steps of a pipeline, decided before anything starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

from runproj import runner
from runproj.core.call import BoundValue, Call, Given
from runproj.core.pipeline import Graph, graph_of
from runproj.core.plan import Plan, Request
from runproj.core.project import EntryPoint, InputSpec, ParameterType
from runproj.core.services import Reporter, Services
from runproj.core.source import Checkout
from runproj.core.template import suggestion
from runproj.core.values import dataclass
from runproj.errors import ParameterError, UsageError
from runproj.files import explained
from runproj.inputs import digest_of


@dataclass(frozen=True)
class Pipeline:
    """What is to be run where it has to be.

    steps:  the plan of each; inputs that other steps put out are pinned when those have run.
    doubts: of steps that take data of which nobody can know whether it has changed, what that is.
    forced: why steps run whatever there is.
    """

    graph: Graph
    steps: Mapping[str, runner.Planned]
    checkout: Checkout
    doubts: Mapping[str, str]
    forced: Mapping[str, str]


@dataclass(frozen=True)
class Wishes:
    """What the user wants run even where nothing has changed: all of it, or a step and what needs it."""

    force: bool = False
    from_step: str | None = None


def plan(opened: runner.Opened, request: Request, wishes: Wishes, use: Services) -> Pipeline:
    """Decide the plan of every step.  A request that cannot be run fails here, and leaves no trace.

    The working tree is the pipeline's from now on, which discards it.
    """
    try:
        graph = graph_of(opened.project.entry_points, opened.entry_point.name)
        forced = _forced(graph, wishes)
        given = shared_out(request.parameters, graph)
        once = replace(use, reporter=_Once(use.reporter))
        steps: dict[str, runner.Planned] = {}
        doubts: dict[str, str] = {}
        for step in graph.steps:
            place = opened if step is graph.target else opened.at(step.name, use)
            planned = runner.plan_opened(place, replace(request, parameters=given[step.name]), once)
            data = _Data(planned.plan, opened.checkout)
            steps[step.name] = replace(planned, plan=data.pinned())
            if data.doubt:
                doubts[step.name] = data.doubt
        for note in dict.fromkeys(note for planned in steps.values() for note in planned.plan.notes):
            use.reporter.note(note)
        return Pipeline(graph, steps, opened.checkout, doubts, forced)
    except BaseException:
        use.sources.discard(opened.checkout)
        raise


def _forced(graph: Graph, wishes: Wishes) -> dict[str, str]:
    if wishes.force:
        return dict.fromkeys(graph.names, "asked for (--force)")
    if (first := wishes.from_step) is None:
        return {}
    if first not in graph.names:
        hint = suggestion(first, graph.names)
        raise UsageError(f"{graph.target.name!r} has no step {first!r}", why=hint, fix=f"--from one of: {', '.join(graph.names)}")
    return dict.fromkeys(graph.from_on(first), f"asked for (--from {first})")


def shared_out(given: Sequence[Given], graph: Graph) -> dict[str, tuple[Given, ...]]:
    """What was given, for each step that declares it.  Raises `ParameterError` for what none declares."""
    names = {step.name: {parameter.name for parameter in step.parameters} for step in graph.steps}
    known = list(dict.fromkeys(parameter.name for step in graph.steps for parameter in step.parameters))
    if unknown := [item.name for item in given if item.name not in known]:
        raise ParameterError(
            f"No step of {graph.target.name!r} declares a parameter {unknown[0]!r}",
            why=suggestion(unknown[0], known),
            fix=f"Parameters: {', '.join(_told(name, graph.steps) for name in known)}" if known else "Leave it out.",
        )
    return {step: tuple(item for item in given if item.name in own) for step, own in names.items()}


def _told(name: str, steps: Sequence[EntryPoint]) -> str:
    having = [step.name for step in steps if any(parameter.name == name for parameter in step.parameters)]
    return f"{name} ({', '.join(having)})"


class _Once:
    """A reporter that says the same thing once, however many steps it is true of."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self._said: set[str] = set()
        self.phase, self.progress, self.note = reporter.phase, reporter.progress, reporter.note

    def done(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self._reporter.done(text)


class _Data:
    """What a step reads that is neither in its code nor put out by another step, pinned to the content that it has now."""

    def __init__(self, plan: Plan, checkout: Checkout) -> None:
        self._plan, self._checkout = plan, checkout
        self.doubt = ""

    def pinned(self) -> Plan:
        point, call = self._plan.entry_point, self._plan.call
        inputs = tuple(self._input(spec) for spec in point.inputs)
        values = tuple(self._value(value) for value in call.values)
        return replace(self._plan, entry_point=replace(point, inputs=inputs), call=Call(call.entry_point, call.command, values))

    def _input(self, spec: InputSpec) -> InputSpec:
        if spec.step or spec.sha256:
            return spec
        return replace(spec, sha256=self._digest(f"input {spec.name}", spec.uri, "give it a sha256"))

    def _value(self, value: BoundValue) -> BoundValue:
        text = value.resolved or value.value or ""
        if value.type is not ParameterType.PATH or not text:
            return value
        return replace(value, sha256=self._digest(f"parameter {value.name}", text, "make it an input with a sha256"))

    def _digest(self, what: str, text: str, advice: str) -> str | None:
        """sha256 of what a path or URI leads to; None where the code's own tree says it, or nobody can."""
        parts = urlsplit(text)
        if parts.scheme in ("http", "https"):
            self.doubt = f"{what} comes from {parts.hostname} and may have changed ({advice})"
            return None
        path = Path(unquote(parts.path)) if parts.scheme == "file" else self._checkout.project / text
        if not path.exists() or path.resolve().is_relative_to(self._checkout.root.resolve()):
            return None
        with explained(path, "read"):
            return digest_of(path)[0]
