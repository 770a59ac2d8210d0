"""`reproduce`, `why` and `diff`: a recorded run again and a verdict, and what differs between runs."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from runproj.cli import complete, output
from runproj.cli import options as opt
from runproj.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runproj.core.differences import Diff, Why
    from runproj.core.run import Run
    from runproj.core.verdict import Level, MetricCheck, Noise, Replay, Verdict
    from runproj.runner import Planned
    from runproj.wiring import Wiring

Ignore = Annotated[
    list[str] | None, typer.Option("--ignore", metavar="PATTERN", help="Leave outputs and metrics of this name aside ('time_*').")
]

First = Annotated[str, typer.Argument(metavar="A", help="A run.", autocompletion=complete.runs)]
Second = Annotated[
    str | None,
    typer.Argument(
        metavar="[B]", help="Another run; without it, A is compared with the run it repeats.", autocompletion=complete.runs
    ),
]
Secrets = Annotated[
    list[str] | None, typer.Option("--param", "-P", metavar="NAME=VALUE", help="A secret, which is never recorded.")
]
_MOST_SHOWN = 20


def register(app: typer.Typer) -> None:
    app.command("reproduce")(reproduce)
    app.command("why")(why)
    app.command("diff")(diff)


def reproduce(
    reference: opt.RunReference,
    times: Annotated[int, typer.Option("--repeat", "-n", min=1, metavar="N", help="How many replays; the weakest counts.")] = 1,
    at_least: Annotated[
        str | None,
        typer.Option(
            "--at-least",
            metavar="LEVEL",
            help="End with 0 at this level (R4, R3, R2, R1, R0) and above.",
            autocompletion=complete.words("R4", "R3", "R2", "R1", "R0"),
        ),
    ] = None,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Build the environment anew, even where it is sound.")] = False,
    ignore: Ignore = None,
    param: Secrets = None,
    junit: Annotated[Path | None, typer.Option("--junit", metavar="FILE", help="Write the checks as JUnit XML.")] = None,
    badge: Annotated[Path | None, typer.Option("--badge", metavar="FILE", help="Write the verdict as an SVG badge.")] = None,
    experiment: opt.Experiment = None,
    timeout: opt.Timeout = None,
    trust: opt.Trust = False,
    offline: opt.Offline = False,
    json: opt.Json = False,
    quiet: opt.Quiet = False,
) -> int:
    """Run a recorded run again, in the environment of its lock, and say how much of its result came back.

    The exit code tells the level: 0 R4 (bit by bit), 13 R3 (outputs equal by value), 12 R2 (metrics exactly equal), 11 R1
    (metrics within tolerance), 10 R0 (it ran, and its results differ), 20 where it could not be repeated.
    """
    from runproj.core.plan import RunOptions
    from runproj.descriptor import parse_given
    from runproj.reproduce.replay import Reproduction, Wishes
    from runproj.settings import parse_duration

    demanded = _level(at_least)
    wiring = _wiring(quiet=quiet, offline=offline)
    wishes = Wishes(
        times=times,
        secrets=tuple(parse_given(text) for text in param or ()),
        rebuild=rebuild,
        trust=trust,
        ignored=tuple(ignore or ()),
        options=RunOptions(experiment=experiment, timeout=parse_duration(timeout) if timeout else None),
    )
    verdict = Reproduction(wiring.find_run(reference), wiring.services(), wiring.leases, wishes).judge()
    _write_files(verdict, demanded, junit, badge)
    if json:
        output.write_json(verdict)
    else:
        _show(verdict)
    reached = demanded is not None and verdict.level.rank >= demanded.rank
    return 0 if reached else verdict.level.exit_code


def _level(text: str | None) -> Level | None:
    from runproj.core.verdict import Level

    if text is None:
        return None
    levels = [level.value for level in Level if level is not Level.FAILED]
    if text.upper() not in levels:
        raise UsageError(f"There is no level {text!r}", fix=f"Levels: {', '.join(levels)}.")
    return Level(text.upper())


def _write_files(verdict: Verdict, demanded: Level | None, junit: Path | None, badge: Path | None) -> None:
    from runproj.files import atomic_write

    if junit is not None:
        from runproj.reproduce.junit import junit as as_junit

        atomic_write(junit, as_junit(verdict, demanded))
    if badge is not None:
        from runproj.reproduce.badge import badge as as_badge

        atomic_write(badge, as_badge(verdict.level))


def _show(verdict: Verdict) -> None:
    from runproj.core.verdict import Level

    paint = output.good if verdict.level.rank >= Level.R1.rank else output.bad
    output.write(f"{paint(verdict.level.value)}  {verdict.words}")
    for number, replay in enumerate(verdict.replays, start=1):
        several = len(verdict.replays) > 1
        level = f"{replay.level.value}  " if several else ""
        run = (replay.run or "not recorded")[: 8 if replay.run else None]
        _row(f"replay {number}" if several else "replay", f"{level}{run}  {output.seconds(replay.seconds)}")
        for line in replay.reason.splitlines():
            _row("", output.clean(line))
        _show_checks(replay)
    for noise in verdict.noise:
        _row("noise", _noise(noise))
    for words in verdict.suspects[:_MOST_SHOWN]:
        _row("differs", output.clean(words))


def _noise(noise: Noise) -> str:
    cv = f", cv {noise.cv:.3g}" if noise.cv is not None else ""
    return f"{output.clean(noise.name)}  mean {noise.mean:.6g}, sd {noise.sd:.3g}{cv}, n = {noise.n}"


def _row(name: str, text: str) -> None:
    output.write(f"{output.dim(f'{name:<12}')}{text}")


def _show_checks(replay: Replay) -> None:
    from runproj.core.verdict import Sameness

    for kind, names in (
        ("outputs", [check for check in replay.outputs if check.same is Sameness.EXACT]),
        ("metrics", [check for check in replay.metrics if check.same is Sameness.EXACT]),
    ):
        if names:
            _row(kind, f"{len(names)} exactly equal")
    rows = [("output", check.path, check.same.value, check.how) for check in replay.outputs if check.same is not Sameness.EXACT]
    rows += [
        ("metric", check.name, check.same.value, _change(check)) for check in replay.metrics if check.same is not Sameness.EXACT
    ]
    for kind, name, same, details in rows:
        more = f"  {output.dim(output.clean(details))}" if details else ""
        _row(kind, f"{output.clean(name)}  {same}{more}")


def _change(check: MetricCheck) -> str:
    return f"{_values(check)}  {check.tolerance}".strip()


def _values(check: MetricCheck) -> str:
    return " → ".join("-" if value is None else repr(value) for value in (check.original, check.replay))


def why(
    first: First,
    second: Second = None,
    bisect: Annotated[
        bool, typer.Option("--bisect", help="Run hybrids of both, until it is known which difference moves the results.")
    ] = False,
    param: Secrets = None,
    offline: opt.Offline = False,
    json: opt.Json = False,
    quiet: opt.Quiet = False,
) -> int:
    """Name the first thing that differs between two runs.

    In this order: code, descriptor, parameters, lock, interpreter, image, inputs, variables, hardware, threads, seed.
    """
    from dataclasses import replace

    from runproj.descriptor import parse_given
    from runproj.reproduce.why import explain

    wiring = _wiring(quiet=quiet or not bisect, offline=offline)
    found, pair = explain(*_two("why", first, second, wiring), wiring.services())
    if bisect:
        from runproj.reproduce.bisect import Laboratory

        secrets = [parse_given(text) for text in param or ()]
        found = replace(found, bisection=Laboratory(pair, wiring.services(), wiring.leases, secrets).bisect(found.factors))
    if json:
        output.write_json(found)
    else:
        _show_why(found)
    return 0


def _two(command: str, first: str, second: str | None, wiring: Wiring) -> tuple[Run, Run]:
    """The runs that are meant: both, or a repetition behind what it repeats."""
    from runproj.core.run import TagName

    run = wiring.find_run(first)
    if second is not None:
        return run, wiring.find_run(second)
    original = run.tag(TagName.RERUN_OF)
    if original is None:
        raise UsageError(
            f"Run {run.id[:8]} repeats no other run", fix=f"Name the one to compare it with: runproj {command} {run.id[:8]} RUN"
        )
    return wiring.find_run(original), run


def _wiring(*, quiet: bool, offline: bool) -> Wiring:
    """Standard output is for the answer: what a command prints goes to standard error."""
    from runproj.settings import load
    from runproj.wiring import Wiring

    tee = (None, None) if quiet else (2, 2)
    wiring = Wiring(load(), output.TerminalReporter(quiet=quiet), offline=offline, tee=tee)
    wiring.recover()
    return wiring


def _show_why(found: Why) -> None:
    output.write(output.clean(found.words))
    for factor in found.factors[1:_MOST_SHOWN]:
        output.write(f"  {output.dim('also')}  {output.clean(factor.words)}")
    if (left := len(found.factors) - _MOST_SHOWN) > 0:
        output.write(f"  {output.dim('also')}  {left} more (--json shows all)")
    if found.factors and found.same_results:
        output.write("  The results do not differ.")
    for note in found.notes:
        output.say(f"note: {note}")
    if found.bisection is None:
        return
    for trial in found.bisection.trials:
        word = trial.problem or ("arrives at the second run" if trial.arrived else "moves" if trial.moved else "does not move")
        output.write(f"  {output.dim('tried')} {output.clean('; '.join(trial.swapped))}: {output.clean(word)}")
    output.write(output.clean(found.bisection.words))


def diff(
    first: First,
    second: Second = None,
    json: opt.Json = False,
) -> int:
    """Show all that differs between two runs: code, lock, parameters, surroundings, metrics and outputs."""
    from runproj.cli.logs import looking
    from runproj.reproduce.diff import diff as compare

    wiring = looking()
    found = compare(*_two("diff", first, second, wiring), wiring.services())
    if json:
        output.write_json(found)
    else:
        _page([*_diff_lines(found)])
    return 0


def _page(lines: list[str]) -> None:
    """Print the lines; through the user's pager, where somebody watches and they would run away."""
    if not sys.stdout.isatty() or len(lines) < shutil.get_terminal_size().lines:
        output.write("\n".join(lines))
        return
    import pydoc

    pydoc.pager("\n".join(lines))


def _diff_lines(found: Diff) -> Iterator[str]:
    from runproj.core.verdict import Sameness

    yield f"{found.runs[0][:8]} → {found.runs[1][:8]}"
    last = ""
    for item in found.differences:
        before, after = ("-" if value is None else output.clean(value).replace("\n", " ") for value in item.values)
        if item.kind != last:
            yield item.kind
        yield f"  {output.clean(item.name)}  {before} → {after}"
        last = item.kind
    for kind, rows in (
        ("metric", [(check.name, _values(check)) for check in found.metrics if check.same is not Sameness.EXACT]),
        ("output", [(c.path, f"{c.same.value}  {c.how}".strip()) for c in found.outputs if c.same is not Sameness.EXACT]),
    ):
        yield from [kind] if rows else []
        yield from (f"  {output.clean(name)}  {output.clean(text)}" for name, text in rows)
    if found.files:
        yield "files"
        yield from (f"  {change.state:<8} {output.clean(change.path)}" for change in found.files)
    yield from (output.clean(line) for line in found.patch.splitlines())
    yield from (f"note: {output.clean(note)}" for note in found.notes)


def repeated(planned: Planned, times: int, wiring: Wiring, begun: list[str], *, as_json: bool) -> int:
    """`run --repeat`: the runs, one after another, and what varied."""
    from runproj.core.run import RunStatus, TagName
    from runproj.reproduce.noise import repeat

    use = wiring.services()
    runs, floor = repeat(planned, times, use, wiring.leases, on_created=lambda run: begun.append(run.id))
    if as_json:
        output.write_json(floor)
    else:
        for noise in floor.noise:
            _row("noise", _noise(noise))
        if not floor.noise:
            output.say("No metric was recorded, so there is no noise to measure.")
    last = runs[-1]
    if last.status is RunStatus.FINISHED:
        return 0
    output.say(f"Run {last.id[:8]} is {last.status.value}: {output.clean(last.tag(TagName.REASON) or '')}")
    return int(last.tag(TagName.EXIT_CODE) or 1)
