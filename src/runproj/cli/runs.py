"""`runs list|show|logs|compare|stop|delete` and `wait`: recorded runs, looked at and steered from any terminal."""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from runproj.cli import options as opt
from runproj.cli import output
from runproj.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from runproj.core.run import Run
    from runproj.core.views import Comparison, RunView
    from runproj.wiring import Wiring

References = Annotated[list[str], typer.Argument(metavar="RUN…", help="Ids, beginnings of ids, names, or @last.")]


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="Look at recorded runs, follow, stop and delete them.", rich_markup_mode=None, no_args_is_help=True)
    for name, command in (
        ("list", list_),
        ("show", show),
        ("logs", logs),
        ("compare", compare),
        ("stop", stop),
        ("delete", delete),
    ):
        group.command(name)(command)
    app.add_typer(group, name="runs")
    app.command("wait")(wait)


def _wiring() -> Wiring:
    """The stores, with every status made true first."""
    from runproj.settings import load
    from runproj.wiring import Wiring

    wiring = Wiring(load(), output.TerminalReporter())
    wiring.recover()
    return wiring


def list_(
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many, newest first.")] = 20,
    experiment: Annotated[str | None, typer.Option("--experiment-name", "--experiment", help="Only of this experiment.")] = None,
    status: Annotated[list[str] | None, typer.Option("--status", help="Only with this status (RUNNING, FAILED, …).")] = None,
    deleted: Annotated[bool, typer.Option("--deleted", help="Deleted runs instead.")] = False,
    json: opt.Json = False,
) -> None:
    """List runs, newest first."""
    from runproj.core.run import Lifecycle, RunQuery, RunStatus, TagName
    from runproj.core.views import RunList

    wiring = _wiring()
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
    rows = [
        (
            run.id[:8],
            _when(run.start),
            run.status.value,
            _took(run),
            run.name,
            (run.tag(TagName.COMMIT) or "")[:9] + ("+" if run.tag(TagName.DIRTY) == "true" else ""),
            _brief(run),
        )
        for run in runs
    ]
    output.table(("RUN", "STARTED", "STATUS", "TOOK", "NAME", "COMMIT", "PARAMETERS AND METRICS"), rows, right=(3,))


def _brief(run: Run) -> str:
    metrics = [f"{metric.key}={metric.value:.4g}" for metric in run.metrics[:4]]
    params = [f"{param.key}={param.value[:24]}" for param in run.params[:6]]
    return " ".join([*params, *(["→", *metrics] if metrics else [])])


def _when(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000).strftime("%Y-%m-%d %H:%M")


def _took(run: Run) -> str:
    end = run.end or time.time() * 1000
    return output.seconds(max(0.0, (end - run.start) / 1000))


def show(reference: opt.RunReference, json: opt.Json = False) -> None:
    """Show all that is recorded of a run."""
    wiring = _wiring()
    view = wiring.view(wiring.find_run(reference))
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
    rows += [
        ("started", datetime.fromtimestamp(run.start / 1000, UTC).astimezone().isoformat(sep=" ", timespec="seconds")),
        ("source", run.tag(TagName.SOURCE_NAME) or "-"),
        ("commit", (run.tag(TagName.COMMIT) or "-") + ("  + uncommitted changes" if run.tag(TagName.DIRTY) == "true" else "")),
    ]
    if branch := run.tag(TagName.BRANCH):
        rows.append(("branch", branch))
    if plan:
        lock = plan.lock
        packages = output.count((lock.pylock or "").count("[[packages]]"), "package")
        asof = f" as of {lock.as_of[:10]}" if lock.as_of else ""
        rows.append(
            (
                "environment",
                f"{lock.manager.value} from {lock.origin}: {packages}{asof}, lock {lock.digest[:12]}",
            )
        )
        if lock.python:
            rows.append(("python", f"{lock.python.implementation} {lock.python.version}"))
        rows.append(("command", plan.call.shown()))
    if record and record.machine:
        machine = record.machine
        rows.append(("machine", f"{machine.host}, {machine.cpu}, {machine.cores} cores, {machine.system}"))
    if record and record.timings:
        rows.append(("timings", "  ".join(f"{t.phase} {output.seconds(t.seconds)}" for t in record.timings)))
    if parent := run.tag(TagName.PARENT):
        rows.append(("parent", parent))
    if origin := run.tag(TagName.RERUN_OF):
        rows.append(("rerun of", origin))
    for name, text in rows:
        output.write(f"{output.dim(f'{name:<12}')}  {text if name == 'status' else _lines(text)}")
    _section("parameters", [(param.key, param.value) for param in run.params])
    _section(
        "metrics",
        [(metric.key, f"{metric.value:.10g}" + (f"  (step {metric.step})" if metric.step else "")) for metric in run.metrics],
    )
    _section("artifacts", [(entry.path, f"{entry.size:,} bytes") for entry in view.artifacts])
    for note in dict.fromkeys((*(plan.notes if plan else ()), *(record.notes if record else ()))):
        output.write(f"{output.dim('note')}          {output.clean(note)}")


def _lines(text: str) -> str:
    return "\n".join(output.clean(line) for line in text.split("\n"))


def _section(title: str, rows: list[tuple[str, str]]) -> None:
    if not rows:
        return
    output.write(output.dim(title))
    widest = max(output.width(name) for name, _ in rows)
    for name, value in rows:
        output.write(f"  {output.clean(name)}{' ' * (widest - output.width(name))}  {_lines(value)}")


def logs(
    reference: opt.RunReference,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run ends.")] = False,
    stderr: Annotated[bool, typer.Option("--stderr", help="Standard error instead of standard output.")] = False,
    both: Annotated[bool, typer.Option("--all", "-a", help="Both streams in the order they were written.")] = False,
    timestamps: Annotated[bool, typer.Option("--timestamps", "-t", help="Begin each line with its time.")] = False,
) -> None:
    """Print what a run wrote, byte for byte."""
    wiring = _wiring()
    run = wiring.find_run(reference)
    live = wiring.settings.runs / run.id / "logs"
    if follow and not run.status.final:
        if both or timestamps:
            raise UsageError("--follow cannot be combined with --all or --timestamps", fix="Follow first, then print with -a -t.")
        if _follow(wiring, run, live / ("stderr.log" if stderr else "stdout.log")):
            return
        run = wiring.tracking.get_run(run.id)  # it may have ended before its output could be opened
    with _log_folder(wiring, run, live) as folder:
        if both or timestamps:
            _merged(folder, only=None if both else "e" if stderr else "o", timestamps=timestamps)
        else:
            _copy(folder / ("stderr.log" if stderr else "stdout.log"))


def _follow(wiring: Wiring, run: Run, path: Path) -> bool:
    """Print what comes; whether there was anything."""
    from runproj.backends.local import follow_file
    from runproj.core.backend import JobState
    from runproj.runner import backend_of, handle_of

    handle = handle_of(run)
    backend = backend_of(handle.backend, wiring.services())
    some = False
    for data in follow_file(path, lambda: backend.status([handle])[0] is JobState.RUNNING):
        some = True
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    return some


class _log_folder:  # noqa: N801 - reads as the function it stands for
    """The folder with a run's logs: where it is written while it runs, else its artifacts, fetched for the moment."""

    def __init__(self, wiring: Wiring, run: Run, live: Path) -> None:
        self.wiring, self.run, self.live = wiring, run, live
        self.fetched: Path | None = None

    def __enter__(self) -> Path:
        if not self.run.status.final and self.live.is_dir():
            return self.live
        import tempfile

        ours = {f"logs/{name}" for name in ("stdout.log", "stderr.log", "timeline")}  # the project may have put more there
        names = [entry.path for entry in self.wiring.artifacts.list(self.run, "logs") if entry.path in ours]
        if not names:
            raise NotFoundError(f"Run {self.run.id[:8]} has no logs", why=f"Its status is {self.run.status.value}.")
        views = self.wiring.settings.cache / "views"
        views.mkdir(parents=True, exist_ok=True)
        self.fetched = Path(tempfile.mkdtemp(prefix=f"{self.run.id}-logs-", dir=views))  # another command may look at them too
        for name in names:
            self.wiring.artifacts.get(self.run, name, self.fetched / Path(name).name)
        return self.fetched

    def __exit__(self, *_: object) -> None:
        from runproj.files import remove_tree

        if self.fetched:
            remove_tree(self.fetched)


def _copy(path: Path) -> None:
    import shutil

    sys.stdout.flush()
    if path.exists():
        with path.open("rb") as file:
            shutil.copyfileobj(file, sys.stdout.buffer, 1 << 20)
    sys.stdout.buffer.flush()


def _merged(folder: Path, *, only: str | None, timestamps: bool) -> None:
    from runproj.logs import read_merged

    at_start = True
    for when, stream, data in read_merged(folder):
        if only and stream != only:
            continue
        if not timestamps:
            sys.stdout.buffer.write(data)
            continue
        stamp = datetime.fromtimestamp(when / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z").encode()
        for line in data.splitlines(keepends=True):
            sys.stdout.buffer.write((stamp + b" " if at_start else b"") + line)
            at_start = line.endswith((b"\n", b"\r"))
    sys.stdout.buffer.flush()


def compare(
    references: References,
    everything: Annotated[bool, typer.Option("--all", "-a", help="Also what is the same in all of them.")] = False,
    json: opt.Json = False,
) -> None:
    """Put runs side by side: parameters, metrics, code and environment; only what differs."""
    from runproj.comparison import compare_runs

    if len(references) < 2:
        raise UsageError("There is nothing to compare with", fix="Name two runs or more: runproj runs compare A B")
    wiring = _wiring()
    views = [wiring.view(wiring.find_run(reference)) for reference in references]
    comparison = compare_runs(views, everything=everything)
    if json:
        output.write_json(comparison)
    else:
        _compared(comparison)


def _compared(comparison: Comparison) -> None:
    if not comparison.differences:
        output.say(f"No difference in {comparison.same} values.")
        return
    header = ("", "", *(run[:8] for run in comparison.runs))
    rows, last = [], ""
    for item in comparison.differences:
        cells = ["-" if value is None else value if len(value) <= 48 else value[:47] + "…" for value in item.values]
        rows.append(("" if item.kind == last else item.kind, item.name, *cells))
        last = item.kind
    output.table(header, rows)
    if comparison.same:
        output.say(f"{comparison.same} more values are the same in all of them (--all shows them).")


def stop(references: References, json: opt.Json = False) -> None:
    """Stop runs: everything they started is asked to end, then killed; they end as KILLED."""
    from runproj.core.views import RunList
    from runproj.runner import backend_of, follow, handle_of

    wiring = _wiring()
    use = wiring.services()
    ended = []
    for reference in references:
        run = wiring.find_run(reference)
        if not run.status.final:
            handle = handle_of(run)
            backend_of(handle.backend, use).cancel(handle)
            output.say(f"Stopping {output.clean(run.name)} ({run.id[:8]}) …")
            run = follow(run, use)
        if not run.status.final and wiring.recover():  # its executor was gone before it could be asked
            run = wiring.tracking.get_run(run.id)
        ended.append(run)
        output.say(f"{output.clean(run.name)} ({run.id[:8]}) is {run.status.value}.")
    if json:
        output.write_json(RunList(tuple(ended)))


def delete(
    references: References,
    restore: Annotated[bool, typer.Option("--restore", help="Bring deleted runs back instead.")] = False,
    json: opt.Json = False,
) -> None:
    """Mark runs as deleted.  They can be restored until `runproj gc --deleted` removes them for good."""
    from runproj.core.run import Lifecycle, RunChanges
    from runproj.core.views import RunList

    wiring = _wiring()
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
    references: References,
    timeout: Annotated[str | None, typer.Option("--timeout", metavar="TIME", help="Give up after this long (90, 30m).")] = None,
    json: opt.Json = False,
) -> int:
    """Wait until runs have ended; the exit code is that of the last one that failed, or 0; 124 if one has not ended in time."""
    from runproj.core.run import RunStatus, TagName
    from runproj.core.views import RunList
    from runproj.runner import follow
    from runproj.settings import parse_duration

    wiring = _wiring()
    use = wiring.services()
    deadline = time.monotonic() + parse_duration(timeout) if timeout else None
    ended, code = [], 0
    for reference in references:
        run = follow(wiring.find_run(reference), use, deadline)
        if not run.status.final:
            wiring.recover()
            run = wiring.tracking.get_run(run.id)
        if not run.status.final:
            code = 124
        elif run.status is not RunStatus.FINISHED:
            code = int(run.tag(TagName.EXIT_CODE) or 1)
        output.say(f"{output.clean(run.name)} ({run.id[:8]}) is {'' if run.status.final else 'still '}{run.status.value}.")
        ended.append(run)
    if json:
        output.write_json(RunList(tuple(ended)))
    return code
