"""A pipeline in the store: the parent of the runs of its steps, and its document."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from runproj.codec import to_json
from runproj.core.call import Given
from runproj.core.outcome import Outcome
from runproj.core.pipeline import PipelineView
from runproj.core.project import ParameterType
from runproj.core.run import Metric, NewRun, Param, Run, RunChanges, Tag, TagName
from runproj.core.services import Services
from runproj.files import atomic_write
from runproj.newrun import new_run
from runproj.pipelines.deciding import Pipeline

STORED_AS = "runproj/pipeline.json"
_NOT_ITS_OWN = (TagName.RECIPE, TagName.LOCK)
"""Tags of a step's run: with them the parent would be taken for one."""


def new_parent(pipeline: Pipeline, use: Services, token: str) -> NewRun:
    """The run that stands for the pipeline.  It is this machine's, wherever its steps run."""
    plan = pipeline.steps[pipeline.graph.target.name].plan
    here = replace(plan, options=replace(plan.options, backend="local", backend_options={}))
    new = new_run(here, use, token)
    tags = [tag for tag in new.tags if tag.key not in _NOT_ITS_OWN]
    tags.append(Tag(TagName.STEPS, str(len(pipeline.graph.steps))))
    params = tuple(Param(item.name, item.value) for item in _given(pipeline))
    return replace(new, params=params, tags=tuple(tags))


def _given(pipeline: Pipeline) -> Sequence[Given]:
    """What the user gave, secrets left out."""
    found: dict[str, Given] = {}
    for planned in pipeline.steps.values():
        for value in planned.plan.call.values:
            if value.source != "default" and value.type is not ParameterType.SECRET and value.value is not None:
                found[value.name] = Given(value.name, value.value, value.source)
    return tuple(found.values())


def store(view: PipelineView, parent: Run, use: Services) -> None:
    """Keep with the parent what became of each step: which run has its result, and why it ran or need not."""
    path = use.runs / parent.id / "pipeline.json"
    atomic_write(path, to_json(view, pretty=True))
    use.artifacts.adopt(parent, path, STORED_AS)


def close(parent: Run, outcome: Outcome, metrics: Sequence[Metric], use: Services) -> None:
    """Store the final state; the parent gets the metrics of the step that was asked for, and what a detached one has told."""
    told = use.runs / parent.id / "logs" / "stdout.log"
    if told.exists():
        use.artifacts.adopt(parent, told, "logs/stdout.log")
    now = int(time.time() * 1000)
    tags = (Tag(TagName.EXIT_CODE, str(outcome.exit_code)), Tag(TagName.REASON, outcome.reason[:2000]))
    own = tuple(Metric(metric.key, metric.value, now) for metric in metrics)
    use.tracking.update(parent.id, RunChanges(status=outcome.status, end=now, tags=tags, metrics=own))
