"""HTTP/1.1 over sockets for a handler of requests: keep-alive, bodies streamed in and out, a thread for each connection."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler

from runproj.server.protocol import Problem, Request, Response, problem_response

Handle = Callable[[Request], Response]

_IDLE_SECONDS = 300
_WASTE = 1 << 20  # bytes of an unread body that are read to keep the connection; beyond that it is closed


class Server:
    """Serves a listening socket until `close`.  The socket stays the caller's."""

    def __init__(self, listener: socket.socket, handle: Handle) -> None:
        self._listener = listener
        self._handle = handle
        self._connections: dict[socket.socket, bool] = {}  # whether a request is being answered
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
            for connection, busy in self._connections.items():
                if not busy:
                    _end(connection, socket.SHUT_RD)  # what has arrived already is read and answered nevertheless
            self._changed.wait_for(lambda: not self._connections, timeout)
            for connection in self._connections:
                _end(connection, socket.SHUT_RDWR)
        self._alarm.close()
        self._bell.close()

    def _accept(self) -> None:
        self._listener.setblocking(False)
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            selector.register(self._alarm, selectors.EVENT_READ)
            while True:
                ready = {key.fileobj for key, _ in selector.select()}
                if self._listener in ready:
                    self._welcome()
                elif self._closing:  # and nobody is waiting at the door
                    return

    def _welcome(self) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionError):
            connection, _ = self._listener.accept()
            with self._changed:
                self._connections[connection] = False
            threading.Thread(target=self._serve, args=(connection,), name="runproj-request", daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            connection.settimeout(_IDLE_SECONDS)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with contextlib.suppress(OSError):
                _Connection(connection, self)
        finally:
            with self._changed:
                self._connections.pop(connection, None)
                self._changed.notify_all()
            connection.close()

    def idle(self, connection: socket.socket) -> bool:
        """The connection waits for a request.  False where there will be none, because the server closes."""
        with self._changed:
            self._connections[connection] = False
            return not self._closing

    def busy(self, connection: socket.socket) -> None:
        """A request has begun to arrive on the connection."""
        with self._changed:
            self._connections[connection] = True

    def answer(self, request: Request) -> Response:
        return self._handle(request)


def _end(connection: socket.socket, how: int) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(how)


class _Connection(BaseHTTPRequestHandler):
    """One connection, in its own thread: the standard library reads request lines and headers, the rest is ours."""

    protocol_version = "HTTP/1.1"

    def __init__(self, connection: socket.socket, server: Server) -> None:
        self._server = server
        self._first = True
        super().__init__(connection, connection.getpeername(), None)  # type: ignore[arg-type]  # it only keeps the third

    def handle_one_request(self) -> None:
        if not self._first and not self._server.idle(self.connection):
            self.close_connection = True
            return
        self._first = False
        self.raw_requestline = self.rfile.readline(65537)
        self._server.busy(self.connection)
        if not self.raw_requestline or len(self.raw_requestline) > 65536:
            self.close_connection = True
            return
        if not self.parse_request():
            return
        self._respond()

    def _respond(self) -> None:
        path, _, query = self.path.partition("?")
        headers = {name.lower(): value for name, value in self.headers.items()}
        try:
            body, length = self._body(headers)
        except Problem as problem:
            self.close_connection = True
            self._send(problem_response(problem))
            return
        request = Request(self.command, path, query, headers, body, length)
        response = self._server.answer(request)
        if not body.spent(_WASTE):
            self.close_connection = True
        self._send(response)

    def _body(self, headers: dict[str, str]) -> tuple[_Body, int | None]:
        coding = headers.get("transfer-encoding", "").lower()
        given = headers.get("content-length")
        if coding:
            if coding != "chunked" or given is not None:
                raise Problem("BAD_REQUEST", "The length of the request is ambiguous.")
            return _ChunkedBody(self), None
        if given is not None and not (given.isascii() and given.isdigit()):
            raise Problem("BAD_REQUEST", f"Content-Length {given!r} is not a number.")
        length = int(given or 0)
        return _Body(self, length), length

    def _send(self, response: Response) -> None:
        """One write for head and small body, so that no answer waits for a delayed acknowledgement."""
        length = len(response.body) if response.chunks is None else (response.length or 0)
        fields = {"Server": "runproj", "Date": self.date_time_string(), **response.headers, "Content-Length": str(length)}
        if self.close_connection:
            fields["Connection"] = "close"
        phrase = self.responses.get(HTTPStatus(response.status), ("", ""))[0]
        lines = [f"HTTP/1.1 {response.status} {phrase}", *(f"{name}: {value}" for name, value in fields.items())]
        head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
        try:
            if response.chunks is None or self.command == "HEAD":
                self.connection.sendall(head + (b"" if self.command == "HEAD" else response.body))
                return
            self.connection.sendall(head)
            for chunk in response.chunks:
                self.connection.sendall(chunk)
                length -= len(chunk)
            if length:  # the file shrank while it was sent: only a broken connection can say so now
                self.close_connection = True
        finally:
            if response.chunks is not None:
                response.chunks.close()

    def log_message(self, format: str, *args: object) -> None:
        """Requests are not logged: the terminal belongs to the project."""


class _Body:
    """A body of known length."""

    def __init__(self, connection: _Connection, length: int) -> None:
        self._file = connection.rfile
        self._left = length

    def read(self, size: int) -> bytes:
        if self._left <= 0:
            return b""
        data = self._file.read1(min(size, self._left)) if hasattr(self._file, "read1") else self._file.read(min(size, self._left))
        if not data:
            raise ConnectionResetError("the request ended early")
        self._left -= len(data)
        return data

    def spent(self, waste: int) -> bool:
        """Read what is left, up to `waste` bytes; whether that was all."""
        if self._left > waste:
            return False
        while self.read(1 << 16):
            pass
        return True


class _ChunkedBody(_Body):
    """A body that says its length bit by bit."""

    def __init__(self, connection: _Connection) -> None:
        super().__init__(connection, 0)
        self._ended = False

    def read(self, size: int) -> bytes:
        if self._ended:
            return b""
        if not self._left:
            line = self._file.readline(1024).partition(b";")[0].strip()
            try:
                self._left = int(line, 16)
            except ValueError:
                raise ConnectionResetError("the request is not chunked as it says") from None
            if self._left <= 0:
                self._ended, self._left = True, 0
                while self._file.readline(65537).strip():
                    pass
                return b""
        data = super().read(size)
        if not self._left:
            self._file.readline(8)
        return data

    def spent(self, waste: int) -> bool:
        return any(not self.read(1 << 16) for _ in range(max(1, waste >> 16)))
