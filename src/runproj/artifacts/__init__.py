"""Where the files of runs are kept: a folder of this machine, a bucket, or a server that speaks MLflow's protocol."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from runproj.errors import UsageError

if TYPE_CHECKING:
    from runproj.artifacts.direct import DirectArtifacts
    from runproj.core.tracking import ArtifactStore


def open_artifacts(
    uri: str, *, home: Path, environ: Mapping[str, str], place: str = "", of_models: bool = False
) -> ArtifactStore:
    """The artifacts of the runs that the store at tracking URI `uri` records.  Nothing is read or written before it is used.

    place: where to keep them: an absolute path, or a URL of `file:` or of an object store; empty stands for beside the database.
    A server decides that by itself.
    of_models: those of logged models; the store's "runs" then have the id and the place of one.
    """
    if uri.startswith(("http://", "https://")):
        from runproj.artifacts.http import HttpArtifacts, HttpModelArtifacts
        from runproj.remote import Remote

        return (HttpModelArtifacts if of_models else HttpArtifacts)(Remote(uri, environ))
    return open_direct(uri, home=home, environ=environ, place=place)


def open_direct(uri: str, *, home: Path, environ: Mapping[str, str], place: str = "") -> DirectArtifacts:
    """As `open_artifacts`, for a store that is a database."""
    from runproj.artifacts.direct import DirectArtifacts, local_path
    from runproj.artifacts.folder import POOL, Folder

    root = local_path(place) if place else artifact_root(uri, home)
    if root is not None:
        return DirectArtifacts(Folder(root, pooled=True), root / POOL / "uploads")
    from runproj.artifacts.buckets import EXTRAS

    scheme, separator, rest = place.partition("://")
    if separator and scheme in EXTRAS and rest.strip("/"):
        from runproj.artifacts.objects import ObjectFiles

        scratch = home / "cache" / "uploads"
        return DirectArtifacts(ObjectFiles(place, scratch, environ), scratch / "parts")
    raise UsageError(
        f"Artifacts cannot be kept at {place!r}",
        fix="Use the absolute path of a folder, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://CONTAINER/PREFIX.",
    )


def artifact_root(uri: str, home: Path) -> Path:
    """Beside the database, so that everybody who uses the database finds the same files; in `home` for one on a server."""
    if uri.startswith("sqlite:///"):
        database = home / uri.removeprefix("sqlite:///")
        return home / "artifacts" if database == home / "runproj.db" else database.with_name(f"{database.stem}-artifacts")
    if uri.startswith(("postgresql://", "postgres://")):
        return home / "artifacts"
    raise UsageError(
        f"The tracking URI {uri!r} is not one that runproj can use",
        fix="Use sqlite:///PATH, postgresql://USER@HOST/DATABASE or http(s)://SERVER.",
    )
