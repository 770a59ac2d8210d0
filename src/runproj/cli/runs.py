"""`runs list|search|show|logs|artifacts|compare|correlate|stop|delete`, `wait`: runs, looked at and steered from anywhere."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from runproj.cli import complete, output
from runproj.cli import options as opt
from runproj.cli.artifacts import artifacts
from runproj.cli.catalogue import catalogue
from runproj.cli.correlate import correlate
from runproj.cli.logs import logs, looking
from runproj.cli.search import search
from runproj.cli.select import select
from runproj.errors import RunprojError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runproj.core.plan import Plan
    from runproj.core.run import Param, Run
    from runproj.core.views import Comparison, RunView
    from runproj.wiring import Wiring

_MOST_COMPARED = 12


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="Look at recorded runs, stop and delete them.", rich_markup_mode=None, no_args_is_help=True)
    for name, command in (
        ("list", list_),
        ("search", search),
        ("show", show),
        ("logs", logs),
        ("artifacts", artifacts),
        ("compare", compare),
        ("correlate", correlate),
        ("stop", stop),
        ("delete", delete),
    ):
        group.command(name)(command)
    app.add_typer(group, name="runs")
    app.command("wait")(wait)


def list_(
    limit: Annotated[int, typer.Option("--limit", "-n", metavar="N", min=1, help="How many, newest first.")] = 20,
    experiment: Annotated[
        str | None,
        typer.Option(
            "--experiment-name",
            "--experiment",
            metavar="NAME",
            help="Only of this experiment.",
            autocompletion=complete.active_experiments,
        ),
    ] = None,
    status: Annotated[
        list[str] | None,
        typer.Option(
            "--status",
            metavar="STATUS",
            help="Only with this status (RUNNING, FAILED, …).",
            autocompletion=complete.words("SCHEDULED", "RUNNING", "FINISHED", "FAILED", "KILLED"),
        ),
    ] = None,
    deleted: Annotated[bool, typer.Option("--deleted", help="Deleted runs instead.")] = False,
    json: opt.Json = False,
) -> None:
    """List runs, newest first."""
    from runproj.core.run import Lifecycle, RunQuery, RunStatus, TagName
    from runproj.core.views import RunList

    wiring = looking()
    try:
        statuses = tuple(RunStatus(word.upper()) for word in status or ())
    except ValueError:
        words = ", ".join(status or ())
        raise UsageError(f"No status is called {words!r}", fix=f"Statuses: {', '.join(s.value for s in RunStatus)}.") from None
    experiments = (wiring.tracking.experiment(experiment, make=False).id,) if experiment else ()
    lifecycle = Lifecycle.DELETED if deleted else Lifecycle.ACTIVE
    runs = wiring.tracking.search(RunQuery(experiments=experiments, lifecycle=lifecycle, statuses=statuses, limit=limit))
    if json:
        output.write_json(RunList(tuple(runs)))
        return
    if not runs:
        narrowed = experiments or statuses or deleted
        output.say("No run is like that." if narrowed else "No runs yet.  Start one with: runproj run URI")
        return
    common = _common(runs)
    several = len({run.experiment_id for run in runs}) > 1
    names = {item.id: item.name for item in catalogue(wiring).experiments.all(None)} if several else {}
    rows = [
        (
            run.id[:8],
            *([names.get(run.experiment_id, run.experiment_id)] if several else []),
            _when(run.start),
            run.status.value,
            _took(run),
            run.name,
            (run.tag(TagName.COMMIT) or "")[:9] + ("+" if run.tag(TagName.DIRTY) == "true" else ""),
            _brief(run, common),
        )
        for run in runs
    ]
    header = ("STARTED", "STATUS", "TOOK", "NAME", "COMMIT", "METRICS AND PARAMETERS")
    first = 2 if several else 1
    spare = (first + 4, first, first + 2)  # commit, start and duration, before what tells the runs apart is cut
    output.table(("RUN", *(["EXPERIMENT"] if several else []), *header), rows, right=(first + 2,), spare=spare)


def _common(runs: Sequence[Run]) -> frozenset[Param]:
    """The parameters that all of several runs share: a list tells its runs apart, and leaves these out."""
    shared = frozenset.intersection(*(frozenset(run.params) for run in runs))
    return shared if len(runs) > 1 and any(shared != frozenset(run.params) for run in runs) else frozenset()


def _brief(run: Run, common: frozenset[Param]) -> str:
    metrics = [f"{metric.key}={metric.value:.4g}" for metric in run.metrics[:4]]
    params = [f"{param.key}={param.value[:24]}" for param in run.params if param not in common][:6]
    return " ".join([*metrics, *(["←"] if metrics and params else []), *params])


def _when(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000).strftime("%Y-%m-%d %H:%M")


def _took(run: Run) -> str:
    end = run.end or time.time() * 1000
    return output.seconds(max(0.0, (end - run.start) / 1000))


def show(reference: opt.RunReference, json: opt.Json = False) -> None:
    """Show all that is recorded of a run."""
    from runproj.references import placed

    wiring = looking()
    view = placed(wiring.view(wiring.find_run(reference)), catalogue(wiring))
    if json:
        output.write_json(view)
    else:
        _show(view)


def _show(view: RunView) -> None:
    from runproj.core.run import RunStatus, TagName

    run, plan, record = view.run, view.plan, view.record
    word = run.status.value
    colour = output.good if run.status is RunStatus.FINISHED else output.bad if run.status.final else output.dim
    output.write(f"{output.clean(run.name)}  {output.dim(run.id)}")
    rows = [("status", colour(word) + (f"  exit code {view.exit_code}" if view.exit_code else "") + f"  {_took(run)}")]
    if view.reason and view.reason != f"exit code {view.exit_code}":
        rows.append(("reason", view.reason.replace("\n", "\n" + " " * 14)))
    if view.experiment is not None:
        rows.append(("experiment", view.experiment))
    rows += [
        ("started", datetime.fromtimestamp(run.start / 1000, UTC).astimezone().isoformat(sep=" ", timespec="seconds")),
        ("source", run.tag(TagName.SOURCE_NAME) or "-"),
    ]
    tree = run.tag(TagName.TREE)
    if commit := run.tag(TagName.COMMIT) or (f"none; tree {tree}" if tree else ""):  # runs made elsewhere may have neither
        rows.append(("commit", commit + ("  + uncommitted changes" if run.tag(TagName.DIRTY) == "true" else "")))
    if branch := run.tag(TagName.BRANCH):
        rows.append(("branch", branch))
    if plan:
        rows += _planned(plan)
    if record and record.machine:
        machine = record.machine
        rows.append(("machine", f"{machine.host}, {machine.cpu}, {machine.cores} cores, {machine.system}"))
    if image := run.tag(TagName.JOB_IMAGE):
        rows.append(("ran in", image))
    if record and record.timings:
        rows.append(("timings", "  ".join(f"{t.phase} {output.seconds(t.seconds)}" for t in record.timings)))
    if parent := run.tag(TagName.PARENT):
        rows.append(("parent", parent))
    if origin := run.tag(TagName.RERUN_OF):
        rows.append(("rerun of", origin))
    for name, text in rows:
        output.write(f"{output.dim(f'{name:<12}')}  {text if name == 'status' else _lines(text)}")
    _section("steps", [(step.step, f"{step.state.value:<9} {step.run[:8]:<8}  {step.why or step.reason}") for step in view.steps])
    _section("parameters", [(param.key, param.value) for param in run.params])
    _section(
        "metrics",
        [(metric.key, f"{metric.value:.10g}" + (f"  (step {metric.step})" if metric.step else "")) for metric in run.metrics],
    )
    _section("tags", [(tag.key, tag.value) for tag in run.tags if not tag.key.startswith(("mlflow.", "runproj."))])
    _section(
        "models",
        [(model.name, "  ".join(filter(None, (model.id, model.status, ", ".join(model.versions))))) for model in view.models],
    )
    _section("artifacts", [(entry.path, f"{entry.size:,} bytes") for entry in view.artifacts])
    for note in dict.fromkeys((*(plan.notes if plan else ()), *(record.notes if record else ()))):
        output.write(f"{output.dim('note')}          {output.clean(note)}")


def _planned(plan: Plan) -> list[tuple[str, str]]:
    """What the plan says of environment and command."""
    lock = plan.lock
    packages = output.count(lock.package_count, "package")
    as_of = f" as of {lock.as_of[:10]}" if lock.as_of else ""
    what = lock.image.words if lock.image else f"{packages}{as_of}"
    rows = [("environment", f"{lock.manager.value} from {lock.origin}: {what}, lock {lock.digest[:12]}")]
    if lock.python:
        rows.append(("python", f"{lock.python.implementation} {lock.python.version}"))
    return [*rows, ("command", plan.call.shown())]


def _lines(text: str) -> str:
    return "\n".join(output.clean(line) for line in text.split("\n"))


def _section(title: str, rows: list[tuple[str, str]]) -> None:
    if not rows:
        return
    output.write(output.dim(title))
    widest = max(output.width(name) for name, _ in rows)
    for name, value in rows:
        output.write(f"  {output.clean(name)}{' ' * (widest - output.width(name))}  {_lines(value)}")


def compare(
    references: Annotated[
        list[str] | None,
        typer.Argument(metavar="[RUN…]", help="Ids, beginnings of ids, names, or @last.", autocompletion=complete.runs),
    ] = None,
    where: Annotated[
        str | None, typer.Option("--where", "-w", metavar="FILTER", help="Those that a filter finds, as in 'runs search'.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", "-a", help="Also what is the same in all of them.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Each package that differs, too.")] = False,
    json: opt.Json = False,
) -> None:
    """Put runs side by side: parameters, metrics, code and environment; only what differs."""
    from runproj.reproduce.comparison import compare_runs, results_first

    wiring = looking()
    runs = [wiring.find_run(reference) for reference in references or ()]
    if where is not None:
        known = {run.id for run in runs}
        runs += [run for run in select(wiring, where, limit=_MOST_COMPARED + 1) if run.id not in known]
    if len(runs) < 2:
        found = f"{output.count(len(runs), 'run')} found" if where is not None else "There is nothing to compare with"
        raise UsageError(found, fix="Compare two or more: runproj runs compare A B, or --where FILTER")
    if len(runs) > _MOST_COMPARED and where is not None:
        raise UsageError(
            f"More than {_MOST_COMPARED} runs are like that",
            why="Side by side they cannot be read.",
            fix="Narrow the filter, or list them: runproj runs search FILTER; runproj runs correlate tells what goes with what.",
        )
    views = [wiring.view(run) for run in runs]
    comparison = results_first(compare_runs(views, everything=everything))
    if json:
        output.write_json(comparison)
    else:
        _compared(comparison, packages=everything or verbose)


def _compared(comparison: Comparison, *, packages: bool) -> None:
    from runproj.reproduce.comparison import is_package

    if not comparison.differences:
        output.say(f"No difference in {comparison.same} values.")
        return
    header = ("", "", *(run[:8] for run in comparison.runs))
    rows, last = [], ""
    folded = [] if packages else [item.name for item in comparison.differences if is_package(item)]
    for item in comparison.differences:
        if not packages and is_package(item):
            continue
        cells = ["-" if value is None else value if len(value) <= 48 else value[:47] + "…" for value in item.values]
        rows.append(("" if item.kind == last else item.kind, item.name, *cells))
        last = item.kind
    if rows:
        output.table(header, rows)
    if folded:
        some = ", ".join(map(output.clean, folded[:4])) + (", …" if len(folded) > 4 else "")
        output.say(
            f"{output.count(len(folded), 'package')} differ{'s' if len(folded) == 1 else ''}: {some}  (--verbose shows versions)"
        )
    if comparison.same:
        output.say(f"{comparison.same} more values are the same in all of them (--all shows them).")


def stop(
    references: opt.RunReferences,
    abandon: Annotated[
        bool,
        typer.Option(
            "--abandon",
            help="Do not wait for engines, which may be gone for good: close the runs with what is here of their record.",
        ),
    ] = False,
    json: opt.Json = False,
) -> None:
    """Stop runs: everything they started is asked to end, then killed; they end as KILLED."""
    from runproj.core.views import RunList
    from runproj.runner import follow

    wiring = looking()
    use = wiring.services()
    ended = []
    for reference in references:
        run = wiring.find_run(reference)
        if abandon:
            wiring.placed.abandon(run)
            run = wiring.tracking.get_run(run.id)
        elif not run.over:
            _cancel(wiring, run)
            output.say(f"Stopping {output.clean(run.name)} ({run.id[:8]}) …")
            run = follow(run, use)
        if not run.over and wiring.recover():  # its executor was gone before it could be asked
            run = wiring.tracking.get_run(run.id)
        ended.append(run)
        output.say(f"{output.clean(run.name)} ({run.id[:8]}) is {run.status.value}.")
    if json:
        output.write_json(RunList(tuple(ended)))


def _cancel(wiring: Wiring, run: Run) -> None:
    try:
        wiring.cancel(run)
    except RunprojError as error:
        if wiring.placed.looks_after(run):
            error.fix = f"{error.fix} If its engine is gone for good: runproj runs stop --abandon {run.id[:8]}".strip()
        raise


def delete(
    references: opt.RunReferences,
    restore: Annotated[bool, typer.Option("--restore", help="Bring deleted runs back instead.")] = False,
    json: opt.Json = False,
) -> None:
    """Mark runs as deleted.  They can be restored until `runproj gc --deleted` removes them for good."""
    from runproj.core.run import Lifecycle, RunChanges
    from runproj.core.views import RunList

    wiring = looking()
    changed = []
    for reference in references:
        run = wiring.find_run(reference)
        if not run.status.final and not restore:
            raise UsageError(f"Run {run.id[:8]} is still {run.status.value}", fix=f"runproj runs stop {run.id[:8]}")
        target = Lifecycle.ACTIVE if restore else Lifecycle.DELETED
        wiring.tracking.update(run.id, RunChanges(lifecycle=target))
        changed.append(wiring.tracking.get_run(run.id))
        output.say(f"{'Restored' if restore else 'Deleted'} {output.clean(run.name)} ({run.id[:8]}).")
    if json:
        output.write_json(RunList(tuple(changed)))


def wait(
    references: opt.RunReferences,
    timeout: Annotated[str | None, typer.Option("--timeout", metavar="TIME", help="Give up after this long (90, 30m).")] = None,
    json: opt.Json = False,
) -> int:
    """Wait until runs have ended; the exit code is that of the last one that failed, or 0; 124 if one has not ended in time."""
    from runproj.core.run import RunStatus, TagName
    from runproj.core.views import RunList
    from runproj.runner import follow
    from runproj.settings import parse_duration

    wiring = looking()
    use = wiring.services()
    deadline = time.monotonic() + parse_duration(timeout) if timeout else None
    ended, code = [], 0
    for reference in references:
        run = wiring.find_run(reference)
        if waits := run.tag(TagName.WAITS):
            output.say(f"{output.clean(run.name)} ({run.id[:8]}) waits: {output.clean(waits)}")
        run = follow(run, use, deadline)
        if not run.over:
            wiring.recover()
            run = wiring.tracking.get_run(run.id)
        if not run.over:
            code = 124
        elif run.status is not RunStatus.FINISHED:
            code = int(run.tag(TagName.EXIT_CODE) or 1)
        output.say(f"{output.clean(run.name)} ({run.id[:8]}) is {'' if run.over else 'still '}{run.status.value}.")
        ended.append(run)
    if json:
        output.write_json(RunList(tuple(ended)))
    return code
