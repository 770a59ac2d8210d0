"""Contents of files, each kept once under its sha256; the files that people see are hard links to them.

ab/<sha256>       a content; `<sha256>.1` and so on where it is needed again: no more links possible, or damaged
inode/<number>    a symbolic link to the content that has this inode number: how the hash of a file is found
incoming/         what is being written; its writer holds a lock on it
lock              shared by those who add names, held alone by whoever removes contents
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import itertools
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from runproj.files import sha256_file, write_all

_JUST_NOW = 60
"""Seconds within which a writer has surely locked the file that it made."""

_AHEAD = 8 << 20
"""Bytes that are handed to the disk at a time."""

_REFUSED = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EXDEV, errno.EINVAL, errno.EACCES})
"""What linking says where there are no hard links, or none to a file of somebody else."""


class Incoming:
    """A file that is being written, its size, and the hash of what was written."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path = path
        self.file = file
        self.size = 0
        self._hash = hashlib.sha256()
        self._sent = 0

    def write(self, data: bytes, /) -> None:
        self._hash.update(data)
        self.size += len(data)
        write_all(self.file, data)
        if self.size - self._sent >= _AHEAD:  # the disk begins to write now, not when it is waited for
            os.posix_fadvise(self.file.fileno(), self._sent, self.size - self._sent, os.POSIX_FADV_DONTNEED)
            self._sent = self.size

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()


class Pool:
    """Contents below `root`, which is on the file system of the files that link to them."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @contextlib.contextmanager
    def incoming(self) -> Iterator[Incoming]:
        """A new file, which is gone when the block ends unless `name` gave it a name."""
        folder = self.root / "incoming"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / os.urandom(8).hex()
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444)
        try:
            with os.fdopen(descriptor, "wb", 0) as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                yield Incoming(path, file)
        finally:
            path.unlink(missing_ok=True)

    def name(self, written: Incoming, name: str, folder: int) -> None:
        """Make a file that was written visible as `name` in an open folder, in place of what is there."""
        with self._locked(fcntl.LOCK_SH):
            self._share(written)
            os.rename(written.path, name, dst_dir_fd=folder)  # between links to one file it does nothing, and both stay

    def sha256(self, status: os.stat_result) -> str | None:
        """The hash that a file had when it was stored; None where it was not stored through this pool."""
        with contextlib.suppress(OSError):
            entry = self._index(status.st_ino)
            if os.path.samestat(entry.stat(), status):
                return entry.readlink().name[:64]
        return None

    def collect(self, *, dry_run: bool = False) -> int:
        """Remove contents without a visible file, and what killed writers left.  Returns the bytes that this frees."""
        if not self.root.is_dir():
            return 0
        freed = 0
        with self._locked(fcntl.LOCK_EX):
            contents = [path for folder in self.root.glob("??") for path in folder.iterdir() if path.lstat().st_nlink == 1]
            for path in (*self._abandoned(), *contents):
                freed += path.lstat().st_blocks * 512
                if not dry_run:
                    path.unlink()
            for entry in () if dry_run else self.root.glob("inode/*"):
                with contextlib.suppress(FileNotFoundError):
                    if entry.stat().st_ino == int(entry.name):
                        continue
                entry.unlink()
        return freed

    def _share(self, written: Incoming) -> None:
        """Turn the file that was written into a link to the same content, or make it the content that others link to."""
        digest = written.sha256
        for number in itertools.count():
            content = self.root / digest[:2] / (f"{digest}.{number}" if number else digest)
            try:
                if not content.exists():
                    os.fsync(written.file.fileno())
                    self._add(written, content)
                    return
                if content.stat().st_size == written.size and sha256_file(content) == digest:
                    self._replace(written, content)
                    return
            except FileExistsError:  # somebody was faster with the same content
                self._replace(written, content)
                return
            except OSError as error:
                if error.errno == errno.EMLINK or (error.errno in _REFUSED and content.exists()):
                    continue
                if error.errno not in _REFUSED:
                    raise
                return  # no hard links here: the file stands for itself

    def _add(self, written: Incoming, content: Path) -> None:
        content.parent.mkdir(exist_ok=True)
        os.link(written.path, content)
        index = self._index(os.fstat(written.file.fileno()).st_ino)
        with contextlib.suppress(PermissionError):  # no symbolic links here: the hash stays unknown
            index.parent.mkdir(exist_ok=True)
            index.unlink(missing_ok=True)  # of a file that had this number before
            index.symlink_to(f"../{content.parent.name}/{content.name}")

    def _replace(self, written: Incoming, content: Path) -> None:
        spare = written.path.with_suffix(".link")
        os.link(content, spare)
        spare.replace(written.path)

    def _index(self, inode: int) -> Path:
        return self.root / "inode" / str(inode)

    def _abandoned(self) -> Iterator[Path]:
        """Files that are being written by nobody."""
        for path in self.root.glob("incoming/*"):
            with contextlib.suppress(BlockingIOError, FileNotFoundError), path.open("rb") as file:
                if time.time() - os.fstat(file.fileno()).st_mtime > _JUST_NOW:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    yield path

    @contextlib.contextmanager
    def _locked(self, how: int) -> Iterator[None]:
        descriptor = os.open(self.root / "lock", os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, how)
            yield
        finally:
            os.close(descriptor)
