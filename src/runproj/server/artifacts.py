"""Calls about files: what is there, and the proxied store through which clients upload and download."""

from __future__ import annotations

import hashlib
import mimetypes
import posixpath
import re
from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from email.utils import formatdate
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

from runproj.core.tracking import ArtifactInfo
from runproj.errors import NotFoundError, StorageError
from runproj.server.access import READ_RUN
from runproj.server.fields import Fields
from runproj.server.protocol import Problem, Request, Response, invalid, json_response
from runproj.server.runs import run_id
from runproj.server.wire import compact

if TYPE_CHECKING:
    from runproj.artifacts.files import Opened
    from runproj.server.rest import Context
    from runproj.server.routes import Calls

_CHUNK = 1 << 20


def list_of_run(use: Context, fields: Fields) -> Mapping[str, object]:
    run = use.store.get_run(run_id(fields))
    found = use.artifacts.list(run, checked_path(fields.text("path") or ""))
    return compact({"root_uri": run.artifact_uri, "files": [file_document(info, info.path) for info in found]})


def server_info(use: Context, fields: Fields) -> Mapping[str, object]:
    """What the server can do beyond the protocol's core: uploads in parts, and nothing that clients would have to use."""
    del use, fields
    return {
        "store_type": "SqlStore",
        "workspaces_enabled": False,
        "trace_archival_enabled": False,
        "multipart_uploads_enabled": True,
        "multipart_downloads_enabled": False,
        "presigned_upload_run_id_supported": False,
        "presigned_upload_model_id_supported": False,
        "features_enabled": {},
    }


def list_proxied(use: Context, request: Request, place: str) -> Response:
    del request
    found = use.artifacts.files.list(checked_path(place))
    return json_response(compact({"files": [file_document(info, posixpath.basename(info.path)) for info in found]}))


def upload(use: Context, request: Request, place: str) -> Response:
    """Store the body.  One that is not what the client says of it (`Content-MD5`, `Content-Digest`) is refused."""
    with use.artifacts.files.writing(checked_path(place)) as file:
        for data in checked_body(request):
            file.write(data)
    return Response(200)


def delete(use: Context, request: Request, place: str) -> Response:
    del request
    use.artifacts.files.remove(checked_path(place))
    return json_response({})


def download(use: Context, request: Request, place: str) -> Response:
    """The file's bytes, or the range of them that is asked for."""
    stack = ExitStack()
    try:
        opened = stack.enter_context(use.artifacts.files.reading(checked_path(place)))
        tag = f'"{opened.sha256}"' if opened.sha256 else f'"{int(opened.changed * 1e6):x}-{opened.size:x}"'
        headers = _headers(opened, posixpath.basename(place), tag)
        if tag in _tags(request.headers.get("if-none-match", "")):
            stack.close()
            return Response(304, headers)
        status, first, last = _asked(request, opened, tag)
        if status != 200:
            headers["Content-Range"] = f"bytes {first}-{last}/{opened.size}" if status == 206 else f"bytes */{opened.size}"
        length = max(0, last - first + 1)
        chunks = opened.chunks(first, last) if length and request.method != "HEAD" else iter(())
        return Response(status, headers, chunks=_Chunks(chunks, stack), length=length)
    except NotFoundError:
        stack.close()
        if use.artifacts.files.list(checked_path(place)):
            raise invalid(f"{place!r} is a folder; its files can be downloaded.") from None
        raise
    except BaseException:
        stack.close()
        raise


def _headers(opened: Opened, name: str, tag: str) -> dict[str, str]:
    headers = {
        "Content-Type": mimetypes.guess_type(name)[0] or "application/octet-stream",
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(name)}",
        "Accept-Ranges": "bytes",
        "Last-Modified": formatdate(opened.changed, usegmt=True),
        "ETag": tag,
    }
    if opened.sha256:
        headers["Repr-Digest"] = f"sha-256=:{b64encode(bytes.fromhex(opened.sha256)).decode()}:"
    return headers


def _tags(header: str) -> set[str]:
    return {tag.strip().removeprefix("W/") for tag in header.split(",")}


def _asked(request: Request, opened: Opened, tag: str) -> tuple[int, int, int]:
    """Status, first and last byte of what a request wants of the file: a range only of the file that the client means."""
    found = re.fullmatch(r"bytes=(\d*)-(\d*)", request.headers.get("range", ""))
    if found is None or request.headers.get("if-range", tag) != tag:
        return 200, 0, opened.size - 1
    return _range(found.group(1), found.group(2), opened.size)


def _range(first: str, last: str, size: int) -> tuple[int, int, int]:
    """Status, first and last byte of what `bytes=FIRST-LAST` asks of a file."""
    if not first and last:
        return (206, max(0, size - int(last)), size - 1) if int(last) and size else (416, 0, -1)
    if not first or int(first) >= size or (last and int(last) < int(first)):
        return 416, 0, -1
    return 206, int(first), min(int(last), size - 1) if last else size - 1


class _Chunks:
    """The bytes of a file, which is closed with it, whether it was read or not.

    The first of them are read at once, so that a small file that is damaged is an error, not half an answer.
    """

    def __init__(self, chunks: Iterator[bytes], stack: ExitStack) -> None:
        self._next, self._rest, self._stack = next(chunks, b""), chunks, stack

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if not self._next:
            raise StopIteration
        data = self._next
        try:
            self._next = next(self._rest, b"")
        except StorageError as error:
            import logging

            logging.getLogger(__name__).error("%s", error)
            self._next = b""  # fewer bytes than announced: the client sees that it does not have the file
        return data

    def close(self) -> None:
        self._stack.close()


def file_document(info: ArtifactInfo, path: str) -> dict[str, object]:
    return compact({"path": path, "is_dir": info.size is None, "file_size": info.size})


def checked_path(path: str) -> str:
    """A path from outside, refused where any reading of it leaves the root.  Raises `Problem`."""
    seen = path
    for _ in range(5):
        parts = seen.split("/")
        if seen.startswith("/") or ".." in parts or "\\" in seen or "\0" in seen or (seen and not posixpath.basename(seen)):
            raise Problem("INVALID_PARAMETER_VALUE", f"Invalid path: {path!r}")
        seen = unquote(seen)
    return path


def checked_body(request: Request) -> Iterator[bytes]:
    """The bytes of a request, which are what its headers say of them.  Raises `Problem` at the end."""
    expected = _digests(request.headers)
    found = {name: hashlib.new(name, usedforsecurity=False) for name in expected}
    while data := request.body.read(_CHUNK):
        for digest in found.values():
            digest.update(data)
        yield data
    for name, digest in found.items():
        if digest.digest() != expected[name]:
            raise Problem("BAD_REQUEST", f"The body is not what was sent: its {name} is {digest.hexdigest()}.")


def _digests(headers: Mapping[str, str]) -> dict[str, bytes]:
    """What a client says of its body: names of hashes, and their values.  Raises `Problem`."""
    given = [("md5", headers["content-md5"])] if "content-md5" in headers else []
    given += re.findall(r"(sha-256|sha-512)=:([^:]*):", headers.get("content-digest", ""))
    try:
        return {name.replace("-", ""): b64decode(value, validate=True) for name, value in given}
    except ValueError:
        raise Problem("BAD_REQUEST", "The digest of the body is not in base64.") from None


CALLS: Calls = {("GET", "artifacts/list"): (list_of_run, READ_RUN)}
