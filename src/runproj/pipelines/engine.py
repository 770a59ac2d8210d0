"""Runs the steps of a pipeline that have to run, as many at a time as the graph and the user allow, whatever happens to them."""

from __future__ import annotations

import contextlib
import secrets as tokens
import time
from dataclasses import dataclass, field, replace
from typing import Protocol

from runproj import runner
from runproj.core.backend import JobState
from runproj.core.outcome import Outcome, outcome_of
from runproj.core.pipeline import PipelineView, StepState, StepView
from runproj.core.plan import Plan
from runproj.core.project import EntryPoint
from runproj.core.run import Run, RunStatus, TagName
from runproj.core.services import Services
from runproj.errors import RunprojError
from runproj.files import Lock, remove_tree
from runproj.leases import Lease, Leases
from runproj.pipelines import record
from runproj.pipelines.deciding import Pipeline
from runproj.pipelines.outlook import reused
from runproj.pipelines.past import Past, Result, pinned
from runproj.supervise import Deferred

_POLL = 0.1
_ENDING = 60.0
"""Seconds that steps which are stopped are waited for, beyond their grace."""


class Watcher(Protocol):
    """Told how a pipeline gets on."""

    def begun(self, parent: Run) -> None:
        """There is something to run."""

    def started(self, step: str) -> None:
        """A step runs."""

    def adopted(self, step: str, run: Run) -> None:
        """Another process has begun a run of the same, which is waited for."""

    def settled(self, view: StepView, run: Run | None) -> None:
        """A step is over, or need not run."""

    def passing(self) -> None:
        """Time passes."""

    def stopping(self) -> None:
        """What runs is being stopped."""


@dataclass
class _Waiting:
    """A step that is to run.  `plan` is pinned; `forced`: whatever there is."""

    step: EntryPoint
    plan: Plan
    why: str
    forced: bool = False


@dataclass
class _State:
    """What is known of the steps.  `adopted`: runs that another process began."""

    results: dict[str, Result] = field(default_factory=dict)
    views: dict[str, StepView] = field(default_factory=dict)
    queue: list[_Waiting] = field(default_factory=list)
    running: dict[str, tuple[_Waiting, Run]] = field(default_factory=dict)
    adopted: set[str] = field(default_factory=set)
    built: set[str] = field(default_factory=set)


class Engine:
    """One pipeline, being run by this process."""

    def __init__(self, pipeline: Pipeline, use: Services, leases: Leases, watcher: Watcher, parallel: int) -> None:
        self._pipeline, self._leases, self._watcher = pipeline, leases, watcher
        self._use = use
        self._silent = replace(use, reporter=_Notes(use), tee=(None, None))
        self._parallel = parallel
        self._past = Past(use)
        self._state = _State()
        self._parent: Run | None = None
        self._lease: Lease | None = None

    def run(self) -> PipelineView:
        """Run what has to be run, and tell what became of every step."""
        outcome = Outcome(RunStatus.FAILED, 1, "the pipeline could not be ended in order")
        with Deferred() as deferred:  # what was begun is never known by half
            try:
                self._loop(deferred)
                outcome = self._outcome()
            except BaseException as error:
                outcome = outcome_of(error)
                self._stop(deferred)
                raise
            finally:
                self._close(outcome)
                self._use.sources.discard(self._pipeline.checkout)
        return self._view(outcome)

    # -- going on

    def _loop(self, deferred: Deferred) -> None:
        state = self._state
        while True:
            self._decide()
            while state.queue and len(state.running) < self._parallel:
                self._start(state.queue.pop(0), deferred)
                self._decide()  # one that could not be started settles others
            if not state.running:
                return
            with deferred.lifted():
                time.sleep(_POLL)
            self._look()
            self._watcher.passing()

    def _decide(self) -> None:
        """Look at every step whose needs are settled by now."""
        state = self._state
        for step in self._pipeline.graph.steps:
            if step.name in state.views or step.name in state.running or any(one.step is step for one in state.queue):
                continue
            if bad := [name for name in step.needs if name in state.views and not state.views[name].state.good]:
                self._settle(StepView(step.name, StepState.SKIPPED, needs=step.needs, reason=f"{bad[0]} did not finish"), None)
            elif all(name in state.results for name in step.needs):
                self._decide_one(step)

    def _decide_one(self, step: EntryPoint) -> None:
        pipeline, state = self._pipeline, self._state
        plan = pipeline.steps[step.name].plan
        try:
            plan = pinned(plan, state.results)
            if why := pipeline.forced.get(step.name) or pipeline.doubts.get(step.name):
                state.queue.append(_Waiting(step, plan, why, forced=True))
                return
            found = self._past.find(plan)
            if isinstance(found, Result):
                self._reuse(step, found)
            else:
                state.queue.append(_Waiting(step, plan, found or self._past.why(plan)))
        except RunprojError as error:
            self._failed(step, "", error)

    def _reuse(self, step: EntryPoint, found: Result) -> None:
        backend = self._pipeline.steps[step.name].plan.options.backend
        self._state.results[step.name] = found
        self._settle(reused(StepView(step.name, StepState.REUSED, needs=step.needs, backend=backend), step, found), found.run)

    def _failed(self, step: EntryPoint, why: str, error: RunprojError, run: str = "") -> None:
        """A step that could not be started."""
        backend = self._pipeline.steps[step.name].plan.options.backend
        view = StepView(step.name, StepState.FAILED, why, run, step.needs, backend, None, error.exit_code, str(error))
        self._settle(view, None)

    def _settle(self, view: StepView, run: Run | None) -> None:
        self._state.views[view.step] = view
        self._watcher.settled(view, run)

    # -- runs

    def _start(self, waiting: _Waiting, deferred: Deferred) -> None:
        try:
            self._ready(waiting.plan, deferred)
        except RunprojError as error:
            self._failed(waiting.step, waiting.why, error)
            return
        with Lock(self._use.home / "cache" / "pipelines.lock"):  # of two that want the same now, one runs it
            if waiting.forced or not self._is_there(waiting):
                self._begin_run(waiting)

    def _is_there(self, waiting: _Waiting) -> bool:
        """Whether another process has run the step since it was decided that it has to, or runs it: that is waited for."""
        state, step = self._state, waiting.step
        ours = {info.run_id for info in self._leases.all()}
        if (run := self._past.running(waiting.plan, ours)) is not None:
            state.running[step.name] = waiting, run
            state.adopted.add(step.name)
            self._watcher.adopted(step.name, run)
            return True
        found = self._past.find(waiting.plan)
        if isinstance(found, Result):
            self._reuse(step, found)
            return True
        return False

    def _begin_run(self, waiting: _Waiting) -> None:
        step, plan, begun = waiting.step, waiting.plan, list[Run]()
        parent = self._parent or self._begin()
        tags = (*plan.options.tags, (TagName.PIPELINE, parent.id))
        options = replace(plan.options, run_name=f"{parent.name}-{step.name}", parent_run=parent.id, tags=tags)
        planned = runner.Planned(replace(plan, options=options), self._pipeline.steps[step.name].secrets)
        self._watcher.started(step.name)
        try:
            run = runner.start(planned, self._silent, self._leases, attached=False, on_created=begun.append)
        except RunprojError as error:
            self._failed(step, waiting.why, error, begun[0].id if begun else "")
        else:
            self._state.running[step.name] = waiting, run

    def _ready(self, plan: Plan, deferred: Deferred) -> None:
        """Have the environment there before a step of this machine wants it: what it takes is seen, and is done once."""
        if plan.lock.digest in self._state.built or self._use.backends.open(plan.options.backend).elsewhere:
            return
        self._use.reporter.phase("environment", f"Environment {plan.lock.digest[:12]} ({plan.lock.origin})")
        with deferred.lifted():
            self._use.environments.ensure(plan.lock, self._pipeline.checkout.project, self._use.reporter.progress)
        self._state.built.add(plan.lock.digest)

    def _look(self) -> None:
        """See which runs have ended."""
        use, state = self._use, self._state
        backends = {name: use.backends.open(runner.handle_of(run).backend) for name, (_, run) in state.running.items()}
        if any(backend.elsewhere for backend in backends.values()):
            use.look()
        for name, (waiting, run) in list(state.running.items()):
            here = not backends[name].elsewhere
            if here:
                job = backends[name].status([runner.handle_of(run)])[0].state
                if job in (JobState.PENDING, JobState.RUNNING):
                    continue
            seen = use.tracking.get_run(run.id)
            if here and not seen.over:  # its executor is gone
                use.look()
                seen = use.tracking.get_run(run.id)
            if seen.over:
                self._ended(waiting, seen)

    def _ended(self, waiting: _Waiting, run: Run) -> None:
        state, step = self._state, waiting.step
        del state.running[step.name]
        finished = run.status is RunStatus.FINISHED
        if step.name in state.adopted and not finished:  # whoever began it may have stopped it
            state.adopted.discard(step.name)
            state.queue.insert(0, waiting)
            return
        if finished:
            state.results[step.name] = Result(run, self._past.outputs(run))
        kinds = {RunStatus.FINISHED: StepState.FINISHED, RunStatus.KILLED: StepState.KILLED}
        code = run.tag(TagName.EXIT_CODE)
        view = StepView(
            step.name,
            kinds.get(run.status, StepState.FAILED),
            waiting.why,
            run.id,
            step.needs,
            waiting.plan.options.backend,
            None if run.end is None else (run.end - run.start) / 1000,
            int(code) if code and code.lstrip("-").isdigit() else None,
            run.tag(TagName.REASON) or "",
        )
        self._settle(view, run)

    # -- the parent

    def _begin(self) -> Run:
        """Record the pipeline, once it is known that something has to run."""
        use, token = self._use, tokens.token_hex(8)
        new = record.new_parent(self._pipeline, use, token)
        self._lease = lease = self._leases.take(token, use.tracking_uri)
        self._parent = parent = use.tracking.create_run(new)
        lease.update(run_id=parent.id, folder=use.runs / parent.id)
        lease.beat()
        self._watcher.begun(parent)
        record.store(self._view(Outcome(RunStatus.RUNNING, 0)), parent, use)
        return parent

    def _stop(self, deferred: Deferred) -> None:
        """Stop what runs, unless it is of another pipeline that goes on.  A Ctrl-C meanwhile does not wait for its grace."""
        running = self._state.running
        for name, (_, run) in list(running.items()):
            if name in self._state.adopted and self._is_anothers(run):
                del running[name]
        if running:
            self._watcher.stopping()
        self._cancel_all()
        grace = max((waiting.plan.options.grace for waiting, _ in running.values()), default=0.0)
        deadline = time.monotonic() + grace + _ENDING
        self._state.adopted.clear()
        while running and time.monotonic() < deadline:
            try:
                with deferred.lifted():
                    time.sleep(_POLL)
            except KeyboardInterrupt:
                self._cancel_all()
            self._look()

    def _cancel_all(self) -> None:
        for _, run in self._state.running.values():
            with contextlib.suppress(RunprojError):
                self._use.cancel(run)

    def _is_anothers(self, run: Run) -> bool:
        """Whether the pipeline that a run belongs to is another one, which goes on."""
        with contextlib.suppress(RunprojError):
            return not self._use.tracking.get_run(run.tag(TagName.PIPELINE) or "").status.final
        return False

    def _close(self, outcome: Outcome) -> None:
        if self._lease is None:
            return
        if self._parent is None:  # it could not be recorded
            self._lease.abandon()
            return
        parent, use, target = self._parent, self._use, self._pipeline.graph.target.name
        self._lease.free_ballast()
        result = self._state.results.get(target)
        try:
            record.store(self._view(outcome), parent, use)
            record.close(parent, outcome, use.tracking.get_run(result.run.id).metrics if result else (), use)
        except RunprojError:
            self._lease.abandon()
            raise
        with contextlib.suppress(OSError):
            remove_tree(use.runs / parent.id)
        self._lease.end()

    def _outcome(self) -> Outcome:
        bad = [view for view in self._views() if view.state in (StepState.FAILED, StepState.KILLED)]
        if not bad:
            return Outcome(RunStatus.FINISHED, 0)
        reason = f"{bad[0].step}: {bad[0].reason}".partition("\n")[0]
        return Outcome(RunStatus.FAILED, bad[0].exit_code or 1, reason)

    def _views(self) -> tuple[StepView, ...]:
        """Every step that is settled, in the order of the graph."""
        views = self._state.views
        return tuple(views[name] for name in self._pipeline.graph.names if name in views)

    def _view(self, outcome: Outcome) -> PipelineView:
        parent = self._parent
        name = parent.name if parent else self._pipeline.graph.target.name
        return PipelineView(parent.id if parent else None, name, outcome.status.value, self._views(), outcome.exit_code)


class _Notes:
    """A reporter of runs that nobody watches one by one: only notes are passed on."""

    def __init__(self, use: Services) -> None:
        self.note = use.reporter.note

    def phase(self, name: str, text: str) -> None: ...

    def progress(self, text: str) -> None: ...

    def done(self, text: str) -> None: ...
