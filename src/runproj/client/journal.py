"""The events of a spool in the order they were logged: whole lines in numbered files, each removed when all of it was sent."""

import errno
import os
import threading
from collections import deque
from typing import Deque, List, NamedTuple, Optional, Tuple

Position = Tuple[int, int]
"""Number of a file and offset in it: everything before has been sent."""

START = (1, 0)
_SEGMENT = 16 << 20
_CHUNK = 256 << 10
_MOST_LINES = 1000
_MOST_IN_MEMORY = 64 << 20


class Chunk(NamedTuple):
    """Some events, each with the position after it.  In memory they have none."""

    lines: List[Tuple[bytes, Optional[Position]]]


class Journal:
    """Appending never raises: what cannot be written is kept in memory, up to 64 MB, until it can be written or was sent.

    Any thread appends; one thread reads.
    """

    def __init__(self, folder: str, problem: Optional[OSError] = None) -> None:
        self.problem = problem
        self.lost = 0
        self.appended = 0
        self._folder = folder
        self._lock = threading.RLock()  # a signal handler may log too
        self._segment, self._size = 0, 0
        self._descriptor: Optional[int] = None
        self._memory: Deque[bytes] = deque()
        self._bytes = 0
        self._sent: Optional[int] = None
        self._at: Optional[Position] = None
        self._reading: Tuple[int, Optional[int]] = (0, None)
        self._usable = problem is None

    def append(self, line: bytes) -> None:
        """Add an event: in the file on return, unless the disk does not take it."""
        with self._lock:
            self.appended += 1
            if self._memory or not self._write(line):
                self._keep(line)

    def _write(self, line: bytes) -> bool:
        try:
            if self._descriptor is None or self._size >= _SEGMENT:
                self._next_segment()
            done = os.write(self._descriptor or 0, line)
            if done != len(line):  # the disk is full: no half lines
                os.ftruncate(self._descriptor or 0, os.lseek(self._descriptor or 0, 0, os.SEEK_END) - done)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            self.problem = error
            return False
        self._size += done
        return True

    def add_file(self, lines: bytes) -> None:
        """Add events to a journal that nobody appends to.  Raises OSError."""
        fresh = os.path.join(self._folder, "events.tmp")
        with open(fresh, "wb") as file:
            file.write(lines)
        os.rename(fresh, self._path(max(self._segments() or [0]) + 1))

    def _next_segment(self) -> None:
        if not self._usable:
            raise self.problem or OSError(errno.EIO, os.strerror(errno.EIO))
        number = (self._segment or max(self._segments() or [0])) + 1
        descriptor = os.open(self._path(number), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_EXCL, 0o600)
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._segment, self._size, self._descriptor = number, 0, descriptor

    def _keep(self, line: bytes) -> None:
        if self._bytes + len(line) > _MOST_IN_MEMORY:
            self.lost += 1
            return
        self._memory.append(line)
        self._bytes += len(line)

    def _path(self, number: int) -> str:
        return os.path.join(self._folder, f"events-{number:06d}.jsonl")

    def _segments(self) -> List[int]:
        try:
            names = os.listdir(self._folder)
        except OSError:
            return []
        return sorted(int(name[7:-6]) for name in names if name.startswith("events-") and name.endswith(".jsonl"))

    @property
    def in_memory(self) -> int:
        """How many events no file holds."""
        return len(self._memory)

    def position(self) -> Position:
        """Up to where everything has been sent."""
        if self._at is None:
            self._at = START
            try:
                self._sent = os.open(os.path.join(self._folder, "sent"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                segment, offset = os.pread(self._sent, 64, 0).split()
                self._at = int(segment), int(offset)
            except (OSError, ValueError):
                pass  # nothing was sent, or nobody knows: sending again changes nothing
        return self._at

    def written(self) -> int:
        """When the last event was written, in milliseconds since the epoch; 0 where no file tells."""
        try:
            return int(os.stat(self._path(max(self._segments() or [0]))).st_mtime * 1000)
        except OSError:
            return 0

    def read(self) -> Chunk:
        """The next events that were not sent; none where everything was."""
        with self._lock:
            while self._memory and self._write(self._memory[0]):  # there is room again
                self._bytes -= len(self._memory.popleft())
        at = self.position()
        while True:
            data = self._data(at)
            if data:
                return Chunk(_cut(data, at))
            later = [number for number in self._segments() if number > at[0]]
            if not later:
                break
            at = (later[0], 0)
        with self._lock:
            return Chunk([(line, None) for line, _ in zip(self._memory, range(_MOST_LINES))])

    def _data(self, at: Position) -> bytes:
        """Whole lines from there on.  A line without its end was being written when its writer was killed: it does not count."""
        try:
            if self._reading[0] != at[0] or self._reading[1] is None:
                self._close_reading()
                self._reading = (at[0], os.open(self._path(at[0]), os.O_RDONLY | os.O_CLOEXEC))
            size = _CHUNK
            while True:
                data = os.pread(self._reading[1] or 0, size, at[1])
                end = data.rfind(b"\n") + 1
                if end or len(data) < size:
                    return data[:end]
                size *= 2
        except OSError:
            return b""

    def done(self, position: Optional[Position], count: int = 1) -> None:
        """Everything up to there was sent; or, without a position, the oldest `count` events in memory."""
        if position is None:
            with self._lock:
                for _ in range(min(count, len(self._memory))):
                    self._bytes -= len(self._memory.popleft())
            return
        before, self._at = self.position(), position
        if self._sent is not None:
            try:  # one small write in place: it needs no room on a full disk, and is never seen half done
                os.pwrite(self._sent, b"%08d %016d\n" % position, 0)
            except OSError as error:
                self.problem = error
        for number in range(before[0], position[0]):
            try:
                os.unlink(self._path(number))
            except OSError:
                pass

    def unsent(self) -> int:
        """How many events were not sent: all of them are counted, so it takes time where there are many."""
        segment, offset = self.position()
        total = len(self._memory)
        for number in self._segments():
            if number >= segment:
                with open(self._path(number), "rb") as file:
                    file.seek(offset if number == segment else 0)
                    total += sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))
        return total

    def close(self) -> None:
        """Let go of the files."""
        self._close_reading()
        for descriptor in (self._descriptor, self._sent):
            if descriptor is not None:
                os.close(descriptor)
        self._descriptor = self._sent = None

    def _close_reading(self) -> None:
        if self._reading[1] is not None:
            os.close(self._reading[1])
        self._reading = (0, None)


def _cut(data: bytes, at: Position) -> List[Tuple[bytes, Optional[Position]]]:
    found: List[Tuple[bytes, Optional[Position]]] = []
    segment, offset = at
    for line in data.split(b"\n", _MOST_LINES)[:_MOST_LINES]:
        if offset - at[1] + len(line) >= len(data):
            break
        offset += len(line) + 1
        found.append((line, (segment, offset)))
    return found
