"""A tree of files that paths from outside cannot leave: what a folder and a bucket both are."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from runproj.core.tracking import ArtifactInfo
from runproj.errors import DamagedError, RefusedError
from runproj.files import explained

CHUNK = 1 << 20
"""Bytes that are read, hashed and written at a time; a file of up to that size is checked before any of it is handed out."""

INCOMING = ".incoming-"
"""How names of files that are not complete yet begin; they are never listed, never read."""


class Sink(Protocol):
    """Where the bytes of a new file go."""

    def write(self, data: bytes, /) -> object:
        """Append all of `data`."""


class Opened(Protocol):
    """A file that is open for reading.

    size:    in bytes.
    changed: when it was changed last, in seconds.
    sha256:  of what was stored, in hex; None where that is not known.
    """

    @property
    def size(self) -> int: ...

    @property
    def changed(self) -> float: ...

    @property
    def sha256(self) -> str | None: ...

    def chunks(self, first: int = 0, last: int | None = None) -> Iterator[bytes]:
        """The bytes from `first` to `last`, both included; to the end without `last`.

        Of a whole file whose hash is known, the last chunk comes only when all is what was stored; otherwise `DamagedError`.
        """


class Files(Protocol):
    """Files by path: relative, with `/`.  A path that could lead elsewhere is a `RefusedError`."""

    def list(self, path: str = "") -> Sequence[ArtifactInfo]:
        """What is directly below the folder `path`, by name, with paths relative to the root; empty where there is nothing."""

    def reading(self, path: str) -> AbstractContextManager[Opened]:
        """The file at `path`.  Raises `NotFoundError` where there is none."""

    def writing(self, path: str) -> AbstractContextManager[Sink]:
        """A file to write.  It is under `path`, durable, when the block ends, and nowhere if the block raises or is killed."""

    def adopt(self, source: Path, path: str) -> None:
        """Take a file over: it may be moved, and is gone afterwards."""

    def remove(self, path: str) -> int:
        """Remove a file, or a folder with everything in it; does nothing where there is none.  Returns the bytes freed."""

    def collect(self, *, dry_run: bool = False) -> int:
        """Remove content that no file has any more, and what killed writers left.  Returns the bytes that this frees."""


def put(files: Files, source: Path, path: str) -> None:
    """Store a copy of the file `source`."""
    with explained(source, "read"):
        file = source.open("rb", buffering=0)
    with file, files.writing(path) as target:
        while data := file.read(CHUNK):
            target.write(data)


def split(path: str) -> tuple[str, ...]:
    """The parts of a relative path; none for the folder itself.  Raises `RefusedError` for one that could lead elsewhere."""
    if not path or path == ".":
        return ()
    parts = tuple(path.split("/"))
    if any(part in ("", ".", "..") or "\0" in part or part.startswith(INCOMING) for part in parts):
        raise RefusedError(
            f"{path!r} is not a path for an artifact", fix="Use a relative path without empty parts, `.` and `..`."
        )
    return parts


def inside(path: str) -> tuple[str, ...]:
    """As `split`, for the path of a file."""
    parts = split(path)
    if not parts:
        raise RefusedError("An artifact needs a path")
    return parts


def verified(chunks: Iterator[bytes], sha256: str, path: str) -> Iterator[bytes]:
    """The chunks of a file; the last is held back until all are known to be what was stored.  Raises `DamagedError`."""
    found = hashlib.sha256()
    held = b""
    for chunk in chunks:
        if held:
            yield held
        found.update(chunk)
        held = chunk
    if found.hexdigest() != sha256:
        raise DamagedError(
            f"The artifact {path!r} is damaged",
            why=f"Its content has changed since it was stored: sha256 {found.hexdigest()} instead of {sha256}.",
            fix="Store it again, or restore it from a backup.",
        )
    if held:
        yield held
