"""The files of runs and models in a source: in folders that may be looked at, or behind a server."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from runproj.core.tracking import ArtifactInfo
from runproj.core.values import dataclass
from runproj.errors import RefusedError, StorageError

PROXIED = "mlflow-artifacts:"


@dataclass(frozen=True)
class FolderTree:
    """A `Tree` in a folder of this machine.  Links are not followed: their size is None."""

    root: Path

    def files(self) -> Iterable[ArtifactInfo]:
        for folder, names, files in os.walk(self.root):
            for name in (*files, *names):
                path = Path(folder, name)
                if path.is_symlink() or path.is_file():
                    size = None if path.is_symlink() else path.stat().st_size
                    yield ArtifactInfo(path.relative_to(self.root).as_posix(), size)

    def fetch(self, path: str, into: Path) -> Path:
        del into
        return self.root / path


class NoTree:
    """A `Tree` without files."""

    def files(self) -> Iterable[ArtifactInfo]:
        return ()

    def fetch(self, path: str, into: Path) -> Path:
        raise AssertionError(f"there is no {path}, and {into} is not written")


@dataclass(frozen=True)
class Places:
    """Where the artifacts that a source names may be found.

    A record can name any folder: only those below these roots are looked at, so that a record from elsewhere does not
    make us copy what it has no business with.

    base:    what relative locations are relative to.
    roots:   folders that belong to the source.
    given:   folders that the user named: roots too, and where what the server proxied (`mlflow-artifacts:`) is.
    """

    base: Path
    roots: tuple[Path, ...]
    given: tuple[Path, ...] = ()

    def tree(self, uri: str, own: Path | None = None) -> FolderTree | NoTree:
        """The files at a location; `own` is where they are where the location does not lead to any.

        Raises `StorageError` where they cannot be reached.
        """
        if own is not None and own.is_dir() and self._allowed(own):
            return FolderTree(own)
        for candidate in self._candidates(uri):
            if candidate.is_dir() and self._allowed(candidate):
                return FolderTree(candidate)
        if uri.startswith(PROXIED):
            if not self.given:
                raise StorageError(f"{uri} is behind a server", fix="--artifacts FOLDER says where that server keeps them")
            return NoTree()  # a run without artifacts has no folder
        path = plain_path(uri)
        if path is None:
            raise StorageError(f"{uri} is not on this machine")
        if path.is_dir():
            raise StorageError(f"{path} is outside of the source", fix=f"--artifacts {path} allows to read it")
        if not any(path.is_relative_to(root) for root in (*self.roots, *self.given)) and not path.parent.parent.is_dir():
            raise StorageError(f"{path} does not exist here", fix="--artifacts FOLDER says where it has gone")
        return NoTree()

    def _candidates(self, uri: str) -> Iterable[Path]:
        if uri.startswith(PROXIED):
            path = urlsplit(uri).path.strip("/")
            return [root / path for root in self.given] if ".." not in path.split("/") else []
        path_given = plain_path(uri)
        if path_given is None:
            return []
        moved = [root.joinpath(*path_given.parts[-depth:]) for root in self.given for depth in (3, 4)]
        return [self.base / path_given, *moved]

    def _allowed(self, path: Path) -> bool:
        real = path.resolve()
        return any(real.is_relative_to(root.resolve()) for root in (*self.roots, *self.given))


def plain_path(uri: str) -> Path | None:
    """The folder that a path or `file:` URI names, relative as it may be; None for a place elsewhere."""
    if uri.startswith("file:"):
        from urllib.parse import unquote

        parts = urlsplit(uri)
        return Path(unquote(parts.path)) if parts.netloc in ("", "localhost") else None
    return None if urlsplit(uri).scheme else Path(uri)


def safe(path: str) -> str:
    """A path of a file as a target may take it.  Raises `RefusedError`."""
    parts: Sequence[str] = path.split("/")
    if any(part in ("", ".", "..") or "\0" in part for part in parts):
        raise RefusedError(f"{path!r} is not a path for an artifact")
    return path


def elsewhere(uri: str) -> bool:
    """Whether a location is in a store that the target's users reach by themselves, as a bucket is."""
    return urlsplit(uri).scheme not in ("", "file", "mlflow-artifacts", "runs", "models")


def plain(uri: str) -> str:
    return uri.removeprefix("file://").rstrip("/")
