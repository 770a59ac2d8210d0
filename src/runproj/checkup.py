"""`doctor`: is this machine fit to run and record projects, and if not, what to do."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from runproj import __version__, proc
from runproj.core.views import Check
from runproj.errors import RunprojError
from runproj.files import atomic_write
from runproj.settings import Settings

_GIB = 1 << 30


def examine(
    settings: Settings, integrity: Callable[[], str], interpreters: Callable[[], list[str]], unsent: Callable[[], int]
) -> Iterator[Check]:
    """Every check in turn.  None of them changes anything that a run could notice."""
    yield Check("runproj", "ok", f"{__version__} on Python {sys.version.split()[0]}")
    yield _git()
    yield _tool("git-lfs", "large files of repositories that use it stay pointers", "Install git-lfs if your projects use it.")
    yield _uv()
    yield _docker(os.environ)
    yield _home(settings.home)
    yield _space(settings.home)
    yield _sqlite()
    yield _guarded("store", integrity, "Restore it from a backup, or move it away to start anew.")
    yield _guarded("interpreters", lambda: ", ".join(interpreters()) or "none found", "Install one, e.g. uv python install 3.12")
    yield _same_file_system(settings)
    yield _everything_sent(unsent())
    yield from _unstored(settings.home)
    yield from _queue(settings.home)


def _guarded(name: str, look: Callable[[], str], fix: str) -> Check:
    try:
        return Check(name, "ok", look())
    except RunprojError as error:
        return Check(name, "error", f"{error.what} {error.why}".strip(), error.fix or fix)


def _git() -> Check:
    try:
        text = proc.run(["git", "version"]).text.split()
    except RunprojError:
        return Check("git", "error", "not found", "Install git 2.30 or newer.")
    version = tuple(int(part) for part in text[2].split(".")[:3] if part.isdigit())
    fixed = version >= (2, 50, 1) or version in (
        (2, 43, 7),
        (2, 44, 4),
        (2, 45, 4),
        (2, 46, 4),
        (2, 47, 3),
        (2, 48, 2),
        (2, 49, 1),
    )
    if version < (2, 30):
        return Check("git", "error", text[2], "Install git 2.30 or newer.")
    if not fixed:
        fix = "Make sure your distribution has the fixes of July 2025 (CVE-2025-48384 and others), or install git 2.50.1."
        return Check("git", "warning", text[2], fix)
    return Check("git", "ok", text[2])


def _tool(name: str, otherwise: str, fix: str) -> Check:
    path = shutil.which(name)
    return Check(name, "ok", path) if path else Check(name, "warning", f"not found: {otherwise}", fix)


def _uv() -> Check:
    try:
        from uv import find_uv_bin

        return Check("uv", "ok", proc.run([find_uv_bin(), "--version"]).text)
    except (ImportError, FileNotFoundError, RunprojError):
        return Check("uv", "error", "not found", "Reinstall runproj: uv comes with it.")


def _docker(environ: Mapping[str, str]) -> Check:
    """An engine is needed by projects with images only."""
    from runproj import engine

    try:
        where = engine.find(environ)
        version = str(engine.Engine(where).get("/version")["Version"])
    except engine.EngineAway as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return Check("docker", "ok", "no engine: projects with images cannot be run")
        said = engine.unreachable(where, error)
        return Check("docker", "warning", f"{said.what}: {said.why}", said.fix)
    except engine.EngineError as error:
        return Check("docker", "warning", error.message, "Look at the engine's log.")
    except RunprojError as error:
        return Check("docker", "warning", f"{error.what}: {error.why}", error.fix)
    try:
        import docker
    except ImportError:
        return Check("docker", "ok", f"{version} at {where.url}; pulling and building need pip install 'runproj[docker]'")
    return Check("docker", "ok", f"{version} at {where.url}, SDK {docker.__version__}")


def _home(home: Path) -> Check:
    probe = home / "cache" / f".doctor-{os.getpid()}"
    try:
        atomic_write(probe, b"")
        probe.unlink()
    except RunprojError as error:
        return Check("home", "error", f"{error.what}: {error.why}", error.fix)
    return Check("home", "ok", str(home))


def _space(home: Path) -> Check:
    free = shutil.disk_usage(home if home.exists() else Path.home()).free
    found = f"{free / _GIB:.1f} GiB free"
    if free < 2 * _GIB:
        return Check("disk", "warning", found, "runproj gc removes what no run needs; RUNPROJ_HOME can be on a larger disk.")
    return Check("disk", "ok", found)


def _sqlite() -> Check:
    import sqlite3

    version = sqlite3.sqlite_version_info
    fixed = version >= (3, 51, 3) or any(version[:2] == line[:2] and version >= line for line in ((3, 44, 6), (3, 50, 7)))
    if not fixed:
        fix = "Unless your distribution patched it, many processes writing at once can damage a WAL database: use a newer build."
        return Check("sqlite", "warning", sqlite3.sqlite_version, fix)
    return Check("sqlite", "ok", sqlite3.sqlite_version)


def _same_file_system(settings: Settings) -> Check:
    cache = os.environ.get("UV_CACHE_DIR")
    home = settings.home if settings.home.exists() else settings.home.parent
    if cache and Path(cache).exists() and home.exists() and Path(cache).stat().st_dev != home.stat().st_dev:
        fix = "Unset UV_CACHE_DIR, or put it on the same file system as RUNPROJ_HOME."
        return Check("package cache", "warning", f"{cache} is on another file system: packages are copied, not linked", fix)
    return Check("package cache", "ok", "on the same file system as the environments")


def _everything_sent(unsent: int) -> Check:
    if unsent:
        processes = "1 process" if unsent == 1 else f"{unsent} processes"
        return Check("sync", "warning", f"what {processes} logged has not been sent yet", "runproj sync")
    return Check("sync", "ok", "everything that was logged has been sent")


def _unstored(home: Path) -> Iterator[Check]:
    """Records of jobs of which not everything could be stored: they are the only ones, so nothing removes them."""
    from runproj.parcels import unstored

    folder = unstored(home)
    if kept := sorted(path.name[:8] for path in folder.iterdir()) if folder.is_dir() else []:
        found = f"not everything of {', '.join(kept)} could be stored; their records are kept in {folder}"
        yield Check("records", "warning", found, "Take from them what you need, then remove them.")


def _queue(home: Path) -> Iterator[Check]:
    """The queue of this machine, where it was ever used."""
    from runproj.backends.queue_folder import QueueFolder

    queue = QueueFolder(home)
    if not queue.root.exists():
        return
    with queue.locked():
        listed = queue.listed()
    waiting = [entry for entry in listed.entries if entry.position]
    stuck = [entry for entry in waiting if entry.waits]
    found = f"{len(waiting)} waiting, {len(listed.entries) - len(waiting)} running, {len(listed.workers)} workers"
    if stuck and not listed.workers:
        yield Check("queue", "warning", found, "Start a worker: runproj worker")
    elif stuck:
        yield Check("queue", "warning", f"{found}; no worker can take {len(stuck)}", "`runproj queue list` says what they need.")
    else:
        yield Check("queue", "ok", found)
