"""What arrives on a connection: heads and bodies of requests, within limits of size and time."""

from __future__ import annotations

import re
import socket
import struct
import time

from runproj.server.head import MAX_HEAD, Malformed

_BLOCK = 1 << 16
_IDLE = 300.0  # seconds that a connection may wait for its next request
_HEAD = 30.0  # seconds that it may wait for its first, and from the first byte of a head to its last
_STALL = 60.0  # seconds without a byte of a body
_WASTED = 3.0  # seconds without a byte of what nobody wants
_SLOWEST = 1024  # bytes a second of a body, on average, once it takes longer than that
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[\x20-\x7e\t]*)?")
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Gone(Exception):
    """The other side has left, or was too slow: there is nobody to answer."""


class Incoming:
    """Bytes of one connection, in a thread of its own.

    Reads wait in the kernel, with its own timeout: a socket of Python's with a timeout asks twice for everything.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._data = b""
        self._patience = 0.0
        self._first = True
        connection.setblocking(True)

    def begins(self) -> bool:
        """Wait for a head; False where the client has ended.  Takes nothing off the socket.  Raises `Gone`."""
        if self._data:
            return True
        self._wait_for(_HEAD if self._first else _IDLE)
        self._first = False
        return bool(self._receive(1, socket.MSG_PEEK))

    def head(self) -> bytes | None:
        """The head that has begun, with the empty line at its end; None where it breaks off.  Raises `Malformed` and `Gone`."""
        end = self._data.find(b"\r\n\r\n")
        if end < 0:
            if not self._data:
                self._data = self._receive(_BLOCK)
                end = self._data.find(b"\r\n\r\n")
            if end < 0 and not self._rest_of_head():
                return None
            end = self._data.find(b"\r\n\r\n")
        if end + 4 > MAX_HEAD:
            raise Malformed(431, "The headers are too long.")
        head, self._data = self._data[: end + 4], self._data[end + 4 :]
        return head

    def _rest_of_head(self) -> bool:
        """Read until a head is complete; whether it is."""
        deadline = time.monotonic() + _HEAD
        while b"\r\n\r\n" not in self._data:
            if len(self._data) > MAX_HEAD:
                raise Malformed(431, "The headers are too long.")
            left = deadline - time.monotonic()
            if left <= 0:
                raise Gone
            self._wait_for(left)
            data = self._receive(_BLOCK)
            if not data:
                return False
            self._data += data
        return True

    @property
    def more(self) -> bool:
        """Whether bytes of another request came with those that were taken."""
        return bool(self._data)

    def take(self, size: int) -> bytes:
        """At least one byte and at most `size`.  Raises `Gone` at the end."""
        if self._data:
            found, self._data = self._data[:size], self._data[size:]
            return found
        self._wait_for(_STALL)
        if data := self._receive(min(size, 1 << 20)):
            return data
        raise Gone

    def waste(self) -> int:
        """Throw away what comes next; returns the number of bytes.  Raises `Gone` at the end."""
        data, self._data = self._data, b""
        if not data:
            self._wait_for(_WASTED)
            data = self._receive(1 << 20)
        if not data:
            raise Gone
        return len(data)

    def line(self, most: int) -> bytes:
        """A line without its end.  Raises `Malformed` for one that is longer than `most` or does not end as it should."""
        while (end := self._data.find(b"\n")) < 0:
            if len(self._data) > most:
                raise Malformed(400, "The body is not chunked as it says.")
            self._wait_for(_STALL)
            data = self._receive(_BLOCK)
            if not data:
                raise Gone
            self._data += data
        found, self._data = self._data[: end + 1], self._data[end + 1 :]
        if len(found) > most or not found.endswith(b"\r\n"):
            raise Malformed(400, "The body is not chunked as it says.")
        return found[:-2]

    def go_ahead(self) -> None:
        """Tell a client that waits with its body to send it."""
        try:
            self._socket.sendall(_CONTINUE)
        except OSError:
            raise Gone from None

    def _receive(self, size: int, flags: int = 0) -> bytes:
        try:
            return self._socket.recv(size, flags)
        except OSError:  # a timeout in the kernel is one too
            raise Gone from None

    def _wait_for(self, seconds: float) -> None:
        if seconds != self._patience:
            self._patience = seconds
            value = struct.pack("ll", int(seconds), int(seconds % 1 * 1e6) + 1)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, value)


class SizedBody:
    """A body of known length."""

    def __init__(self, incoming: Incoming, length: int, *, wanted: bool = False) -> None:
        self._incoming = incoming
        self._left = length
        self._wanted = wanted  # the client waits for a word before it sends
        self._begun = 0.0
        self._taken = 0

    def read(self, size: int) -> bytes:
        """At most `size` bytes, at least one unless the body has ended.  Raises `Gone`."""
        if self._left <= 0:
            return b""
        self._invite()
        data = self._incoming.take(min(size, self._left))
        self._left -= len(data)
        self._check_pace(len(data))
        return data

    def _invite(self) -> None:
        if self._wanted:
            self._wanted = False
            self._incoming.go_ahead()

    def _check_pace(self, taken: int) -> None:
        now = time.monotonic()
        self._begun = self._begun or now
        self._taken += taken
        if now - self._begun > _STALL and self._taken / (now - self._begun) < _SLOWEST:
            raise Gone

    def spent(self, waste: int) -> bool:
        """Read what is left, up to `waste` bytes; whether that was all, so that the next request begins where it should."""
        if self._wanted or self._left > waste:
            return self._left <= 0
        try:
            while self.read(_BLOCK):
                pass
        except (Gone, Malformed):
            return False
        return True


class ChunkedBody(SizedBody):
    """A body that says its length bit by bit."""

    def __init__(self, incoming: Incoming, *, wanted: bool = False) -> None:
        super().__init__(incoming, 0, wanted=wanted)
        self._ended = False

    def read(self, size: int) -> bytes:
        """As of a body of known length; raises `Malformed`, too."""
        if self._ended:
            return b""
        self._invite()
        if not self._left and not self._next():
            return b""
        data = super().read(size)
        if not self._left and self._incoming.line(2):
            raise Malformed(400, "The body is not chunked as it says.")
        return data

    def _next(self) -> bool:
        """The length of the next chunk; False where there is none."""
        found = _CHUNK_LINE.fullmatch(self._incoming.line(1024))
        if found is None:
            raise Malformed(400, "The body is not chunked as it says.")
        self._left = int(found[1], 16)
        if self._left:
            return True
        total = 0
        while trailer := self._incoming.line(8192):
            total += len(trailer)
            if total > MAX_HEAD:
                raise Malformed(431, "The trailers are too long.")
        self._ended = True
        return False

    def spent(self, waste: int) -> bool:
        if self._wanted:
            return False
        try:
            return any(not self.read(_BLOCK) for _ in range(max(1, waste // _BLOCK)))
        except (Gone, Malformed):
            return False
