"""`gc` and `doctor`: free what no run needs, and see whether this machine is fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from runproj.cli import options as opt
from runproj.cli import output


def register(app: typer.Typer) -> None:
    app.command("gc")(gc)
    app.command("doctor")(doctor)


def gc(
    days: Annotated[
        float, typer.Option("--days", metavar="DAYS", min=0, help="Environments, checkouts, refusals unused for this long.")
    ] = 30,
    deleted: Annotated[bool, typer.Option("--deleted", help="Remove deleted runs, models, experiments for good, too.")] = False,
    store: Annotated[
        str | None, typer.Option("--store", metavar="URL", help="A server's database; the configured one otherwise.")
    ] = None,
    artifacts: Annotated[
        str | None, typer.Option("--artifacts", metavar="URL", help="Where a server keeps files; the configured place otherwise.")
    ] = None,
    dry_run: opt.WouldRemove = False,
    json: opt.Json = False,
) -> None:
    """Remove environments that were not used lately, leftovers of crashes, kept checkouts, and what servers refused long ago.

    Never what a run in progress needs.  With --deleted, what a server keeps elsewhere is found as `runproj server` finds it: by
    the same --store and --artifacts.
    """
    from runproj.carrying import Carrying
    from runproj.collecting import collect_garbage
    from runproj.settings import load
    from runproj.wiring import Wiring

    wiring = Wiring(load(), output.TerminalReporter())
    wiring.recover(everywhere=True)
    if store is not None or artifacts is not None:
        place = wiring.settings.artifacts_uri
        if artifacts is not None:
            place = artifacts if ":" in artifacts else str(Path.cwd() / artifacts)
        served = replace(wiring.settings, tracking_uri=wiring.database_uri(store), artifacts_uri=place)
        wiring = Wiring(served, wiring.reporter)
    report = collect_garbage(wiring, days=days, deleted=deleted, dry_run=dry_run)
    carried = list(Carrying(wiring, Path.cwd()).collect(days=days, dry_run=dry_run))
    freed = report.freed + sum(size for _, size in carried)
    report = replace(report, removed=(*report.removed, *(what for what, _ in carried)), freed=freed)
    if json:
        output.write_json(report)
        return
    for what in report.removed:
        output.write(what)
    if not report.removed:
        output.say("There is nothing to remove.")
        return
    verb = "to remove, which would free" if dry_run else "removed, which freed"
    output.say(f"{output.count(len(report.removed), 'thing')} {verb} {report.freed / 1e6:.1f} MB.")


def doctor(json: opt.Json = False) -> int:
    """Check git, interpreters, disk, store, caches and what is not sent; the exit code is 1 if something must be fixed."""
    from runproj.core.views import Checkup
    from runproj.settings import load
    from runproj.wiring import Wiring

    wiring = Wiring(load(), output.TerminalReporter())
    checks = tuple(wiring.checkup())
    if json:
        output.write_json(Checkup(checks))
    else:
        words = {"ok": output.good("ok     "), "warning": output.paint("warning", "\x1b[33m"), "error": output.bad("error  ")}
        for check in checks:
            output.write(f"{words[check.state]}  {check.name:<14} {output.clean(check.found)}")
            if check.fix:
                output.write(f"{'':<25}{output.clean(check.fix)}")
    return 1 if any(check.state == "error" for check in checks) else 0
