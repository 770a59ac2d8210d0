"""Every route of the server with every kind of caller.  A route that is not in the table here fails the tests."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

import pytest

from runproj.core.access import Role
from runproj.core.models import Dataset, DatasetInput, Lineage, ModelVersion
from runproj.core.run import NewRun
from runproj.errors import RunprojError
from runproj.server import openapi
from runproj.server.access import Need
from runproj.server.fields import Fields
from runproj.server.protocol import Problem, Response
from runproj.server.rest import Context
from runproj.server.routes import CALLS, PAGES, STREAMS, every
from support.asked import Asked, asked, message

M = "2.0/mlflow/"
F = "2.0/mlflow-artifacts/artifacts"
U = "2.0/mlflow-artifacts/mpu"

TABLE = {
    "public": ["GET /", "GET /health", "GET /version"],
    "user": [
        "GET /metrics",
        "GET /openapi.json",
        "GET 3.0/mlflow/server-info",
        f"PUT {U}/parts/*",
        f"POST {M}experiments/create",
        f"POST {M}experiments/search",
        f"GET {M}experiments/search",
        f"POST {M}experiments/search-datasets",
        f"POST {M}runs/search",
        f"POST {M}logged-models/search",
    ],
    "read": [
        f"GET {M}experiments/get",
        f"GET {M}experiments/get-by-name",
        f"GET {M}runs/get",
        f"GET {M}metrics/get-history",
        f"GET {M}metrics/get-history-bulk",
        f"GET {M}metrics/get-history-bulk-interval",
        f"GET {M}artifacts/list",
        f"GET {M}logged-models/{{model_id}}",
        f"GET {M}logged-models/{{model_id}}/artifacts/directories",
        f"GET {F}",
        f"GET {F}/*",
        f"HEAD {F}/*",
        "GET /get-artifact",
        "GET /model-versions/get-artifact",
        "GET /ajax-api/2.0/mlflow/logged-models/{model_id}/artifacts/files",
    ],
    "write": [
        f"POST {M}experiments/update",
        f"POST {M}experiments/set-experiment-tag",
        f"POST {M}experiments/delete-experiment-tag",
        f"POST {M}runs/create",
        f"POST {M}runs/update",
        f"POST {M}runs/delete",
        f"POST {M}runs/restore",
        f"POST {M}runs/log-metric",
        f"POST {M}runs/log-parameter",
        f"POST {M}runs/set-tag",
        f"POST {M}runs/delete-tag",
        f"POST {M}runs/log-batch",
        f"POST {M}runs/log-inputs",
        f"POST {M}runs/outputs",
        f"POST {M}runs/log-model",
        f"POST {M}logged-models",
        f"PATCH {M}logged-models/{{model_id}}",
        f"DELETE {M}logged-models/{{model_id}}",
        f"PATCH {M}logged-models/{{model_id}}/tags",
        f"DELETE {M}logged-models/{{model_id}}/tags/{{tag_key}}",
        f"POST {M}logged-models/{{model_id}}/params",
        f"PUT {F}/*",
        "POST /ajax-api/2.0/mlflow/upload-artifact",
        f"POST {U}/create/*",
        f"POST {U}/complete/*",
        f"POST {U}/abort/*",
    ],
    "admin": [
        f"POST {M}experiments/delete",
        f"POST {M}experiments/restore",
        f"DELETE {F}/*",
    ],
    "read models": [
        f"GET {M}registered-models/get",
        f"GET {M}registered-models/search",
        f"POST {M}registered-models/search",
        f"GET {M}registered-models/get-latest-versions",
        f"POST {M}registered-models/get-latest-versions",
        f"GET {M}registered-models/alias",
        f"GET {M}model-versions/get",
        f"GET {M}model-versions/search",
        f"GET {M}model-versions/get-download-uri",
    ],
    "write models": [
        f"POST {M}registered-models/create",
        f"POST {M}registered-models/rename",
        f"PATCH {M}registered-models/update",
        f"DELETE {M}registered-models/delete",
        f"POST {M}registered-models/set-tag",
        f"DELETE {M}registered-models/delete-tag",
        f"POST {M}registered-models/alias",
        f"DELETE {M}registered-models/alias",
        f"POST {M}model-versions/create",
        f"PATCH {M}model-versions/update",
        f"DELETE {M}model-versions/delete",
        f"POST {M}model-versions/transition-stage",
        f"POST {M}model-versions/set-tag",
        f"DELETE {M}model-versions/delete-tag",
    ],
}
"""What each route needs, written down a second time."""

ALLOWED = {
    "anonymous": {"public"},
    "nobody": {"public", "user"},
    "reader": {"public", "user", "read"},
    "writer": {"public", "user", "read", "write"},
    "owner": {"public", "user", "read", "write", "admin"},
    "modeller": {"public", "user", "read models", "write models"},
    "onlooker": {"public", "user", "read models"},
    "everywhere": {"public", "user", "read", "write", "admin"},
    "operator": set(TABLE),
}
"""What each kind of caller may do with the experiment `mine` and with registered models."""


@dataclass
class World:
    """Two experiments with a run and a model each."""

    here: Asked
    mine: str
    other: str
    run: str
    foreign: str
    model: str
    foreign_model: str

    def fields(self) -> dict[str, object]:
        """All that a call may want to know, about `mine`."""
        return {
            "experiment_id": self.mine,
            "experiment_ids": [self.mine],
            "run_id": self.run,
            "key": "k",
            "value": "1",
            "name": "m",
            "max_results": 5,
            "metric_key": "k",
            "version": "1",
            "alias": "best",
        }


@pytest.fixture
def world(isolated: Path) -> Iterator[World]:
    here = asked(isolated / "home")
    for name in ALLOWED:
        if name != "anonymous":
            here.user(name, admin=name == "operator")
            here.users.grant_registry(name, Role.NONE)
    roles = {"reader": Role.READ, "writer": Role.WRITE, "owner": Role.ADMIN}
    mine, other = here.experiment("mine", **roles), here.experiment("other")
    here.users.grant_registry("modeller", Role.WRITE)
    here.users.grant_registry("onlooker", Role.READ)
    here.users.grant_everywhere("everywhere", Role.ADMIN)
    run, foreign = (here.store.create_run(NewRun(experiment, 1)).id for experiment in (mine, other))
    models = [here.store.models.create(experiment, "net", "", "", (), ()).id for experiment in (mine, other)]
    here.store.registry.create("m", "", ())
    storage = here.store.get_run(run).artifact_uri
    here.store.versions.create(ModelVersion("m", 0, storage, storage, 0, 0))
    yield World(here, mine, other, run, foreign, *models)
    here.store.close()


def test_every_route_is_in_the_table():
    known = sorted(line for lines in TABLE.values() for line in lines)
    assert len(known) == len(set(known))
    assert known == sorted(f"{method} {path}" for method, path in [*CALLS, *STREAMS, *PAGES])


def test_every_route_has_a_need():
    assert all(isinstance(route.need, Need) for _, _, route in every())
    assert len(every()) > 200, "each is there for clients old and new, and for pages"


def request(world: World, caller: str, method: str, path: str, mirror: str) -> Response:
    """What the route answers to a caller who asks about `mine`."""
    target = path if path.startswith("/") else mirror + path
    target = target.replace("{model_id}", world.model).replace("{tag_key}", "k")
    target = target.replace("*", f"{world.mine}/{world.run}/artifacts/a.txt")
    fields = world.fields()
    if path == F:
        fields = {"path": f"{world.mine}/{world.run}/artifacts"}
    elif path.endswith("get-by-name"):
        fields = {"experiment_name": "mine"}
    elif "rtifact" in path and path.startswith("/"):
        fields |= {"path": "a.txt", "artifact_file_path": "a.txt"}
    elif "history-bulk" in path:
        fields = {"run_ids": [world.run], "run_id": world.run, "metric_key": "k", "max_results": 5}
    headers = {"authorization": f"Bearer {world.here.tokens[caller]}"} if caller != "anonymous" else {}
    if method in ("GET", "HEAD"):
        return world.here.ask(method, f"{target}?{urlencode(fields, doseq=True)}", **headers)
    if path.endswith("/upload-artifact"):
        return world.here.ask(method, f"{target}?run_uuid={world.run}&path=a.txt", b"x", **headers)
    content = b"x" if path in (f"{F}/*", f"{U}/parts/*") else json.dumps(fields).encode()
    return world.here.ask(method, target, content, content_type="application/json", **headers)


@pytest.mark.parametrize("caller", ALLOWED)
@pytest.mark.parametrize("mirror", ["/api/", "/ajax-api/"])
def test_who_may_do_what(world, caller, mirror):
    wrong = []
    for kind, lines in TABLE.items():
        for line in lines:
            method, path = line.split(" ")
            status = request(world, caller, method, path, mirror).status
            refusal = 401 if caller == "anonymous" else 403
            if (status != refusal) is not (kind in ALLOWED[caller]) or (status in (401, 403) and status != refusal):
                wrong.append((caller, line, status))
    assert not wrong


def test_a_role_on_one_experiment_is_none_on_another(world):
    for caller in ("reader", "writer", "owner"):
        for fields, path in (
            ({"experiment_id": world.other}, "experiments/get"),
            ({"experiment_id": "0" * 3 + world.other}, "experiments/get"),
            ({"experiment_name": "other"}, "experiments/get-by-name"),
            ({"run_id": world.foreign}, "runs/get"),
            ({"run_uuid": world.foreign}, "runs/get"),
            ({"runId": world.foreign}, "runs/get"),
            ({"run_id": [world.run, world.foreign]}, "runs/get"),
            ({"run_id": world.run, "run_uuid": world.foreign}, "runs/get"),
            ({"run_id": world.foreign, "metric_key": "k"}, "metrics/get-history"),
            ({"run_ids": [world.run, world.foreign], "metric_key": "k"}, "metrics/get-history-bulk-interval"),
            ({"run_id": world.foreign}, "artifacts/list"),
        ):
            answer = world.here.call("GET", f"/api/{M}{path}", caller, **fields)
            assert answer.status == 403, (caller, fields, answer.body)
        assert world.here.call("GET", f"/api/{M}logged-models/{world.foreign_model}", caller).status == 403


def test_nothing_of_others_is_written_with_what_is_ones_own(world):
    metric = {"key": "k", "value": 1, "timestamp": 1, "model_id": world.foreign_model}
    for path, fields in (
        ("runs/log-metric", {"run_id": world.run, **metric}),
        ("runs/log-metric", {"run_id": world.run, **metric, "model_id": None, "modelId": world.foreign_model}),
        ("runs/log-batch", {"run_id": world.run, "metrics": [metric]}),
        ("runs/log-inputs", {"run_id": world.run, "models": [{"model_id": world.foreign_model}]}),
        ("runs/outputs", {"run_id": world.run, "models": [{"model_id": world.foreign_model}]}),
        ("runs/set-tag", {"run_uuid": world.foreign, "key": "k", "value": "v"}),
        ("runs/create", {"experiment_id": world.other}),
        ("logged-models", {"experiment_id": world.other, "name": "x"}),
        ("experiments/update", {"experiment_id": world.other, "new_name": "stolen"}),
    ):
        answer = world.here.call("POST", f"/api/{M}{path}", "owner", **fields)
        assert answer.status == 403, (path, fields, answer.body)


def test_lists_hold_what_may_be_read(world):
    def names(caller: str, path: str, kind: str, **fields: object) -> list[str]:
        found = message(world.here.call("POST", f"/api/{M}{path}", caller, **fields)).get(kind, [])
        return sorted(item.get("name") or item["info"]["experiment_id"] for item in found)

    both = [world.mine, world.other]
    assert names("reader", "experiments/search", "experiments", max_results=10) == ["mine"]
    assert names("nobody", "experiments/search", "experiments", max_results=10) == []
    assert names("everywhere", "experiments/search", "experiments", max_results=10) == ["Default", "mine", "other"]
    for path, kind in (("runs/search", "runs"), ("logged-models/search", "models")):
        assert names("reader", path, kind, experiment_ids=both) == [world.mine]
        assert names("nobody", path, kind, experiment_ids=both) == []
        assert names("operator", path, kind, experiment_ids=both) == sorted(both)
    data = Dataset("data", "digest", "local", "x", "", "")
    for run in (world.run, world.foreign):
        world.here.store.lineages.add(run, Lineage((DatasetInput(data, ()),)))
    for caller, seen in (("reader", [world.mine]), ("nobody", []), ("operator", sorted(both))):
        answer = world.here.call("POST", f"/api/{M}experiments/search-datasets", caller, experiment_ids=both)
        assert sorted(str(item["experiment_id"]) for item in message(answer).get("dataset_summaries", [])) == seen
    page = message(world.here.call("GET", f"/api/{M}experiments/search", "reader", max_results=1))
    assert [item["name"] for item in page["experiments"]] == ["mine"] and "next_page_token" not in page


def test_files_belong_to_the_experiment_that_keeps_them(world):
    foreign = f"/api/{F}/{world.other}/{world.foreign}/artifacts/a"
    for caller in ("reader", "owner"):
        for path in (foreign, f"/api/{F}/{world.other}/models/m-1/artifacts/a", f"/api/{F}/x/y", f"/api/{F}/.sha256/x"):
            for method in ("GET", "HEAD", "PUT", "DELETE"):
                assert world.here.call(method, path, caller).status == 403, (caller, method, path)
        for path in ("", world.other, f"{world.other}/{world.foreign}", f"{world.mine}/../{world.other}", "."):
            answer = world.here.call("GET", f"/api/{F}?{urlencode({'path': path})}", caller)
            assert answer.status in (400, 403), (path, answer.body)
        escape = f"/api/{F}/{world.mine}/%2e%2e/{world.other}/a"
        assert world.here.call("GET", escape, caller).status in (400, 403)
        assert world.here.call("GET", f"/api/{F}/?path={world.mine}/x", caller).status in (400, 403)


def test_parts_are_taken_from_who_may_write_the_file(world):
    folder = f"{world.mine}/{world.run}/artifacts"
    made = message(world.here.call("POST", f"/api/{U}/create/{folder}", "writer", num_parts=2, path="x/big.bin"))
    part = f"/api/{U}/parts/{made['upload_id']}/1"
    for caller, status in (("", 401), ("nobody", 403), ("reader", 403), ("modeller", 403), ("writer", 200)):
        assert world.here.call("PUT", part, caller).status == status
    for caller in ("nobody", "reader"):
        end = world.here.call("POST", f"/api/{U}/complete/{folder}", caller, upload_id=made["upload_id"])
        assert end.status == 403


def test_who_makes_an_experiment_may_do_everything_with_it(world):
    made = message(world.here.call("POST", f"/api/{M}experiments/create", "nobody", name="own"))["experiment_id"]
    run = world.here.call("POST", f"/api/{M}runs/create", "nobody", experiment_id=made)
    assert run.status == 200
    run_id = message(run)["run"]["info"]["run_id"]
    assert world.here.call("PUT", f"/api/{F}/{made}/{run_id}/artifacts/a", "nobody").status == 200
    assert world.here.call("GET", f"/api/{M}runs/get", "reader", run_id=run_id).status == 403
    assert world.here.call("POST", f"/api/{M}experiments/delete", "nobody", experiment_id=made).status == 200


def test_models_are_registered_from_what_may_be_read(world):
    for source in (f"runs:/{world.foreign}/model", f"models:/{world.foreign_model}"):
        answer = world.here.call("POST", f"/api/{M}model-versions/create", "modeller", name="m", source=source)
        assert answer.status == 403, answer.body
    world.here.users.grant("modeller", Role.READ, "other")
    answer = world.here.call("POST", f"/api/{M}model-versions/create", "modeller", name="m", source=source)
    assert answer.status == 200, answer.body


def test_what_exists_is_told_to_known_callers_only(world):
    for path in ("/nothing", f"/api/{M}runs/nothing", "/api/", f"/api/{M}experiments/get", "/metrics", "/openapi.json"):
        for method in ("GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "PROPFIND"):
            answer = world.here.ask(method, path)
            assert answer.status == 401, (method, path, answer.status)
            assert "mine" not in answer.body.decode()


def test_the_document_says_what_calls_read(world, monkeypatch):
    """Every call is asked with all fields that it is said to read; whatever else it asks for is missing in the document."""
    for (method, path), (handler, _) in CALLS.items():
        declared = openapi.fields_of(method, path)
        read: set[str] = set()
        fields = Recorder(filled(world, declared, path), read)
        with contextlib.suppress(Problem, RunprojError):
            handler(Context(world.here.store, world.here.artifacts), fields)
        known = {word.split(":")[0].rstrip("!") for word in declared.split()} | set(re.findall(r"{(\w+)}", path))
        assert read <= known, (method, path, read - known)
        source = "".join(file.read_text() for file in Path(openapi.__file__).parent.glob("*.py") if file.name != "openapi.py")
        assert all(f'"{name}"' in source for name in known)


class Recorder(Fields):
    """Fields that know which of them were asked for."""

    def __init__(self, values: dict[str, object], read: set[str]) -> None:
        super().__init__(values)
        self.read = read

    def _raw(self, name: str, *, repeated: bool = False) -> object:
        self.read.add(name)
        return super()._raw(name, repeated=repeated)


def filled(world: World, declared: str, path: str) -> dict[str, object]:
    known = {
        **world.fields(),
        "model_id": world.model,
        "tag_key": "k",
        "experiment_name": "mine",
        "source": f"runs:/{world.run}/m",
    }
    values: dict[str, object] = {"tag_key": "k", "model_id": world.model} if "{" in path else {}
    for word in declared.split():
        name, _, kind = word.partition(":")
        name = name.rstrip("!")
        plain = {"integer": 1, "number": 1.0, "boolean": False, "": known.get(name, "x"), "string[]": [known.get(name, "x")]}
        plain["string[]"] = [world.mine] if name == "experiment_ids" else [world.run] if name == "run_ids" else ["x"]
        if kind.removesuffix("[]") in openapi.MESSAGES:
            continue
        if name not in ("filter", "order_by", "page_token", "view_type", "run_view_type"):
            values[name] = plain[kind]
    return values


def test_the_document_is_complete_and_well_formed(world):
    document = json.loads(openapi.text())
    assert document["openapi"] == "3.1.0"
    operations = [(path, method, one) for path, methods in document["paths"].items() for method, one in methods.items()]
    assert len(operations) == len(CALLS) + len(STREAMS) + len(PAGES)
    assert len({one["operationId"] for _, _, one in operations}) == len(operations)
    for path, _, one in operations:
        named = {parameter["name"] for parameter in one.get("parameters", ()) if parameter["in"] == "path"}
        assert named == set(re.findall(r"{(\w+)}", path))
        assert one["responses"]["200"]
    references = re.findall(r'"\$ref": "#/components/schemas/(\w+)"', openapi.text())
    assert set(references) <= set(document["components"]["schemas"])
    assert message(world.here.call("GET", "/openapi.json", "reader")) == document


def test_files_by_what_they_belong_to(world):
    """The addresses that MLflow's pages have for files: who may not read the experiment may not read them either."""
    here = world.here
    mine = {"authorization": f"Bearer {here.tokens['owner']}"}
    put = here.ask("POST", f"/ajax-api/2.0/mlflow/upload-artifact?run_uuid={world.run}&path=d/a.txt", b"content", **mine)
    assert put.status == 200
    for target in (
        f"/get-artifact?run_id={world.run}&path=d/a.txt",
        "/model-versions/get-artifact?name=m&version=1&path=d/a.txt",
    ):
        found = here.ask("GET", target, **mine)
        assert (found.status, b"".join(found.chunks or ())) == (200, b"content")
        assert found.headers["Content-Disposition"].startswith("attachment")
    for target in (
        f"/get-artifact?run_id={world.run}&path=../../../{world.other}/x",
        f"/get-artifact?run_id={world.run}&path=%2e%2e%2f%2e%2e%2fx",
        f"/get-artifact?run_id={world.run}",
        f"/get-artifact?run_id={world.run}&path=d",
        "/model-versions/get-artifact?name=m&version=x&path=d/a.txt",
    ):
        assert here.ask("GET", target, **mine).status == 400, target
    for target in (f"/get-artifact?run_id={'0' * 32}&path=a", f"/get-artifact?run_id={world.run}&path=none"):
        assert here.ask("GET", target, **mine).status == 404, target
    assert here.ask("GET", f"/get-artifact?run_id={world.foreign}&path=a", **mine).status == 403
    model = f"/ajax-api/2.0/mlflow/logged-models/{world.foreign_model}/artifacts/files?artifact_file_path=a"
    assert here.ask("GET", model, **mine).status == 403
