"""Files in an object store (S3, Google Cloud Storage, Azure Blob Storage), reached through fsspec.

Below the root there are two kinds of keys:

    blobs/ab/<sha256>                                the contents, each once
    tree/<path>.~<microseconds>-<size>-<sha256>      an empty object that makes a content visible at a path

A listing of `tree` tells sizes and hashes without opening anything.  A file is there when its pointer is, and the
newest one counts: a writer stores the content, then the pointer, then removes older pointers, so that whoever is killed in
between has changed nothing, or everything.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence, Set
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

from runproj.artifacts.buckets import Bucket, ObjectInfo, open_bucket
from runproj.artifacts.files import CHUNK, Sink, inside, put, split, verified
from runproj.core.tracking import ArtifactInfo
from runproj.core.values import dataclass
from runproj.errors import DamagedError, NotFoundError, RefusedError
from runproj.files import explained

_DAY = 86400.0
_FRESH = 6 * _DAY
"""A content that is older is stored again by whoever needs it, which makes it new: see `_KEPT`."""

_KEPT = 7 * _DAY
"""A content that no pointer names is removed when it is older.  The day between the two is the time that a writer has to put
its pointer after it has found the content there: object stores have no locks.
"""

_POINTER = re.compile(r"(?P<name>.+)\.~(?P<stamp>[0-9a-f]{16})-(?P<size>\d+)-(?P<sha256>[0-9a-f]{64})", re.S)
_LONGEST = 800
"""Bytes of the key of a file, so that there is room for what makes it a pointer and for the prefix of the URL."""

_UNSAFE = re.compile(r"[\x00-\x1f\x7f%#?*\[\]\\]")
"""Characters of names that mean something in a URL, to fsspec or to an object store; the rest is kept as it is."""


@dataclass(frozen=True)
class Pointer:
    """What makes a content visible: the key of the empty object, and what its name says."""

    key: str
    name: str
    stamp: int
    size: int
    sha256: str


class _Spool:
    """A temporary file that takes the bytes of an upload, which are sent when all are there and their hash is known."""

    def __init__(self, file: BinaryIO, folder: Path) -> None:
        self.file = file
        self.folder = folder
        self.size = 0
        self.hash = hashlib.sha256()

    def write(self, data: bytes, /) -> None:
        self.hash.update(data)
        self.size += len(data)
        with explained(self.folder):
            self.file.write(data)


@dataclass(frozen=True)
class _Object:
    """An `Opened` content."""

    bucket: Bucket
    key: str
    path: str
    pointer: Pointer

    @property
    def size(self) -> int:
        return self.pointer.size

    @property
    def changed(self) -> float:
        return self.pointer.stamp / 1e6

    @property
    def sha256(self) -> str:
        return self.pointer.sha256

    def chunks(self, first: int = 0, last: int | None = None) -> Iterator[bytes]:
        end = self.size if last is None else min(last + 1, self.size)
        found = self._read(first, end)
        return verified(found, self.sha256, self.path) if end - first >= self.size else found

    def _read(self, first: int, end: int) -> Iterator[bytes]:
        try:
            for data in self.bucket.read(self.key, first, end):
                yield from (data[at : at + CHUNK] for at in range(0, len(data), CHUNK))
        except NotFoundError as error:
            raise DamagedError(f"The content of {self.path!r} is missing", why=f"There is no object {self.key}.") from error


class ObjectFiles:
    """`Files` below a URL like `s3://bucket/prefix`.  Nothing is loaded or asked before it is used.

    scratch: a folder for what is being uploaded.
    """

    def __init__(self, url: str, scratch: Path, environ: Mapping[str, str]) -> None:
        self.url = url.rstrip("/")
        self._scratch = scratch
        self._environ = environ

    @cached_property
    def _bucket(self) -> Bucket:
        return open_bucket(self.url, self._environ)

    def list(self, path: str = "") -> Sequence[ArtifactInfo]:
        prefix = "".join(f"{part}/" for part in split(path))
        folders, names = self._bucket.list("tree/" + "".join(f"{_quoted(part)}/" for part in split(path)))
        found = {_unquoted(name): None for name in folders}
        sizes: dict[str, int | None] = {**found}
        for pointer in sorted(_pointers(names), key=lambda pointer: pointer.stamp):
            sizes[pointer.name] = pointer.size
        return [ArtifactInfo(prefix + name, sizes[name]) for name in sorted(sizes)]

    @contextlib.contextmanager
    def reading(self, path: str) -> Iterator[_Object]:
        pointers = self._at(path)
        if not pointers:
            raise NotFoundError(f"There is no artifact {path!r}")
        yield _Object(self._bucket, _blob(pointers[-1].sha256), path, pointers[-1])

    @contextlib.contextmanager
    def writing(self, path: str) -> Iterator[Sink]:
        key = _key(path)
        with explained(self._scratch):
            self._scratch.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=self._scratch) as file:
            spool = _Spool(file, self._scratch)
            yield spool
            with explained(self._scratch):
                file.flush()
            self._store(spool, key, path)

    def adopt(self, source: Path, path: str) -> None:
        if source.is_symlink() or not source.is_file():
            raise NotFoundError(f"There is no file {source}")
        put(self, source, path)
        source.unlink(missing_ok=True)

    def remove(self, path: str) -> int:
        below = _key(path) + "/"
        keys = [pointer.key for pointer in self._at(path)]
        self._bucket.remove([*keys, *(info.key for info in self._bucket.find(below))])
        return 0

    def collect(self, *, dry_run: bool = False) -> int:
        unused = self._unused()
        if not dry_run:
            folders = sorted({info.key.rpartition("/")[0] for info in unused})
            unused = [info for folder in folders for info in self._clear(f"{folder}/", {info.key for info in unused})]
            self._bucket.drop_uploads(_DAY)
        return sum(info.size for info in unused)

    def _unused(self) -> Sequence[ObjectInfo]:
        """Old contents that no pointer names."""
        old = self._old("blobs/")
        if not old:
            return []
        used = {pointer.sha256 for pointer in _pointers([info.key for info in self._bucket.find("tree/")])}
        return [info for info in old if info.key.rpartition("/")[2] not in used]

    def _clear(self, folder: str, unused: Set[str]) -> Sequence[ObjectInfo]:
        """Remove those contents of a folder, and say which.

        Their age is looked at once more: who has put a pointer since the pointers were listed has made its content new.
        """
        doomed = [info for info in self._old(folder) if info.key in unused]
        self._bucket.remove([info.key for info in doomed])
        return doomed

    def _old(self, prefix: str) -> Sequence[ObjectInfo]:
        return [info for info in self._bucket.find(prefix) if info.age is not None and info.age > _KEPT]

    def _store(self, spool: _Spool, key: str, path: str) -> None:
        digest = spool.hash.hexdigest()
        blob = _blob(digest)
        found = self._bucket.info(blob)
        source = Path(f"/proc/self/fd/{spool.file.fileno()}")
        anew = found is None or found.size != spool.size or found.age is None or found.age > _FRESH
        if anew:
            self._bucket.upload(source, blob, spool.size)
        before = self._at(path)
        stamp = max(time.time_ns() // 1000, before[-1].stamp + 1 if before else 0)
        self._bucket.touch(f"{key}.~{stamp:016x}-{spool.size}-{digest}")
        if anew and found is not None and self._bucket.info(blob) is None:  # the old one was being removed just then
            self._bucket.upload(source, blob, spool.size)
        self._bucket.remove([pointer.key for pointer in before])

    def _at(self, path: str) -> Sequence[Pointer]:
        """The pointers of a file, the newest last."""
        key = _key(path)
        name = key.rpartition("/")[2]
        found = _pointers([info.key for info in self._bucket.find(f"{key}.~") if info.key.count("/") == key.count("/")])
        return sorted((pointer for pointer in found if _quoted(pointer.name) == name), key=lambda pointer: pointer.stamp)


def _pointers(keys: Sequence[str]) -> Iterator[Pointer]:
    for key in keys:
        if found := _POINTER.fullmatch(key.rpartition("/")[2]):
            yield Pointer(key, _unquoted(found["name"]), int(found["stamp"], 16), int(found["size"]), found["sha256"])


def _key(path: str) -> str:
    key = "tree/" + "/".join(_quoted(part) for part in inside(path))
    if len(key.encode()) > _LONGEST:
        raise RefusedError(f"The path {path!r} is too long", why="Object stores allow keys of up to 1024 bytes.")
    return key


def _blob(sha256: str) -> str:
    return f"blobs/{sha256[:2]}/{sha256}"


def _quoted(name: str) -> str:
    return _UNSAFE.sub(lambda found: f"%{ord(found.group()):02x}", name)


def _unquoted(name: str) -> str:
    return re.sub(r"%([0-9a-f]{2})", lambda found: chr(int(found.group(1), 16)), name)
