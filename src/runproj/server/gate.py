"""The one door of a server: who may ask at all is decided before anything of a request is looked at."""

from __future__ import annotations

import hmac
from collections.abc import Callable

from runproj.core.access import OPERATOR, Caller
from runproj.core.values import dataclass
from runproj.server.access import Subject
from runproj.server.protocol import Problem, Request, Response
from runproj.server.rest import Api, answered, find_route

Admit = Callable[[Request], Caller]
"""Who asks.  Raises `Problem` for who cannot say so."""


@dataclass(frozen=True)
class Gate:
    """Lets requests pass that are meant for this server, that no web page of somebody else has sent, from callers it knows.

    A browser cannot be led here: requests for another host name (DNS rebinding) and those with a foreign `Origin` are refused,
    whatever they ask for.  What exists is told to known callers only.

    hosts: names with port that the server answers to, in lower case.
    pages: pages of this server itself may ask; and it answers to the address that a connection came to, which no other name
           can stand for.
    """

    hosts: frozenset[str]
    admit: Admit
    api: Api
    pages: bool = False

    def handle(self, request: Request) -> Response:
        """The answer.  Never raises for what a client can do."""
        return answered(request, self._handle)

    def _handle(self, request: Request) -> Response:
        self._check_host(request)
        self._check_origin(request)
        found = find_route(request)
        if not isinstance(found, Response):
            request.marks.route = found.route.path
            if found.route.need.subject is Subject.ANYBODY:
                return self.api.answer(request, found, OPERATOR)
        caller = self.admit(request)
        request.marks.user = caller.name
        return found if isinstance(found, Response) else self.api.answer(request, found, caller)

    def _check_host(self, request: Request) -> None:
        host = request.headers.get("host", "").lower()
        if host not in self.hosts and not (self.pages and host == request.local and host):
            raise Problem("PERMISSION_DENIED", "This server does not answer to that host name.", 403)

    def _check_origin(self, request: Request) -> None:
        origin = request.headers.get("origin")
        if origin is not None and not (self.pages and _bare(origin) == request.headers["host"].lower()):
            raise Problem("PERMISSION_DENIED", "This server does not answer to pages of others.", 403)
        site = request.headers.get("sec-fetch-site", "none")
        if site in ("cross-site", "same-site") and request.headers.get("sec-fetch-mode") != "navigate":
            raise Problem("PERMISSION_DENIED", "This server does not answer to pages of others.", 403)


def _bare(origin: str) -> str:
    """Host and port of an origin, as the `Host` header would have them; empty for one that is no web page's."""
    scheme, _, rest = origin.lower().partition("://")
    return rest.removesuffix(":443" if scheme == "https" else ":80") if scheme in ("http", "https") else ""


def holder_of(token: str) -> Admit:
    """Admits whoever holds the token."""
    expected = f"Bearer {token}".encode()

    def admit(request: Request) -> Caller:
        given = request.headers.get("authorization", "").encode(errors="replace")
        if not hmac.compare_digest(given, expected):
            raise Problem("UNAUTHENTICATED", "The token of the run is missing or wrong.", 401)
        return OPERATOR

    return admit
