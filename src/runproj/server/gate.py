"""The door of an endpoint: who may ask at all is decided before anything of a request is looked at."""

from __future__ import annotations

import hmac
from collections.abc import Callable

from runproj.server.protocol import Problem, Request, Response, problem_response


class Gate:
    """Lets requests pass that hold the token, and that no web page can have sent.

    A browser cannot be led here: requests for another host name (DNS rebinding) and those with an `Origin` are refused.
    """

    def __init__(self, token: str, hosts: frozenset[str], handle: Callable[[Request], Response]) -> None:
        self._expected = f"Bearer {token}".encode()
        self._hosts = hosts
        self._handle = handle

    def handle(self, request: Request) -> Response:
        if request.headers.get("host", "").lower() not in self._hosts:
            return problem_response(Problem("PERMISSION_DENIED", "This server answers to its loopback address only.", 403))
        if "origin" in request.headers:
            return problem_response(Problem("PERMISSION_DENIED", "This server does not answer to web pages.", 403))
        given = request.headers.get("authorization", "").encode(errors="replace")
        if not hmac.compare_digest(given, self._expected):
            return problem_response(Problem("UNAUTHENTICATED", "The token of the run is missing or wrong.", 401))
        return self._handle(request)
