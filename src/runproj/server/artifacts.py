"""Calls about files: what is there, and the proxied store through which clients upload and download."""

from __future__ import annotations

import mimetypes
import posixpath
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from email.utils import formatdate
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import quote, unquote

from runproj.core.tracking import ArtifactInfo
from runproj.errors import NotFoundError
from runproj.server.access import READ_RUN
from runproj.server.fields import Fields
from runproj.server.protocol import Problem, Request, Response, invalid, json_response
from runproj.server.runs import run_id
from runproj.server.wire import compact

if TYPE_CHECKING:
    from runproj.server.rest import Context
    from runproj.server.routes import Calls

_CHUNK = 1 << 18


def list_of_run(use: Context, fields: Fields) -> Mapping[str, object]:
    run = use.store.get_run(run_id(fields))
    found = use.artifacts.list(run, _checked(fields.text("path") or ""))
    return compact({"root_uri": run.artifact_uri, "files": [file_document(info, info.path) for info in found]})


def server_info(use: Context, fields: Fields) -> Mapping[str, object]:
    """What the server can do beyond the protocol's core: nothing that clients would have to use."""
    del use, fields
    return {
        "store_type": "SqlStore",
        "workspaces_enabled": False,
        "trace_archival_enabled": False,
        "multipart_uploads_enabled": False,
        "multipart_downloads_enabled": False,
        "presigned_upload_run_id_supported": False,
        "presigned_upload_model_id_supported": False,
        "features_enabled": {},
    }


def list_proxied(use: Context, request: Request, place: str) -> Response:
    del request
    found = use.artifacts.folder.list(_checked(place))
    return json_response(compact({"files": [file_document(info, posixpath.basename(info.path)) for info in found]}))


def upload(use: Context, request: Request, place: str) -> Response:
    with use.artifacts.folder.writing(_checked(place)) as file:
        while data := request.body.read(_CHUNK):
            file.write(data)
    return Response(200)


def delete(use: Context, request: Request, place: str) -> Response:
    del request
    use.artifacts.folder.remove(_checked(place))
    return json_response({})


def download(use: Context, request: Request, place: str) -> Response:
    """The file's bytes, or the range of them that is asked for."""
    stack = ExitStack()
    try:
        opened = stack.enter_context(use.artifacts.folder.reading(_checked(place)))
        name = posixpath.basename(place)
        headers = {
            "Content-Type": mimetypes.guess_type(name)[0] or "application/octet-stream",
            "Content-Disposition": f"attachment; filename*=UTF-8''{quote(name)}",
            "X-Content-Type-Options": "nosniff",
            "Accept-Ranges": "bytes",
            "Last-Modified": formatdate(opened.changed, usegmt=True),
            "ETag": f'"{int(opened.changed * 1e6):x}-{opened.size:x}"',
        }
        first, last = 0, opened.size - 1
        status = 200
        if found := re.fullmatch(r"bytes=(\d*)-(\d*)", request.headers.get("range", "")):
            status, first, last = _range(found.group(1), found.group(2), opened.size)
            headers["Content-Range"] = f"bytes {first}-{last}/{opened.size}" if status == 206 else f"bytes */{opened.size}"
        opened.file.seek(first)
    except NotFoundError:
        stack.close()
        if use.artifacts.folder.list(_checked(place)):
            raise invalid(f"{place!r} is a folder; its files can be downloaded.") from None
        raise
    except BaseException:
        stack.close()
        raise
    length = max(0, last - first + 1)
    return Response(status, headers, chunks=_Chunks(opened.file, length, stack), length=length)


def _range(first: str, last: str, size: int) -> tuple[int, int, int]:
    """Status, first and last byte of what `bytes=FIRST-LAST` asks of a file."""
    if not first and last:
        return (206, max(0, size - int(last)), size - 1) if int(last) and size else (416, 0, -1)
    if not first or int(first) >= size or (last and int(last) < int(first)):
        return 416, 0, -1
    return 206, int(first), min(int(last), size - 1) if last else size - 1


class _Chunks:
    """The next `length` bytes of a file, which is closed with it, whether it was read or not."""

    def __init__(self, file: BinaryIO, length: int, stack: ExitStack) -> None:
        self._file, self._left, self._stack = file, length, stack

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        data = self._file.read(min(_CHUNK, self._left)) if self._left else b""
        if not data:
            raise StopIteration
        self._left -= len(data)
        return data

    def close(self) -> None:
        self._stack.close()


def file_document(info: ArtifactInfo, path: str) -> dict[str, object]:
    return compact({"path": path, "is_dir": info.size is None, "file_size": info.size})


def _checked(path: str) -> str:
    """A path from outside, refused where any reading of it leaves the root.  Raises `Problem`."""
    seen = path
    for _ in range(5):
        parts = seen.split("/")
        if seen.startswith("/") or ".." in parts or "\\" in seen or "\0" in seen or (seen and not posixpath.basename(seen)):
            raise Problem("INVALID_PARAMETER_VALUE", f"Invalid path: {path!r}")
        seen = unquote(seen)
    return path


CALLS: Calls = {("GET", "artifacts/list"): (list_of_run, READ_RUN)}
