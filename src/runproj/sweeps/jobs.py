"""Trials as jobs of an engine: submitted together, asked about together, found again by a process that takes over."""

from __future__ import annotations

import contextlib
import resource
import secrets as tokens
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from runproj import runner
from runproj.codec import to_json
from runproj.core.backend import JobHandle
from runproj.core.outcome import outcome_of
from runproj.core.run import Run, RunChanges, RunQuery, RunStatus, Tag, TagName
from runproj.core.services import Services
from runproj.errors import RunprojError
from runproj.leases import Lease, Leases
from runproj.newrun import close_unstarted, new_run
from runproj.supervise import Deferred
from runproj.sweeps.worker import Answer, Order

MOST = 1000
"""Jobs that are submitted at once; as many as most Slurm clusters let be in an array."""
_OPEN = (RunStatus.RUNNING, RunStatus.SCHEDULED)
_ENDING = 60.0
"""Seconds that jobs which are stopped are waited for, beyond their grace."""
_AGAIN = 5.0
"""Seconds after which an engine that could not cancel jobs is told again."""
_DESCRIPTORS = 3 * MOST


@dataclass
class _Begun:
    """A trial that is being submitted."""

    order: Order
    run: Run
    lease: Lease


class Jobs:
    """The trials of one sweep on its backend.

    batches: all are submitted at once, and the engine lets `size` of them run at a time; else, or where what is tried next
    depends on what came out, no more are submitted than may run.
    """

    def __init__(self, parent: Run, planned: runner.Planned, use: Services, leases: Leases, size: int, *, batches: bool) -> None:
        self._parent, self._planned, self._use, self._leases = parent, planned, use, leases
        self._size, self._batches = size, batches
        self._running: dict[int, str] = {}
        self._waiting: set[int] = set()
        self._unwanted: set[str] = set()
        self._cancelled: set[str] = set()
        self._told = 0.0
        self._said: list[Answer] = []
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS)
        if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < wanted:  # each lease is an open file until its job is submitted
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))

    @property
    def free(self) -> int:
        if self._batches:
            return 0 if self._running else MOST
        return self._size - len(self._running)

    @property
    def running(self) -> list[int]:
        return list(self._running)

    @property
    def waiting(self) -> list[int]:
        return list(self._waiting)

    def adopt(self, runs: Mapping[int, Run]) -> None:
        """Take over trials that another process submitted."""
        self._running |= {number: run.id for number, run in runs.items()}

    def start(self, orders: Sequence[Order]) -> None:
        """Record and submit trials; all of them, or none."""
        if not orders:
            return
        begun: list[_Begun] = []
        try:
            for order in orders:
                self._record(order, begun)
            self._submit(begun)
        except BaseException as error:
            for one in begun:
                one.lease.free_ballast()
                close_unstarted(one.run, outcome_of(error), self._use)
                one.lease.abandon()
            raise
        for one in begun:
            self._running[one.order.number] = one.run.id
            self._waiting.add(one.order.number)
            self._said.append(Answer(one.order.number, one.run.id))

    def _plan_of(self, order: Order) -> runner.Planned:
        return runner.Planned(replace(self._planned.plan, call=order.call, options=order.options), order.secrets)

    def _record(self, order: Order, begun: list[_Begun]) -> None:
        use, token = self._use, tokens.token_hex(8)
        plan = self._plan_of(order).plan
        new = new_run(plan, use, token, waits=True)
        lease = self._leases.take(token, use.tracking_uri)
        try:
            run = use.tracking.create_run(new)
        except BaseException:
            lease.abandon()
            raise
        begun.append(_Begun(order, run, lease))
        lease.update(run_id=run.id, folder=use.runs / run.id)
        runner.store_plan(plan, run, use)

    def _submit(self, begun: Sequence[_Begun]) -> None:
        use, name = self._use, self._planned.plan.options.backend
        backend = use.backends.open(name)
        jobs = [runner.job_of(one.run, self._plan_of(one.order), backend, use, one.lease) for one in begun]
        for one in begun:
            one.lease.intend(JobHandle(name, "", run_id=one.run.id))
        handles = backend.submit(jobs, at_once=self._size if self._size < len(jobs) else None)
        for one, handle in zip(begun, handles, strict=True):
            one.lease.place(handle)
            use.tracking.update(one.run.id, RunChanges(tags=(Tag(TagName.HANDLE, to_json(handle)),)))

    def wait(self, patience: float) -> None:
        time.sleep(patience)

    def answers(self) -> Iterator[Answer]:
        """What has become of the jobs; the engine is asked at its own pace."""
        said, self._said = self._said, []
        yield from said
        self._cancel_again()
        self._use.look()
        found = {run.id: run.status for run in self._open()}
        self._waiting = {number for number, run_id in self._running.items() if found.get(run_id) is RunStatus.SCHEDULED}
        for number, run_id in list(self._running.items()):
            if run_id not in found and self._use.tracking.get_run(run_id).over:
                del self._running[number]
                yield Answer(number, run_id, ended=True)

    def _open(self) -> Iterator[Run]:
        """The runs of the sweep that have not ended."""
        query = RunQuery(statuses=_OPEN, tags=(Tag(TagName.SWEEP, self._parent.id),), limit=MOST)
        seen = 0
        while page := self._use.tracking.search(replace(query, offset=seen)):
            yield from page
            seen += len(page)

    def cancel(self, run_id: str) -> None:
        if run_id not in self._unwanted:
            self._unwanted.add(run_id)
            self._cancel(run_id)

    def _cancel(self, run_id: str) -> None:
        with contextlib.suppress(RunprojError):  # an engine that does not answer is told again
            self._use.cancel(self._use.tracking.get_run(run_id))
            self._cancelled.add(run_id)
        self._told = time.monotonic()

    def _cancel_again(self) -> None:
        """Tell the engine what it did not hear."""
        unheard = (self._unwanted - self._cancelled).intersection(self._running.values())
        if unheard and time.monotonic() - self._told >= _AGAIN:
            for run_id in unheard:
                self._cancel(run_id)

    def stop(self, deferred: Deferred) -> Iterator[Answer]:
        """Cancel every job, and wait for what becomes of it."""
        for run_id in self._running.values():
            self.cancel(run_id)
        deadline = time.monotonic() + self._planned.plan.options.grace + _ENDING
        while self._running and time.monotonic() < deadline:
            try:
                with deferred.lifted():
                    self.wait(0.5)
            except KeyboardInterrupt:  # the next command sees how they ended
                return
            yield from self.answers()

    def close(self) -> None:
        """Jobs need nothing of this process."""
