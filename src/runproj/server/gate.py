"""The door of a server: who may ask at all is decided before anything of a request is looked at."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from dataclasses import dataclass

from runproj.server.protocol import Problem, Request, Response, problem_response

Admit = Callable[[Request], None]
"""Lets a request pass, or raises `Problem`."""


@dataclass(frozen=True)
class Gate:
    """Lets requests pass that are meant for this server, that no web page of somebody else has sent, and that `admit` knows.

    A browser cannot be led here: requests for another host name (DNS rebinding) and those with a foreign `Origin` are refused,
    whatever they ask for.

    hosts: names with port that the server answers to, in lower case.
    pages: pages of this server itself may ask.
    """

    hosts: frozenset[str]
    admit: Admit
    handler: Callable[[Request], Response]
    pages: bool = False

    def handle(self, request: Request) -> Response:
        try:
            self._check_host(request)
            self._check_origin(request)
            self.admit(request)
        except Problem as problem:
            return problem_response(problem)
        return self.handler(request)

    def _check_host(self, request: Request) -> None:
        if request.headers.get("host", "").lower() not in self.hosts:
            raise Problem("PERMISSION_DENIED", "This server does not answer to that host name.", 403)

    def _check_origin(self, request: Request) -> None:
        origin = request.headers.get("origin")
        if origin is None:
            return
        if not self.pages or origin.lower().removeprefix("http://").removeprefix("https://") != request.headers["host"].lower():
            raise Problem("PERMISSION_DENIED", "This server does not answer to pages of others.", 403)


def holder_of(token: str) -> Admit:
    """Admits whoever holds the token."""
    expected = f"Bearer {token}".encode()

    def admit(request: Request) -> None:
        given = request.headers.get("authorization", "").encode(errors="replace")
        if not hmac.compare_digest(given, expected):
            raise Problem("UNAUTHENTICATED", "The token of the run is missing or wrong.", 401)

    return admit


def anyone(request: Request) -> None:
    """Admits everybody: a server on the loopback address that knows no users."""
    del request
