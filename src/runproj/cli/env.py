"""`env list|show|prune|verify`: the environments on this machine."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from runproj.cli import options as opt
from runproj.cli import output

if TYPE_CHECKING:
    from runproj.core.views import EnvironmentView
    from runproj.environments import EnvironmentCache

Digest = Annotated[str, typer.Argument(metavar="DIGEST", help="Beginning of an environment's digest.")]


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="Environments on this machine.", rich_markup_mode=None, no_args_is_help=True)
    for name, command in (("list", list_), ("show", show), ("prune", prune), ("verify", verify)):
        group.command(name)(command)
    app.add_typer(group, name="env")


def _cache() -> EnvironmentCache:
    from runproj.settings import load
    from runproj.wiring import Wiring

    return Wiring(load(), output.TerminalReporter()).environments


def _show(views: tuple[EnvironmentView, ...], *, as_json: bool, none: str) -> None:
    from runproj.core.views import EnvironmentList

    if as_json:
        output.write_json(EnvironmentList(views))
        return
    if not views:
        output.say(none)
        return
    rows = [
        (
            view.digest[:12],
            view.manager,
            view.python,
            str(view.packages),
            f"{view.size / 1e6:.1f} MB" if view.size is not None else "",
            datetime.fromtimestamp(view.used / 1000).strftime("%Y-%m-%d %H:%M") if view.used else "",
            view.problem or view.origin,
        )
        for view in views
    ]
    output.table(("DIGEST", "MANAGER", "PYTHON", "PACKAGES", "SIZE", "LAST USED", "FROM"), rows, right=(3, 4))


def list_(json: opt.Json = False) -> None:
    """List the environments that have been built."""
    _show(_cache().list(), as_json=json, none="No environments yet.")


def show(digest: Digest, json: opt.Json = False) -> None:
    """Show what an environment holds, and where it is."""
    from runproj.reproduce.facts import packages_of

    cache = _cache()
    view, lock = cache.show(digest)
    if json:
        output.write_json({"environment": view, "lock": lock})
        return
    for name, text in (
        ("digest", view.digest),
        ("image" if lock.image else "path", lock.image.words if lock.image else view.path),
        ("manager", f"{view.manager} from {view.origin}"),
        ("python", view.python),
        ("as of", lock.as_of or "-"),
        ("problem", view.problem or "none"),
    ):
        output.write(f"{output.dim(f'{name:<10}')}{output.clean(text)}")
    for package in packages_of(lock):
        output.write(f"  {package.name}=={package.value}")


def prune(
    days: Annotated[float, typer.Option("--days", metavar="DAYS", min=0, help="Those unused for this long.")] = 30,
    dry_run: opt.WouldRemove = False,
    json: opt.Json = False,
) -> None:
    """Remove environments that no run used lately; they are rebuilt from their locks when one does."""
    views = _cache().prune(days=days, dry_run=dry_run)
    _show(views, as_json=json, none="There is nothing to remove.")
    if views and not json:
        output.say(f"{output.count(len(views), 'environment')} {'to remove' if dry_run else 'removed'}.")


def verify(
    digest: Annotated[str | None, typer.Argument(metavar="[DIGEST]", help="All of them without it.")] = None,
    json: opt.Json = False,
) -> int:
    """Compare every installed file with what was installed; the exit code is 1 if one differs."""
    views = _cache().verify(digest)
    _show(views, as_json=json, none="No environments yet.")
    damaged = sum(bool(view.problem) for view in views)
    if views and not json:
        output.say(f"{len(views) - damaged} as installed, {damaged} damaged.")
    return 1 if any(view.problem for view in views) else 0
