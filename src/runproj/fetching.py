"""The files of a run, listed and brought to a folder: whole, checked, and only those that are not there yet."""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from runproj.artifacts.files import inside
from runproj.core.run import Run
from runproj.core.tracking import ArtifactInfo, ArtifactStore
from runproj.errors import DamagedError, NotFoundError, StorageError
from runproj.files import explained, remove_tree, sha256_file

_EVERY = 0.5


def files_below(run: Run, path: str, store: ArtifactStore) -> list[ArtifactInfo]:
    """All files of a run below a folder, or the one file of that path, by path.  Raises `NotFoundError` where there is none."""
    found: list[ArtifactInfo] = []
    folders = [path]
    while folders:
        for entry in store.list(run, folders.pop()):
            if entry.size is None:
                folders.append(entry.path)
            else:
                found.append(entry)
    if path and not found:
        found = [entry for entry in store.list(run, path.rpartition("/")[0]) if entry.path == path and entry.size is not None]
        if not found:
            raise NotFoundError(f"{run.name or run.id} has no artifact {path!r}", fix="Without a path, all are listed.")
    return sorted(found, key=lambda entry: entry.path)


class Fetch:
    """Brings files of a run below `folder`, each whole and checked before it is there under its name.

    base:    what of a path is left out: the folder above what was asked for.
    hashes:  sha256 of files by path, where the record knows them; stores check those that they know themselves.
    """

    def __init__(self, run: Run, store: ArtifactStore, folder: Path, base: str, hashes: Mapping[str, str]) -> None:
        self.run = run
        self.store = store
        self.folder = folder
        self.hashes = hashes
        self._skip = base.count("/") + 1 if base else 0

    def target(self, path: str) -> Path:
        """Where a file goes.  Raises `RefusedError` for a path that leads elsewhere."""
        return self.folder.joinpath(*inside(path)[self._skip :])

    def missing(self, files: Sequence[ArtifactInfo]) -> list[ArtifactInfo]:
        """Those that are not there yet.  Raises `StorageError` where something else is in the place of one."""
        missing = []
        for entry in files:
            there = self.target(entry.path)
            if not os.path.lexists(there):
                missing.append(entry)
            elif not self._same(there, entry):
                raise StorageError(
                    f"{there} is there already, and is not {entry.path} of run {self.run.id[:8]}",
                    fix="Choose another folder, or replace it: --force",
                )
        return missing

    def _same(self, there: Path, entry: ArtifactInfo) -> bool:
        """Whether a file is what it should be: as far as a hash tells where the record has one, else its size."""
        with explained(there, "read"):
            if not there.is_file() or there.stat().st_size != entry.size:
                return False
            return self.hashes.get(entry.path) in (None, sha256_file(there))

    def fetch(self, files: Sequence[ArtifactInfo], progress: Callable[[int, int], None]) -> None:
        """Fetch files; `progress` is told how many are there and how many bytes, now and then."""
        with explained(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            scratch = Path(tempfile.mkdtemp(prefix=".runproj-", dir=self.folder))
        try:
            done = 0
            for number, entry in enumerate(files):
                with _watched(scratch, partial(_told, progress, number, done)):
                    self._fetch(entry, scratch)
                done += entry.size or 0
            progress(len(files), done)
        finally:
            remove_tree(scratch)

    def _fetch(self, entry: ArtifactInfo, scratch: Path) -> None:
        target, arrived = self.target(entry.path), scratch / "file"  # before anything is asked for
        self.store.get(self.run, entry.path, arrived)
        wanted = self.hashes.get(entry.path)
        if wanted is not None and (found := sha256_file(arrived)) != wanted:
            raise DamagedError(
                f"The artifact {entry.path!r} is not what the run left",
                why=f"Its sha256 is {found}; the run recorded {wanted}.",
                fix="It was replaced since, or is damaged in the store.",
            )
        with explained(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            arrived.replace(target)


def _told(progress: Callable[[int, int], None], number: int, done: int, size: int) -> None:
    progress(number, done + size)


@contextlib.contextmanager
def _watched(scratch: Path, tell: Callable[[int], None]) -> Iterator[None]:
    """Tell how much of a file has arrived, while it does."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(_EVERY):
            with contextlib.suppress(OSError):
                tell(sum(path.stat().st_size for path in scratch.iterdir()))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
