"""Artifacts in a folder of this machine."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from runproj.artifacts.folder import Folder, split
from runproj.core.run import Run
from runproj.core.tracking import ArtifactInfo
from runproj.errors import StorageError
from runproj.files import explained, remove_tree, tree_size

PROXIED = "mlflow-artifacts:"
"""Scheme of locations inside the store's own root, as MLflow's clients know it: `mlflow-artifacts:/EXPERIMENT/RUN/artifacts`."""


class LocalArtifacts:
    """An `ArtifactStore` below `root`.  A run whose location is a `file:` URI has its files there instead."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = Folder(root)

    def put(self, run: Run, source: Path, path: str) -> None:
        folder, prefix = self.place(run.artifact_uri)
        folder.put(source, prefix + path)

    def adopt(self, run: Run, source: Path, path: str) -> None:
        folder, prefix = self.place(run.artifact_uri)
        folder.adopt(source, prefix + path)

    def get(self, run: Run, path: str, into: Path) -> None:
        folder, prefix = self.place(run.artifact_uri)
        temporary = into.with_name(f".{os.urandom(8).hex()}.tmp")
        with folder.reading(prefix + path) as source, explained(into):
            try:
                with temporary.open("wb") as target:
                    while data := source.file.read(1 << 20):
                        target.write(data)
                temporary.replace(into)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise

    def list(self, run: Run, path: str = "") -> Sequence[ArtifactInfo]:
        return self.list_at(run.artifact_uri, path)

    def list_at(self, uri: str, path: str = "") -> Sequence[ArtifactInfo]:
        """As `list`, below any location: a logged model has one of its own."""
        folder, prefix = self.place(uri)
        found = folder.list((prefix + path).rstrip("/"))
        return [ArtifactInfo(info.path.removeprefix(prefix), info.size) for info in found]

    def path(self, run: Run) -> Path:
        """Where the run's files are, for people; it need not exist."""
        folder, prefix = self.place(run.artifact_uri)
        return folder.root / prefix

    def delete(self, run: Run) -> int:
        """Remove all of a run's files for good; returns the bytes that this frees."""
        path = self.path(run)
        size = tree_size(path)
        remove_tree(path.parent if path.name == "artifacts" else path)
        return size

    def place(self, uri: str) -> tuple[Folder, str]:
        """The folder that a location is in, and the prefix of its paths there.  Raises `StorageError` for a place elsewhere."""
        if uri.startswith(PROXIED + "/") and not uri.startswith(PROXIED + "//"):
            prefix = "/".join(split(uri.removeprefix(PROXIED + "/")))
            return self.folder, prefix + "/" if prefix else ""
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
