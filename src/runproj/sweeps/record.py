"""A sweep in the store: its parent run, its document, and what its trials came to."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from runproj import analysis, runner
from runproj.codec import DocumentError, from_json, to_json
from runproj.core.outcome import Outcome
from runproj.core.plan import Plan
from runproj.core.run import Metric, NewRun, Run, RunChanges, RunQuery, RunStatus, Tag, TagName
from runproj.core.services import Services
from runproj.core.sweep import SWEEP_VERSION, Goal, Sweep, SweepView, TrialView
from runproj.errors import NotFoundError, TrackingError, UsageError
from runproj.files import atomic_write
from runproj.newrun import new_run

STORED_AS = "runproj/sweep.json"
_PAGE = 1000


def new_parent(plan: Plan, sweep: Sweep, use: Services, token: str) -> NewRun:
    """The run that stands for the sweep: what all trials share, and no parameters of its own."""
    new = new_run(plan, use, token)
    return replace(new, params=(), tags=(*new.tags, Tag(TagName.TRIALS, str(sweep.trials))))


def store(plan: Plan, sweep: Sweep, parent: Run, use: Services) -> None:
    """Keep with the parent run what going on after a crash needs."""
    runner.store_plan(plan, parent, use)
    path = use.runs / parent.id / "sweep.json"
    atomic_write(path, to_json(sweep, pretty=True))
    use.artifacts.adopt(parent, path, STORED_AS)


def load(parent: Run, use: Services) -> Sweep:
    """The document of a sweep.  Raises `UsageError` for a run that is none."""
    if parent.tag(TagName.TRIALS) is None:
        raise UsageError(f"Run {parent.id[:8]} is no sweep", fix="A sweep is the run that `runproj sweep` names when it begins.")
    path: Path = use.home / "cache" / "plans" / f"{parent.id}.sweep.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        use.artifacts.get(parent, STORED_AS, path)
        sweep = from_json(Sweep, path.read_bytes())
    except (NotFoundError, DocumentError) as error:
        raise TrackingError(f"The document of sweep {parent.id[:8]} cannot be read", why=str(error)) from error
    finally:
        path.unlink(missing_ok=True)
    if sweep.version > SWEEP_VERSION:
        raise TrackingError(f"Sweep {parent.id[:8]} has version {sweep.version}; this runproj knows {SWEEP_VERSION}")
    return sweep


def children(parent: str, use: Services) -> list[Run]:
    """Every run of a sweep's trials, newest first."""
    found: list[Run] = []
    query = RunQuery(tags=(Tag(TagName.SWEEP, parent),), limit=_PAGE)
    while page := use.tracking.search(replace(query, offset=len(found))):
        found += page
    return found


def number_of(run: Run) -> int:
    return int(run.tag(TagName.TRIAL) or 0)


def counts(run: Run) -> bool:
    """Whether a trial has had its chance: it ended by itself or was pruned, and neither its user nor a crash stopped it."""
    if run.status is RunStatus.KILLED:
        return run.tag(TagName.PRUNED) is not None
    return run.over and run.tag(TagName.LOST) is None


def latest(runs: Sequence[Run]) -> dict[int, Run]:
    """One run for each trial: the one that counts, or else the newest."""
    found: dict[int, Run] = {}
    for run in runs:
        known = found.get(number_of(run))
        if known is None or (counts(run) and not counts(known)):
            found[number_of(run)] = run
    return dict(sorted(found.items()))


def value_of(run: Run, sweep: Sweep) -> float | None:
    return next((metric.value for metric in run.metrics if metric.key == sweep.metric), None)


def trial_view(run: Run, sweep: Sweep) -> TrialView:
    pruned = run.tag(TagName.PRUNED) if run.status is RunStatus.KILLED else None
    tried = set(sweep.space.names)
    return TrialView(
        number=number_of(run),
        run=run.id,
        status=run.status.value,
        params=tuple((param.key, param.value) for param in run.params if param.key in tried),
        value=value_of(run, sweep),
        seconds=None if run.end is None else (run.end - run.start) / 1000,
        reason=(run.tag(TagName.REASON) or "").partition("\n")[0],
        pruned=None if pruned is None else int(pruned),
    )


def ranked(trials: Sequence[TrialView], sweep: Sweep) -> list[TrialView]:
    """Finished trials with a value, the best first."""
    valued = [one for one in trials if one.status == "FINISHED" and one.value is not None and one.value == one.value]
    return sorted(valued, key=lambda one: (one.value or 0.0) * (-1 if sweep.goal is Goal.MAXIMIZE else 1))


def view(parent: Run, sweep: Sweep, use: Services) -> SweepView:
    """The sweep as it stands in the store."""
    runs = latest(children(parent.id, use))
    trials = tuple(trial_view(run, sweep) for run in runs.values())
    best = ranked(trials, sweep) if sweep.metric else []
    importance = None
    finished = [run for run in runs.values() if run.status is RunStatus.FINISHED]
    if sweep.metric and best:
        sample = analysis.sample(finished, sweep.metric)
        kept = tuple(item for item in sample.params if item[0] in sweep.space.names)
        importance = analysis.correlate(finished, replace(sample, params=kept), analysis.Question())
    return SweepView(
        run=parent.id,
        name=parent.name,
        status=parent.status.value,
        sweep=sweep,
        trials=trials,
        best=tuple(one.number for one in best),
        rerun=f"runproj rerun {best[0].run[:8]}" if best else "",
        importance=importance,
        stopped=parent.tag(TagName.REASON) or "",
        notes=tuple(_notes(finished, sweep)),
    )


def _notes(finished: Sequence[Run], sweep: Sweep) -> Iterator[str]:
    values = [value_of(run, sweep) for run in finished] if sweep.metric else []
    without = values.count(None)
    if without:
        known = ", ".join(sorted({metric.key for run in finished for metric in run.metrics})) or "none"
        yield f"{without} of {len(finished)} trials that finished have no metric {sweep.metric!r}; metrics: {known}."
    if odd := sum(value != value for value in values):
        what = f"ended with a {sweep.metric!r} that is no number (NaN): they are not ranked."
        yield f"{odd} of {len(finished)} trials that finished {what}"


def close(parent: Run, sweep: Sweep, outcome: Outcome, best: TrialView | None, use: Services) -> None:
    """Store the sweep's final state; the parent run gets the best value as its own."""
    now = int(time.time() * 1000)
    tags = [Tag(TagName.EXIT_CODE, str(outcome.exit_code)), Tag(TagName.REASON, outcome.reason[:2000])]
    metrics: tuple[Metric, ...] = ()
    if best is not None and best.value is not None and sweep.metric:
        metrics = (Metric(sweep.metric, best.value, now),)
        tags.append(Tag(TagName.BEST, best.run))
    use.tracking.update(parent.id, RunChanges(status=outcome.status, end=now, tags=tuple(tags), metrics=metrics))
