"""A folder that paths from outside cannot leave: every step is taken from an open folder, and links are never followed."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from runproj.core.tracking import ArtifactInfo
from runproj.errors import NotFoundError, RefusedError
from runproj.files import explained, storage_error

_INCOMING = ".incoming-"  # names of files that are not complete yet; never listed, never read
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CHUNK = 1 << 20


def split(path: str) -> tuple[str, ...]:
    """The parts of a relative path; none for the folder itself.  Raises `RefusedError` for one that could lead elsewhere."""
    if not path or path == ".":
        return ()
    parts = tuple(path.split("/"))
    if any(part in ("", ".", "..") or "\0" in part or part.startswith(_INCOMING) for part in parts):
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


@dataclass(frozen=True)
class OpenFile:
    """A file that is open for reading, with its size in bytes and the time of its last change in seconds."""

    file: BinaryIO
    size: int
    changed: float


class Folder:
    """Files below `root`.  Paths are relative, with `/`.  Files appear when they are complete, and replace older ones."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @contextlib.contextmanager
    def writing(self, path: str) -> Iterator[BinaryIO]:
        """A file to write; it is under `path` when the block ends, and nowhere if the block raises."""
        *above, name = inside(path)
        with self._explained(path), self._folder(above, create=True) as folder:
            temporary = _INCOMING + os.urandom(8).hex()
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

    def put(self, source: Path, path: str) -> None:
        """Copy a file into the folder."""
        with explained(source, "read"):
            file = source.open("rb")
        with file, self.writing(path) as target:
            _copy(file, target)

    def adopt(self, source: Path, path: str) -> None:
        """Move a file into the folder; copies where it is on another file system."""
        *above, name = inside(path)
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
        self.put(source, path)
        source.unlink(missing_ok=True)

    @contextlib.contextmanager
    def reading(self, path: str) -> Iterator[OpenFile]:
        """The file at `path`, open.  Raises `NotFoundError` where there is none."""
        *above, name = inside(path)
        with self._explained(path, "read"):
            with self._folder(above) as folder:
                descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
            with os.fdopen(descriptor, "rb") as file:
                found = os.fstat(descriptor)
                if not stat.S_ISREG(found.st_mode):
                    raise NotFoundError(f"{path!r} is not a file", fix="Name a file below it.")
                yield OpenFile(file, found.st_size, found.st_mtime)

    def list(self, path: str = "") -> Sequence[ArtifactInfo]:
        """Files and folders directly below `path`, by name, with paths relative to this folder; empty where there is none."""
        prefix = "/".join(split(path))
        found = []
        try:
            with self._explained(path, "list"), self._folder(split(path)) as folder, os.scandir(folder) as entries:
                for entry in entries:
                    if entry.is_symlink() or entry.name.startswith(_INCOMING):
                        continue
                    name = f"{prefix}/{entry.name}" if prefix else entry.name
                    if entry.is_dir(follow_symlinks=False):
                        found.append(ArtifactInfo(name, None))
                    elif entry.is_file(follow_symlinks=False):
                        found.append(ArtifactInfo(name, entry.stat(follow_symlinks=False).st_size))
        except NotFoundError:
            return ()
        return sorted(found, key=lambda info: info.path)

    def remove(self, path: str) -> None:
        """Remove a file, or a folder with everything in it; does nothing where there is none."""
        *above, name = inside(path)
        try:
            with self._explained(path, "remove"), self._folder(above) as folder:
                found = os.stat(name, dir_fd=folder, follow_symlinks=False)
                if stat.S_ISDIR(found.st_mode):
                    shutil.rmtree(name, dir_fd=folder)
                else:
                    os.unlink(name, dir_fd=folder)
        except NotFoundError:
            return

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


def _copy(source: BinaryIO, target: BinaryIO) -> None:
    while data := source.read(_CHUNK):
        target.write(data)
