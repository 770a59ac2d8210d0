"""Routes of the server itself: is it there, and what does it speak."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runproj.server.protocol import Request, Response, text_response

if TYPE_CHECKING:
    from runproj.server.rest import Context

MLFLOW_VERSION = "3.17.2"
"""The version of the protocol that is spoken: what `/version` says, and clients compare theirs with."""


def health(use: Context, request: Request, place: str) -> Response:
    """The server is there."""
    del use, request, place
    return text_response("OK")


def root(use: Context, request: Request, place: str) -> Response:
    """What a person sees who opens the address in a browser."""
    del use, request, place
    return text_response(
        "This is a tracking server of runproj. It speaks MLflow's protocol; set MLFLOW_TRACKING_URI to this address.\n"
        "There are no pages yet: `runproj runs list` and `runproj runs show RUN` show what is recorded, with\n"
        "RUNPROJ_TRACKING_URI set to this address.\n"
    )


def version(use: Context, request: Request, place: str) -> Response:
    """The version of MLflow whose protocol is spoken."""
    del use, request, place
    return text_response(MLFLOW_VERSION)


def metrics(use: Context, request: Request, place: str) -> Response:
    """Counts for Prometheus, where the server keeps any."""
    del request, place
    if use.metrics is None:
        return text_response("Not Found", 404)
    answer = text_response(use.metrics())
    return Response(200, {"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}, answer.body)


def openapi(use: Context, request: Request, place: str) -> Response:
    """This document."""
    del use, request, place
    from runproj.server.openapi import text

    return Response(200, {"Content-Type": "application/json"}, text().encode())
