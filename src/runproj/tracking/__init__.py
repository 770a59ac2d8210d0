"""Where runs are recorded: an SQLite file, or any server that speaks MLflow's protocol."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from runproj.errors import UsageError

if TYPE_CHECKING:
    from runproj.core.tracking import TrackingStore


def open_store(uri: str, *, home: Path, environ: Mapping[str, str]) -> TrackingStore:
    """The store behind a tracking URI.  Nothing is read or written before it is used.

    home:    what a relative path in `uri` is relative to.
    environ: where credentials of a server are found (MLFLOW_TRACKING_USERNAME, _PASSWORD, _TOKEN).
    """
    if uri.startswith("sqlite:///"):
        from runproj.tracking.sqlite import SqliteStore

        return SqliteStore(database_path(uri, home))
    if uri.startswith(("http://", "https://")):
        from runproj.remote import Remote
        from runproj.tracking.http import HttpStore

        return HttpStore(Remote(uri, environ))
    raise UsageError(f"The tracking URI {uri!r} is not one that runproj can use", fix="Use sqlite:///PATH or http(s)://SERVER.")


def database_path(uri: str, home: Path) -> Path:
    """The file that `sqlite:///PATH` names."""
    return home / uri.removeprefix("sqlite:///")


def check_store(uri: str, *, home: Path) -> str:
    """Look through the whole database for damage; says what it holds.  Raises `TrackingError` naming the first problem."""
    from runproj.errors import TrackingError
    from runproj.tracking.sqlite import SqliteStore

    path = database_path(uri, home)
    if not path.exists():
        return f"{path}, not made yet"
    with SqliteStore(path).database.reading() as connection:
        [(verdict,)] = connection.execute("PRAGMA quick_check(1)").fetchall()
        [(runs,)] = connection.execute("SELECT count(*) FROM runs").fetchall()
    if verdict != "ok":
        raise TrackingError(f"The database {path} is damaged", why=str(verdict), fix="Restore it from a backup.")
    return f"{path}, {runs} runs"


def purge_run(uri: str, run_id: str, *, home: Path) -> None:
    """Remove a run that is marked as deleted, with all its points, for good."""
    from runproj.tracking.sqlite import SqliteStore

    with SqliteStore(database_path(uri, home)).database.writing() as connection:
        connection.execute("DELETE FROM runs WHERE id = ? AND lifecycle = 'deleted'", (run_id,))
