"""A folder that paths from outside cannot leave: every step is taken from an open folder, and links are never followed."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from runproj.artifacts.files import CHUNK, INCOMING, Sink, inside, put, split, verified
from runproj.artifacts.pool import Pool
from runproj.core.tracking import ArtifactInfo
from runproj.core.values import dataclass
from runproj.errors import NotFoundError, RefusedError
from runproj.files import explained, storage_error, tree_size

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
POOL = ".blobs"
"""Name of the folder below the root where contents are pooled; no path leads there."""


@dataclass(frozen=True)
class OpenFile:
    """An `Opened` file of a file system."""

    path: str
    file: BinaryIO
    size: int
    changed: float
    sha256: str | None = None

    def chunks(self, first: int = 0, last: int | None = None) -> Iterator[bytes]:
        length = (self.size if last is None else last + 1) - first
        found = self._read(first, length)
        return verified(found, self.sha256, self.path) if self.sha256 and length >= self.size else found

    def _read(self, first: int, length: int) -> Iterator[bytes]:
        self.file.seek(first)
        while length > 0 and (data := self.file.read(min(CHUNK, length))):
            length -= len(data)
            yield data


class Folder:
    """`Files` below `root`, where people can look at them too.

    With `pooled`, identical files are stored once and their hashes are kept: in a folder `.blobs` of its own below `root`, which
    no path leads to.  Without it nothing but the files themselves is written.
    """

    def __init__(self, root: Path, *, pooled: bool = False) -> None:
        self.root = root
        self.pool = Pool(root / POOL) if pooled else None

    @contextlib.contextmanager
    def writing(self, path: str) -> Iterator[Sink]:
        *above, name = self._inside(path)
        if self.pool is None:
            with self._explained(path), self._folder(above, create=True) as folder, _written(folder, name) as file:
                yield file
            return
        with self._explained(path):
            self._check(above, name)
            with self.pool.incoming() as written:
                yield written
                with self._folder(above, create=True) as folder:
                    self.pool.name(written, name, folder)
                    os.fsync(folder)

    def adopt(self, source: Path, path: str) -> None:
        """Move a file into the folder, without reading it: its hash stays unknown.  Copies from another file system."""
        *above, name = self._inside(path)
        if source.is_symlink() or not source.is_file():
            raise NotFoundError(f"There is no file {source}")
        with self._explained(path), self._folder(above, create=True) as folder:
            try:
                os.rename(source, name, dst_dir_fd=folder)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
            else:
                os.fsync(folder)
                return
        put(self, source, path)
        source.unlink(missing_ok=True)

    @contextlib.contextmanager
    def reading(self, path: str) -> Iterator[OpenFile]:
        *above, name = self._inside(path)
        with self._explained(path, "read"):
            with self._folder(above) as folder:
                descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
            with os.fdopen(descriptor, "rb", 0) as file:
                found = os.fstat(descriptor)
                if not stat.S_ISREG(found.st_mode):
                    raise NotFoundError(f"{path!r} is not a file", fix="Name a file below it.")
                sha256 = self.pool.sha256(found) if self.pool else None
                yield OpenFile(path, file, found.st_size, found.st_mtime, sha256)

    def list(self, path: str = "") -> Sequence[ArtifactInfo]:
        parts = self._split(path)
        prefix = "/".join(parts)
        found = []
        try:
            with self._explained(path, "list"), self._folder(parts) as folder, os.scandir(folder) as entries:
                for entry in entries:
                    if entry.is_symlink() or entry.name.startswith(INCOMING) or (not parts and self._ours(entry.name)):
                        continue
                    name = f"{prefix}/{entry.name}" if prefix else entry.name
                    if entry.is_dir(follow_symlinks=False):
                        found.append(ArtifactInfo(name, None))
                    elif entry.is_file(follow_symlinks=False):
                        found.append(ArtifactInfo(name, entry.stat(follow_symlinks=False).st_size))
        except NotFoundError:
            return ()
        return sorted(found, key=lambda info: info.path)

    def remove(self, path: str) -> int:
        *above, name = self._inside(path)
        try:
            with self._explained(path, "remove"), self._folder(above) as folder:
                freed = tree_size(self.root / path)
                found = os.stat(name, dir_fd=folder, follow_symlinks=False)
                if stat.S_ISDIR(found.st_mode):
                    shutil.rmtree(name, dir_fd=folder)
                else:
                    os.unlink(name, dir_fd=folder)
        except NotFoundError:
            return 0
        return freed

    def collect(self, *, dry_run: bool = False) -> int:
        if self.pool is None:
            return 0
        with explained(self.root):
            return self.pool.collect(dry_run=dry_run)

    def _split(self, path: str) -> tuple[str, ...]:
        parts = split(path)
        if parts and self._ours(parts[0]):
            raise RefusedError(f"{path!r} is not a path for an artifact", why=f"{POOL} is the store's own.")
        return parts

    def _inside(self, path: str) -> tuple[str, ...]:
        inside(path)
        return self._split(path)

    def _ours(self, name: str) -> bool:
        return self.pool is not None and name.casefold() == POOL

    def _check(self, above: Sequence[str], name: str) -> None:
        """Meet what makes it impossible to write the file before it is there."""
        with contextlib.suppress(FileNotFoundError), self._folder(above) as folder:
            if stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))

    @contextlib.contextmanager
    def _folder(self, parts: Sequence[str], *, create: bool = False) -> Iterator[int]:
        """A descriptor of the folder that `parts` lead to."""
        if create:
            self.root.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for part in parts:
                if create:
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(part, dir_fd=descriptor)
                below = os.open(part, _FOLDER, dir_fd=descriptor)
                os.close(descriptor)
                descriptor = below
            yield descriptor
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def _explained(self, path: str, doing: str = "write") -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, NotADirectoryError) as error:
            if doing == "write" and isinstance(error, NotADirectoryError):
                raise RefusedError(f"{path!r} cannot be written: a file, or a link, is where a folder should be") from error
            raise NotFoundError(f"There is no artifact {path!r}") from error
        except IsADirectoryError as error:
            raise RefusedError(f"{path!r} cannot be written: there is a folder of that name") from error
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise RefusedError(f"{path!r} leads through a link", why="Links are never followed.") from error
            if error.errno == errno.ENAMETOOLONG:
                raise RefusedError(f"The name of {path!r} is too long for the file system") from error
            raise storage_error(error, self.root / path, doing) from error


@contextlib.contextmanager
def _written(folder: int, name: str) -> Iterator[BinaryIO]:
    """A file to write, which replaces `name` in an open folder when it is complete."""
    temporary = INCOMING + os.urandom(8).hex()
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666, dir_fd=folder)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=folder)
        raise
    os.fsync(folder)
