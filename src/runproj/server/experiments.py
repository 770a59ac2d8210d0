"""Calls about experiments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from runproj.core.access import experiment_number
from runproj.core.run import Lifecycle, Tag
from runproj.core.search import EXPERIMENTS, parse_filter, parse_order
from runproj.server import limits
from runproj.server.access import ADMIN_EXPERIMENT, ANY_USER, READ_EXPERIMENT, WRITE_EXPERIMENT
from runproj.server.fields import Fields
from runproj.server.paging import bounded, offset_of, page, view
from runproj.server.places import check_location
from runproj.server.protocol import invalid, missing
from runproj.server.wire import compact, experiment_document

if TYPE_CHECKING:
    from runproj.server.rest import Context
    from runproj.server.routes import Calls

_EMPTY: Mapping[str, object] = {}


def create(use: Context, fields: Fields) -> Mapping[str, object]:
    name = limits.check_experiment_name(fields.required("name"))
    location = fields.text("artifact_location") or ""
    if location:
        location = check_location(use, location)
    tags = [Tag(item.required("key"), item.text("value") or "") for item in fields.messages("tags")]
    for tag in tags:
        limits.check_tag(tag.key, tag.value, 250, 20_000)
    return {"experiment_id": use.store.experiments.create(name, location, tags, use.caller.account).id}


def get(use: Context, fields: Fields) -> Mapping[str, object]:
    return {"experiment": experiment_document(use.store.experiments.get(fields.required("experiment_id")))}


def get_by_name(use: Context, fields: Fields) -> Mapping[str, object]:
    name = fields.required("experiment_name")
    found = use.store.experiments.named(name)
    if found is None:
        raise missing(f"Could not find experiment with name '{name}'")
    return {"experiment": experiment_document(found)}


def search(use: Context, fields: Fields) -> Mapping[str, object]:
    limit = bounded(fields, None, 50_000)
    condition = parse_filter(fields.text("filter") or "", EXPERIMENTS)
    orders = parse_order(fields.texts("order_by"), EXPERIMENTS)
    offset = offset_of(fields.text("page_token"))
    only = use.caller.readable()
    found = use.store.experiments.search(condition, orders, view(fields, "view_type"), limit + 1, offset, only)
    return page("experiments", [experiment_document(item) for item in found], limit, offset)


def delete(use: Context, fields: Fields) -> Mapping[str, object]:
    use.store.experiments.set_lifecycle(fields.required("experiment_id"), Lifecycle.DELETED)
    return _EMPTY


def restore(use: Context, fields: Fields) -> Mapping[str, object]:
    use.store.experiments.set_lifecycle(fields.required("experiment_id"), Lifecycle.ACTIVE)
    return _EMPTY


def update(use: Context, fields: Fields) -> Mapping[str, object]:
    experiment = fields.required("experiment_id")
    use.store.experiments.rename(experiment, limits.check_experiment_name(fields.required("new_name")))
    return _EMPTY


def set_tag(use: Context, fields: Fields) -> Mapping[str, object]:
    tag = Tag(fields.required("key"), fields.text("value") or "")
    limits.check_tag(tag.key, tag.value, 250, 20_000)
    use.store.experiments.set_tag(fields.required("experiment_id"), tag)
    return _EMPTY


def delete_tag(use: Context, fields: Fields) -> Mapping[str, object]:
    use.store.experiments.delete_tag(fields.required("experiment_id"), fields.required("key"))
    return _EMPTY


def search_datasets(use: Context, fields: Fields) -> Mapping[str, object]:
    experiments = fields.texts("experiment_ids")
    if len(experiments) > 20:
        raise invalid("At most 20 experiments can be searched for datasets at once.")
    numbers = [number for text in use.caller.narrowed(experiments) if (number := experiment_number(text)) is not None]
    found = use.store.lineages.datasets_of(numbers)
    names = ("experiment_id", "name", "digest", "context")
    return compact({"dataset_summaries": [dict(zip(names, row, strict=True)) for row in found]})


CALLS: Calls = {
    ("POST", "experiments/create"): (create, ANY_USER),
    ("GET", "experiments/get"): (get, READ_EXPERIMENT),
    ("GET", "experiments/get-by-name"): (get_by_name, READ_EXPERIMENT),
    ("POST", "experiments/search"): (search, ANY_USER),
    ("GET", "experiments/search"): (search, ANY_USER),
    ("POST", "experiments/delete"): (delete, ADMIN_EXPERIMENT),
    ("POST", "experiments/restore"): (restore, ADMIN_EXPERIMENT),
    ("POST", "experiments/update"): (update, WRITE_EXPERIMENT),
    ("POST", "experiments/set-experiment-tag"): (set_tag, WRITE_EXPERIMENT),
    ("POST", "experiments/delete-experiment-tag"): (delete_tag, WRITE_EXPERIMENT),
    ("POST", "experiments/search-datasets"): (search_datasets, ANY_USER),
}
