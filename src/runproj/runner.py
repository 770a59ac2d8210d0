"""The program, top to bottom: plan decides everything, start records and submits, follow waits."""

from __future__ import annotations

import contextlib
import datetime
import os
import secrets as tokens
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from runproj import __version__, leftovers
from runproj.codec import DocumentError, from_json, to_json
from runproj.core.backend import Backend, Demand, Job, JobHandle, JobState, checked, resources_with
from runproj.core.call import Call, Given
from runproj.core.environment import EnvLock
from runproj.core.outcome import outcome_of
from runproj.core.parameters import bind
from runproj.core.plan import PLAN_VERSION, Plan, Request, RunOptions
from runproj.core.project import EntryPoint, ParameterType, Project
from runproj.core.run import Run, RunChanges, Tag, TagName
from runproj.core.services import Services
from runproj.core.source import Checkout
from runproj.core.values import dataclass
from runproj.errors import DamagedError, DescriptorError, NotFoundError, ParameterError, TrackingError, UsageError
from runproj.files import atomic_write
from runproj.leases import Lease, Leases
from runproj.newrun import close_unstarted, ending, new_run
from runproj.parcels import FreshParcel

_POLL = 0.2


@dataclass(frozen=True)
class Planned:
    """A plan with what must not be in it: the secret values, and the working tree that was looked at."""

    plan: Plan
    secrets: Mapping[str, str]
    checkout: Checkout | None = None


Choose = Callable[[Project, EntryPoint], Sequence[Given]]


@dataclass(frozen=True)
class Opened:
    """Code that was fetched, in a private working tree, and the entry point of it that was asked for."""

    checkout: Checkout
    project: Project
    entry_point: EntryPoint

    def at(self, name: str, use: Services) -> Opened:
        """Another entry point of the same code, in the environment that is its own.  Raises `DescriptorError`."""
        project = use.projects.read(self.checkout.project, name)
        return replace(self, project=project, entry_point=find_entry_point(project, name))


def open_project(request: Request, use: Services) -> Opened:
    """Fetch the code and read its descriptor.  What is not planned further has to be discarded."""
    report = use.reporter
    report.phase("source", f"Resolving {request.source.revision or 'the default branch'}")
    checkout = use.sources.fetch(request.source)
    pin = checkout.pin
    with _discarded(checkout, use):
        report.done(f"{(pin.commit or pin.tree)[:12]}{' (dirty)' if pin.dirty else ''}  {pin.uri}")
        project = use.projects.read(checkout.project, request.entry_point)
        return Opened(checkout, project, find_entry_point(project, request.entry_point))


def plan(request: Request, use: Services, choose: Choose | None = None, opened: Opened | None = None) -> Planned:
    """Decide everything, start nothing.  A request that cannot be run fails here, in seconds, and leaves no trace.

    choose: makes the values of what was given, once it is known what the entry point declares;
    opened: the code, where it was fetched before.
    """
    opened = opened or open_project(request, use)
    with _discarded(opened.checkout, use):
        if needs := opened.entry_point.needs:
            raise UsageError(
                f"{request.entry_point!r} needs {', '.join(map(repr, needs))}, and this command runs one entry point alone",
                fix=f"`runproj run {request.source.uri} -e {request.entry_point}` runs them, and later only what has changed.",
            )
        planned = plan_opened(opened, request, use, choose)
    for note in planned.plan.notes:
        use.reporter.note(note)
    return planned


@contextlib.contextmanager
def _discarded(checkout: Checkout, use: Services) -> Iterator[None]:
    """Remove the working tree where the block does not end well."""
    try:
        yield
    except BaseException:
        use.sources.discard(checkout)
        raise


def plan_opened(opened: Opened, request: Request, use: Services, choose: Choose | None = None) -> Planned:
    """As `plan`, for code that was fetched."""
    report, checkout, project, entry_point = use.reporter, opened.checkout, opened.project, opened.entry_point
    pin = checkout.pin
    given = choose(project, entry_point) if choose else request.parameters
    call, notes = bind(entry_point, given, strict=request.strict)
    call = use.projects.resolve_paths(call, checkout.project, use.cwd)
    options = _placed(request.options, entry_point, use)
    backend = use.backends.open(options.backend)
    report.phase("lock", f"Pinning the environment ({project.environment.origin})")
    when = datetime.datetime.fromisoformat(pin.committed_at) if pin.committed_at and not pin.dirty else None
    lock = use.environments.lock(project.environment, checkout.project, when, request.lock)
    report.done(lock.words)
    _require_watchable(options, lock)
    scope = ""
    if entry_point.code:
        from runproj.inputs import scope_of

        scope = scope_of(entry_point, call, checkout.project)
    decided = Plan(
        code=pin,
        call=call,
        lock=lock,
        entry_point=entry_point,
        project=project.name,
        descriptor=project.descriptor,
        options=replace(options, timeout=options.timeout or entry_point.timeout),
        notes=(*pin.notes, *project.notes, *notes, *lock.notes),
        runproj=__version__,
        scope=scope,
    )
    backend.check(demand_of(decided, backend))
    _require_trust(decided, use, granted=request.trust, project=checkout.project)
    return Planned(decided, _secrets(call, given), checkout)


def _placed(options: RunOptions, entry_point: EntryPoint, use: Services) -> RunOptions:
    """The options with the backend that the entry point names, where the user names none."""
    if options.backend:
        return options
    name, own = use.place(entry_point.backend or "local")
    return replace(options, backend=name, backend_options={**own, **options.backend_options})


def _require_trust(
    decided: Plan, use: Services, *, granted: bool, project: Path | None = None, changes: Sequence[Given] = ()
) -> None:
    """Refuse what the project asks of this machine, unless the user trusts it; a host's environment asks for nothing."""
    if decided.lock.image is not None:
        from runproj import trust

        if decided.rerun_of and trust.is_strangers(decided.rerun_of, use.home):
            trust.require_word(decided, granted=granted, typed=[item.name for item in changes])
        if granted:
            trust.grant(decided.code, use.home)
        trust.require(decided, use.home, project)


def find_entry_point(project: Project, name: str) -> EntryPoint:
    """The entry point of that name.  Raises `DescriptorError` with the names there are."""
    for entry_point in project.entry_points:
        if entry_point.name == name:
            return entry_point
    names = ", ".join(entry_point.name for entry_point in project.entry_points) or "none"
    raise DescriptorError(
        f"The project has no entry point {name!r}",
        why=f"Entry points in {project.descriptor or 'the repository'}: {names}.",
        fix="Name one with -e, or a script of the project (-e train.py).",
    )


def demand_of(decided: Plan, backend: Backend) -> Demand:
    """What the job of a plan asks of its backend.  Raises `UsageError` for options that it does not have."""
    options = decided.options.backend_options
    resources = resources_with(decided.entry_point.resources, options)
    own = checked(options, backend.options, decided.options.backend)
    pin = decided.lock.image
    image, asked = (pin.reference, pin.asked) if pin else ("", None)
    return Demand(decided.lock.place, resources, own, decided.options.timeout, image, asked, decided.options.docker_args)


def start(planned: Planned, use: Services, leases: Leases, *, attached: bool = True, on_created: Callable[[Run], None]) -> Run:
    """Record the run, then hand it to its machine.  Attached, it has ended on return, unless its job is elsewhere."""
    decided = planned.plan
    require_secrets(planned)
    token = tokens.token_hex(8)
    backend = use.backends.open(decided.options.backend)
    # asks the store for the experiment: one that does not answer leaves no lease behind
    new = new_run(decided, use, token, waits=backend.elsewhere)
    lease = leases.take(token, use.tracking_uri)
    run: Run | None = None
    try:
        run = use.tracking.create_run(new)
        on_created(run)
        folder = use.runs / run.id
        lease.update(run_id=run.id, folder=folder)
        store_plan(decided, run, use)
        use.reporter.phase("start", f"{run.name} ({run.id})")
        handle = _submit(run, planned, backend, use, lease, attached=attached)
    except BaseException as error:
        lease.free_ballast()
        close_unstarted(run, outcome_of(error), use)
        lease.abandon()  # the next command does what could not be done, and removes what is left
        raise
    here = attached and not backend.elsewhere
    if here and (outcome := leftovers.outcome_of(folder)):  # it has ended; only its record has to wait
        return replace(run, status=outcome.status, tags=(*run.tags, *ending(outcome)))
    run = use.tracking.get_run(run.id)
    if not run.over:
        tag = Tag(TagName.HANDLE, to_json(handle))
        use.tracking.update(run.id, RunChanges(tags=(tag,)))
        run = replace(run, tags=(*run.tags, tag))
    return run


def job_of(run: Run, planned: Planned, backend: Backend, use: Services, lease: Lease, *, attached: bool = False) -> Job:
    """What a backend gets of a run that was recorded."""
    decided = planned.plan
    return Job(
        run_id=run.id,
        token=lease.info.token,
        folder=use.runs / run.id,
        parcel=FreshParcel(run, decided, planned.secrets, use),
        name=run.name,
        demand=demand_of(decided, backend),
        grace=decided.options.grace,
        attached=attached,
        secrets=planned.secrets,
    )


def _submit(run: Run, planned: Planned, backend: Backend, use: Services, lease: Lease, *, attached: bool) -> JobHandle:
    """Give the job to its backend.  The lease says so first: whatever is killed, the engine is asked what it knows."""
    job = job_of(run, planned, backend, use, lease, attached=attached)
    if backend.elsewhere:
        lease.intend(JobHandle(planned.plan.options.backend, "", run_id=run.id))
    (handle,) = backend.submit([job])
    if backend.elsewhere:
        lease.place(handle)
    return handle


def require_secrets(planned: Planned) -> None:
    """Raise `ParameterError` where the plan names a secret whose value is not given."""
    needed = {value.name for value in planned.plan.call.values if value.type is ParameterType.SECRET}
    if missing := sorted(needed - set(planned.secrets)):
        raise ParameterError(
            f"No value given for secret parameters: {', '.join(missing)}",
            why="Secrets are never recorded, so each run needs them anew.",
            fix=" ".join(f"-P {name}=…" for name in missing),
        )


def store_plan(decided: Plan, run: Run, use: Services) -> None:
    """Keep with the run what a rerun needs: plan, lock and patch.  The executor reads the plan from the run's folder."""
    folder = use.runs / run.id
    atomic_write(folder / "plan.json", to_json(decided, pretty=True))
    use.artifacts.put(run, folder / "plan.json", "runproj/plan.json")
    if decided.lock.pylock:
        atomic_write(folder / "pylock.toml", decided.lock.pylock)
        use.artifacts.put(run, folder / "pylock.toml", "runproj/pylock.toml")
    if decided.code.patch:
        use.artifacts.put(run, use.objects.path(decided.code.patch), "runproj/code.patch")


def load_plan(run: Run, use: Services) -> Plan:
    """The plan that a recorded run was made from.  Raises `NotFoundError` for a run that runproj did not make."""
    folder = use.runs / run.id
    path = folder / "plan.json"
    if not path.exists():
        path = use.home / "cache" / "plans" / f"{run.id}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            use.artifacts.get(run, "runproj/plan.json", path)
        except NotFoundError as error:
            raise _without_plan(run) from error
    try:
        plan = from_json(Plan, path.read_bytes())
    except DocumentError as error:
        raise TrackingError(
            f"The plan of run {run.id} cannot be read", why=str(error), fix="Use the version that made it."
        ) from error
    if plan.version > PLAN_VERSION:
        raise TrackingError(f"The plan of run {run.id} has version {plan.version}; this runproj knows {PLAN_VERSION}")
    return plan


def _without_plan(run: Run) -> NotFoundError:
    if run.tag(TagName.STEPS):
        return NotFoundError(
            f"Run {run.id[:8]} is a pipeline: its steps have plans, and can be run again one by one",
            fix=f"`runproj runs show {run.id[:8]}` names them.",
        )
    return NotFoundError(
        f"Run {run.id[:8]} has no plan, so how it was made is not known",
        why="`runproj run` did not make it.",
        fix="It can be shown, and compared by `runproj runs compare`.",
    )


def follow(run: Run, use: Services, deadline: float | None = None) -> Run:
    """Wait until the run has ended, wherever it runs, or `deadline` (monotonic clock) has come, and return it.

    A run whose executor vanished is returned as it is: whoever recovers closes it.
    """
    handle = handle_of(run)
    backend = use.backends.open(handle.backend)
    while not run.over and (deadline is None or time.monotonic() < deadline):
        gone = False
        if backend.elsewhere:
            use.look()
        else:
            gone = backend.status([handle])[0].state in (JobState.ENDED, JobState.LOST)
        run = use.tracking.get_run(run.id)  # looked at after the job, so that a job that has just ended is not called lost
        if gone or run.over:
            break
        time.sleep(_POLL)
    return run


def handle_of(run: Run) -> JobHandle:
    """Where the run is, from its record.  Raises `NotFoundError` for a run that runproj did not start."""
    if text := run.tag(TagName.HANDLE):
        return from_json(JobHandle, text)
    if backend := run.tag(TagName.PROJECT_BACKEND):  # attached: nobody but its own process needed a handle
        return JobHandle(backend, "", run_id=run.id)
    raise NotFoundError(f"Run {run.id} was not started by runproj", fix="It can be shown and compared, not stopped or followed.")


def _require_watchable(options: RunOptions, lock: EnvLock) -> None:
    """Raise where the command is to be watched and cannot be."""
    if options.audit != "never":
        from runproj import audit

        audit.require(lock.place)


def rerun(run: Run, changes: Sequence[Given], use: Services, options: RunOptions, *, trust: bool = False) -> Planned:
    """The plan of a recorded run again, with other parameters where `changes` says so: same commit, patch and lock.

    trust: as in a `Request`.
    """
    old = load_plan(run, use)
    _require_watchable(options, old.lock)
    restore_patch(run, old, use)
    call, checkout = old.call, None
    if changes:
        changed = {item.name for item in changes}
        kept = [Given(v.name, v.value, f"run {run.id[:8]}") for v in call.values if v.value is not None and v.name not in changed]
        call, notes = bind(old.entry_point, [*kept, *changes])
        for note in notes:
            use.reporter.note(note)
        if any(value.type is ParameterType.PATH and value.name in changed for value in call.values):
            checkout = use.sources.checkout(old.code, use.sources.scratch())
            call = use.projects.resolve_paths(call, checkout.project, use.cwd)
        resolved = {v.name: v.resolved for v in old.call.values if v.name not in changed}
        call = replace(call, values=tuple(replace(v, resolved=resolved.get(v.name, v.resolved)) for v in call.values))
    options = replace(
        options,
        timeout=options.timeout or old.options.timeout,
        experiment=options.experiment or old.options.experiment,
        clean_env=options.clean_env or old.options.clean_env,
        deterministic=options.deterministic or old.options.deterministic,
        docker_args=options.docker_args or old.options.docker_args,
    )
    decided = replace(old, call=call, options=options, rerun_of=run.id, runproj=__version__)
    backend = use.backends.open(options.backend)
    backend.check(demand_of(decided, backend))
    _require_trust(decided, use, granted=trust, changes=changes)
    return Planned(decided, _secrets(call, changes), checkout)


def _secrets(call: Call, given: Sequence[Given]) -> dict[str, str]:
    values = {item.name: item.value for item in given}
    names = (value.name for value in call.values if value.type is ParameterType.SECRET)
    return {name: values[name] for name in names if name in values}


def restore_patch(run: Run, old: Plan, use: Services) -> None:
    """Have the recorded changes of a run's code at hand, which are stored with the run.

    Raises `NotFoundError` where they are gone, `DamagedError` where they are not what was recorded.
    """
    if not old.code.patch or use.objects.get(old.code.patch) is not None:
        return
    path = use.home / "cache" / f"patch-{run.id}-{os.getpid()}"
    path.parent.mkdir(parents=True, exist_ok=True)
    use.artifacts.get(run, "runproj/code.patch", path)
    stored = use.objects.put(path)
    path.unlink()
    if stored != old.code.patch:
        raise DamagedError(f"The patch of run {run.id} is not the one that was recorded", why=f"Its sha256 is {stored}.")
