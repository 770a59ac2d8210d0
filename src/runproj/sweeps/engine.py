"""Runs a sweep: as many trials at a time as are wanted, until there are as many as are wanted, whatever is killed and when."""

from __future__ import annotations

import contextlib
import secrets as tokens
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol

from runproj import runner
from runproj.core.outcome import Outcome, outcome_of
from runproj.core.pruning import Curve, hopeless
from runproj.core.run import Run, RunChanges, RunStatus, Tag, TagName
from runproj.core.services import Services
from runproj.core.space import Values
from runproj.core.sweep import Pruning, Sweep, TrialView
from runproj.errors import TrackingError, UsageError
from runproj.files import remove_tree
from runproj.leases import Lease, Leases
from runproj.supervise import Deferred
from runproj.sweeps import record
from runproj.sweeps.deciding import MODELS, Binder
from runproj.sweeps.jobs import Jobs
from runproj.sweeps.pool import Pool, Workers
from runproj.sweeps.samplers import sampler_of
from runproj.sweeps.worker import Answer, Order

_LOOK = 1.0
"""Seconds between looks at what running trials have logged."""
_ENDING = 60.0


class Watcher(Protocol):
    """Told how a sweep gets on."""

    def begun(self, parent: Run, sweep: Sweep, done: int) -> None:
        """The sweep runs from now on; so many of its trials have been run before."""

    def started(self, number: int, values: Values) -> None:
        """A trial runs."""

    def ended(self, trial: TrialView) -> None:
        """A trial is over."""

    def passing(self) -> None:
        """Time passes."""


@dataclass
class _State:
    """What is known of the trials.  `values` of all that were begun, `curves` of what they logged.

    adopted: runs of trials that a process before this one submitted, and that may still run.
    """

    values: dict[int, Values] = field(default_factory=dict)
    ended: dict[int, TrialView] = field(default_factory=dict)
    runs: dict[int, str] = field(default_factory=dict)
    curves: dict[int, Curve] = field(default_factory=dict)
    pruned: dict[int, int] = field(default_factory=dict)
    again: list[int] = field(default_factory=list)
    adopted: dict[int, Run] = field(default_factory=dict)
    next: int = 1


class Engine:
    """One sweep, being run by this process."""

    def __init__(self, planned: runner.Planned, sweep: Sweep, use: Services, leases: Leases, watcher: Watcher) -> None:
        self._planned, self._sweep, self._use, self._leases, self._watcher = planned, sweep, use, leases, watcher
        self._state = _State()
        self._sampler = sampler_of(sweep)
        self._binder = Binder(planned, sweep, use)
        self._recover: Callable[[], object] = lambda: None
        self._begun = time.monotonic()
        self._why = ""
        self._stopping = False
        self._elsewhere = use.backends.open(planned.plan.options.backend).elsewhere

    def start(self, recover: Callable[[], object]) -> Run:
        """Record the sweep and run it to its end; returns its run."""
        token = tokens.token_hex(8)
        new = record.new_parent(self._planned.plan, self._sweep, self._use, token)
        lease = self._leases.take(token, self._use.tracking_uri)
        parent: Run | None = None
        try:
            parent = self._use.tracking.create_run(new)
            lease.update(run_id=parent.id, folder=self._use.runs / parent.id)
            record.store(self._planned.plan, self._sweep, parent, self._use)
        except BaseException:
            lease.abandon()
            raise
        return self._run(parent, lease, recover)

    def resume(self, parent: Run, recover: Callable[[], object]) -> Run:
        """Run the trials that are still wanted of a sweep that was stopped or killed."""
        token = tokens.token_hex(8)
        with self._leases.alone(parent.id):
            if any(info.run_id == parent.id and info.process.alive for info in self._leases.all()):
                raise UsageError(f"Sweep {parent.id[:8]} is running", fix=f"runproj runs stop {parent.id[:8]}")
            lease = self._leases.take(token, self._use.tracking_uri)
            lease.update(run_id=parent.id, folder=self._use.runs / parent.id)
        try:
            gone = (TagName.LOST, TagName.REASON, TagName.EXIT_CODE)
            changes = RunChanges(status=RunStatus.RUNNING, tags=(Tag(TagName.ATTEMPT, token),), deleted_tags=gone)
            self._use.tracking.update(parent.id, changes)
            runner.store_plan(self._planned.plan, parent, self._use)
            self._remember(self._settled(parent, recover))
        except BaseException:
            lease.abandon()
            raise
        return self._run(parent, lease, recover)

    def _settled(self, parent: Run, recover: Callable[[], object]) -> list[Run]:
        """The trials of before.  On this machine none of them runs any more: those whose sweep is gone are ending."""
        deadline = time.monotonic() + _ENDING + self._planned.plan.options.grace
        while True:
            recover()
            runs = record.children(parent.id, self._use)
            if self._elsewhere or all(run.over for run in runs):
                return runs
            if time.monotonic() > deadline:
                raise UsageError(f"Trials of sweep {parent.id[:8]} still run", fix="Stop them: runproj runs stop RUN.")
            time.sleep(0.2)

    def _remember(self, runs: list[Run]) -> None:
        state = self._state
        for number, run in record.latest(runs).items():
            params = {param.key: param.value for param in run.params}
            state.values[number] = tuple((name, params[name]) for name in self._sweep.space.names if name in params)
            if record.counts(run):
                seen = state.ended[number] = record.trial_view(self._with_reason(run), self._sweep)
                self._sampler.tell(number, state.values[number], seen.value)
                if self._sweep.prune is not Pruning.NONE:
                    state.curves[number] = self._curve(run.id)
            elif not run.over:
                state.adopted[number], state.runs[number] = run, run.id
        known = set(state.values)
        state.next = max(known, default=0) + 1
        state.again = sorted({*range(1, state.next)} - set(state.ended) - set(state.adopted))

    def _run(self, parent: Run, lease: Lease, recover: Callable[[], object]) -> Run:
        lease.beat()
        use = self._use
        self._recover = recover
        pool = self._pool(parent)
        with Deferred() as deferred:  # what an order or an answer means is never known by half
            self._through(parent, pool, lease, deferred)
        return use.tracking.get_run(parent.id)

    def _pool(self, parent: Run) -> Pool:
        use, sweep = self._use, self._sweep
        if not self._elsewhere:
            return Workers(use.runs / parent.id, use, sweep.parallel)
        batches = use.backends.open(self._planned.plan.options.backend).batches and sweep.method not in MODELS
        jobs = Jobs(parent, self._planned, use, self._leases, sweep.parallel, batches=batches)
        jobs.adopt(self._state.adopted)
        return jobs

    def _through(self, parent: Run, pool: Pool, lease: Lease, deferred: Deferred) -> None:
        use = self._use
        outcome = Outcome(RunStatus.FAILED, 1, "the sweep could not be ended in order")
        try:
            self._watcher.begun(parent, self._sweep, len(self._state.ended))
            with deferred.lifted():
                self._ready()
            self._loop(parent, pool, deferred)
            outcome = self._outcome()
        except BaseException as error:
            outcome = outcome_of(error)
            self._stopping = True
            for answer in pool.stop(deferred):
                self._take(answer)
            raise
        finally:
            pool.close()
            best = record.ranked(list(self._state.ended.values()), self._sweep)
            lease.free_ballast()
            record.close(parent, self._sweep, outcome, best[0] if best and self._sweep.metric else None, use)
            with contextlib.suppress(OSError):
                remove_tree(use.runs / parent.id)
            lease.end()

    def _ready(self) -> None:
        """Have the environment there once, and see what keeps it from being built, before many trials want it.

        Where they run elsewhere, the first of them builds it there, and the others of that machine wait for it.
        """
        if self._elsewhere:
            return
        use, plan = self._use, self._planned.plan
        use.reporter.phase("environment", f"Environment {plan.lock.digest[:12]} ({plan.lock.origin})")
        checkout = self._planned.checkout or use.sources.checkout(plan.code, use.sources.scratch())
        use.environments.ensure(plan.lock, checkout.project, use.reporter.progress)

    def _loop(self, parent: Run, pool: Pool, deferred: Deferred) -> None:
        looked = time.monotonic()
        while True:
            self._enough(pool)
            orders: list[Order] = []
            while len(orders) < pool.free and (number := self._next()) is not None:
                orders.append(self._order(parent, number))
            pool.start(orders)
            for order in orders:
                self._watcher.started(order.number, self._state.values[order.number])
            if not pool.running:
                return
            with deferred.lifted():
                pool.wait(_LOOK)
            for answer in pool.answers():
                self._take(answer)
            self._watcher.passing()
            if self._sweep.prune is not Pruning.NONE and time.monotonic() - looked >= _LOOK:
                looked = time.monotonic()
                self._prune(pool)

    def _enough(self, pool: Pool) -> None:
        """See whether no further trial is to begin, and take out those that wait."""
        sweep, state = self._sweep, self._state
        if not (state.again or state.next <= sweep.trials or pool.waiting):
            return
        failed = sum(one.status == RunStatus.FAILED.value for one in state.ended.values())
        if sweep.max_failures is not None and failed >= sweep.max_failures:
            self._why = f"{failed} trials failed"
        if sweep.max_time is not None and time.monotonic() - self._begun >= sweep.max_time:
            self._why = f"stopped after {sweep.max_time:g} s"
        if self._why:
            for number in pool.waiting:
                pool.cancel(state.runs[number])

    def _next(self) -> int | None:
        """The number of the next trial to begin; None where no further one is to be."""
        sweep, state = self._sweep, self._state
        if self._why:
            return None
        if state.again:
            return state.again.pop(0)
        if state.next > sweep.trials:
            return None
        state.next += 1
        return state.next - 1

    def _order(self, parent: Run, number: int) -> Order:
        if number not in self._state.values:
            self._state.values[number] = self._sampler.ask(number)
        options = self._planned.plan.options
        own = ((TagName.SWEEP, parent.id), (TagName.TRIAL, str(number)))
        options = replace(options, run_name=f"{parent.name}-{number}", parent_run=parent.id, tags=(*options.tags, *own))
        return Order(number, self._binder.call(self._state.values[number]), options, self._planned.secrets)

    def _take(self, answer: Answer) -> None:
        state = self._state
        if answer.run:
            state.runs[answer.number] = answer.run
        if not answer.ended:
            return
        run_id = state.runs.get(answer.number)
        if run_id is None and self._stopping:  # it had not begun
            return
        if run_id is None:
            raise TrackingError(f"Trial {answer.number} could not be recorded", why=answer.error)
        run = self._use.tracking.get_run(run_id)
        if state.adopted.pop(answer.number, None) and not record.counts(run) and not self._stopping:
            state.again.append(answer.number)  # it was being stopped, or had not been submitted
            return
        if not run.over:  # its process vanished
            self._recover()
            run = self._use.tracking.get_run(run_id)
        seen = state.ended[answer.number] = record.trial_view(self._with_reason(run), self._sweep)
        self._sampler.tell(answer.number, state.values[answer.number], seen.value)
        if self._sweep.prune is not Pruning.NONE:
            state.curves[answer.number] = self._curve(run_id)
        self._watcher.ended(seen)

    def _with_reason(self, run: Run) -> Run:
        """Have a pruned trial say so, where it says yet that a signal stopped it."""
        step = run.tag(TagName.PRUNED)
        reason = f"pruned at step {step}"
        if step is None or run.status is not RunStatus.KILLED or run.tag(TagName.REASON) == reason:
            return run
        tag = Tag(TagName.REASON, reason)
        self._use.tracking.update(run.id, RunChanges(tags=(tag,)))
        return replace(run, tags=(*(one for one in run.tags if one.key != tag.key), tag))

    def _curve(self, run_id: str) -> Curve:
        points = self._use.tracking.history(run_id, self._sweep.metric or "")
        return sorted({point.step: point.value for point in points}.items())

    def _prune(self, pool: Pool) -> None:
        """Stop what is hopeless; the tag comes first, so that it is known why, whatever happens then."""
        state, use = self._state, self._use
        for number in set(pool.running) - set(pool.waiting):
            run_id = state.runs.get(number)
            if run_id is None or number in state.pruned:
                continue
            state.curves[number] = self._curve(run_id)
            step = hopeless(self._sweep.prune, self._sweep.goal, number, state.curves)
            if step is None:
                continue
            state.pruned[number] = step
            use.tracking.update(run_id, RunChanges(tags=(Tag(TagName.PRUNED, str(step)),)))
            pool.cancel(run_id)

    def _outcome(self) -> Outcome:
        statuses = [one.status for one in self._state.ended.values()]
        if self._sweep.max_failures is not None and self._why.endswith("failed"):
            return Outcome(RunStatus.FAILED, 1, self._why)
        if RunStatus.FINISHED.value not in statuses:
            return Outcome(RunStatus.FAILED, 1, self._why or "no trial finished")
        return Outcome(RunStatus.FINISHED, 0, self._why)
