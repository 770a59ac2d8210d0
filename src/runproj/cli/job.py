"""`execute-job`: the executor in a process of its own, as the local backend starts it.  Not for people."""

from __future__ import annotations

from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    app.command("execute-job", hidden=True)(execute_job)


def execute_job(token: Annotated[str, typer.Argument()], descriptor: Annotated[int, typer.Argument()]) -> int:
    """Execute the run whose lease, locked on `descriptor`, was handed to this process."""
    from runproj.cli.output import TerminalReporter
    from runproj.settings import load
    from runproj.wiring import Wiring

    return Wiring(load(), TerminalReporter()).take_over(token, descriptor)
