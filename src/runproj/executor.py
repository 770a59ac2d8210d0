"""What happens where the job runs: checkout → environment → command under supervision → logs, metrics, outputs → final state."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from runproj import __version__, child, inputs, launch, leftovers, logs, machine, nested, observe, supervise, variables
from runproj.codec import to_json
from runproj.core.call import Call
from runproj.core.environment import Environment, EnvPlace
from runproj.core.outcome import Outcome, outcome_of
from runproj.core.plan import Plan
from runproj.core.record import Audit, Input, Output, RunRecord, Timing
from runproj.core.run import Metric, Phase, Run, RunChanges, RunStatus, Tag, TagName
from runproj.core.services import Endpoint, Services
from runproj.core.source import Checkout
from runproj.errors import RefusedError, RunprojError, TrackingError
from runproj.files import atomic_write, explained, remove_tree, sha256_file
from runproj.leases import Lease

if TYPE_CHECKING:
    from runproj.audit import Watch

UNDECLARED = 21
"""Exit code of a run that read what it had not declared, where that was forbidden (--audit-strict)."""
TIMED_OUT = 124
"""Exit code of a run that took longer than its timeout, as of `timeout(1)`."""


class _Recording:
    """Keeps the record true while a run is executed: phases, timings, and a final state whatever happens."""

    def __init__(self, plan: Plan, run: Run, use: Services, lease: Lease) -> None:
        self.plan, self.run, self.use, self.lease = plan, run, use, lease
        self.phase = Phase.START
        self.started = time.time()
        self.timings = [Timing("queue", round(use.waited, 4))] if use.waited else []
        self.notes: list[str] = []
        self.argv: tuple[str, ...] = ()
        self.env: Mapping[str, str] = {}
        self.environment: Environment | None = None
        self.ending: supervise.Ending | None = None
        self.task: launch.Task | None = None
        self.reported: RunStatus | None = None
        self.inputs: list[Input] = []
        self.outputs: list[Output] = []
        self.audit: Audit | None = None
        self.forbidden = ""

    @contextlib.contextmanager
    def during(self, phase: Phase, text: str) -> Iterator[None]:
        self.phase = phase
        leftovers.leave_phase(self.use.runs / self.run.id, phase)
        self.use.reporter.phase(phase.value, text)
        begin = time.monotonic()
        try:
            yield
        finally:
            self.timings.append(Timing(phase.value, round(time.monotonic() - begin, 4)))

    def note(self, text: str) -> None:
        self.notes.append(text)
        self.use.reporter.note(text)

    def take(self, watch: Watch) -> None:
        """Record what the command opened without having declared it."""
        from runproj.audit import words

        self.audit = watch.found()
        if said := words(self.audit):
            self.note(said)
            self.forbidden = said if watch.strict else ""

    def close(self, outcome: Outcome) -> None:
        """Store the final state.  Where that cannot be done, the outcome is left for the next command to store."""
        folder = self.use.runs / self.run.id
        try:
            self.lease.free_ballast()
            self._store(outcome)
            if self.task:
                self.task.finish()
            _clean_up(self.plan, folder, outcome)
            self.lease.end()  # last: while there is a lease, the next command looks after whatever is left
        except RunprojError as error:
            leftovers.leave_outcome(folder, outcome)
            self.lease.abandon()
            self.use.reporter.note(f"The end of run {self.run.id} could not be recorded ({error.what}); the next command will.")

    def _store(self, outcome: Outcome) -> None:
        tags = [Tag(TagName.PHASE, (Phase.DONE if outcome.status is RunStatus.FINISHED else self.phase).value)]
        tags.append(Tag(TagName.EXIT_CODE, str(outcome.exit_code)))
        tags.append(Tag(TagName.DURATIONS, " ".join(f"{timing.phase}={timing.seconds:.3f}" for timing in self.timings)))
        if outcome.reason:
            tags.append(Tag(TagName.REASON, outcome.reason[:2000]))
        if self.task and self.task.environment.image:
            tags.append(Tag(TagName.IMAGE_ID, self.task.environment.image.id))
        if self.ending and self.ending.signal:
            tags.append(Tag(TagName.SIGNAL, signal.Signals(self.ending.signal).name))
        try:
            self._store_files(outcome)
        except RunprojError as error:
            self.use.reporter.note(f"Not every file of the run could be stored: {error.what}. {error.why}")
            tags.append(Tag(TagName.INCOMPLETE, error.what[:500]))
        finally:  # whatever becomes of its files, the run is over
            end = int(time.time() * 1000)
            self.use.tracking.update(self.run.id, RunChanges(status=outcome.status, end=end, tags=tuple(tags)))

    def _store_files(self, outcome: Outcome) -> None:
        logs = self.use.runs / self.run.id / "logs"
        for path in sorted(logs.iterdir()) if logs.is_dir() else ():
            self.use.artifacts.adopt(self.run, path, f"logs/{path.name}")
        record = self.use.runs / self.run.id / "record.json"
        atomic_write(record, to_json(self.record(outcome), pretty=True))
        self.use.artifacts.adopt(self.run, record, "runproj/record.json")

    def record(self, outcome: Outcome) -> RunRecord:
        ending = self.ending
        python = self.plan.lock.python
        return RunRecord(
            run_id=self.run.id,
            status=outcome.status.value,
            phase=self.phase.value,
            argv=self.argv,
            exit_code=ending.code if ending else None,
            signal=ending.signal if ending else None,
            reason=outcome.reason,
            machine=machine.describe(self.env or os.environ),
            interpreter=f"{python.implementation} {python.version}" if python else "",
            env_names=tuple(sorted(self.env)),
            variables=variables.recordable(self.env, self.environment) if self.environment else (),
            inputs=tuple(self.inputs),
            outputs=tuple(self.outputs),
            timings=tuple(self.timings),
            cpu=ending.cpu if ending else 0.0,
            memory=ending.memory if ending else 0,
            started=_utc(self.started),
            ended=_utc(time.time()),
            user=self.run.user,
            runproj=__version__,
            notes=tuple(self.notes),
            audit=self.audit,
        )


def _utc(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{int(seconds * 1000) % 1000:03d}Z"


def execute(plan: Plan, run: Run, use: Services, lease: Lease, secrets: Mapping[str, str]) -> Outcome:
    """Execute a recorded run to its final state.  Never raises for what a project or a user can do; the outcome tells.

    On return the run's state is stored, or the lease is left behind so that the next command stores it.
    """
    recording = _Recording(plan, run, use, lease)
    lease.beat()
    with supervise.Deferred() as deferred:
        try:
            with deferred.lifted():
                outcome = _steps(recording, use.runs / run.id, secrets)
        except BaseException as error:
            outcome = outcome_of(error)
            recording.close(outcome)
            if not isinstance(error, KeyboardInterrupt):
                raise
        else:
            recording.close(outcome)
    return outcome


def _steps(recording: _Recording, folder: Path, secrets: Mapping[str, str]) -> Outcome:
    plan, use = recording.plan, recording.use
    with recording.during(Phase.SOURCE, f"Checking out {plan.code.commit or plan.code.tree}"):
        checkout = launch.laid_out(plan, use, folder / "work")
    with recording.during(Phase.ENVIRONMENT, f"Environment {plan.lock.digest[:12]} ({plan.lock.origin})"):
        environment = launch.environment(plan, use, checkout)
    with recording.during(Phase.INPUTS, "Checking inputs"):
        call, given = _inputs(recording, checkout, folder)
        plan = recording.plan = _limited(plan, use.until)
        bare = launch.Task(plan, recording.run, use, checkout, environment)
        task = launch.task(bare, recording.lease.info.token, recording.note)
    recording.task = task
    with recording.during(Phase.RUN, plan.call.shown()):
        ending = _command(recording, task.with_call(call, given, secrets))
    with recording.during(Phase.COLLECT, "Collecting outputs"):
        problems = _collect(recording, checkout)
    outcome = _outcome(ending, plan, recording.argv[0], folder)
    if outcome.status is RunStatus.FINISHED and recording.reported in (RunStatus.FAILED, RunStatus.KILLED):
        outcome = Outcome(recording.reported, 0, f"the project itself ended its run as {recording.reported.value}")
    if problems and outcome.status is RunStatus.FINISHED:
        recording.note(problems)
    if recording.forbidden and outcome.status is RunStatus.FINISHED:
        outcome = Outcome(RunStatus.FAILED, UNDECLARED, recording.forbidden)
    recording.phase = Phase.RUN if outcome.status is not RunStatus.FINISHED else recording.phase
    return outcome


def _limited(plan: Plan, until: float | None) -> Plan:
    """The plan with a timeout that ends its command in time, whatever the steps before it took."""
    if until is None:
        return plan
    left = max(1.0, float(int(until - time.time())))
    return replace(plan, options=replace(plan.options, timeout=min(plan.options.timeout or left, left)))


def _inputs(recording: _Recording, checkout: Checkout, folder: Path) -> tuple[Call, dict[str, str]]:
    """Declared inputs and remote path parameters on disk: the call with real paths, and variables naming the inputs."""
    progress = recording.use.reporter.progress
    brought = inputs.Brought(recording.use.home, recording.plan.rerun_of, recording.run.id)
    given = {}
    inputs.make_room(recording.plan.entry_point.inputs, checkout.project)
    for spec in recording.plan.entry_point.inputs:
        record, path = inputs.prepare(spec, checkout.project, recording.use, brought)
        recording.inputs.append(record)
        given[inputs.variable(spec.name)] = str(path)
    call = inputs.localise(recording.plan.call, folder / "params", progress, brought)
    recording.inputs += inputs.behind_paths(call, checkout.root)
    return call, given


def _outcome(ending: supervise.Ending, plan: Plan, program: str, folder: Path) -> Outcome:
    if ending.stopped is not None:
        name = signal.Signals(ending.stopped).name
        return Outcome(RunStatus.KILLED, 128 + ending.stopped, f"stopped by {name}")
    if ending.timed_out:
        return Outcome(RunStatus.FAILED, TIMED_OUT, f"timed out after {plan.options.timeout:g} s")
    if ending.error is not None:
        why = os.strerror(ending.error)
        return Outcome(RunStatus.FAILED, ending.code, f"the command {program!r} could not be started: {why}")
    if ending.memory_ran_out:
        limit = plan.entry_point.resources.memory
        words = f" (resources: memory: {limit})" if limit else ""
        return Outcome(RunStatus.FAILED, ending.code, f"killed because it used more memory than its container may{words}")
    if ending.signal is not None:
        return Outcome(RunStatus.FAILED, ending.code, f"ended by {signal.Signals(ending.signal).name}")
    if ending.code:
        from runproj.environments.failures import explain_failure

        reason, tail = f"exit code {ending.code}", _tail(folder / "logs" / "stderr.log")
        if plan.lock.place is EnvPlace.IMAGE and (missing := launch.not_in_image(tail, ending.code)):
            return Outcome(RunStatus.FAILED, ending.code, missing)
        hint = explain_failure(tail)
        return Outcome(RunStatus.FAILED, ending.code, f"{reason}\n{hint}" if hint else reason)
    return Outcome(RunStatus.FINISHED, 0)


def _tail(path: Path, size: int = 16 * 1024) -> str:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - size))
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def _command(recording: _Recording, task: launch.Task) -> supervise.Ending:
    plan, use, run = recording.plan, recording.use, recording.run
    folder = use.runs / run.id
    metrics = _Metrics(recording)
    link: child.Link | None = None
    try:
        with contextlib.ExitStack() as stack:
            with explained(folder):
                out, err = _logs(folder / "logs", use.tee, metrics.watcher)
                stack.callback(out.close)
                stack.callback(err.close)
                link = stack.enter_context(child.endpoint(run, use, task.address))
                recording.env, recording.environment = task.variables(link), task.environment
                spec = stack.enter_context(task.ready(recording.env))
            if watch := task.watched(spec, link, folder):
                stack.callback(lambda: recording.take(watch))
                spec = watch.spec
            recording.argv = task.argv if not any(v.value is None for v in plan.call.values) else (plan.call.shown(),)
            recording.ending = supervise.run(spec, out, err, listener=link.listener, tick=metrics.store)
            if recording.ending.signal is not None:
                task.finish()
            metrics.watcher.close()
            metrics.store(last=True)
            task.take_over(link)
            if left := child.send_what_is_left(link, run, use):
                recording.note(left)
    finally:
        if link is not None:  # closed by now: no run can be begun any more
            _close_children(recording, link.endpoint)
            recording.reported = link.endpoint.reported_status if link.endpoint else None
    if recording.ending.failed:
        raise task.failure(recording.ending.failed)
    if recording.ending.leftovers:
        recording.note(f"{recording.ending.leftovers} processes that the command left running were ended.")
    return recording.ending


def _logs(
    folder: Path, tee: tuple[int | None, int | None], watcher: observe.MetricWatcher
) -> tuple[logs.LogWriter, logs.LogWriter]:
    folder.mkdir(parents=True, exist_ok=True)
    out = logs.LogWriter(folder, "stdout", tee[0], watcher.feed if watcher else None)
    return out, logs.LogWriter(folder, "stderr", tee[1])


class _Metrics:
    """Takes metrics from the output to the record.  A store in trouble gets them later; it never ends the command."""

    _PATIENCE = 30.0

    def __init__(self, recording: _Recording) -> None:
        self._recording = recording
        self.watcher = observe.MetricWatcher(recording.plan.entry_point.metrics)
        self._waiting: list[Metric] = []
        self._not_before = 0.0

    def store(self, *, last: bool = False) -> None:
        """Store what was found; `last`: now or never."""
        self._waiting += self.watcher.take()
        if not self._waiting or (time.monotonic() < self._not_before and not last):
            return
        try:
            self._send(self._waiting)
        except RefusedError:
            self._send_each(self._waiting)
        except TrackingError as error:
            self._not_before = time.monotonic() + self._PATIENCE
            if last:
                self._recording.note(f"{len(self._waiting)} metrics could not be recorded: {error.what}. {error.why}")
            return
        self._waiting = []

    def _send(self, metrics: Sequence[Metric]) -> None:
        self._recording.use.tracking.update(self._recording.run.id, RunChanges(metrics=tuple(metrics)))

    def _send_each(self, metrics: Sequence[Metric]) -> None:
        for metric in metrics:
            try:
                self._send([metric])
            except TrackingError as error:
                self._recording.note(f"The metric {metric.key[:80]!r} could not be recorded: {error.what}")


def _close_children(recording: _Recording, endpoint: Endpoint | None) -> None:
    """Runs that the command began inside this one and did not end: it is over, so they are."""
    tracking = recording.use.tracking
    try:
        left = endpoint.open_runs() if endpoint else [run.id for run in nested.open_below(recording.run.id, tracking)]
        nested.close(left, tracking, "the command ended without ending this run")
    except RunprojError as error:
        recording.note(f"Runs inside this one may have been left open: {error.what}.")


def _collect(recording: _Recording, checkout: Checkout) -> str:
    """Store outputs and metrics from files; returns what was declared and not found."""
    plan, use, run = recording.plan, recording.use, recording.run
    names, empty = observe.find_outputs(plan.entry_point.outputs, checkout.project)
    for name in names:
        path = checkout.project / name
        with explained(path, "read"):
            recording.outputs.append(Output(name, path.stat().st_size, sha256_file(path)))
        use.artifacts.put(run, path, name)
    problems = [f"No file fits the output {pattern!r}." for pattern in empty]
    try:
        if metrics := tuple(observe.metrics_from_files(plan.entry_point.metrics, checkout.project)):
            use.tracking.update(run.id, RunChanges(metrics=metrics))
    except RunprojError as error:
        problems.append(f"{error.what}: {error.why}")
    return " ".join(problems)


def _clean_up(plan: Plan, folder: Path, outcome: Outcome) -> None:
    """Remove the run's working folder, unless the user wants to look at it."""
    keep = plan.options.keep
    if keep == "always" or (keep == "failed" and outcome.status is not RunStatus.FINISHED):
        return
    with contextlib.suppress(OSError):
        remove_tree(folder)
