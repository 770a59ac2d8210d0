"""Calls about logged models."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from runproj.core.models import ModelStatus
from runproj.core.run import Param, Tag
from runproj.core.search import LOGGED_MODELS, Order, parse_filter, parse_order
from runproj.server.access import ANY_USER, READ_MODEL, WRITE_EXPERIMENT, WRITE_MODEL
from runproj.server.fields import Fields
from runproj.server.paging import bounded, offset_of, page
from runproj.server.protocol import invalid
from runproj.server.wire import compact, logged_model_document
from runproj.tracking.names import run_name

if TYPE_CHECKING:
    from runproj.server.rest import Context
    from runproj.server.routes import Calls

_EMPTY: Mapping[str, object] = {}
_STATUSES = (ModelStatus.PENDING, ModelStatus.READY, ModelStatus.UPLOAD_FAILED)


def create(use: Context, fields: Fields) -> Mapping[str, object]:
    name = fields.text("name") or run_name()
    if len(name) > 500 or re.search(r"[/:.%\"']", name):
        raise invalid(f"Invalid model name ({name[:200]!r}) provided. It has more than 500 characters, or one of / : . % \" '.")
    model = use.store.models.create(
        fields.required("experiment_id"),
        name,
        fields.text("model_type") or "",
        fields.text("source_run_id") or "",
        _params(fields),
        _tags(fields),
    )
    return {"model": logged_model_document(model)}


def finalize(use: Context, fields: Fields) -> Mapping[str, object]:
    status = fields.choice("status", _STATUSES)
    if status is None or status is ModelStatus.PENDING:
        raise invalid("Invalid model status: LOGGED_MODEL_READY or LOGGED_MODEL_UPLOAD_FAILED is expected.")
    return {"model": logged_model_document(use.store.models.finalize(fields.required("model_id"), status))}


def get(use: Context, fields: Fields) -> Mapping[str, object]:
    model = use.store.models.get(fields.required("model_id"), deleted=fields.flag("allow_deleted"))
    return {"model": logged_model_document(model)}


def delete(use: Context, fields: Fields) -> Mapping[str, object]:
    use.store.models.delete(fields.required("model_id"))
    return _EMPTY


def search(use: Context, fields: Fields) -> Mapping[str, object]:
    limit, offset = bounded(fields, 50, 1000), offset_of(fields.text("page_token"))
    condition = parse_filter(fields.text("filter") or "", LOGGED_MODELS)
    experiments = fields.texts("experiment_ids")
    if not experiments:
        raise invalid("Missing value for required parameter 'experiment_ids'.")
    datasets = [(item.required("dataset_name"), item.text("dataset_digest") or "") for item in fields.messages("datasets")]
    found = use.store.models.search(use.caller.narrowed(experiments), condition, _orders(fields), limit + 1, offset, datasets)
    return page("models", [logged_model_document(model) for model in found], limit, offset)


def _orders(fields: Fields) -> tuple[Order, ...]:
    texts = []
    for item in fields.messages("order_by"):
        direction = "DESC" if "ascending" in item and not item.flag("ascending") else "ASC"
        texts.append(f"{_quoted(item.required('field_name'))} {direction}")
    return parse_order(texts, LOGGED_MODELS)


def _quoted(field: str) -> str:
    """A field as the search language has it: the name of a metric stands here as it is, with slashes and blanks."""
    entity, dot, key = field.partition(".")
    return f"{entity}.`{key}`" if dot and not re.fullmatch(r"[\w.]+|[`\"].*", key) else field


def set_tags(use: Context, fields: Fields) -> Mapping[str, object]:
    return {"model": logged_model_document(use.store.models.set_tags(fields.required("model_id"), _tags(fields)))}


def delete_tag(use: Context, fields: Fields) -> Mapping[str, object]:
    use.store.models.delete_tag(fields.required("model_id"), fields.required("tag_key"))
    return _EMPTY


def add_params(use: Context, fields: Fields) -> Mapping[str, object]:
    use.store.models.add_params(fields.required("model_id"), _params(fields))
    return _EMPTY


def list_files(use: Context, fields: Fields) -> Mapping[str, object]:
    from runproj.server.artifacts import file_document

    model = use.store.models.get(fields.required("model_id"))
    path = (fields.text("artifact_directory_path") or "").strip("/")
    found = use.artifacts.list_at(model.artifact_uri, path)
    return compact({"root_uri": model.artifact_uri, "files": [file_document(info, info.path) for info in found]})


def _params(fields: Fields) -> list[Param]:
    return [Param(item.required("key"), item.text("value") or "") for item in fields.messages("params")]


def _tags(fields: Fields) -> list[Tag]:
    return [Tag(item.required("key"), item.text("value") or "") for item in fields.messages("tags")]


CALLS: Calls = {
    ("POST", "logged-models"): (create, WRITE_EXPERIMENT),
    ("POST", "logged-models/search"): (search, ANY_USER),
    ("GET", "logged-models/{model_id}"): (get, READ_MODEL),
    ("PATCH", "logged-models/{model_id}"): (finalize, WRITE_MODEL),
    ("DELETE", "logged-models/{model_id}"): (delete, WRITE_MODEL),
    ("PATCH", "logged-models/{model_id}/tags"): (set_tags, WRITE_MODEL),
    ("DELETE", "logged-models/{model_id}/tags/{tag_key}"): (delete_tag, WRITE_MODEL),
    ("POST", "logged-models/{model_id}/params"): (add_params, WRITE_MODEL),
    ("GET", "logged-models/{model_id}/artifacts/directories"): (list_files, READ_MODEL),
}
