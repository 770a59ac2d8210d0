"""What the shell offers behind Tab, beyond commands and options."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from runproj.core.catalogue import Catalogue
    from runproj.core.project import Project
    from runproj.core.run import Run


def runs(incomplete: str) -> list[tuple[str, str]]:
    """Recent runs by name, or by id where one is begun, and `@last`."""
    from runproj.errors import RunprojError

    try:
        found = _recent()
    except RunprojError:  # no store, no suggestions; whoever presses Tab wants no error message
        return []
    offered = [("@last", "the newest run")]
    for run in found:
        offered += [(run.name, f"{run.id[:8]} {run.status.value}"), (run.id[:8], f"{run.name} {run.status.value}")]
    return [item for item in offered if item[0].startswith(incomplete)]


def queued(incomplete: str) -> list[tuple[str, str]]:
    """Runs that wait in the queue."""
    from runproj.backends.queue_folder import QueueFolder
    from runproj.errors import RunprojError
    from runproj.settings import load

    try:
        queue = QueueFolder(load().home)
        with queue.locked():
            found = [entry for entry in queue.listed().entries if entry.position]
    except RunprojError:
        return []
    offered = [(name, f"position {entry.position}") for entry in found for name in (entry.name, entry.run[:8])]
    return [item for item in offered if item[0].startswith(incomplete)]


def metrics(incomplete: str) -> list[str]:
    """Metrics that recent runs have."""
    return _of_runs(incomplete, lambda run: [item.key for item in run.metrics])


def params(incomplete: str) -> list[str]:
    """Parameters that recent runs have."""
    return _of_runs(incomplete, lambda run: [item.key for item in run.params])


def keys(incomplete: str) -> list[str]:
    """Metrics and parameters that recent runs have, as the search language names them."""
    return _of_runs(
        incomplete,
        lambda run: [*(f"metrics.{item.key}" for item in run.metrics), *(f"params.{item.key}" for item in run.params)],
    )


def experiments(incomplete: str) -> list[str]:
    """Names of experiments."""
    return _of_catalogue(incomplete, lambda store: [item.name for item in store.experiments.all(None)])


def active_experiments(incomplete: str) -> list[str]:
    """Names of experiments that can have runs."""
    from runproj.core.run import Lifecycle

    return _of_catalogue(incomplete, lambda store: [item.name for item in store.experiments.all(Lifecycle.ACTIVE)])


def models(incomplete: str) -> list[str]:
    """Names of registered models."""
    return _of_catalogue(incomplete, lambda store: [item.name for item in store.shelf.registered()])


def _of_catalogue(incomplete: str, names: Callable[[Catalogue], list[str]]) -> list[str]:
    import os

    from runproj.errors import RunprojError
    from runproj.settings import load
    from runproj.tracking.catalogue import open_catalogue

    try:
        settings = load()
        found = names(open_catalogue(settings.tracking_uri, home=settings.home, environ=os.environ))
    except RunprojError:
        return []
    return [name for name in found if name.startswith(incomplete)]


def _of_runs(incomplete: str, words: Callable[[Run], list[str]]) -> list[str]:
    from runproj.errors import RunprojError

    try:
        found = dict.fromkeys(word for run in _recent() for word in words(run))
    except RunprojError:
        return []
    return [word for word in found if word.startswith(incomplete)]


def _recent() -> Sequence[Run]:
    from runproj.cli import output
    from runproj.core.run import RunQuery
    from runproj.settings import load
    from runproj.wiring import Wiring

    return Wiring(load(), output.TerminalReporter(quiet=True)).tracking.search(RunQuery(limit=50))


def entry_points(ctx: typer.Context, incomplete: str) -> list[str]:
    """Those of the project that the command line names, where it is a folder here; its scripts, where it declares none."""
    found = _project(ctx)
    if found is None:
        return []
    project, folder = found
    names = [item.name for item in project.entry_points] or sorted(path.name for path in folder.glob("*.py"))
    return [name for name in names if name.startswith(incomplete)]


def parameters(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """`NAME=` for each parameter of the entry point, where the project is a folder here."""
    found = _project(ctx)
    wanted = ctx.params.get("entry_point") or "main"
    offered = [item for point in (found[0].entry_points if found else ()) if point.name == wanted for item in point.parameters]
    return [(f"{item.name}=", item.help) for item in offered if f"{item.name}=".startswith(incomplete)]


def _project(ctx: typer.Context) -> tuple[Project, Path] | None:
    from runproj.descriptor import read_project
    from runproj.errors import RunprojError

    # an option that has no value yet leaves arguments unread
    uri = next(filter(None, [ctx.params.get("uri"), *ctx.args]), ".")
    place, _, below = uri.partition("#")
    folder = Path(place, below)
    try:
        return (read_project(folder), folder) if folder.is_dir() else None
    except (RunprojError, OSError):
        return None


def words(*choices: str) -> Callable[[str], list[str]]:
    """Offers fixed words."""
    return lambda incomplete: [word for word in choices if word.startswith(incomplete)]


def backends(incomplete: str) -> list[str]:
    """Where a run can be: backends, and profiles of the user."""
    from runproj.cli import output
    from runproj.errors import RunprojError
    from runproj.settings import load
    from runproj.wiring import Wiring

    try:
        settings = load()
        names = {*Wiring(settings, output.TerminalReporter(quiet=True)).backends.names(), *settings.profiles}
    except RunprojError:
        return []
    return sorted(name for name in names if name.startswith(incomplete))
