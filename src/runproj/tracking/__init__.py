"""Where runs are recorded: an SQLite file, PostgreSQL, or any server that speaks MLflow's protocol."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from runproj.errors import UsageError

if TYPE_CHECKING:
    from runproj.core.tracking import TrackingStore
    from runproj.tracking.full import FullStore
    from runproj.tracking.sql import Database

Note = Callable[[str], None]
_POSTGRESQL = ("postgresql://", "postgres://")


def open_store(uri: str, *, home: Path, environ: Mapping[str, str], note: Note | None = None) -> TrackingStore:
    """The store behind a tracking URI.  Nothing is read or written before it is used.

    home:    what a relative path in `uri` is relative to; backups of databases on servers go there.
    note:    is told of backups, or that there is none.
    environ: where credentials of a server are found (MLFLOW_TRACKING_USERNAME, _PASSWORD, _TOKEN).
    """
    if uri.startswith(("http://", "https://")):
        from runproj.remote import Remote
        from runproj.tracking.http import HttpStore

        return HttpStore(Remote(uri, environ))
    from runproj.tracking.store import SqlStore

    return SqlStore(open_database(uri, home=home, note=note))


def open_full_store(uri: str, *, home: Path, note: Note | None = None) -> FullStore:
    """A database with all that MLflow's protocol knows: what a server serves.  Raises `UsageError` for any other place."""
    from runproj.tracking.full import FullStore

    return FullStore(open_database(uri, home=home, note=note))


def open_database(uri: str, *, home: Path, note: Note | None = None, unsaved: bool = False) -> Database:
    """The database behind `sqlite:///…` or `postgresql://…`.  Raises `UsageError` for any other URI.

    unsaved: it may be brought up to date without a backup.
    """
    if uri.startswith("sqlite:///"):
        from runproj.tracking.database import SqliteDatabase

        return SqliteDatabase(database_path(uri, home))
    if uri.startswith(_POSTGRESQL):
        from runproj.tracking.dump import Backups
        from runproj.tracking.postgres import PostgresDatabase

        backups = Backups(home / "backups", unsaved, *([note] if note else []))
        return PostgresDatabase(uri, backups)
    raise UsageError(
        f"The tracking URI {uri!r} is not one that runproj can use",
        fix="Use sqlite:///PATH, postgresql://USER@HOST/DATABASE or http(s)://SERVER.",
    )


def database_path(uri: str, home: Path) -> Path:
    """The file that `sqlite:///PATH` names."""
    return home / uri.removeprefix("sqlite:///")


def check_store(uri: str, *, home: Path) -> str:
    """Look through the whole database for damage; says what it holds.  Raises `TrackingError` naming the first problem."""
    from runproj.errors import TrackingError
    from runproj.remote import scrubbed
    from runproj.tracking.sql import Dialect, one

    path = None if uri.startswith(_POSTGRESQL) else database_path(uri, home)
    if path is not None and not path.exists():
        return f"{path}, not made yet"
    with open_database(uri, home=home).reading() as connection:
        if connection.dialect is Dialect.SQLITE:
            (verdict,) = one(connection.execute("PRAGMA quick_check(1)"))
            if verdict != "ok":
                raise TrackingError(f"The database {path} is damaged", why=str(verdict), fix="Restore it from a backup.")
        (runs,) = one(connection.execute("SELECT count(*) FROM runs"))
    return f"{path or scrubbed(uri)}, {runs} runs"
