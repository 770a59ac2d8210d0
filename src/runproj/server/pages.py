"""Routes of the server itself: is it there, and what does it speak."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runproj.server.protocol import Request, Response, text_response

if TYPE_CHECKING:
    from runproj.server.rest import Context

MLFLOW_VERSION = "3.17.2"
"""The version of the protocol that is spoken: what `/version` says, and clients compare theirs with."""


def health(use: Context, request: Request, place: str) -> Response:
    del use, request, place
    return text_response("OK")


def version(use: Context, request: Request, place: str) -> Response:
    del use, request, place
    return text_response(MLFLOW_VERSION)
