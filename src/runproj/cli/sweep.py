"""`sweep`: many runs of one project with other parameters, what came of them, and how to go on after a crash."""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from runproj.cli import complete, output, places
from runproj.cli import options as opt
from runproj.cli.lock import lock_options
from runproj.cli.run import make_options, make_request
from runproj.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from runproj.core.run import Run
    from runproj.core.space import Values
    from runproj.core.sweep import Sweep, SweepView, TrialView
    from runproj.sweeps.deciding import Table
    from runproj.wiring import Wiring

_VERBS = ("resume", "show")
_MOST_SHOWN = 5
_MOST_LIVE = 8
"""Trials under way that the moving table names."""

Uri = Annotated[
    str,
    typer.Argument(
        metavar="URI",
        help="As of 'run'; or 'resume' or 'show', and a sweep (its id, beginning of an id, name).",
        autocompletion=complete.words(*_VERBS),
    ),
]
SweepRun = Annotated[str | None, typer.Argument(metavar="[SWEEP]", help="Which sweep.", autocompletion=complete.runs)]
Params = Annotated[
    list[str] | None,
    typer.Option(
        "--param",
        "-P",
        metavar="NAME=VALUES",
        help="A value; several (lr=0.1,0.01); a range (2..8, 0.1..0.9:0.1, 1e-4..1:log); or @FILE.csv with a trial a line.",
        autocompletion=complete.parameters,
    ),
]
Method = Annotated[
    str | None,
    typer.Option(
        "--method",
        metavar="grid|random|tpe|cmaes",
        help="Who chooses values.",
        autocompletion=complete.words("grid", "random", "tpe", "cmaes"),
    ),
]
MetricName = Annotated[str | None, typer.Option("--metric", metavar="NAME", help="The metric to look at.")]
Maximize = Annotated[bool, typer.Option("--maximize", help="More of the metric is better.")]
Minimize = Annotated[bool, typer.Option("--minimize", help="Less of the metric is better.")]
Trials = Annotated[int | None, typer.Option("--trials", "-N", min=1, metavar="N", help="How many trials.")]
Parallel = Annotated[int | None, typer.Option("--parallel", "-j", min=1, metavar="K", help="How many at a time.")]
Seed = Annotated[int | None, typer.Option("--seed", metavar="N", help="What random choices come from (0).")]
Prune = Annotated[
    str | None,
    typer.Option(
        "--prune",
        metavar="none|median|asha",
        help="Stop trials that are hopeless by what they log.",
        autocompletion=complete.words("none", "median", "asha"),
    ),
]
MaxTime = Annotated[str | None, typer.Option("--max-time", metavar="TIME", help="Begin no further trial after this long.")]
MaxFailures = Annotated[
    int | None, typer.Option("--max-failures", min=1, metavar="N", help="End when so many trials have failed.")
]
Timeout = Annotated[str | None, typer.Option("--timeout", metavar="TIME", help="Stop each trial after this long (90, 30m, 2h).")]


def register(app: typer.Typer) -> None:
    app.command("sweep")(sweep)
    app.command("sweep-worker", hidden=True)(worker)


def sweep(
    uri: Uri,
    which: SweepRun = None,
    entry_point: opt.EntryPoint = "main",
    revision: opt.Revision = None,
    param: Params = None,
    params_file: opt.ParamsFile = None,
    method: Method = None,
    metric: MetricName = None,
    maximize: Maximize = False,
    minimize: Minimize = False,
    trials: Trials = None,
    parallel: Parallel = None,
    seed: Seed = None,
    prune: Prune = None,
    max_time: MaxTime = None,
    max_failures: MaxFailures = None,
    timeout: Timeout = None,
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
    grace: opt.Grace = 10.0,
    clean_env: opt.CleanEnv = False,
    deterministic: opt.Deterministic = False,
    docker_args: opt.DockerArgs = None,
    trust: opt.Trust = False,
    json: opt.Json = False,
    quiet: opt.Quiet = False,
) -> int:
    """Run a project many times with other parameters, as trials.

    Each trial is a run, and all are children of one.
    Code and environment are pinned once. `sweep resume SWEEP` goes on after a crash or a Ctrl-C, `sweep show SWEEP` tells what
    came of it. The exit code is 0 where a trial finished, 1 where none did or too many failed.
    """
    from runproj.core.project import SweepWishes
    from runproj.settings import parse_duration
    from runproj.sweeps import deciding
    from runproj.sweeps.engine import Engine

    if which is not None:
        return _verb(uri, which, param, json=json, quiet=quiet, offline=offline)
    if maximize and minimize:
        raise UsageError("--maximize and --minimize exclude each other", fix="Leave out one of them.")
    goal = "maximize" if maximize else "minimize" if minimize else None
    latest = parse_duration(max_time) if max_time else None
    wishes = SweepWishes(method, metric, goal, trials, parallel, seed, prune, latest, max_failures)
    values, table = _table(param)
    request = make_request(
        uri,
        entry_point,
        revision,
        given=opt.given(values, params_file),
        strict=strict,
        require_clean=require_clean,
        lock=lock_options(
            env_manager, extra, as_of, relock=relock, strict=strict, installer=installer, offline=offline, locked=locked
        ),
        trust=trust,
        options=make_options(
            places.chosen(backend, backend_config),
            experiment,
            run_name,
            tag,
            timeout,
            grace=grace,
            keep=False,
            clean_env=clean_env,
            deterministic=deterministic,
            docker_args=docker_args,
        ),
    )
    wiring = _wiring(quiet=quiet, offline=offline, require_clean=require_clean)
    wiring.recover()
    use = wiring.services()
    planned, decided = deciding.plan(request, wishes, table, use)
    watch = Watch(quiet=quiet)
    return _finish(watch, lambda: Engine(planned, decided, use, wiring.leases, watch).start(wiring.recover), wiring, as_json=json)


def _table(params: list[str] | None) -> tuple[list[str], Table | None]:
    """Parameters that were typed, and the file of trials among them."""
    from runproj.sweeps.deciding import Table

    files = [text for text in params or () if text.startswith("@")]
    if len(files) > 1:
        raise UsageError(f"There can be one file of trials, not {len(files)}")
    if not files:
        return list(params or ()), None
    path = Path(files[0][1:])
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        what = f"The file of trials {files[0]!r} cannot be read"
        raise UsageError(what, why=error.strerror or str(error), fix="Name a file after the @: -P @trials.csv") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not a text in UTF-8", why=str(error)) from error
    return [text for text in params or () if not text.startswith("@")], Table(text, path.name)


def _wiring(*, quiet: bool, offline: bool, require_clean: bool = False) -> Wiring:
    from runproj.settings import load
    from runproj.wiring import Wiring

    return Wiring(load(), output.TerminalReporter(quiet=quiet), offline=offline, require_clean=require_clean)


def _verb(verb: str, reference: str, param: list[str] | None, *, json: bool, quiet: bool, offline: bool) -> int:
    from runproj.sweeps import record

    if verb not in _VERBS:
        raise UsageError(
            f"'sweep' takes one URI, not {reference!r} too", fix="runproj sweep resume SWEEP, or runproj sweep show SWEEP"
        )
    wiring = _wiring(quiet=quiet, offline=offline)
    wiring.recover()
    use = wiring.services()
    parent = wiring.find_run(reference)
    if verb == "show":
        return _show(record.view(parent, record.load(parent, use), use), as_json=json)
    from runproj import runner
    from runproj.sweeps.engine import Engine

    decided = record.load(parent, use)
    plan = runner.load_plan(parent, use)
    runner.restore_patch(parent, plan, use)
    secrets = {item.name: item.value for item in opt.given(param, None)}
    watch = Watch(quiet=quiet)
    planned = runner.Planned(plan, secrets)
    runner.require_secrets(planned)
    engine = Engine(planned, decided, use, wiring.leases, watch)
    return _finish(watch, lambda: engine.resume(parent, wiring.recover), wiring, as_json=json)


def _finish(watch: Watch, run: Callable[[], Run], wiring: Wiring, *, as_json: bool) -> int:
    """Run the sweep and show it; one that is stopped says how it goes on."""
    from runproj.core.run import RunStatus
    from runproj.sweeps import record

    try:
        parent = run()
    except KeyboardInterrupt:
        watch.wipe()
        if watch.parent:
            output.say(f"Go on with it: runproj sweep resume {watch.parent[:8]}")
        raise
    watch.wipe()
    use = wiring.services()
    _show(record.view(parent, record.load(parent, use), use), as_json=as_json)
    return 0 if parent.status is RunStatus.FINISHED else 1


class Watch:
    """Tells how a sweep gets on: a line for each trial that ends, and on a terminal a table below that moves."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._live = not quiet and output.TerminalReporter().live
        self._lines = 0
        self._running: dict[int, tuple[Values, float]] = {}
        self._done: list[TrialView] = []
        self._before = 0
        self._sweep: Sweep | None = None
        self.parent = ""

    def begun(self, parent: Run, sweep: Sweep, done: int) -> None:
        self.parent, self._sweep, self._before = parent.id, sweep, done
        if not self._quiet:
            went = f", {done} done before" if done else ""
            count = output.count(sweep.trials, "trial")
            output.say(f"{'sweep':<12}{output.clean(parent.name)} ({parent.id[:8]})  {sweep.method.value}, {count}{went}")

    def started(self, number: int, values: Values) -> None:
        self._running[number] = values, time.monotonic()
        self.passing()

    def ended(self, trial: TrialView) -> None:
        self._running.pop(trial.number, None)
        self._done.append(trial)
        if self._quiet:
            return
        self.wipe()
        good = trial.status == "FINISHED"
        word = output.paint(
            f"{trial.status:<9}", "\x1b[32m" if good else "\x1b[33m" if trial.pruned is not None else "\x1b[31;1m", sys.stderr
        )
        took = output.seconds(trial.seconds or 0.0)
        value = f"  {self._sweep.metric} {trial.value:.6g}" if self._sweep and trial.value is not None else ""
        why = f"  {trial.reason}" if trial.reason and not good else ""
        output.say(f"{trial.number:>5}  {word} {took:>6}{output.clean(value)}  {shown(trial.params)}{output.clean(why)}")
        self.passing()

    def passing(self) -> None:
        """Draw the table of what runs, and of the best, over the last one."""
        if not self._live or self._sweep is None:
            return
        from runproj.sweeps.record import ranked

        now = time.monotonic()
        done = self._before + len(self._done)
        lines = [f"{done} of {self._sweep.trials} done, {len(self._running)} under way"]
        for number, (values, since) in list(self._running.items())[:_MOST_LIVE]:
            lines.append(f"  {number:>4}  {output.seconds(now - since):>6}  {shown(values)}")
        if (more := len(self._running) - _MOST_LIVE) > 0:
            lines.append(f"  and {more} more")
        best = ranked(self._done, self._sweep)[:3] if self._sweep.metric else []
        lines += [f"  best {one.value:.6g}  trial {one.number}  {shown(one.params)}" for one in best]
        width = shutil.get_terminal_size().columns - 1
        self.wipe()
        sys.stderr.write("".join(f"{line[:width]}\n" for line in lines))
        sys.stderr.flush()
        self._lines = len(lines)

    def wipe(self) -> None:
        output.move("")  # an environment is being built
        if self._lines:
            sys.stderr.write(f"\r\x1b[{self._lines}A\x1b[J")  # \r: the terminal shows ^C
            sys.stderr.flush()
            self._lines = 0


def shown(params: Values) -> str:
    """The values of a trial in one line."""
    return output.clean("  ".join(f"{name}={value}" for name, value in params)).replace("\n", " ")


def _show(view: SweepView, *, as_json: bool) -> int:
    if as_json:
        output.write_json(view)
        return 0
    trials = {one.number: one for one in view.trials}
    counted: dict[str, int] = {}
    for one in view.trials:
        word = "pruned" if one.pruned is not None else one.status.lower()
        counted[word] = counted.get(word, 0) + 1
    told = ", ".join(f"{number} {word}" for word, number in counted.items()) or "no trial"
    why = f" ({view.stopped})" if view.stopped else ""
    output.write(f"{output.clean(view.name)} ({view.run[:8]})  {view.status}{output.clean(why)}: {told} of {view.sweep.trials}")
    names = view.sweep.space.names
    chosen = [trials[number] for number in view.best[:_MOST_SHOWN]] or (list(view.trials)[:_MOST_SHOWN] if not view.best else [])
    rows = [
        [
            str(one.number),
            one.run[:8],
            one.status,
            "-" if one.value is None else f"{one.value:.6g}",
            *(dict(one.params).get(name, "-") for name in names),
        ]
        for one in chosen
    ]
    if rows:
        output.table(["trial", "run", "status", view.sweep.metric or "value", *names], rows, right=(0, 3))
    _show_importance(view)
    for note in view.notes:
        output.say(f"note: {note}")
    if view.rerun:
        output.write(f"Run the best again: {view.rerun}")
    return 0


def _show_importance(view: SweepView) -> None:
    """How strongly each parameter went with the metric, among trials that finished."""
    if view.importance is None:
        return
    from runproj.analysis import strength

    found = view.importance
    named = [(strength(one), one.name) for one in found.numeric] + [(strength(one), one.name) for one in found.categories]
    for much, name in sorted(named, key=lambda pair: (-pair[0], pair[1])):
        bar = "█" * round(much * 20)
        output.write(f"{output.dim('goes with')} {output.clean(found.metric)}: {output.clean(name)} {much:.2f} {bar}".rstrip())


def worker(plan: Annotated[Path, typer.Argument()]) -> int:
    """Run trials as they are ordered on standard input."""
    from runproj.settings import load
    from runproj.sweeps.worker import serve
    from runproj.wiring import Wiring

    incoming, outgoing = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what anybody prints goes to the log
    wiring = Wiring(load(), output.TerminalReporter(quiet=True))
    serve(plan, wiring.services(), wiring.leases, incoming, outgoing)
    return 0
