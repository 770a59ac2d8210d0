"""MLflow's REST protocol over a store: a table of routes, and one place where errors become answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote

from runproj.errors import AlreadyExistsError, NotFoundError, RefusedError, RunprojError
from runproj.server import artifacts, experiments, models, registry, runs
from runproj.server.fields import Fields, read_fields
from runproj.server.protocol import (
    Problem,
    Request,
    Response,
    json_response,
    missing,
    problem_response,
    text_response,
)

if TYPE_CHECKING:
    from runproj.artifacts.local import LocalArtifacts
    from runproj.tracking.full import FullStore

MLFLOW_VERSION = "3.17.2"
"""The version of the protocol that is spoken: what `/version` says, and clients compare theirs with."""


@dataclass(frozen=True)
class Context:
    """What handlers work with."""

    store: FullStore
    artifacts: LocalArtifacts


Handler = Callable[[Context, Fields], Mapping[str, object]]
"""Answers a call whose request and response are JSON messages."""

RawHandler = Callable[[Context, Request, str], Response]
"""Answers a call that moves bytes; told what stands in the route's place of `*`, percent-decoded."""

_V2 = "2.0/mlflow/"
_V3 = "3.0/mlflow/"

CALLS: dict[tuple[str, str], Handler] = {
    **{
        (method, _V2 + path): handler
        for part in (experiments, runs, artifacts, models, registry)
        for (method, path), handler in part.CALLS.items()
    },
    ("GET", _V3 + "server-info"): artifacts.server_info,
}

_TEMPLATES = [(method, path.split("/"), handler) for (method, path), handler in CALLS.items() if "{" in path]

STREAMS: dict[tuple[str, str], RawHandler] = {
    ("GET", "2.0/mlflow-artifacts/artifacts"): artifacts.list_proxied,
    ("GET", "2.0/mlflow-artifacts/artifacts/*"): artifacts.download,
    ("HEAD", "2.0/mlflow-artifacts/artifacts/*"): artifacts.download,
    ("PUT", "2.0/mlflow-artifacts/artifacts/*"): artifacts.upload,
    ("DELETE", "2.0/mlflow-artifacts/artifacts/*"): artifacts.delete,
}


class Api:
    """Answers requests.  `handle` never raises for what a client can do."""

    def __init__(self, store: FullStore, artifact_store: LocalArtifacts) -> None:
        self.context = Context(store, artifact_store)

    def handle(self, request: Request) -> Response:
        try:
            return self._answer(request)
        except Problem as problem:
            return problem_response(problem)
        except RunprojError as error:
            return problem_response(as_problem(error))
        except Exception as bug:
            import logging

            logging.getLogger(__name__).exception("%s %s", request.method, request.path)
            return problem_response(Problem("INTERNAL_ERROR", f"Internal error: {bug!r}", 500))

    def _answer(self, request: Request) -> Response:
        route = _route(request.path)
        if route is None:
            match request.path:
                case "/health":
                    return text_response("OK")
                case "/version":
                    return text_response(MLFLOW_VERSION)
            return text_response("Not Found", 404)
        if call := CALLS.get((request.method, route)):
            return json_response(call(self.context, read_fields(request)))
        for candidate, place in _candidates(route):
            if stream := STREAMS.get((request.method, candidate)):
                return stream(self.context, request, unquote(place))
        known = any(path == route for _, path in CALLS)
        for method, template, handler in _TEMPLATES:
            if (named := _match(template, route)) is not None:
                known = True
                if method == request.method:
                    return json_response(handler(self.context, read_fields(request, named)))
        return text_response("Method Not Allowed", 405) if known else text_response("Not Found", 404)


def _match(template: Sequence[str], route: str) -> Mapping[str, str] | None:
    """What stands in the places of a template like `logged-models/{model_id}`; None where the route is another."""
    parts = route.split("/")
    if len(parts) != len(template):
        return None
    named: dict[str, str] = {}
    for expected, part in zip(template, parts, strict=True):
        if expected.startswith("{"):
            named[expected[1:-1]] = unquote(part)
        elif expected != part:
            return None
    return named


def _route(path: str) -> str | None:
    """What comes after `/api/` or `/ajax-api/`; None for any other path."""
    for base in ("/api/", "/ajax-api/"):
        if path.startswith(base):
            return path.removeprefix(base).replace("2.0/preview/", "2.0/", 1)
    return None


def _candidates(route: str) -> list[tuple[str, str]]:
    """The route itself, and the routes ending in `*` that it may belong to, with what stands for the `*`."""
    found = [(route, "")]
    base = "2.0/mlflow-artifacts/artifacts/"
    if route.startswith(base):
        found.append((base + "*", route.removeprefix(base)))
    return found


def as_problem(error: RunprojError) -> Problem:
    """The answer to a request that met `error`.  Only what is no fault of the client's has a status above 499.

    A full or broken disk is 507: clients repeat a request after 500 or 503 for minutes, and it would not help.
    """
    match error:
        case AlreadyExistsError():
            return Problem("RESOURCE_ALREADY_EXISTS", str(error))
        case RefusedError():
            return Problem("INVALID_PARAMETER_VALUE", str(error))
        case NotFoundError():
            return missing(str(error))
    return Problem("INTERNAL_ERROR", str(error), 507)
