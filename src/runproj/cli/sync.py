"""`sync`: send what was logged while the server was away, and bring the records of jobs home that ran elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from runproj.cli import options as opt
from runproj.cli import output


def register(app: typer.Typer) -> None:
    app.command("sync")(sync)


def sync(
    refused: Annotated[bool, typer.Option("--refused", help="Also try again what a server refused before.")] = False,
    json: opt.Json = False,
) -> int:
    """Send what was logged while the server was away, and bring the records of jobs here that ran elsewhere.

    The exit code is 1 if something is left.

    It can be run at any time and any number of times: everything is recorded once.
    """
    from runproj.core.views import SyncReport
    from runproj.settings import load
    from runproj.wiring import Wiring

    reporter = output.TerminalReporter(quiet=json)
    reporter.phase("sync", "Looking for what was not sent")
    wiring = Wiring(load(), reporter)
    wiring.recover(everywhere=True)
    placed = wiring.placed
    for run_id in placed.brought if not json else ():
        output.write(f"{run_id[:8]}  the record of its job was brought here")
    found = []

    def progress(folder: str, sent: int) -> None:
        reporter.progress(f"{Path(folder).name}: {sent} events")

    for spool in wiring.sync(progress, refused=refused):
        found.append(spool)
        if json:
            continue
        output.write(f"{Path(spool.folder).name}  {output.count(spool.sent, 'event')} sent to {output.clean(spool.uri)}")
        if spool.refused:
            output.say(f"  The server refused {output.count(spool.refused, 'event')}; see {spool.folder}/refused.jsonl.")
        if spool.problem:
            output.say(f"  {output.count(spool.left, 'event')} left: {output.clean(spool.problem)}")
    if json:
        output.write_json(SyncReport(tuple(found), tuple(placed.brought), placed.failed))
    elif not found and not placed.brought and not placed.failed:
        output.say("Everything was sent already.")
    return 1 if placed.failed or any(spool.left or spool.problem for spool in found) else 0
