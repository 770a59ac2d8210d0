"""`report`: a run as a page that a reviewer can read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from runproj.cli import options as opt
from runproj.cli import output


def register(app: typer.Typer) -> None:
    app.command("report")(report)


def report(
    reference: opt.RunReference,
    into: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE.html|.md", help="Where to; standard output, as Markdown, otherwise."),
    ] = None,
) -> int:
    """Write what was run, how, in which environment, what came of it and how to repeat it, as one page of HTML or Markdown.

    The page loads nothing from anywhere, and whatever the run has put into names and values stays text.
    """
    from runproj.carrying import Carrying
    from runproj.errors import UsageError
    from runproj.files import atomic_write
    from runproj.settings import load
    from runproj.wiring import Wiring

    if into is not None and into.suffix.lower() not in (".html", ".htm", ".md"):
        raise UsageError(f"{into} is neither a name of HTML nor of Markdown", fix=f"-o {into.with_suffix('.html')}")
    carrying = Carrying(Wiring(load(), output.TerminalReporter()), Path.cwd())
    carrying.wiring.recover()
    text = carrying.report(reference, markdown=into is None or into.suffix.lower() == ".md")
    if into is None:
        output.write(text.rstrip())
        return 0
    atomic_write(into.absolute(), text)
    output.write(str(into))
    return 0
