"""What of a transfer is finished: a line for each thing, so that a transfer that was killed goes on where it stopped."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from types import TracebackType

from runproj.codec import DocumentError, from_json, to_json
from runproj.core.transfer import ItemMoved
from runproj.core.values import dataclass
from runproj.errors import UsageError
from runproj.files import Lock, LockedElsewhere, explained


@dataclass(frozen=True)
class Entry:
    """A thing that is in the target.

    state: digest of what it was when it was moved;  uri: where its files are in the target, or empty where they were not moved.
    """

    state: str
    uri: str
    item: ItemMoved


class Journal:
    """The journal of the transfers between two places.  Used as a context; only one process uses it at a time.

    Raises `UsageError` where another one does.
    """

    def __init__(self, folder: Path, source: str, target: str) -> None:
        name = hashlib.sha256(f"{source}\0{target}".encode()).hexdigest()[:32]
        self._path = folder / f"{name}.jsonl"
        self._lock = Lock(folder / f"{name}.lock")
        self._entries: dict[tuple[str, str], Entry] = {}

    def __enter__(self) -> Journal:
        try:
            self._lock.acquire(wait=False)
        except LockedElsewhere:
            raise UsageError("This transfer is under way in another process", fix="Wait until it ends.") from None
        with explained(self._path):
            whole = self._read()
            self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
            os.ftruncate(self._file, whole)  # without a line that was cut off
            os.lseek(self._file, whole, os.SEEK_SET)
        return self

    def __exit__(self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None) -> None:
        os.close(self._file)
        self._lock.release()

    def find(self, kind: str, key: str) -> Entry | None:
        return self._entries.get((kind, key))

    def add(self, entry: Entry) -> None:
        """Remember a thing, across a crash of this process."""
        self._entries[entry.item.kind, entry.item.id] = entry
        with explained(self._path):
            os.write(self._file, f"{to_json(entry)}\n".encode())

    def _read(self) -> int:
        """Take in what is there; returns the length of its whole lines."""
        whole = 0
        if not self._path.exists():
            return 0
        with self._path.open("rb") as file:
            for line in file:
                try:
                    entry = from_json(Entry, line)
                except DocumentError:
                    break
                if not line.endswith(b"\n"):
                    break
                whole += len(line)
                self._entries[entry.item.kind, entry.item.id] = entry
        return whole
