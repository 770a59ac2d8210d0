"""The OpenAPI 3.1 document of the server, made from its routes and from what each call reads."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Mapping

from runproj import __version__
from runproj.server.access import Need, Subject
from runproj.server.routes import CALLS, PAGES, STREAMS

_PAGED = "max_results:integer page_token"
_SEARCH = f"filter order_by:string[] {_PAGED}"
_RUN = "run_id! run_uuid"
_METRIC = "key! value!:number timestamp!:integer step:integer model_id dataset_name dataset_digest"

MESSAGES: Mapping[str, str] = {
    "Tag": "key! value",
    "Param": "key! value",
    "Metric": _METRIC,
    "Dataset": "name! digest! source_type source schema profile",
    "DatasetInput": "tags:Tag[] dataset:Dataset",
    "ModelInput": "model_id!",
    "ModelOutput": "model_id! step:integer",
    "ModelDataset": "dataset_name! dataset_digest",
    "ModelOrder": "field_name! ascending:boolean",
}
"""Messages inside requests: `name:type`, `!` for what must be there; text where no type is said."""

FIELDS: Mapping[str, str] = {
    "POST experiments/create": "name! artifact_location tags:Tag[]",
    "GET experiments/get": "experiment_id!",
    "GET experiments/get-by-name": "experiment_name!",
    "POST experiments/search": f"{_SEARCH} view_type",
    "GET experiments/search": f"{_SEARCH} view_type",
    "POST experiments/delete": "experiment_id!",
    "POST experiments/restore": "experiment_id!",
    "POST experiments/update": "experiment_id! new_name!",
    "POST experiments/set-experiment-tag": "experiment_id! key! value",
    "POST experiments/delete-experiment-tag": "experiment_id! key!",
    "POST experiments/search-datasets": "experiment_ids:string[]",
    "POST runs/create": "experiment_id! user_id run_name start_time:integer tags:Tag[] run_id",
    "GET runs/get": _RUN,
    "POST runs/update": f"{_RUN} status end_time:integer run_name",
    "POST runs/delete": _RUN,
    "POST runs/restore": _RUN,
    "POST runs/log-metric": f"{_RUN} {_METRIC}",
    "POST runs/log-parameter": f"{_RUN} key! value",
    "POST runs/set-tag": f"{_RUN} key! value",
    "POST runs/delete-tag": f"{_RUN} key!",
    "POST runs/log-batch": f"{_RUN} metrics:Metric[] params:Param[] tags:Tag[]",
    "POST runs/search": f"experiment_ids:string[] run_view_type {_SEARCH}",
    "POST runs/log-inputs": f"{_RUN} datasets:DatasetInput[] models:ModelInput[]",
    "POST runs/outputs": f"{_RUN} models:ModelOutput[]",
    "POST runs/log-model": f"{_RUN} model_json!",
    "GET metrics/get-history": f"{_RUN} metric_key! {_PAGED}",
    "GET metrics/get-history-bulk": "run_ids:string[] run_id metric_key! start_step:integer end_step:integer max_results:integer",
    "GET metrics/get-history-bulk-interval": (
        "run_ids:string[] run_id metric_key! start_step:integer end_step:integer max_results:integer"
    ),
    "GET artifacts/list": f"{_RUN} path",
    "POST logged-models": "experiment_id! name model_type source_run_id params:Param[] tags:Tag[]",
    "POST logged-models/search": f"experiment_ids!:string[] filter datasets:ModelDataset[] order_by:ModelOrder[] {_PAGED}",
    "GET logged-models/{model_id}": "allow_deleted:boolean",
    "PATCH logged-models/{model_id}": "status!",
    "DELETE logged-models/{model_id}": "",
    "PATCH logged-models/{model_id}/tags": "tags:Tag[]",
    "DELETE logged-models/{model_id}/tags/{tag_key}": "",
    "POST logged-models/{model_id}/params": "params:Param[]",
    "GET logged-models/{model_id}/artifacts/directories": "artifact_directory_path",
    "POST registered-models/create": "name! description tags:Tag[]",
    "GET registered-models/get": "name!",
    "POST registered-models/rename": "name! new_name!",
    "PATCH registered-models/update": "name! description",
    "DELETE registered-models/delete": "name!",
    "GET registered-models/search": _SEARCH,
    "POST registered-models/search": _SEARCH,
    "GET registered-models/get-latest-versions": "name! stages:string[]",
    "POST registered-models/get-latest-versions": "name! stages:string[]",
    "POST registered-models/set-tag": "name! key! value",
    "DELETE registered-models/delete-tag": "name! key!",
    "POST registered-models/alias": "name! alias! version!:integer",
    "DELETE registered-models/alias": "name! alias!",
    "GET registered-models/alias": "name! alias!",
    "POST model-versions/create": "name! source! run_id run_link description model_id tags:Tag[]",
    "GET model-versions/get": "name! version!:integer",
    "PATCH model-versions/update": "name! version!:integer description",
    "DELETE model-versions/delete": "name! version!:integer",
    "GET model-versions/search": _SEARCH,
    "GET model-versions/get-download-uri": "name! version!:integer",
    "POST model-versions/transition-stage": "name! version!:integer stage! archive_existing_versions:boolean",
    "POST model-versions/set-tag": "name! version!:integer key! value",
    "DELETE model-versions/delete-tag": "name! version!:integer key!",
    "GET server-info": "",
}
"""What each call reads, by method and path below `/api/2.0/mlflow/` (server-info: 3.0)."""

LOCATED_BY: Mapping[str, str] = {
    "/get-artifact": f"{_RUN} path!",
    "/model-versions/get-artifact": "name! version!:integer path!",
    "/ajax-api/2.0/mlflow/logged-models/{model_id}/artifacts/files": "artifact_file_path!",
    "/ajax-api/2.0/mlflow/upload-artifact": f"{_RUN} path!",
}
"""What names the file of a route of `LOCATED`, in the query."""

_FIELD = re.compile(r"(\w+)(!?)(?::(\w+)(\[\])?)?")
Schema = dict[str, object]


def fields_of(method: str, path: str) -> str:
    """What a call of `CALLS` reads."""
    return FIELDS[f"{method} {path.split('/mlflow/', 1)[1]}"]


def document() -> Schema:
    """All routes, at the paths that clients of today use."""
    paths: dict[str, Schema] = {}
    for (method, path), (call, need) in CALLS.items():
        paths.setdefault(f"/api/{path}", {})[method.lower()] = _call(method, path, inspect.getdoc(call), need)
    for (method, path), (stream, need) in STREAMS.items():
        full = f"/api/{path.replace('*', '{path}')}"
        paths.setdefault(full, {})[method.lower()] = _stream(method, full, inspect.getdoc(stream), need)
    for (method, path), (page, need) in PAGES.items():
        paths.setdefault(path, {})[method.lower()] = _stream(method, path, inspect.getdoc(page), need)
    schemas = {name: _object(text) for name, text in MESSAGES.items()}
    error = {"type": "object", "properties": {"error_code": {"type": "string"}, "message": {"type": "string"}}}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "runproj server",
            "version": __version__,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": {**schemas, "Error": error},
            "securitySchemes": {"basic": {"type": "http", "scheme": "basic"}, "token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"token": []}, {"basic": []}],
    }


def text() -> str:
    """The document as it is served, and kept in the documentation."""
    return json.dumps(document(), indent=1) + "\n"


def _call(method: str, path: str, words: str | None, need: Need) -> Schema:
    named = [_parameter(name, "path", required=True) for name in re.findall(r"\{(\w+)\}", path)]
    asked = fields_of(method, path)
    found = _operation(method, path, words, need)
    if method == "GET":
        named += [_queried(*field) for field in _FIELD.findall(asked)]
    elif asked:
        found["requestBody"] = {"content": {"application/json": {"schema": _object(asked)}}}
    if named:
        found["parameters"] = named
    found["responses"] = _responses({"application/json": {"schema": {"type": "object"}}})
    return found


def _stream(method: str, path: str, words: str | None, need: Need) -> Schema:
    found = _operation(method, path, words, need)
    named = [_parameter(name, "path", required=True) for name in re.findall(r"\{(\w+)\}", path)]
    if method == "GET" and path.endswith("/artifacts"):
        named.append(_parameter("path", "query", required=False))
    named += [_queried(*field) for field in _FIELD.findall(LOCATED_BY.get(path, ""))]
    if named:
        found["parameters"] = named
    if method == "PUT" or path.endswith("/upload-artifact"):
        found["requestBody"] = {"content": {"application/octet-stream": {}}}
    found["responses"] = _responses({"*/*": {}})
    return found


def _operation(method: str, path: str, words: str | None, need: Need) -> Schema:
    name = re.sub(r"\W+", "_", f"{method.lower()}_{path.removeprefix('/api/')}").strip("_")
    about = need.subject.name.lower()
    found: Schema = {"operationId": name, "x-needs": {"role": need.role.name.lower(), "on": about}}
    if words:
        found["summary"] = words.partition("\n")[0]
    if need.subject is Subject.ANYBODY:
        found["security"] = []
    return found


def _responses(content: Schema) -> Schema:
    error = {"description": "What is wrong", "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}}
    return {"200": {"description": "Done", "content": content}, "default": error}


def _parameter(name: str, place: str, *, required: bool, schema: Schema | None = None) -> Schema:
    return {"name": name, "in": place, "required": required, "schema": schema or {"type": "string"}}


def _queried(name: str, required: str, kind: str, many: str) -> Schema:
    return _parameter(name, "query", required=bool(required), schema=_type(kind, many))


def _type(kind: str, many: str) -> Schema:
    plain: Schema = {"$ref": f"#/components/schemas/{kind}"} if kind in MESSAGES else {"type": kind or "string"}
    return {"type": "array", "items": plain} if many else plain


def _object(asked: str) -> Schema:
    fields = _FIELD.findall(asked)
    found: Schema = {"type": "object", "properties": {name: _type(kind, many) for name, _, kind, many in fields}}
    if required := [name for name, must, _, _ in fields if must]:
        found["required"] = required
    return found
