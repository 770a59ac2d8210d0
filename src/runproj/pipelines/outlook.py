"""What would run, and why, as far as that is known before anything has: what a step puts out is known when it has run."""

from __future__ import annotations

from runproj.core.pipeline import StepState, StepView
from runproj.core.project import EntryPoint
from runproj.core.services import Services
from runproj.errors import RunprojError
from runproj.pipelines.deciding import Pipeline
from runproj.pipelines.past import Past, Result, pinned


def outlook(pipeline: Pipeline, use: Services) -> tuple[StepView, ...]:
    """Every step: it would run, it would where its inputs come out changed, or it would not."""
    past = Past(use)
    results: dict[str, Result] = {}
    views: dict[str, StepView] = {}
    for step in pipeline.graph.steps:
        view, result = _seen(step, pipeline, past, results, views)
        views[step.name] = view
        if result:
            results[step.name] = result
    return tuple(views.values())


def _seen(
    step: EntryPoint, pipeline: Pipeline, past: Past, results: dict[str, Result], views: dict[str, StepView]
) -> tuple[StepView, Result | None]:
    plan = pipeline.steps[step.name].plan
    view = StepView(step.name, StepState.RUN, needs=step.needs, backend=plan.options.backend)
    if why := pipeline.forced.get(step.name) or pipeline.doubts.get(step.name):
        return _with(view, StepState.RUN, why), None
    unknown = [views[name] for name in step.needs if name not in results]
    if not unknown:
        try:
            plan = pinned(plan, results)
        except RunprojError as error:
            return _with(view, StepState.FAILED, "", reason=error.what), None
        found = past.find(plan)
        if isinstance(found, Result):
            return reused(view, step, found), found
        return _with(view, StepState.RUN, found or past.why(plan)), None
    if not past.known(plan):
        return _with(view, StepState.RUN, past.why(plan)), None
    taken = {spec.step for spec in step.inputs}
    for one in unknown:
        if one.state is StepState.RUN and one.step not in taken:
            return _with(view, StepState.RUN, f"{one.step} runs again"), None
    names = " or ".join(one.step for one in unknown)
    return _with(view, StepState.OPEN, f"if {names} comes out changed"), None


def _with(view: StepView, state: StepState, why: str, *, reason: str = "") -> StepView:
    return StepView(view.step, state, why, needs=view.needs, backend=view.backend, reason=reason)


def reused(view: StepView, step: EntryPoint, found: Result) -> StepView:
    """A step whose result is there."""
    run = found.run
    why = "same code, parameters, environment" + (" and inputs" if step.inputs or step.needs else "")
    took = None if run.end is None else (run.end - run.start) / 1000
    return StepView(view.step, StepState.REUSED, why, run.id, view.needs, view.backend, took)
