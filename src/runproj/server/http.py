"""HTTP/1.1 over sockets for a handler of requests: keep-alive, bodies streamed in and out, a thread for each connection."""

from __future__ import annotations

import contextlib
import selectors
import socket
import struct
import threading
import time
from collections.abc import Callable
from enum import Enum
from http import HTTPStatus

from runproj.core.values import dataclass
from runproj.server.head import Head, Malformed, parse
from runproj.server.incoming import ChunkedBody, Gone, Incoming, SizedBody
from runproj.server.protocol import Problem, Request, Response, problem_response

Handle = Callable[[Request], Response]
Watch = Callable[[Request, Response, float], None]
"""Told of each answer, after it was sent, and the seconds that it took from the head of the request on."""

_SEND_SECONDS = 60  # for one block of an answer
_WASTE = 1 << 20  # bytes of an unread body that are read to keep the connection; beyond that it is closed
_SMALL = 1 << 16  # bytes of a body that go out with the head
_LINGER = 1 << 28  # bytes that a client may still send after an answer that it was not waited for with
_LINGER_SECONDS = 20.0
_UNFINISHED = 2.0  # seconds for the rest of a head, once the server closes
_ALWAYS = (
    "Server: runproj\r\n"
    "X-Content-Type-Options: nosniff\r\n"
    "Cross-Origin-Resource-Policy: same-origin\r\n"
    "Referrer-Policy: no-referrer\r\n"
)
_POLICY = "Content-Security-Policy: sandbox; default-src 'none'; frame-ancestors 'none'\r\n"
_PHRASES = {status.value: status.phrase for status in HTTPStatus}
_FULL = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


@dataclass(frozen=True)
class Limits:
    """connections: served at the same time; who comes after that is told to come again."""

    connections: int = 1000


_USUAL = Limits()


class _State(Enum):
    """IDLE: waits for a request.  BEGUN: reads its head.  BUSY: answers it."""

    IDLE = 0
    BEGUN = 1
    BUSY = 2


class Server:
    """Serves a listening socket until `close`.  The socket stays the caller's."""

    def __init__(
        self,
        listener: socket.socket,
        handle: Handle,
        watch: Watch | None = None,
        limits: Limits = _USUAL,
    ) -> None:
        self.handle = handle
        self.watch = watch
        self._limits = limits
        self._listener = listener
        self._connections: dict[socket.socket, _State] = {}
        self._changed = threading.Condition()
        self._closing = False
        self._thread: threading.Thread | None = None
        self._alarm, self._bell = socket.socketpair()

    def start(self) -> None:
        """Accept connections from now on, in the background."""
        self._thread = threading.Thread(target=self._accept, name="runproj-server", daemon=True)
        self._thread.start()

    def close(self, timeout: float = 30.0) -> None:
        """Answer the requests that have arrived, at most for `timeout` seconds, then close every connection."""
        self._closing = True
        self._bell.send(b".")
        if self._thread:
            self._thread.join(timeout=5)
        with self._changed:
            self._hear_no_more(lambda connection, state: state is _State.IDLE and not _has_arrived(connection))
            self._changed.wait_for(lambda: not self._connections, min(_UNFINISHED, timeout))
            self._hear_no_more(lambda _, state: state is not _State.BUSY)
            self._changed.wait_for(lambda: not self._connections, timeout)
            for connection in self._connections:
                _end(connection, socket.SHUT_RDWR)
        self._alarm.close()
        self._bell.close()

    def _hear_no_more(self, those: Callable[[socket.socket, _State], bool]) -> None:
        for connection, state in self._connections.items():
            if those(connection, state):
                _end(connection, socket.SHUT_RD)

    @property
    def closing(self) -> bool:
        """Whether the answers that are given now are the last ones."""
        return self._closing

    @property
    def connections(self) -> int:
        """Those that are open."""
        return len(self._connections)

    def _accept(self) -> None:
        self._listener.setblocking(False)
        until = float("inf")
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            alarm = selector.register(self._alarm, selectors.EVENT_READ)
            while time.monotonic() < until:
                ready = {key.fileobj for key, _ in selector.select(0 if self._closing else None)}
                if self._closing and until == float("inf"):
                    selector.unregister(alarm.fileobj)
                    until = time.monotonic() + 1  # for those who are waiting at the door
                elif self._closing and not ready:
                    return
                if self._listener in ready:
                    self._welcome()

    def _welcome(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, ConnectionError):
            return
        except OSError:  # out of descriptors: those that are open have to end first
            time.sleep(0.05)
            return
        if len(self._connections) >= self._limits.connections:
            with contextlib.suppress(OSError), connection:
                connection.setblocking(False)
                connection.send(_FULL)
                _end(connection, socket.SHUT_RDWR)
            return
        with self._changed:
            self._connections[connection] = _State.IDLE
        try:
            threading.Thread(target=self._serve, args=(connection,), name="runproj-request", daemon=True).start()
        except RuntimeError:  # the system has no more threads
            self._forget(connection)

    def _serve(self, connection: socket.socket) -> None:
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", _SEND_SECONDS, 0))
            with contextlib.suppress(OSError, Gone):
                _Connection(connection, self).serve()
        finally:
            self._forget(connection)

    def _forget(self, connection: socket.socket) -> None:
        with self._changed:
            self._connections.pop(connection, None)
            self._changed.notify_all()
        connection.close()

    def idle(self, connection: socket.socket) -> bool:
        """The connection waits for a request.  False where there will be none, because the server closes."""
        with self._changed:
            self._connections[connection] = _State.IDLE
            return not self._closing or _has_arrived(connection)

    def begun(self, connection: socket.socket) -> None:
        """A request is about to be read from the connection.  Said before that, so that it is seen here or in the kernel."""
        with self._changed:
            self._connections[connection] = _State.BEGUN

    def busy(self, connection: socket.socket) -> None:
        """The head of a request has arrived on the connection: it will be answered."""
        with self._changed:
            self._connections[connection] = _State.BUSY


def _has_arrived(connection: socket.socket) -> bool:
    """Whether a request, or its beginning, waits for its thread, which may be late on a busy machine."""
    try:
        return bool(connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
    except OSError:
        return False


def _end(connection: socket.socket, how: int) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(how)


class _Connection:
    """One connection, in its own thread."""

    def __init__(self, connection: socket.socket, server: Server) -> None:
        self._socket = connection
        self._server = server
        self._incoming = Incoming(connection)
        self._peer = str(connection.getpeername()[0])
        host, port = connection.getsockname()[:2]
        self._local = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def serve(self) -> None:
        """Answer requests until the connection ends."""
        try:
            while self._incoming.begins():
                self._server.begun(self._socket)
                if (data := self._incoming.head()) is None:
                    return
                self._server.busy(self._socket)
                if not self._exchange(parse(data)) or not (self._incoming.more or self._server.idle(self._socket)):
                    return
        except Malformed as bad:
            self._refuse(bad)

    def _exchange(self, head: Head) -> bool:
        """Answer one request; whether another may follow."""
        begun = time.perf_counter()
        wanted = head.headers.get("expect", "").lower()
        if wanted not in ("", "100-continue"):
            raise Malformed(417, "Only 'Expect: 100-continue' is understood.")
        incoming = self._incoming
        body = (
            ChunkedBody(incoming, wanted=bool(wanted))
            if head.length is None
            else SizedBody(incoming, head.length, wanted=bool(wanted))
        )
        request = Request(head.method, head.path, head.query, head.headers, body, head.length, self._peer, self._local)
        response = self._server.handle(request)
        spent = body.spent(_WASTE)
        keep = spent and head.keep and not self._server.closing
        try:
            complete = self._send(response, head.method, keep=keep)
        finally:
            if self._server.watch is not None:
                self._server.watch(request, response, time.perf_counter() - begun)
        if not spent:
            self._linger()
        return complete and keep

    def _refuse(self, bad: Malformed) -> None:
        """Say why, and do not take the rest for another request."""
        self._send(problem_response(Problem("BAD_REQUEST", bad.message, bad.status)), "GET", keep=False)
        self._linger()

    def _linger(self) -> None:
        """Take what the client still sends: closing with unread bytes would take the answer back before it is read."""
        _end(self._socket, socket.SHUT_WR)
        left, until = _LINGER, time.monotonic() + _LINGER_SECONDS
        while left > 0 and time.monotonic() < until and self._server.idle(self._socket) and not self._server.closing:
            left -= self._incoming.waste()

    def _send(self, response: Response, method: str, *, keep: bool) -> bool:
        """One write for head and small body, so that no answer waits for a delayed acknowledgement; whether it is complete."""
        length = len(response.body) if response.chunks is None else (response.length or 0)
        fields = "".join([f"{name}: {value}\r\n" for name, value in response.headers.items()])
        if fields.count("\n") != len(response.headers):
            raise ValueError("a header has a line end in it")
        policy = "" if "Content-Security-Policy" in response.headers else _POLICY
        end = "\r\n" if keep else "Connection: close\r\n\r\n"
        status = f"HTTP/1.1 {response.status} {_PHRASES.get(response.status, '')}\r\n"
        head = f"{status}{_ALWAYS}{policy}Date: {_now()}\r\n{fields}Content-Length: {length}\r\n{end}".encode("latin-1")
        try:
            if method == "HEAD" or (response.chunks is None and not response.body):
                self._socket.sendall(head)
            elif response.chunks is None and length <= _SMALL:
                self._socket.sendall(head + response.body)
            elif response.chunks is None:
                self._socket.sendall(head)
                self._socket.sendall(response.body)
            else:
                self._socket.sendall(head)
                for chunk in response.chunks:
                    self._socket.sendall(chunk)
                    length -= len(chunk)
                return not length  # the file shrank while it was sent: only a broken connection can say so now
        finally:
            if response.chunks is not None:
                response.chunks.close()
        return True


_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_clock = (0, "")


def _now() -> str:
    """The time for the `Date` header, worked out once a second."""
    global _clock  # noqa: PLW0603 - whoever comes too late sets what is right, too
    second = int(time.time())
    known, text = _clock
    if known != second:
        at = time.gmtime(second)
        text = time.strftime(f"{_DAYS[at.tm_wday]}, %d {_MONTHS[at.tm_mon - 1]} %Y %H:%M:%S GMT", at)
        _clock = (second, text)
    return text
