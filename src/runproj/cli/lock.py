"""`lock`: a project's environment pinned into a file to commit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from runproj.cli import options as opt
from runproj.cli import output
from runproj.errors import UsageError

if TYPE_CHECKING:
    from runproj.core.environment import EnvManager, LockOptions


def register(app: typer.Typer) -> None:
    app.command("lock")(lock)


def lock(
    folder: Annotated[Path, typer.Argument(metavar="[FOLDER]", help="The project's folder.")] = Path(),
    entry_point: Annotated[
        str | None, typer.Option("--entry-point", "-e", metavar="SCRIPT", help="A script whose header says what it needs.")
    ] = None,
    upgrade: Annotated[bool, typer.Option("--upgrade", "-U", help="Resolve anew even if the lock fits the project.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; the exit code is 1 if there is something to write.")
    ] = False,
    env_manager: opt.EnvManager = "auto",
    as_of: Annotated[str, typer.Option("--as-of", metavar="now|commit|DATE", help="Read the index as it stood then.")] = "now",
    strict: opt.Strict = False,
    offline: opt.Offline = False,
    json: opt.Json = False,
) -> int:
    """Pin the project's environment into a file to commit: pylock.toml, or runproj.lock for conda packages and images.

    Runs use it as long as it fits the project; with `run --locked` they use nothing else.
    """
    from runproj.core.views import LockState
    from runproj.settings import load
    from runproj.wiring import Wiring

    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder", fix="Name the folder of a project; a lock is written into it.")
    options = lock_options(env_manager, None, as_of, relock=True, strict=strict, installer="uv", offline=offline)
    wiring = Wiring(load(), output.TerminalReporter(), offline=offline)
    report = wiring.lock(folder.resolve(), entry_point, options, upgrade=upgrade, check=check)
    missing = report.state in (LockState.MISSING, LockState.STALE)
    if json:
        output.write_json(report)
    else:
        for note in report.notes:
            output.say(f"note: {output.clean(note)}")
        if report.why:
            output.say(output.clean(report.why if report.state is LockState.OWN else f"{report.file}: {report.why}"))
        words = {
            LockState.WRITTEN: f"Wrote {report.file}: {output.count(report.packages, 'package')}, digest {report.digest[:12]}.",
            LockState.CURRENT: f"{report.file} fits the project: {output.count(report.packages, 'package')}.",
        }
        if text := words.get(report.state):
            output.say(output.clean(text))
    return 1 if missing else 0


def lock_options(
    manager: str,
    extra: list[str] | None,
    as_of: str,
    *,
    relock: bool,
    strict: bool,
    installer: str,
    offline: bool,
    locked: bool = False,
) -> LockOptions:
    """What the user says about pinning."""
    from runproj.core.environment import LockOptions

    if installer not in ("uv", "pip"):
        raise UsageError(f"There is no installer {installer!r}", fix="Use --installer uv or --installer pip.")
    return LockOptions(as_of, _manager(manager), tuple(extra or ()), relock, strict, installer, offline, locked)


def _manager(name: str) -> EnvManager | None:
    from runproj.core.environment import EnvManager

    if name == "auto":
        return None
    try:  # MLflow's words: local is the system, uv makes a virtual environment
        return EnvManager({"local": "system", "uv": "virtualenv"}.get(name, name))
    except ValueError:
        raise UsageError(
            f"There is no environment manager {name!r}", fix="Use auto, virtualenv, conda, system or docker."
        ) from None
