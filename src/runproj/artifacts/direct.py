"""Artifacts in a place that this process reads and writes itself: a folder, or a bucket."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from runproj.artifacts.files import Files, put, split
from runproj.artifacts.folder import Folder
from runproj.core.run import Run
from runproj.core.tracking import ArtifactInfo
from runproj.errors import RefusedError, StorageError
from runproj.files import explained, remove_tree, tree_size

if TYPE_CHECKING:
    from runproj.artifacts.parts import Parts

PROXIED = "mlflow-artifacts:"
"""Scheme of locations inside the store's own root, as MLflow's clients know it: `mlflow-artifacts:/EXPERIMENT/RUN/artifacts`."""


class DirectArtifacts:
    """An `ArtifactStore` in `files`.  A run whose location is a `file:` URI has its files there instead.

    scratch: a folder of this machine for what is being uploaded in parts.
    """

    def __init__(self, files: Files, scratch: Path) -> None:
        self.files = files
        self._scratch = scratch

    @cached_property
    def parts(self) -> Parts:
        """Uploads in parts."""
        from runproj.artifacts.parts import Parts

        return Parts(self._scratch)

    def put(self, run: Run, source: Path, path: str) -> None:
        files, prefix = self.place(run.artifact_uri)
        put(files, source, prefix + path)

    def adopt(self, run: Run, source: Path, path: str) -> None:
        files, prefix = self.place(run.artifact_uri)
        files.adopt(source, prefix + path)

    def get(self, run: Run, path: str, into: Path) -> None:
        files, prefix = self.place(run.artifact_uri)
        temporary = into.with_name(f".{os.urandom(8).hex()}.tmp")
        with files.reading(prefix + path) as source, explained(into):
            try:
                with temporary.open("wb") as target:
                    for data in source.chunks():
                        target.write(data)
                temporary.replace(into)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise

    def list(self, run: Run, path: str = "") -> Sequence[ArtifactInfo]:
        return self.list_at(run.artifact_uri, path)

    def list_at(self, uri: str, path: str = "") -> Sequence[ArtifactInfo]:
        """As `list`, below any location: a logged model has one of its own."""
        files, prefix = self.place(uri)
        found = files.list((prefix + path).rstrip("/"))
        return [ArtifactInfo(info.path.removeprefix(prefix), info.size) for info in found]

    def delete_at(self, uri: str, owner: str) -> int:
        """Remove all files of the run or logged model with the id `owner` for good; returns the bytes that this frees at once.

        Raises `RefusedError` for a folder that is not named by that id: whoever chose the location could have chosen any.
        """
        path = local_path(uri)
        files, prefix = (None, str(path)) if path is not None else self.place(uri)
        folder = prefix.removesuffix("/").removesuffix("/artifacts")
        if folder.rpartition("/")[2] != owner:
            raise RefusedError(f"The files at {uri} are not in a folder of {owner}", why="They may be somebody else's.")
        if files is not None:
            return files.remove(folder)
        freed = tree_size(Path(folder))
        remove_tree(Path(folder))
        return freed

    def collect(self, *, dry_run: bool = False) -> int:
        """Remove content that no file has any more, and uploads that nobody goes on with; returns the bytes that this frees."""
        return self.files.collect(dry_run=dry_run) + self.parts.collect(dry_run=dry_run)

    def place(self, uri: str) -> tuple[Files, str]:
        """The files that a location is among, and the prefix of its paths there.  Raises `StorageError` for a place elsewhere."""
        if uri.startswith(PROXIED + "/") and not uri.startswith(PROXIED + "//"):
            prefix = "/".join(split(uri.removeprefix(PROXIED + "/")))
            return self.files, prefix + "/" if prefix else ""
        if (path := local_path(uri)) is not None:
            return Folder(path), ""
        raise StorageError(
            f"The artifacts at {uri} are not on this machine", fix="Look at them with the tool that knows that kind of storage."
        )


def local_path(uri: str) -> Path | None:
    """The folder that a `file:` URI or an absolute path names; None for any other location."""
    if uri.startswith("/"):
        return Path(uri)
    if uri.startswith("file:"):
        from urllib.parse import unquote, urlsplit

        parts = urlsplit(uri)
        if parts.netloc in ("", "localhost"):
            return Path(unquote(parts.path))
    return None
