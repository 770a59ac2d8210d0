"""MLflow's REST protocol over a store: what handlers work with, and one place where errors become answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from runproj.core.access import OPERATOR, Caller
from runproj.core.values import dataclass
from runproj.errors import AlreadyExistsError, DamagedError, NotFoundError, RefusedError, RunprojError
from runproj.server import access
from runproj.server.fields import read_fields
from runproj.server.head import Malformed
from runproj.server.incoming import Gone
from runproj.server.protocol import (
    Capped,
    Problem,
    Request,
    Response,
    invalid,
    json_response,
    missing,
    problem_response,
    text_response,
    too_large,
)
from runproj.server.routes import Call, Found, WrongMethod, find

if TYPE_CHECKING:
    from runproj.artifacts.direct import DirectArtifacts
    from runproj.tracking.full import FullStore


def _same(caller: Caller) -> Caller:
    return caller


@dataclass(frozen=True)
class Context:
    """What handlers work with, and for whom.

    renew: the caller with the roles of this moment; `caller` may have those of a moment ago.
    metrics: counts of the server, in Prometheus' words; None where nobody counts.
    roots: locations below which clients may keep artifacts of new experiments, beside the store's own; None for anywhere.
    max_upload: bytes of one uploaded file; None for any number.
    """

    store: FullStore
    artifacts: DirectArtifacts
    caller: Caller = OPERATOR
    renew: Callable[[Caller], Caller] = _same
    roots: tuple[str, ...] | None = None
    metrics: Callable[[], str] | None = None
    max_upload: int | None = None


class Api:
    """Answers requests of callers that the gate let in."""

    def __init__(self, context: Context) -> None:
        self._for_operator = context

    def answer(self, request: Request, found: Found, caller: Caller) -> Response:
        """The answer.  Raises `Problem`, or what a store raises."""
        use, route = self._for_operator, found.route
        if caller is not OPERATOR:
            use = replace(use, caller=caller)
        if isinstance(route, Call):
            fields = read_fields(request, found.named)
            use = access.checked(route.need, use, fields)
            return json_response(route.handler(use, fields))
        place = found.place if route.path.endswith("*") else route.locate(use, request, found.named)
        use = access.checked(route.need, use, place=place)
        return route.handler(use, _limited(request, use.max_upload), place)


_FORMS = ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data")
"""What a web page can send without asking first."""


def _limited(request: Request, most: int | None) -> Request:
    """A request with a body of bytes, of at most `most`.  Raises `Problem`."""
    if request.method == "POST" and request.headers.get("content-type", "").partition(";")[0].strip().lower() in _FORMS:
        raise Problem("BAD_REQUEST", "A form cannot be what is asked here.", 415)
    if most is None or request.method not in ("PUT", "POST"):
        return request
    if request.length is not None and request.length > most:
        raise too_large(most)
    return replace(request, body=Capped(request.body, most))


def answered(request: Request, work: Callable[[Request], Response]) -> Response:
    """What `work` answers, or the answer to what it raises."""
    try:
        return work(request)
    except Problem as problem:
        return problem_response(problem)
    except RunprojError as error:
        return problem_response(as_problem(error))
    except UnicodeEncodeError:  # half of a pair, which JSON can say and no database can keep
        return problem_response(invalid("A text in the request is not Unicode."))
    except (Malformed, Gone):  # known only when the body is read: the connection's own to answer
        raise
    except Exception as bug:
        import logging

        logging.getLogger(__name__).exception("%s %s", request.method, request.path)
        return problem_response(Problem("INTERNAL_ERROR", f"Internal error: {type(bug).__name__}", 500))


def find_route(request: Request) -> Found | Response:
    """The route of a request, or the answer to one that has none.  Not JSON: that tells clients to do without the feature."""
    try:
        return find(request.method, request.path) or text_response("Not Found", 404)
    except WrongMethod as wrong:
        answer = text_response("Method Not Allowed", 405)
        return Response(answer.status, {**answer.headers, "Allow": ", ".join(wrong.allowed)}, answer.body)


def as_problem(error: RunprojError) -> Problem:
    """The answer to a request that met `error`.  Only what is no fault of the client's has a status above 499.

    A full or broken disk, or a damaged file, is 507: clients repeat a request after 500 or 503 for minutes, which would not help.
    """
    match error:
        case AlreadyExistsError():
            return Problem("RESOURCE_ALREADY_EXISTS", str(error))
        case RefusedError():
            return Problem("INVALID_PARAMETER_VALUE", str(error))
        case NotFoundError():
            return missing(str(error))
        case DamagedError():
            return Problem("DATA_LOSS", str(error), 507)
    return Problem("INTERNAL_ERROR", str(error), 507)
