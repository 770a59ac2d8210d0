"""The head of an HTTP/1.1 request (RFC 9112), read strictly: what two servers could read in two ways is refused."""

from __future__ import annotations

import re
from collections.abc import Mapping

from runproj.core.values import dataclass

MAX_HEAD = 64 * 1024
"""Bytes of request line and headers."""

_TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
_REQUEST_LINE = re.compile(r"([A-Z]{1,20}) (/[\x21\x22\x24-\x7e]*) HTTP/1\.([01])")
_FIELDS = re.compile(rf"(?:{_TOKEN}++:[^\x00-\x08\x0a-\x1f\x7f]*+\r\n){{0,100}}+")
_ONCE = frozenset({"host", "content-length", "transfer-encoding", "authorization", "content-type", "origin", "expect"})


class Malformed(Exception):
    """A request that is answered with `status` and the end of the connection."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


@dataclass(frozen=True)
class Head:
    """Request line and headers.  Names of headers are in lower case.

    length: bytes of the body, None for one that is chunked.
    keep:   further requests may follow on the connection.
    """

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    length: int | None
    keep: bool


def parse(data: bytes) -> Head:
    """The head in `data`, which ends with the empty line.  Raises `Malformed`."""
    line, _, rest = data.decode("latin-1").partition("\r\n")
    asked = _REQUEST_LINE.fullmatch(line)
    if asked is None:
        raise Malformed(400, "The request line cannot be read.")
    headers = _headers(rest[:-2])
    method, target, minor = asked.groups()
    if minor == "1" and "host" not in headers:
        raise Malformed(400, "There is no Host header.")
    path, _, query = target.partition("?")
    connection = headers.get("connection", "").lower()
    keep = "close" not in connection if minor == "1" else "keep-alive" in connection
    return Head(method, path, query, headers, _length(headers, minor), keep)


def _headers(text: str) -> dict[str, str]:
    if _FIELDS.fullmatch(text) is None:
        if text.count("\r\n") > 100:
            raise Malformed(431, "There are more than 100 headers.")
        raise Malformed(400, "The headers cannot be read.")
    headers: dict[str, str] = {}
    for line in text.split("\r\n"):
        name, colon, value = line.partition(":")
        if not colon:
            continue  # the end
        name = name.lower()
        value = value.strip(" \t")
        if name in headers:
            if name in _ONCE:
                raise Malformed(400, f"The header {name} is there twice.")
            value = f"{headers[name]}, {value}"
        headers[name] = value
    return headers


def _length(headers: Mapping[str, str], minor: str) -> int | None:
    given = headers.get("content-length")
    if (coding := headers.get("transfer-encoding")) is not None:
        if given is not None or minor == "0":
            raise Malformed(400, "The length of the request is ambiguous.")
        if coding.lower() != "chunked":
            raise Malformed(501, "Only the transfer coding 'chunked' is understood.")
        return None
    if given is None:
        return 0
    if not (given.isascii() and given.isdigit() and len(given) < 19):
        raise Malformed(400, "Content-Length is not a number.")
    return int(given)
