"""Uploads that arrive in parts: in any order, any part twice; put together when all are there, and invisible until then."""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from runproj.artifacts.files import CHUNK, Files, verified
from runproj.core.values import dataclass
from runproj.errors import NotFoundError, RefusedError
from runproj.files import Lock, explained, remove_tree, tree_size, write_all

_ABANDONED = 86400.0
"""Seconds after which an upload to which nothing came is given up."""


@dataclass(frozen=True)
class Part:
    """A part as its sender knows it: its number, from 1, and the hash of its bytes that the receiver told."""

    number: int
    tag: str


class Parts:
    """Uploads below the folder `root`, each in a folder named by its id.  Whoever knows an id may add to that upload."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def begin(self, path: str) -> str:
        """A new upload of the file `path`; returns its id."""
        import secrets

        self.collect()
        upload = secrets.token_urlsafe(24)
        with explained(self.root):
            (self.root / upload).mkdir(parents=True)
            (self.root / upload / "path").write_text(path)
        return upload

    def path(self, upload: str) -> str:
        """Which file an upload is of.  Raises `NotFoundError`."""
        try:
            return (self._folder(upload) / "path").read_text()
        except FileNotFoundError:
            raise _unknown() from None

    def store(self, upload: str, number: int, chunks: Iterable[bytes]) -> str:
        """Keep a part; returns its hash.  It counts when all of it has arrived.  Raises `NotFoundError`."""
        folder = self._folder(upload)
        digest = hashlib.sha256()
        incoming = folder / f"incoming-{os.urandom(8).hex()}"
        with explained(folder):
            if not folder.is_dir():
                raise _unknown()
            try:
                with incoming.open("wb", buffering=0) as file:
                    for data in chunks:
                        digest.update(data)
                        write_all(file, data)
                incoming.rename(folder / f"{number}.{digest.hexdigest()}")
            finally:
                incoming.unlink(missing_ok=True)
        return digest.hexdigest()

    def complete(self, upload: str, parts: Sequence[Part], files: Files) -> None:
        """Put the parts together, in the order of their numbers, as the file.  To do it again changes nothing."""
        folder = self._folder(upload)
        path = self.path(upload)
        with Lock(folder / "lock"):
            if (folder / "done").exists():
                return
            found = [self._part(folder, part) for part in sorted(parts, key=lambda part: part.number)]
            if not found or len({part.number for part in parts}) < len(parts):
                raise RefusedError("An upload is completed by a list of its parts, each named once")
            with files.writing(path) as target:
                for part in found:
                    for data in _content(part, path):
                        target.write(data)
            (folder / "done").touch()
            for part in folder.glob("*.*"):
                part.unlink()

    def abort(self, upload: str) -> None:
        """Forget an upload; does nothing where there is none."""
        remove_tree(self._folder(upload))

    def collect(self, *, dry_run: bool = False) -> int:
        """Give up uploads to which nothing came for a day.  Returns the bytes that this frees."""
        freed = 0
        for folder in self.root.iterdir() if self.root.is_dir() else ():
            try:
                idle = time.time() - folder.stat().st_mtime
            except FileNotFoundError:
                continue
            if idle > _ABANDONED:
                freed += tree_size(folder)
                if not dry_run:
                    remove_tree(folder)
        return freed

    def _folder(self, upload: str) -> Path:
        if not re.fullmatch(r"[\w-]{32}", upload, re.ASCII):
            raise _unknown()
        return self.root / upload

    def _part(self, folder: Path, part: Part) -> Path:
        path = folder / f"{part.number}.{part.tag}"
        if not re.fullmatch(r"[0-9a-f]{64}", part.tag) or not path.exists():
            raise RefusedError(
                f"Part {part.number} of the upload has not arrived", fix="Send it again, and its ETag as answered."
            )
        return path


def _content(part: Path, path: str) -> Iterator[bytes]:
    """What a part holds.  Raises `DamagedError`, at its end, where that is not what arrived."""
    with part.open("rb", buffering=0) as file:
        yield from verified(iter(lambda: file.read(CHUNK), b""), part.suffix[1:], path)


def _unknown() -> NotFoundError:
    return NotFoundError("There is no upload of that id", why="It may have been completed, aborted, or idle for a day.")
