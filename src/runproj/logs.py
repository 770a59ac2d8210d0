"""The output of a command, stored byte for byte with its times, and shown to whoever watches."""

from __future__ import annotations

import contextlib
import os
import select
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from runproj.files import storage_error

_BLOCK = 1 << 20
_ATOMIC = 4096  # bytes that a pipe which has room at all takes without waiting
_GLANCE = 200  # milliseconds to wait for a reader before looking whether there is a hurry


class _Tee:
    """Copies output to where somebody may be reading, who may be slow, or have stopped (a pager, Ctrl-S), or have gone."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)
        kind = os.fstat(descriptor).st_mode
        waits = stat.S_ISFIFO(kind) or stat.S_ISSOCK(kind) or os.isatty(descriptor)
        self._most = _ATOMIC if waits else _BLOCK  # what can be written without waiting, once there is room

    def write(self, data: bytes, hurry: Callable[[], bool]) -> bool:
        """Write everything, or what can be had in a hurry; whether there is still somebody."""
        view = memoryview(data)
        while view:
            if not self._poll.poll(_GLANCE):
                if hurry():
                    break
                continue
            try:
                view = view[os.write(self._descriptor, view[: self._most]) :]
            except BlockingIOError:  # a terminal that somebody made non-blocking
                time.sleep(0.005)
            except OSError:  # whoever was reading has gone; the run goes on and the record is complete
                return False
        return True


class LogWriter:
    """Stores one stream's bytes as they come, and when: `timeline` gets lines of `milliseconds stream bytes`."""

    def __init__(self, folder: Path, name: str, tee: int | None, on_bytes: Callable[[bytes], None] | None = None) -> None:
        self.path = folder / f"{name}.log"
        self._letter = name[3]  # stdout: o, stderr: e
        self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        self._timeline = os.open(folder / "timeline", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        self._tee = None if tee is None else _Tee(tee)
        self.hurry: Callable[[], bool] = lambda: False
        self._on_bytes = on_bytes
        self._pending = 0
        self._since = 0.0

    def write(self, data: bytes) -> None:
        try:
            _write_all(self._file, data)
            self._mark(len(data))
        except OSError as error:
            raise storage_error(error, self.path) from error
        if self._on_bytes:
            self._on_bytes(data)
        if self._tee is not None and not self._tee.write(data, self.hurry):
            self._tee = None

    def _mark(self, count: int) -> None:
        now = time.time()
        if self._pending and now - self._since > 0.005:
            self._flush()
        if not self._pending:
            self._since = now
        self._pending += count

    def _flush(self) -> None:
        if self._pending:
            os.write(self._timeline, f"{int(self._since * 1000)} {self._letter} {self._pending}\n".encode())
            self._pending = 0

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._flush()
        os.close(self._file)
        os.close(self._timeline)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def read_merged(folder: Path) -> Iterator[tuple[int, str, bytes]]:
    """Both streams in the order they came: (milliseconds since the epoch, "o" or "e", bytes), as the timeline tells.

    What has no mark yet (the run goes on, or its executor was killed) comes last, with the time of the stream's last change.
    """
    timeline = folder / "timeline"
    with contextlib.ExitStack() as stack:
        paths = [path for name in ("stdout", "stderr") if (path := folder / f"{name}.log").exists()]
        streams = {path.name[3]: stack.enter_context(path.open("rb")) for path in paths}
        marks = [line.split() for line in timeline.read_text().splitlines()] if timeline.exists() else []
        for when, letter, count in sorted(marks, key=lambda mark: int(mark[0])):
            yield int(when), letter, streams[letter].read(int(count))
        for letter, stream in streams.items():
            if rest := stream.read():
                yield int(os.fstat(stream.fileno()).st_mtime * 1000), letter, rest
