"""`validate` and `init`: descriptors, checked and begun."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from runproj.cli import options as opt
from runproj.cli import output
from runproj.errors import UsageError


def register(app: typer.Typer) -> None:
    app.command("validate")(validate)
    app.command("init")(init)


def validate(
    where: Annotated[str, typer.Argument(metavar="[PATH|URI]", help="Folder, descriptor file or git URL.")] = ".",
    revision: opt.Revision = None,
    json: opt.Json = False,
) -> int:
    """Report every problem of a project's descriptor, with its place.  The exit code is 1 if there are errors."""
    from runproj.core.views import ProblemView, ValidationReport
    from runproj.descriptor import Severity, problems_of, read_project

    here = revision is None and Path(where).exists()
    problems = problems_of(Path(where)) if here else _problems_at(where, revision)
    views = tuple(ProblemView(p.file, p.line, p.column, p.severity.value, p.message, p.hint) for p in problems)
    errors = sum(problem.severity is Severity.ERROR for problem in problems)
    if json:
        output.write_json(ValidationReport(errors == 0, views))
    else:
        for view in views:
            place = f"{output.clean(view.file)}:{view.line}:{view.column}:" if view.line else f"{output.clean(view.file)}:"
            word = output.bad("error") if view.severity == "error" else output.paint("warning", "\x1b[33m")
            output.write(f"{place} {word}: {output.clean(view.message)}")
            if view.hint:
                output.write(f"    {output.clean(view.hint)}")
        found = f"{output.count(errors, 'error')}, {output.count(len(problems) - errors, 'warning')}."
        bare = here and not problems and Path(where).is_dir() and read_project(Path(where)).descriptor is None
        valid = (
            "No runproj.yaml or MLproject here; scripts can be run by name (-e train.py)." if bare else "The project is valid."
        )
        output.say(found if problems else valid)
    return 1 if errors else 0


def _problems_at(uri: str, revision: str | None):  # type: ignore[no-untyped-def]  # the type is imported late, as the module is
    from runproj.core.source import Source
    from runproj.descriptor import problems_of
    from runproj.settings import load
    from runproj.wiring import Wiring

    sources = Wiring(load(), output.TerminalReporter()).sources
    checkout = sources.fetch(Source(uri, revision))
    try:
        return problems_of(checkout.project)
    finally:
        sources.discard(checkout)


def init(
    folder: Annotated[Path, typer.Argument(help="The project's folder.")] = Path(),
    force: Annotated[bool, typer.Option("--force", help="Replace a runproj.yaml that is there.")] = False,
) -> None:
    """Write a commented runproj.yaml to start from, fitted to what the folder holds."""
    from runproj.descriptor import starter
    from runproj.files import atomic_write

    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder")
    target = folder / "runproj.yaml"
    if target.exists() and not force:
        raise UsageError(f"{target} is there already", fix="Use --force to replace it.")
    atomic_write(target, starter(folder))
    output.say(f"Wrote {target}.  Check it with: runproj validate {folder}")
