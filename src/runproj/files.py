"""Files that survive anything: atomic writes, locks that die with their holder, a content-addressed store."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from runproj.errors import StorageError

_CHUNK = 1 << 20


@contextlib.contextmanager
def explained(path: Path, doing: str = "write") -> Iterator[None]:
    """Turn the operating system's refusal (disk full, no permission, read-only) into a `StorageError` that says what to do."""
    try:
        yield
    except OSError as error:
        raise storage_error(error, path, doing) from error


def storage_error(error: OSError, path: Path, doing: str = "write") -> StorageError:
    """The user's words for an OSError met at `path`."""
    place = error.filename2 or error.filename or path  # a copy or a move names what it was made from first
    fixes = {
        errno.ENOSPC: "Free some space (`runproj gc` removes what no run needs), or set RUNPROJ_HOME to a larger disk.",
        errno.EDQUOT: "Your quota is used up: free some space, or set RUNPROJ_HOME to another disk.",
        errno.EROFS: "Set RUNPROJ_HOME to a folder that can be written.",
        errno.EACCES: "Check the permissions of that folder, or set RUNPROJ_HOME to one of your own.",
    }
    return StorageError(
        f"Cannot {doing} {place}",
        why=os.strerror(error.errno) if error.errno else str(error),
        fix=fixes.get(error.errno or 0, ""),
    )


def atomic_write(path: Path, content: bytes | str, mode: int = 0o644) -> None:
    """Replace `path` by `content`, so that a reader, or a machine that loses power, sees the old or the new, never half."""
    data = content.encode() if isinstance(content, str) else content
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:40]}.", suffix=".tmp")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fchmod(file.fileno(), mode)
                os.fsync(file.fileno())
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


def write_all(file: BinaryIO, data: bytes) -> None:
    """Write all of `data` into an unbuffered file, which takes less at a time where the disk is nearly full."""
    left = memoryview(data)
    while left:
        left = left[file.write(left) :]


def write_descriptor(descriptor: int, data: bytes) -> None:
    """Write all of `data` into a fresh descriptor, for another process to read from its beginning."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
    os.lseek(descriptor, 0, os.SEEK_SET)


def sync_folder(folder: Path) -> None:
    """Make renames in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class LockedElsewhere(Exception):
    """Somebody else holds the lock."""


class Lock:
    """An advisory lock on a file.  The kernel frees it when its holder dies, however that happens.

    Its holder may remove the file: who waited for it then notices, and locks the file that is there now.
    """

    def __init__(self, path: Path, descriptor: int | None = None) -> None:
        self.path = path
        self._descriptor = descriptor

    @property
    def descriptor(self) -> int:
        """The locked file.  Raises `LockedElsewhere` where the lock is not held."""
        if self._descriptor is None:
            raise LockedElsewhere(str(self.path))
        return self._descriptor

    def acquire(self, *, wait: bool = True, on_wait: Callable[[], None] | None = None, shared: bool = False) -> None:
        """Take the lock.  Without `wait`, raises `LockedElsewhere`; `on_wait` is told once when there is a queue.

        `shared` locks exclude only those that are not.
        """
        how = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        while self._descriptor is None:
            with explained(self.path):
                self.path.parent.mkdir(parents=True, exist_ok=True)
                descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                try:
                    fcntl.flock(descriptor, how | fcntl.LOCK_NB)
                except BlockingIOError:
                    if not wait:
                        raise LockedElsewhere(str(self.path)) from None
                    if on_wait:
                        on_wait()
                        on_wait = None
                    fcntl.flock(descriptor, how)
                if self._is_at_path(descriptor):
                    self._descriptor = descriptor
            finally:
                if self._descriptor is None:
                    os.close(descriptor)

    def _is_at_path(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), os.stat(self.path))  # noqa: PTH116 - samestat wants what os gives
        except FileNotFoundError:
            return False

    def release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Lock:
        if self._descriptor is None:
            self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def sha256_file(path: Path) -> str:
    """Hex sha256 of a file's content, in bounded memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_text(text: str) -> str:
    """Hex sha256 of a text's UTF-8 bytes."""
    return hashlib.sha256(text.encode()).hexdigest()


def remove_tree(path: Path) -> None:
    """Remove a folder with everything in it, read-only folders too; nothing half-removed stays under its name."""
    if path.is_symlink() or path.is_file():
        path.unlink(missing_ok=True)
        return
    if not path.exists():
        return
    doomed = path.with_name(f".trash-{os.getpid()}-{time.monotonic_ns()}")
    with contextlib.suppress(OSError):
        path.rename(doomed)
        path = doomed

    def retry_writable(function: Callable[[str], object], name: str, error: BaseException) -> None:
        if isinstance(error, FileNotFoundError):
            return
        for target in (Path(name).parent, Path(name)):
            if target.is_dir() and not target.is_symlink():
                target.chmod(target.stat().st_mode | stat.S_IRWXU)
        function(name)

    shutil.rmtree(path, onerror=lambda function, name, info: retry_writable(function, name, info[1]))


def atomic_copy(source: Path, target: Path) -> None:
    """As `atomic_write` with the content of a file, in bounded memory."""
    with explained(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name[:40]}.", suffix=".tmp")
        try:
            with os.fdopen(descriptor, "wb") as file, source.open("rb") as content:
                shutil.copyfileobj(content, file, _CHUNK)
                file.flush()
                os.fchmod(file.fileno(), 0o444)
                os.fsync(file.fileno())
            os.replace(name, target)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        sync_folder(target.parent)


def sweep_trash(folder: Path) -> None:
    """Finish what `remove_tree` began in `folder` in processes that are gone.  What cannot be removed stays."""
    for path in folder.glob(".trash-*"):
        if not Path("/proc", path.name.split("-")[1]).exists():
            with contextlib.suppress(OSError):
                remove_tree(path)


def tree_size(path: Path) -> int:
    """Bytes on disk that removing a file or folder frees: a file with further links elsewhere frees nothing."""
    if path.is_symlink() or path.is_file():
        status = path.lstat()
        return status.st_blocks * 512 if status.st_nlink == 1 else 0
    return sum(tree_size(Path(folder, name)) for folder, _, names in os.walk(path) for name in names)


_HEX = frozenset("0123456789abcdef")


class Objects:
    """A content-addressed store: `ab/cdef…`, read-only, written beside and moved, so that a name is always its content."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, digest: str) -> Path:
        """Where the object of that sha256 is, or would be.  Raises `StorageError` for a name that is none."""
        if len(digest) != 64 or not set(digest) <= _HEX:
            raise StorageError(f"{digest[:80]!r} is no sha256, so nothing is stored under it")
        return self.root / digest[:2] / digest[2:]

    def put(self, source: Path | bytes) -> str:
        """Store a file or bytes; returns the sha256."""
        digest = hashlib.sha256(source).hexdigest() if isinstance(source, bytes) else sha256_file(source)
        target = self.path(digest)
        if isinstance(source, bytes):
            if not target.exists():
                atomic_write(target, source, mode=0o444)
        elif not target.exists() or target.stat().st_size != source.stat().st_size:
            atomic_copy(source, target)
        return digest

    def get(self, digest: str) -> bytes | None:
        """The content, or None where it is missing or no longer what its name says (then it is removed)."""
        target = self.path(digest)
        try:
            data = target.read_bytes()
        except FileNotFoundError:
            return None
        if hashlib.sha256(data).hexdigest() != digest:
            target.unlink(missing_ok=True)
            return None
        return data
