"""Calls about registered models and their versions."""

from __future__ import annotations

import contextlib
import posixpath
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from runproj.core.models import ModelVersion, Stage
from runproj.core.run import Tag
from runproj.core.search import MODEL_VERSIONS, REGISTERED_MODELS, parse_filter, parse_order
from runproj.errors import NotFoundError, RefusedError
from runproj.server import limits
from runproj.server.access import READ_REGISTRY, WRITE_REGISTRY
from runproj.server.fields import Fields
from runproj.server.paging import bounded, offset_of, page
from runproj.server.places import locate
from runproj.server.protocol import invalid
from runproj.server.wire import compact, registered_model_document, version_document

if TYPE_CHECKING:
    from runproj.server.rest import Context
    from runproj.server.routes import Calls

_EMPTY: Mapping[str, object] = {}
_VERSIONS_TAG = "mlflow.modelVersions"


def create(use: Context, fields: Fields) -> Mapping[str, object]:
    model = use.store.registry.create(_new_name(fields, "name"), fields.text("description") or "", _tags(fields))
    return {"registered_model": registered_model_document(model)}


def get(use: Context, fields: Fields) -> Mapping[str, object]:
    return {"registered_model": registered_model_document(use.store.registry.get(fields.required("name")))}


def rename(use: Context, fields: Fields) -> Mapping[str, object]:
    model = use.store.registry.update(fields.required("name"), new_name=_new_name(fields, "new_name"))
    return {"registered_model": registered_model_document(model)}


def update(use: Context, fields: Fields) -> Mapping[str, object]:
    model = use.store.registry.update(fields.required("name"), description=fields.text("description"))
    return {"registered_model": registered_model_document(model)}


def delete(use: Context, fields: Fields) -> Mapping[str, object]:
    use.store.registry.delete(fields.required("name"))
    return _EMPTY


def search(use: Context, fields: Fields) -> Mapping[str, object]:
    limit, offset = bounded(fields, 100, 1000), offset_of(fields.text("page_token"))
    condition = parse_filter(fields.text("filter") or "", REGISTERED_MODELS)
    orders = parse_order(fields.texts("order_by"), REGISTERED_MODELS)
    found = use.store.registry.search(condition, orders, limit + 1, offset)
    return page("registered_models", [registered_model_document(model) for model in found], limit, offset)


def latest_versions(use: Context, fields: Fields) -> Mapping[str, object]:
    stages = {_stage(stage) for stage in fields.texts("stages")}
    found = use.store.registry.get(fields.required("name")).latest
    return compact({"model_versions": [version_document(item) for item in found if not stages or item.stage in stages]})


def set_tag(use: Context, fields: Fields) -> Mapping[str, object]:
    use.store.registry.set_tag(fields.required("name"), _tag(fields))
    return _EMPTY


def delete_tag(use: Context, fields: Fields) -> Mapping[str, object]:
    use.store.registry.delete_tag(fields.required("name"), fields.required("key"))
    return _EMPTY


def set_alias(use: Context, fields: Fields) -> Mapping[str, object]:
    alias = fields.required("alias")
    if len(alias) > 255 or not re.fullmatch(r"[\w\-]*", alias) or alias.lower() == "latest" or re.fullmatch(r"[vV]\d+", alias):
        raise invalid(f"Invalid alias name: {alias[:100]!r}.")
    use.store.registry.set_alias(fields.required("name"), alias, _number(fields))
    return _EMPTY


def delete_alias(use: Context, fields: Fields) -> Mapping[str, object]:
    use.store.registry.delete_alias(fields.required("name"), fields.required("alias"))
    return _EMPTY


def get_by_alias(use: Context, fields: Fields) -> Mapping[str, object]:
    return {"model_version": version_document(use.store.registry.aliased(fields.required("name"), fields.required("alias")))}


def create_version(use: Context, fields: Fields) -> Mapping[str, object]:
    found = locate(use, fields.required("source"), fields.text("run_id") or "", fields.text("model_id") or "")
    version = ModelVersion(
        name=fields.required("name"),
        version=0,
        source=fields.required("source"),
        storage=found.storage,
        created=0,
        updated=0,
        run_id=found.run,
        run_link=fields.text("run_link") or "",
        model_id=found.model,
        description=fields.text("description") or "",
        tags=tuple(_tags(fields)),
    )
    made = use.store.versions.create(version)
    if found.model:
        _note_on_model(use, found.model, made)
    return {"model_version": version_document(made)}


def _note_on_model(use: Context, model_id: str, made: ModelVersion) -> None:
    """A logged model knows the versions it became.

    Its maker may read the model (`locate`), no more: the tag is the server's own note, and says nothing that a client chose.
    """
    with contextlib.suppress(NotFoundError, RefusedError):  # gone meanwhile, or somebody uses the tag for something else
        use.store.models.extend_tag(model_id, _VERSIONS_TAG, {"name": made.name, "version": made.version})


def get_version(use: Context, fields: Fields) -> Mapping[str, object]:
    return {"model_version": version_document(use.store.versions.get(fields.required("name"), _number(fields)))}


def update_version(use: Context, fields: Fields) -> Mapping[str, object]:
    made = use.store.versions.describe(fields.required("name"), _number(fields), fields.text("description") or "")
    return {"model_version": version_document(made)}


def delete_version(use: Context, fields: Fields) -> Mapping[str, object]:
    use.store.versions.delete(fields.required("name"), _number(fields))
    return _EMPTY


def search_versions(use: Context, fields: Fields) -> Mapping[str, object]:
    limit, offset = bounded(fields, 200_000, 200_000), offset_of(fields.text("page_token"))
    condition = parse_filter(fields.text("filter") or "", MODEL_VERSIONS)
    orders = parse_order(fields.texts("order_by"), MODEL_VERSIONS)
    found = use.store.versions.search(condition, orders, limit + 1, offset)
    return page("model_versions", [version_document(version) for version in found], limit, offset)


def download_uri(use: Context, fields: Fields) -> Mapping[str, object]:
    return {"artifact_uri": use.store.versions.get(fields.required("name"), _number(fields)).storage}


def transition(use: Context, fields: Fields) -> Mapping[str, object]:
    stage, archive = _stage(fields.required("stage")), fields.flag("archive_existing_versions")
    if archive and stage not in (Stage.STAGING, Stage.PRODUCTION):
        raise invalid("archive_existing_versions has a meaning for the stages Staging and Production only.")
    made = use.store.versions.move(fields.required("name"), _number(fields), stage, archive_others=archive)
    return {"model_version": version_document(made)}


def set_version_tag(use: Context, fields: Fields) -> Mapping[str, object]:
    use.store.versions.set_tag(fields.required("name"), _number(fields), _tag(fields))
    return _EMPTY


def delete_version_tag(use: Context, fields: Fields) -> Mapping[str, object]:
    use.store.versions.delete_tag(fields.required("name"), _number(fields), fields.required("key"))
    return _EMPTY


def _new_name(fields: Fields, field: str) -> str:
    name = fields.required(field)
    if not name.strip() or "/" in name or ":" in name or posixpath.normpath(name) != name or name in (".", ".."):
        raise invalid(f"Invalid name for a registered model: {name[:200]!r}.")
    return name


def _number(fields: Fields) -> int:
    number = fields.integer("version")
    if number is None:
        raise invalid("Missing value for required parameter 'version'.")
    return number


def _stage(text: str) -> Stage:
    for stage in Stage:
        if stage.value.lower() == text.lower():
            return stage
    raise invalid(f"Invalid Model Version stage: {text[:100]}. It is one of {', '.join(stage.value for stage in Stage)}.")


def _tag(fields: Fields) -> Tag:
    tag = Tag(fields.required("key"), fields.text("value") or "")
    limits.check_tag(tag.key, tag.value, 250, 100_000)
    return tag


def _tags(fields: Fields) -> list[Tag]:
    return [_tag(item) for item in fields.messages("tags")]


CALLS: Calls = {
    ("POST", "registered-models/create"): (create, WRITE_REGISTRY),
    ("GET", "registered-models/get"): (get, READ_REGISTRY),
    ("POST", "registered-models/rename"): (rename, WRITE_REGISTRY),
    ("PATCH", "registered-models/update"): (update, WRITE_REGISTRY),
    ("DELETE", "registered-models/delete"): (delete, WRITE_REGISTRY),
    ("GET", "registered-models/search"): (search, READ_REGISTRY),
    ("POST", "registered-models/search"): (search, READ_REGISTRY),
    ("GET", "registered-models/get-latest-versions"): (latest_versions, READ_REGISTRY),
    ("POST", "registered-models/get-latest-versions"): (latest_versions, READ_REGISTRY),
    ("POST", "registered-models/set-tag"): (set_tag, WRITE_REGISTRY),
    ("DELETE", "registered-models/delete-tag"): (delete_tag, WRITE_REGISTRY),
    ("POST", "registered-models/alias"): (set_alias, WRITE_REGISTRY),
    ("DELETE", "registered-models/alias"): (delete_alias, WRITE_REGISTRY),
    ("GET", "registered-models/alias"): (get_by_alias, READ_REGISTRY),
    ("POST", "model-versions/create"): (create_version, WRITE_REGISTRY),
    ("GET", "model-versions/get"): (get_version, READ_REGISTRY),
    ("PATCH", "model-versions/update"): (update_version, WRITE_REGISTRY),
    ("DELETE", "model-versions/delete"): (delete_version, WRITE_REGISTRY),
    ("GET", "model-versions/search"): (search_versions, READ_REGISTRY),
    ("GET", "model-versions/get-download-uri"): (download_uri, READ_REGISTRY),
    ("POST", "model-versions/transition-stage"): (transition, WRITE_REGISTRY),
    ("POST", "model-versions/set-tag"): (set_version_tag, WRITE_REGISTRY),
    ("DELETE", "model-versions/delete-tag"): (delete_version_tag, WRITE_REGISTRY),
}
