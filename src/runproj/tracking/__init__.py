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
