"""Where the files of runs are kept: a folder of this machine, or a server that speaks MLflow's protocol."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from runproj.errors import UsageError

if TYPE_CHECKING:
    from runproj.core.tracking import ArtifactStore


def open_artifacts(uri: str, *, home: Path, environ: Mapping[str, str]) -> ArtifactStore:
    """The artifacts of the runs that the store at tracking URI `uri` records.  Nothing is read or written before it is used."""
    if uri.startswith(("sqlite:///", "postgresql://", "postgres://")):
        from runproj.artifacts.local import LocalArtifacts

        return LocalArtifacts(artifact_root(uri, home))
    if uri.startswith(("http://", "https://")):
        from runproj.artifacts.http import HttpArtifacts
        from runproj.remote import Remote

        return HttpArtifacts(Remote(uri, environ))
    raise UsageError(
        f"The tracking URI {uri!r} is not one that runproj can use",
        fix="Use sqlite:///PATH, postgresql://USER@HOST/DATABASE or http(s)://SERVER.",
    )


def artifact_root(uri: str, home: Path) -> Path:
    """Beside the database, so that everybody who uses the database finds the same files."""
    if not uri.startswith("sqlite:///"):
        return home / "artifacts"
    database = home / uri.removeprefix("sqlite:///")
    return home / "artifacts" if database == home / "runproj.db" else database.with_name(f"{database.stem}-artifacts")
