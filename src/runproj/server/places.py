"""Where clients may say that files are: locations of experiments, and sources of model versions.

A place is read once, and by one rule: a known scheme, plain parts between single slashes, nothing else that a URI may have.
The server itself opens only what is in its own artifact store, and in folders that those who run it named.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote

from runproj.core.access import Role
from runproj.server.access import allow
from runproj.server.protocol import Problem, invalid

if TYPE_CHECKING:
    from runproj.server.rest import Context

_OWN = "mlflow-artifacts:/"
_ELSEWHERE = ("s3://", "gs://", "gcs://", "az://", "abfs://", "abfss://", "wasb://", "wasbs://", "hdfs://")
"""Stores that a client reads by itself, with credentials of its own; the server never does."""


def check_location(use: Context, location: str) -> str:
    """The location for an experiment's artifacts that a client chose, without a slash at its end.  Raises `Problem`."""
    if use.roots is None:
        if location.startswith("runs:") or "#" in location or "?" in location:
            raise _bad_location(location)
        return location
    location = location.rstrip("/")
    inside = next((root for root in (*use.roots, _OWN) if location.startswith(root.rstrip("/") + "/")), None)
    if inside is None or not _plain(location[len(inside.rstrip("/")) + 1 :]):
        raise _bad_location(location)
    if inside == _OWN and location[len(_OWN) :].partition("/")[0].isdecimal():
        raise _bad_location(location)  # that is where experiments without a choice are
    if use.store.belongings.overlapping(location):
        raise invalid(f"Artifact location {location!r} overlaps with that of another experiment.")
    return location


def _bad_location(location: str) -> Problem:
    return invalid(
        f"Artifact location {location[:500]!r} cannot be used: it must be below mlflow-artifacts:/ or one of the server's"
        " --artifact-root locations, without '..', '%', '?', '#', ';' and '\\'."
    )


def _plain(path: str) -> bool:
    """A path that every reader takes for the same."""
    parts = path.split("/")
    return not any(part in ("", ".", "..") for part in parts) and not re.search(r"[%?#;\\@\x00-\x1f\x7f]", path)


class Origin(NamedTuple):
    """Where the files of what is registered are, and the run and the logged model it comes from, where they are known."""

    storage: str
    run: str
    model: str


_PROMPT = "dummy-source"
"""What MLflow's client names as the source of a prompt, which has no files."""


def locate(use: Context, source: str, run: str, model: str) -> Origin:
    """What a version is made from.  Raises `Problem` for a place outside of its run or model, or of experiments not readable."""
    found = _locate(use, source, run, model)
    runs = [one for one in {run, found.run} if one]
    models = [one for one in {model, found.model} if one]
    allow(use, Role.READ, [*use.store.belongings.of_runs(runs), *use.store.belongings.of_models(models)])
    return found


def _locate(use: Context, source: str, run: str, model: str) -> Origin:
    scheme, _, rest = source.partition(":/")
    once = unquote(source)
    path = re.sub(r"^[\w-]+://", "", once)
    if re.search(r"[?#\\\x00-\x1f\x7f]|//", path) or ".." in path.split("/") or unquote(once) != once:
        raise _bad_source(source)
    match scheme:
        case "models" if source.startswith("models:/m-"):
            return _of_model(use, rest.partition("/")[0], run)
        case "models":
            return _of_version(use, source)
        case "runs":
            return _of_run(use, source, run, model)
        case "mlflow-artifacts" | "file":
            return _inside(use, source, run, model)
    if source.startswith("/"):
        return _inside(use, source, run, model)
    if source == _PROMPT:
        return Origin(source, run, model)
    host = source.partition("://")[2].partition("/")[0]
    if source.startswith(_ELSEWHERE) and host and "@" not in host:
        return Origin(source, run, model)
    raise _bad_source(source)


def _of_model(use: Context, model: str, run: str) -> Origin:
    found = use.store.models.get(model)
    return Origin(found.artifact_uri, run or found.source_run, model)


def _of_version(use: Context, source: str) -> Origin:
    if found := re.fullmatch(r"models:/([^/@]+)/(\d+)", source):
        copied = use.store.versions.get(found[1], int(found[2]))
    elif found := re.fullmatch(r"models:/([^/@]+)@([\w-]+)", source):
        copied = use.store.registry.aliased(found[1], found[2])
    else:
        raise _bad_source(source)
    return Origin(copied.storage, copied.run_id, copied.model_id)


def _of_run(use: Context, source: str, run: str, model: str) -> Origin:
    run_id, _, path = source.removeprefix("runs:/").partition("/")
    if run and run != run_id:
        raise invalid(f"Invalid model version source: {source[:500]!r}. It is not of the run {run!r}.")
    return Origin(f"{use.store.get_run(run_id).artifact_uri}/{path}", run_id, model)


def _inside(use: Context, source: str, run: str, model: str) -> Origin:
    if model and not run:
        run = use.store.models.get(model).source_run
    roots = [use.store.get_run(run).artifact_uri] if run else []
    roots += [use.store.models.get(model).artifact_uri] if model else []
    if not any(source == root or source.startswith(root.rstrip("/") + "/") for root in roots):
        raise _bad_source(source, " It must be inside the artifacts of the run or model given.")
    return Origin(source, run, model)


def _bad_source(source: str, why: str = "") -> Problem:
    return invalid(f"Invalid model version source: {source[:500]!r}.{why}")
