"""`run`, `plan` and `rerun`: from a request to a recorded result."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import typer

from runproj.cli import options as opt
from runproj.cli import output, places
from runproj.cli.lock import lock_options
from runproj.core.values import dataclass
from runproj.errors import RunprojError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runproj.core.call import Given
    from runproj.core.environment import LockOptions
    from runproj.core.plan import Request, RunOptions
    from runproj.core.run import Run
    from runproj.runner import Planned
    from runproj.wiring import Wiring


def register(app: typer.Typer) -> None:
    app.command("run")(run)
    app.command("plan")(plan)
    app.command("rerun")(rerun)


@dataclass(frozen=True)
class Asked:
    """How the user wants to be served, beside what to run."""

    json: bool = False
    quiet: bool = False
    detach: bool = False
    dry_run: bool = False
    repeat: int = 1
    force: bool = False
    from_step: str | None = None
    parallel: int | None = None
    queued: bool = False


def run(
    uri: opt.Uri,
    entry_point: opt.EntryPoint = "main",
    revision: opt.Revision = None,
    param: opt.Params = None,
    params_file: opt.ParamsFile = None,
    strict: opt.Strict = False,
    require_clean: opt.RequireClean = False,
    env_manager: opt.EnvManager = "auto",
    extra: opt.With = None,
    as_of: opt.AsOf = "commit",
    relock: opt.Relock = False,
    locked: opt.Locked = False,
    installer: opt.Installer = "uv",
    offline: opt.Offline = False,
    backend: opt.OwnBackend = "",
    backend_config: opt.BackendConfig = None,
    experiment: opt.Experiment = None,
    run_name: opt.RunName = None,
    tag: opt.Tags = None,
    timeout: opt.Timeout = None,
    grace: opt.Grace = 10.0,
    keep: opt.Keep = False,
    clean_env: opt.CleanEnv = False,
    deterministic: opt.Deterministic = False,
    audit: opt.Audit = False,
    audit_strict: opt.AuditStrict = False,
    docker_args: opt.DockerArgs = None,
    repeat: opt.Repeat = 1,
    force: opt.Force = False,
    from_step: opt.FromStep = None,
    parallel: opt.Parallel = None,
    trust: opt.Trust = False,
    queue: opt.Queue = False,
    priority: opt.Priority = None,
    wait: opt.Wait = False,
    detach: opt.Detach = False,
    dry_run: opt.DryRun = False,
    json: opt.Json = False,
    quiet: opt.Quiet = False,
) -> int:
    """Run a project: pin its code and environment, build, execute and record it.

    An entry point that needs others is a pipeline: what is missing or has changed is run, and the rest reused.

    The exit code is the project's own; 128+n after signal n; 124 after a timeout; 125 if it could not be started; 2 for a wrong
    command line.
    """
    request = make_request(
        uri,
        entry_point,
        revision,
        given=opt.given(param, params_file),
        strict=strict,
        require_clean=require_clean,
        lock=lock_options(
            env_manager, extra, as_of, relock=relock, strict=strict, installer=installer, offline=offline, locked=locked
        ),
        trust=trust,
        options=make_options(
            places.queued(backend, backend_config, queue=queue, priority=priority),
            experiment,
            run_name,
            tag,
            timeout,
            grace=grace,
            keep=keep,
            clean_env=clean_env,
            deterministic=deterministic,
            docker_args=docker_args,
            audit=opt.audit_word(audit=audit, strict=audit_strict),
        ),
    )
    if repeat > 1 and detach:
        raise UsageError("--repeat and --detach do not go together", fix="Leave out one of them.")
    asked = Asked(json, quiet, detach, dry_run, repeat, force, from_step, parallel, queued=queue and not wait)
    return _run(request, asked, offline=offline)


def plan(
    uri: opt.Uri,
    entry_point: opt.EntryPoint = "main",
    revision: opt.Revision = None,
    param: opt.Params = None,
    params_file: opt.ParamsFile = None,
    strict: opt.Strict = False,
    require_clean: opt.RequireClean = False,
    env_manager: opt.EnvManager = "auto",
    extra: opt.With = None,
    as_of: opt.AsOf = "commit",
    relock: opt.Relock = False,
    locked: opt.Locked = False,
    installer: opt.Installer = "uv",
    offline: opt.Offline = False,
    backend: opt.OwnBackend = "",
    backend_config: opt.BackendConfig = None,
    deterministic: opt.Deterministic = False,
    docker_args: opt.DockerArgs = None,
    trust: opt.Trust = False,
    json: opt.Json = False,
    quiet: opt.Quiet = False,
) -> int:
    """Decide everything that `run` would, print the plan, and start nothing."""
    request = make_request(
        uri,
        entry_point,
        revision,
        given=opt.given(param, params_file),
        strict=strict,
        require_clean=require_clean,
        lock=lock_options(
            env_manager, extra, as_of, relock=relock, strict=strict, installer=installer, offline=offline, locked=locked
        ),
        trust=trust,
        options=make_options(
            places.chosen(backend, backend_config),
            None,
            None,
            None,
            None,
            grace=10.0,
            keep=False,
            clean_env=False,
            deterministic=deterministic,
            docker_args=docker_args,
        ),
    )
    return _run(request, Asked(json, quiet, dry_run=True), offline=offline)


def rerun(
    reference: opt.RunReference,
    param: opt.Params = None,
    params_file: opt.ParamsFile = None,
    backend: opt.Backend = "",
    backend_config: opt.BackendConfig = None,
    experiment: opt.Experiment = None,
    run_name: opt.RunName = None,
    tag: opt.Tags = None,
    timeout: opt.Timeout = None,
    grace: opt.Grace = 10.0,
    keep: opt.Keep = False,
    clean_env: opt.CleanEnv = False,
    deterministic: opt.Deterministic = False,
    audit: opt.Audit = False,
    audit_strict: opt.AuditStrict = False,
    docker_args: opt.DockerArgs = None,
    trust: opt.Trust = False,
    offline: opt.Offline = False,
    queue: opt.Queue = False,
    priority: opt.Priority = None,
    wait: opt.Wait = False,
    detach: opt.Detach = False,
    dry_run: opt.DryRun = False,
    json: opt.Json = False,
    quiet: opt.Quiet = False,
) -> int:
    """Run a recorded run again: same commit, patch, environment lock and parameters, but for those given here."""
    from runproj import runner

    wiring = _wiring(json=json, quiet=quiet, offline=offline)
    wiring.recover()
    old = wiring.find_run(reference)
    changes = opt.given(param, params_file)
    new_options = make_options(
        places.queued(backend or ("queue" if queue else "local"), backend_config, queue=queue, priority=priority),
        experiment,
        run_name,
        tag,
        timeout,
        grace=grace,
        keep=keep,
        clean_env=clean_env,
        deterministic=deterministic,
        docker_args=docker_args,
        audit=opt.audit_word(audit=audit, strict=audit_strict),
    )
    planned = runner.rerun(old, changes, wiring.services(), new_options, trust=trust)
    return _start(planned, wiring, Asked(json, quiet, detach, dry_run, queued=queue and not wait))


def _wiring(*, json: bool, quiet: bool, offline: bool, require_clean: bool = False) -> Wiring:
    from runproj.settings import load
    from runproj.wiring import Wiring

    out = 2 if json else 1
    tee = (None, None) if quiet and json else (out, 2)
    reporter = output.TerminalReporter(quiet=quiet)
    return Wiring(load(), reporter, offline=offline, require_clean=require_clean, tee=tee)


def _run(request: Request, asked: Asked, *, offline: bool) -> int:
    from runproj import runner

    wiring = _wiring(json=asked.json, quiet=asked.quiet, offline=offline, require_clean=request.require_clean)
    wiring.recover()
    use = wiring.services()
    opened = runner.open_project(request, use)
    if opened.entry_point.needs:
        from runproj.cli import pipeline

        return pipeline.run(opened, request, asked, wiring)
    if asked.from_step not in (None, request.entry_point):
        use.sources.discard(opened.checkout)
        raise UsageError(
            f"{request.entry_point!r} needs no other entry point, so there is none to begin at", fix="Leave out --from."
        )
    planned = runner.plan(request, use, opened=opened)
    return _start(planned, wiring, asked)


def _start(planned: Planned, wiring: Wiring, asked: Asked) -> int:
    from runproj import runner

    use = wiring.services()
    if asked.dry_run:
        from runproj.cli import plans

        if planned.checkout:
            use.sources.discard(planned.checkout)
        plans.show(planned, as_json=asked.json)
        return 0
    begun: list[str] = []
    try:
        if asked.repeat > 1:
            from runproj.cli.reproduce import repeated

            return repeated(planned, asked.repeat, wiring, begun, as_json=asked.json)
        away = asked.detach or asked.queued
        run = runner.start(planned, use, wiring.leases, attached=not away, on_created=lambda created: begun.append(created.id))
    except RunprojError as error:
        if begun:  # recorded as failed, and the words are the executor's
            error.fix = "\n".join(filter(None, [error.fix, f"The run is recorded: runproj runs show {begun[0][:8]}"]))
        raise
    if away:
        from runproj.cli.detached import tell

        tell(run, wiring, as_json=asked.json, quiet=asked.quiet)
        return 0
    if not run.over:
        from runproj.cli.attend import attend

        run = attend(run, wiring)
    return _ended(run, wiring, asked)


def _ended(run: Run, wiring: Wiring, asked: Asked) -> int:
    from runproj.core.run import RunStatus, TagName

    code = int(run.tag(TagName.EXIT_CODE) or 1)
    if asked.json:
        output.write_json(wiring.view(run))
    elif not asked.quiet:
        took = f" in {output.seconds((run.end - run.start) / 1000)}" if run.end else ""  # none: its end is not stored yet
        good = run.status is RunStatus.FINISHED
        word = output.paint(run.status.value, "\x1b[32m" if good else "\x1b[31;1m", sys.stderr)
        phases = output.paint(_phases(run.tag(TagName.DURATIONS) or ""), "\x1b[2m", sys.stderr)
        output.say(f"{word}{took}  {output.clean(run.name)} ({run.id[:8]})  {phases}")
    if run.status is not RunStatus.FINISHED:
        for line in (run.tag(TagName.REASON) or "").splitlines():
            output.say(f"  {output.clean(line)}")
    return code


def _phases(durations: str) -> str:
    """What took time: `environment=3.974 inputs=0.000 run=16.166` becomes `environment 3.97s  run 16.2s`."""
    timed = [(name, float(value)) for name, _, value in (word.partition("=") for word in durations.split())]
    return "  ".join(f"{name} {output.seconds(value)}" for name, value in timed if value >= 0.05)


def make_request(
    uri: str,
    entry_point: str,
    revision: str | None,
    *,
    given: tuple[Given, ...],
    strict: bool,
    require_clean: bool,
    lock: LockOptions,
    options: RunOptions,
    trust: bool,
) -> Request:
    """What was asked for, from options."""
    from runproj.core.plan import Request
    from runproj.core.source import Source

    return Request(Source(uri, revision), entry_point, given, strict, require_clean, lock, options, trust)


def make_options(
    where: tuple[str, Mapping[str, Any]],
    experiment: str | None,
    run_name: str | None,
    tags: list[str] | None,
    timeout: str | None,
    *,
    grace: float,
    keep: bool,
    clean_env: bool,
    deterministic: bool,
    docker_args: list[str] | None,
    audit: str = "never",
) -> RunOptions:
    """How to run it, from options."""
    import os

    from runproj.core.plan import RunOptions
    from runproj.settings import parse_duration

    return RunOptions(
        backend=where[0],
        backend_options=where[1],
        experiment=experiment,
        run_name=run_name,
        tags=tuple(_pair(text) for text in tags or ()),
        timeout=parse_duration(timeout) if timeout else None,
        grace=grace,
        keep="failed" if keep else "never",
        clean_env=clean_env,
        deterministic=deterministic,
        parent_run=os.environ.get("RUNPROJ_RUN_ID"),
        docker_args=_docker_args(docker_args),
        audit=audit,
    )


def _docker_args(given: list[str] | None) -> tuple[str, ...]:
    """As they were typed, found to have a meaning."""
    if not given:
        return ()
    from runproj.core.container import options

    options(given)
    return tuple(given)


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise UsageError(f"{text!r} is not a tag", fix="Write --tag NAME=VALUE.")
    return name, value
