"""Every route of the server, with what its caller needs, and how a request finds its route."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, NoReturn
from urllib.parse import unquote

from runproj.core.values import dataclass
from runproj.server import artifacts, experiments, located, models, pages, registry, runs, uploads
from runproj.server.access import ADMIN_FILE, ANY_USER, PUBLIC, READ_FILE, WRITE_FILE, Need
from runproj.server.fields import Fields
from runproj.server.protocol import Request, Response

if TYPE_CHECKING:
    from runproj.server.rest import Context

Handler = Callable[["Context", Fields], Mapping[str, object]]
"""Answers a call whose request and response are JSON messages."""

RawHandler = Callable[["Context", Request, str], Response]
"""Answers a call that moves bytes; told the path of the file: what stands for the route's `*`, percent-decoded, or `?path=`."""

Calls = dict[tuple[str, str], tuple[Handler, Need]]
Streams = dict[tuple[str, str], tuple[RawHandler, Need]]

_MLFLOW = "2.0/mlflow/"

CALLS: Calls = {
    **{
        (method, _MLFLOW + path): found
        for part in (experiments, runs, artifacts, models, registry)
        for (method, path), found in part.CALLS.items()
    },
    ("GET", "3.0/mlflow/server-info"): (artifacts.server_info, ANY_USER),
}
"""Below `/api/` and `/ajax-api/`; those of version 2.0 also below `/api/2.0/preview/`, where old clients look for them."""

STREAMS: Streams = {
    ("GET", "2.0/mlflow-artifacts/artifacts"): (artifacts.list_proxied, READ_FILE),
    ("GET", "2.0/mlflow-artifacts/artifacts/*"): (artifacts.download, READ_FILE),
    ("HEAD", "2.0/mlflow-artifacts/artifacts/*"): (artifacts.download, READ_FILE),
    ("PUT", "2.0/mlflow-artifacts/artifacts/*"): (artifacts.upload, WRITE_FILE),
    ("DELETE", "2.0/mlflow-artifacts/artifacts/*"): (artifacts.delete, ADMIN_FILE),
    ("POST", "2.0/mlflow-artifacts/mpu/create/*"): (uploads.create, WRITE_FILE),
    ("PUT", "2.0/mlflow-artifacts/mpu/parts/*"): (uploads.store_part, ANY_USER),
    ("POST", "2.0/mlflow-artifacts/mpu/complete/*"): (uploads.complete, WRITE_FILE),
    ("POST", "2.0/mlflow-artifacts/mpu/abort/*"): (uploads.abort, WRITE_FILE),
}
"""Below `/api/` and `/ajax-api/`."""

PAGES: Streams = {
    ("GET", "/"): (pages.root, PUBLIC),
    ("GET", "/health"): (pages.health, PUBLIC),
    ("GET", "/version"): (pages.version, PUBLIC),
    ("GET", "/metrics"): (pages.metrics, ANY_USER),
    ("GET", "/openapi.json"): (pages.openapi, ANY_USER),
    ("GET", "/get-artifact"): (artifacts.download, READ_FILE),
    ("GET", "/model-versions/get-artifact"): (artifacts.download, READ_FILE),
    ("GET", "/ajax-api/2.0/mlflow/logged-models/{model_id}/artifacts/files"): (artifacts.download, READ_FILE),
    ("POST", "/ajax-api/2.0/mlflow/upload-artifact"): (artifacts.upload, WRITE_FILE),
}
"""At the path that they name."""

Locate = Callable[["Context", Request, Mapping[str, str]], str]
"""The path, in the proxied store, of the file that a request is about; told what the places of the route's path stand for."""

LOCATED: dict[str, Locate] = {
    "/get-artifact": located.in_run,
    "/model-versions/get-artifact": located.in_version,
    "/ajax-api/2.0/mlflow/logged-models/{model_id}/artifacts/files": located.in_model,
    "/ajax-api/2.0/mlflow/upload-artifact": located.in_run,
}
"""Routes whose file is named by what it belongs to."""


@dataclass(frozen=True)
class Call:
    """A route with JSON messages.  `path` is as documented: `{name}` stands for a value."""

    path: str
    handler: Handler
    need: Need


@dataclass(frozen=True)
class Stream:
    """A route that moves bytes.  `locate` finds the file where the path does not end with it."""

    path: str
    handler: RawHandler
    need: Need
    locate: Locate = located.named


Route = Call | Stream


@dataclass(frozen=True)
class Found:
    """The route of a request, with what its path says."""

    route: Route
    named: Mapping[str, str]
    place: str = ""


_NO_NAMES: Mapping[str, str] = {}
_BASES = ("/api/", "/ajax-api/")


def _paths(path: str) -> Iterator[str]:
    """Where a route of `CALLS` or `STREAMS` is found."""
    for base in _BASES:
        yield base + path
        if path.startswith("2.0/"):
            yield f"{base}2.0/preview/{path.removeprefix('2.0/')}"


def _all() -> Iterator[tuple[str, str, Route]]:
    for (method, path), (handler, need) in CALLS.items():
        for full in _paths(path):
            yield method, full, Call(path, handler, need)
    for (method, path), (stream, need) in STREAMS.items():
        for full in _paths(path):
            yield method, full, Stream(path, stream, need)
    for (method, path), (page, need) in PAGES.items():
        yield method, path, Stream(path, page, need, LOCATED.get(path, located.named))


_EXACT: dict[str, dict[str, Found]] = {}
"""By path, then by method."""
_BELOW: dict[str, dict[str, Route]] = {}
"""Routes that end in `*`, by what comes before it."""
_TEMPLATES: dict[int, list[tuple[list[str], dict[str, Route]]]] = {}
"""Routes with `{name}`, by the number of their parts."""

for _method, _path, _route in _all():
    if _path.endswith("/*"):
        _BELOW.setdefault(_path.removesuffix("*"), {})[_method] = _route
    elif "{" in _path:
        _parts = _path.split("/")
        _same = _TEMPLATES.setdefault(len(_parts), [])
        _methods = next((methods for parts, methods in _same if parts == _parts), None)
        if _methods is None:
            _methods = {}
            _same.append((_parts, _methods))
        _methods[_method] = _route
    else:
        _EXACT.setdefault(_path, {})[_method] = Found(_route, _NO_NAMES)


class WrongMethod(Exception):
    """There is something at that path, but not for that method.  `allowed` are those that there are."""

    def __init__(self, allowed: list[str]) -> None:
        super().__init__()
        self.allowed = allowed


def find(method: str, path: str) -> Found | None:
    """The route of a request; None where there is none.  `path` is as sent.  Raises `WrongMethod`."""
    if methods := _EXACT.get(path):
        return methods.get(method) or (methods.get("GET") if method == "HEAD" else None) or _wrong(methods)
    for above, routes in _BELOW.items():
        if path.startswith(above):
            return Found(routes.get(method) or _wrong(routes), _NO_NAMES, unquote(path[len(above) :]))
    parts = path.split("/")
    for template, routes in _TEMPLATES.get(len(parts), ()):
        if (named := _match(template, parts)) is not None:
            return Found(routes.get(method) or _wrong(routes), named)
    return None


def _wrong(methods: Mapping[str, object]) -> NoReturn:
    raise WrongMethod(sorted(methods))


def _match(template: list[str], parts: list[str]) -> Mapping[str, str] | None:
    named: dict[str, str] = {}
    for expected, part in zip(template, parts, strict=True):
        if expected.startswith("{"):
            named[expected[1:-1]] = unquote(part)
        elif expected != part:
            return None
    return named


def every() -> list[tuple[str, str, Route]]:
    """Method, full path and route of everything that is answered."""
    return list(_all())
