"""Calls about experiments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from runproj.core.run import Tag
from runproj.server import limits
from runproj.server.fields import Fields
from runproj.server.protocol import invalid, missing
from runproj.server.wire import experiment_document

if TYPE_CHECKING:
    from runproj.server.rest import Context, Handler

_EMPTY: Mapping[str, object] = {}


def create(use: Context, fields: Fields) -> Mapping[str, object]:
    name = limits.check_experiment_name(fields.required("name"))
    location = fields.text("artifact_location") or ""
    if location.startswith("runs:") or "#" in location or "?" in location:
        raise invalid(f"Artifact location {location!r} cannot be used: it must be a location of its own, without '#' and '?'.")
    tags = [Tag(item.required("key"), item.text("value") or "") for item in fields.messages("tags")]
    for tag in tags:
        limits.check_tag(tag.key, tag.value, 250, 20_000)
    return {"experiment_id": use.store.experiments.create(name, location, tags).id}


def get(use: Context, fields: Fields) -> Mapping[str, object]:
    return {"experiment": experiment_document(use.store.experiments.get(fields.required("experiment_id")))}


def get_by_name(use: Context, fields: Fields) -> Mapping[str, object]:
    name = fields.required("experiment_name")
    found = use.store.experiments.named(name)
    if found is None:
        raise missing(f"Could not find experiment with name '{name}'")
    return {"experiment": experiment_document(found)}


CALLS: dict[tuple[str, str], Handler] = {
    ("POST", "experiments/create"): create,
    ("GET", "experiments/get"): get,
    ("GET", "experiments/get-by-name"): get_by_name,
}
