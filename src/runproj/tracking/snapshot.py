"""A picture of an SQLite store for another machine to read, while this one writes on."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from pathlib import Path

SHORTEST = 2.0
"""Seconds between two pictures at least; and so much longer that making them takes no more than a twentieth of the time."""


class Snapshots(threading.Thread):
    """Keeps a copy of the database at `path` at `target`, replaced as a whole when there is something new."""

    def __init__(self, path: Path, target: Path) -> None:
        super().__init__(name="snapshots", daemon=True)
        self._path, self._target = path, target
        self._stop_asked = threading.Event()

    def run(self) -> None:
        pause, seen = SHORTEST, -1
        while not self._stop_asked.wait(pause):
            begun = time.monotonic()
            try:
                seen = self._take(seen)
            except (sqlite3.Error, OSError):  # the record itself is written by others, who say what is wrong
                continue
            pause = max(SHORTEST, 20 * (time.monotonic() - begun))

    def _take(self, seen: int) -> int:
        """Take a picture unless nothing has changed since the log had the size `seen`; returns its size now."""
        files = [path.stat() for path in (self._path, Path(f"{self._path}-wal")) if path.exists()]
        size = sum(file.st_size + file.st_mtime_ns for file in files)
        if size == seen:
            return seen
        fresh = self._target.with_name(f".{self._target.name}")
        fresh.unlink(missing_ok=True)
        connection = sqlite3.connect(self._path)
        try:
            connection.execute("VACUUM INTO ?", (os.fspath(fresh),))
        finally:
            connection.close()
        fresh.replace(self._target)
        return size

    def stop(self) -> None:
        """Take no more pictures."""
        self._stop_asked.set()
        self.join()
