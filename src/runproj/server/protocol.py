"""Requests and responses as values: handlers know no web framework, and tests need no sockets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import field, replace
from typing import Protocol

import msgspec

from runproj.core.values import dataclass

MAX_JSON = 64 * 1024 * 1024
"""Bytes of a JSON body above which it is refused; MLflow's clients stay far below."""


class Body(Protocol):
    """The bytes of a request, read as they arrive."""

    def read(self, size: int) -> bytes:
        """At most `size` bytes, at least one unless the body has ended."""


@dataclass(slots=True)
class Marks:
    """What is learnt of a request while it is answered, for counts and log: its route, and who asked."""

    route: str = ""
    user: str = ""


@dataclass(frozen=True)
class Request:
    """A request.  `path` is as sent, without the query and still percent-encoded; names of `headers` are in lower case.

    length: bytes of the body, None where it ends when it ends (chunked).
    peer:   address that it came from.
    local:  address, with port, that it came to.
    """

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: Body
    length: int | None = 0
    peer: str = ""
    local: str = ""
    marks: Marks = field(default_factory=Marks)


class Capped:
    """A body of which no more than `most` bytes are read.  Raises `Problem` (413)."""

    def __init__(self, body: Body, most: int) -> None:
        self._body, self._left, self._most = body, most, most

    def read(self, size: int) -> bytes:
        data = self._body.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise too_large(self._most)
        return data


class Chunks(Protocol):
    """The body of a response, bit by bit."""

    def __iter__(self) -> Iterator[bytes]:
        """The bytes in their order."""

    def close(self) -> None:
        """Let go of what they come from."""


@dataclass(frozen=True)
class Response:
    """A response: `body` as a whole, or `chunks` of a known total `length`.  `chunks` is closed, read to its end or not."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    chunks: Chunks | None = None
    length: int | None = None


_NO_HEADERS: Mapping[str, str] = {}


class Problem(Exception):
    """A request that is answered with an error.  `code` is one of MLflow's words, on which its clients decide what to do."""

    def __init__(self, code: str, message: str, status: int = 400, headers: Mapping[str, str] = _NO_HEADERS) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status
        self.headers = headers


_JSON = {"Content-Type": "application/json"}
_EMPTY = b"{}"
_encode = msgspec.json.Encoder().encode


def invalid(message: str) -> Problem:
    """The answer to a request with a field that has no meaning."""
    return Problem("INVALID_PARAMETER_VALUE", message)


def missing(message: str) -> Problem:
    """The answer to a request for something that does not exist."""
    return Problem("RESOURCE_DOES_NOT_EXIST", message, 404)


def too_large(most: int) -> Problem:
    """The answer to a request that is longer than `most` bytes."""
    return Problem("INVALID_PARAMETER_VALUE", f"The request is longer than {most} bytes.", 413)


def json_response(document: Mapping[str, object], status: int = 200) -> Response:
    """A document as the body of a response."""
    return Response(status, _JSON, _EMPTY if not document else _encode(document))


def problem_response(problem: Problem) -> Response:
    """An error in the shape that MLflow's clients read."""
    message = problem.message.encode(errors="backslashreplace").decode()  # it may quote what is no Unicode
    answer = json_response({"error_code": problem.code, "message": message}, problem.status)
    return replace(answer, headers={**answer.headers, **problem.headers}) if problem.headers else answer


def text_response(text: str, status: int = 200) -> Response:
    return Response(status, {"Content-Type": "text/plain; charset=utf-8"}, text.encode())
