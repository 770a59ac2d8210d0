"""Files that are named by what they belong to: where they are in the proxied store, hence whose they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from runproj.artifacts.direct import PROXIED
from runproj.server.access import queried_path
from runproj.server.protocol import Request, invalid

if TYPE_CHECKING:
    from runproj.server.rest import Context


def named(use: Context, request: Request, names: Mapping[str, str]) -> str:
    """The path that a listing of the store is asked for."""
    del use, names
    return queried_path(request)


def in_run(use: Context, request: Request, names: Mapping[str, str]) -> str:
    """`path` below the artifacts of a run."""
    del names
    run = use.store.get_run(_asked(request, "run_id", "run_uuid"))
    return _below(run.artifact_uri, _asked(request, "path"))


def in_model(use: Context, request: Request, names: Mapping[str, str]) -> str:
    """`artifact_file_path` below the files of a logged model."""
    return _below(use.store.models.get(names["model_id"]).artifact_uri, _asked(request, "artifact_file_path"))


def in_version(use: Context, request: Request, names: Mapping[str, str]) -> str:
    """`path` below the files of a registered version.  Whose they are is asked of the files: a role on models is not enough."""
    del names
    version = _asked(request, "version")
    if not (version.isascii() and version.isdigit() and len(version) < 19):
        raise invalid(f"Invalid value {version[:100]!r} for parameter 'version' supplied: a whole number is expected.")
    return _below(use.store.versions.get(_asked(request, "name"), int(version)).storage, _asked(request, "path"))


def _asked(request: Request, *names: str) -> str:
    """The value of a field of the query.  Raises `Problem` where it is missing."""
    query = parse_qs(request.query)
    for name in names:
        if name in query:
            return query[name][-1]
    raise invalid(f"Missing value for required parameter '{names[0]}'.")


def _below(location: str, path: str) -> str:
    root = f"{PROXIED}/"
    if not location.startswith(root):
        raise invalid("These files are not kept in the server's own store.")
    return f"{location.removeprefix(root).strip('/')}/{path.lstrip('/')}"
