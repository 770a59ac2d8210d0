"""Uploads in parts, as MLflow's clients make them of large files: create, PUT each part, complete or abort."""

from __future__ import annotations

import contextlib
import posixpath
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from runproj.artifacts.parts import Part
from runproj.errors import NotFoundError
from runproj.server import access
from runproj.server.artifacts import checked_body, checked_path
from runproj.server.fields import Fields, read_fields
from runproj.server.protocol import Problem, Request, Response, invalid, json_response

if TYPE_CHECKING:
    from runproj.server.rest import Context

_MOST_PARTS = 10_000
_PROXY_HEADERS = ("via", "forwarded", "x-forwarded-for", "x-real-ip")


def create(use: Context, request: Request, place: str) -> Response:
    """An id for the upload, and where each part goes.

    Clients send parts without their credentials: the headers that they are told to use are those of this request.
    """
    fields = read_fields(request)
    count = fields.integer("num_parts") or 1
    if not 0 < count <= _MOST_PARTS:
        raise invalid(f"An upload has 1 to {_MOST_PARTS} parts, not {count}.")
    address = _address(request.headers)
    upload = use.artifacts.parts.begin(_target(fields, place))
    headers = {"Authorization": given} if (given := request.headers.get("authorization")) else {}
    credentials = [
        {"url": f"{address}/api/2.0/mlflow-artifacts/mpu/parts/{upload}/{number}", "part_number": number, "headers": headers}
        for number in range(1, count + 1)
    ]
    return json_response({"upload_id": upload, "credentials": credentials})


def store_part(use: Context, request: Request, place: str) -> Response:
    """Keep a part.  Who knows the upload's id may do so, if they may write the file."""
    upload, _, number = place.partition("/")
    path = use.artifacts.parts.path(upload)
    access.check(access.WRITE_FILE, use, place=path)
    if not re.fullmatch("[1-9][0-9]{0,4}", number) or int(number) > _MOST_PARTS:
        raise invalid(f"{number!r} is not the number of a part.")
    tag = use.artifacts.parts.store(upload, int(number), checked_body(request))
    return Response(200, {"ETag": f'"{tag}"'})


def complete(use: Context, request: Request, place: str) -> Response:
    fields = read_fields(request)
    upload = _upload(use, fields, place)
    parts = [Part(part.integer("part_number") or 0, (part.text("etag") or "").strip('"')) for part in fields.messages("parts")]
    use.artifacts.parts.complete(upload, parts, use.artifacts.files)
    return json_response({})


def abort(use: Context, request: Request, place: str) -> Response:
    fields = read_fields(request)
    with contextlib.suppress(NotFoundError):
        use.artifacts.parts.abort(_upload(use, fields, place))
    return json_response({})


def _target(fields: Fields, place: str) -> str:
    """The file that is uploaded: the folder of the request's path, and the name of the client's own file."""
    return checked_path(posixpath.join(place.rstrip("/"), posixpath.basename(fields.required("path"))))


def _upload(use: Context, fields: Fields, place: str) -> str:
    """The upload that is named, which must be of the file that the caller was found to be allowed to write."""
    upload = fields.required("upload_id")
    if use.artifacts.parts.path(upload) != _target(fields, place):
        raise NotFoundError("There is no such upload of that file")
    return upload


def _address(headers: Mapping[str, str]) -> str:
    """Where the client reaches this server.  Behind a proxy that does not say it cannot be known: clients then do without."""
    scheme = headers.get("x-forwarded-proto", "").partition(",")[0].strip().lower()
    if not scheme and any(name in headers for name in _PROXY_HEADERS):
        raise Problem("NOT_IMPLEMENTED", "Multipart upload is not supported for the current artifact repository", 501)
    host = headers.get("x-forwarded-host", "").partition(",")[0].strip() or headers.get("host", "")
    prefix = headers.get("x-forwarded-prefix", "").rstrip("/")
    return f"{'https' if scheme == 'https' else 'http'}://{host}{prefix}"
