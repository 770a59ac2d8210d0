"""The protocol without a network: requests of this process's own client, answered from a store."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from runproj.artifacts import open_direct
from runproj.core.access import OPERATOR
from runproj.server.protocol import Request, Response
from runproj.server.rest import Api, Context, answered, find_route
from runproj.tracking import open_full_store


class InProcess:
    """Answers like the server of the store at `uri`; `place` as of `open_artifacts`."""

    def __init__(self, uri: str, home: Path, place: str = "") -> None:
        self._store = open_full_store(uri, home=home)
        self._api = Api(Context(self._store, open_direct(uri, home=home, environ=os.environ, place=place)))

    def exchange(self, method: str, path: str, body: bytes | IO[bytes] | None, headers: Mapping[str, str]) -> tuple[int, bytes]:
        """Status and content of the answer to a request."""
        place, _, query = path.partition("?")
        source = io.BytesIO(body or b"") if body is None or isinstance(body, bytes) else body
        given = {name.lower(): value for name, value in headers.items()}
        length = len(body) if isinstance(body, bytes) else int(given.get("content-length", 0))
        request = Request(method, place, query, given, source, length)
        response = answered(request, self._answer)
        if response.chunks is None:
            return response.status, response.body
        try:
            return response.status, b"".join(response.chunks)
        finally:
            response.chunks.close()

    def _answer(self, request: Request) -> Response:
        found = find_route(request)
        return found if isinstance(found, Response) else self._api.answer(request, found, OPERATOR)

    def close(self) -> None:
        """Let go of the store."""
        self._store.close()
