"""The executor's endpoint: who may ask, what happens to the run, how it ends; and the protocol's finer points."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from runproj.core.run import Lifecycle, RunStatus, TagName
from support.endpoint import TOKEN, Served, served
from support.waiting import until


@pytest.fixture(params=["sqlite", "postgresql"])
def here(request: pytest.FixtureRequest, isolated: Path) -> Iterator[Served]:
    uri = request.getfixturevalue("postgres") if request.param == "postgresql" else ""
    with served(isolated / "runproj home", uri) as found:
        yield found


def test_importing_it_is_cheap():
    code = (
        "import sys; import runproj.server.endpoint; print([m for m in ('http', 'sqlite3', 'json', 'email') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Authorization": ""}, 401),
        ({"Authorization": "Bearer wrong"}, 401),
        ({"Authorization": f"Bearer {TOKEN}x"}, 401),
        ({"Authorization": f"Basic {TOKEN}"}, 401),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Host": "evil.example"}, 403),
        ({"Host": "127.0.0.1"}, 403),
    ],
)
def test_who_may_ask(here, headers, status):
    found, content = here.ask("GET", f"/api/2.0/mlflow/runs/get?run_id={here.run.id}", **headers)
    assert found == status, content
    assert (here.run.id.encode() in content) is (status == 200)


def test_the_token_is_needed_for_files_too(here):
    path = "/api/2.0/mlflow-artifacts/artifacts/0/x"
    assert here.ask("PUT", path, b"x", Authorization="")[0] == 401
    assert here.artifacts.files.list("0") == ()


def test_the_state_of_the_run_is_the_executors(here):
    message = here.ok("POST", "runs/update", run_id=here.run.id, status="FAILED", end_time=5, run_name="renamed")
    assert message["run_info"]["run_name"] == "renamed"
    run = here.store.get_run(here.run.id)
    assert (run.status, run.end, run.name) == (RunStatus.RUNNING, None, "renamed")
    assert here.endpoint.reported_status is RunStatus.FAILED


def test_runs_that_are_made_are_children_and_known_while_open(here):
    child = here.ok("POST", "runs/create", experiment_id="0", start_time=1)["run"]
    other = here.ok("POST", "runs/create", experiment_id="0", tags=[{"key": TagName.PARENT, "value": "of another"}])["run"]
    ids = [item["info"]["run_id"] for item in (child, other)]
    assert [here.store.get_run(run_id).tag(TagName.PARENT) for run_id in ids] == [here.run.id, "of another"]
    assert here.endpoint.open_runs() == set(ids)
    here.ok("POST", "runs/update", run_id=ids[0], status="FINISHED", end_time=9)
    assert here.endpoint.open_runs() == {ids[1]}
    here.ok("POST", "runs/update", run_id=ids[0], status="RUNNING")
    assert here.endpoint.open_runs() == set(ids)
    assert here.store.get_run(ids[0]).end == 9


def test_one_connection_serves_many_requests(here):
    connection = here.connect()
    sockets = set()
    for step in range(20):
        body = json.dumps({"run_id": here.run.id, "key": "m", "value": step, "timestamp": 1, "step": step})
        headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
        connection.request("POST", "/api/2.0/mlflow/runs/log-metric", body, headers)
        assert connection.getresponse().read() == b"{}"
        sockets.add(connection.sock)
    assert len(sockets) == 1
    assert len(here.store.history(here.run.id, "m")) == 20


def test_many_at_once(here):
    def log(worker: int) -> None:
        for step in range(10):
            here.ok("POST", "runs/log-metric", run_id=here.run.id, key=f"m{worker}", value=1, timestamp=1, step=step)

    threads = [threading.Thread(target=log, args=(worker,)) for worker in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [len(here.store.history(here.run.id, f"m{worker}")) for worker in range(12)] == [10] * 12


def test_closing_answers_what_has_arrived(here):
    """A request that is half sent when the run ends is still answered; an idle connection is closed at once."""
    idle = here.connect()
    idle.request("GET", "/health", headers={"Authorization": f"Bearer {TOKEN}"})
    idle.getresponse().read()
    until(lambda: [state.name for state in here.endpoint._server._connections.values()] == ["IDLE"])
    body = b"x" * 500_000
    with socket.create_connection(("127.0.0.1", here.port)) as client:
        head = f"PUT /api/2.0/mlflow-artifacts/artifacts/0/late HTTP/1.1\r\nHost: 127.0.0.1:{here.port}\r\n"
        head += f"Authorization: Bearer {TOKEN}\r\nContent-Length: {len(body)}\r\n\r\n"
        client.sendall(head.encode() + body[:1000])
        closer = threading.Thread(target=here.endpoint.close)
        closer.start()
        time.sleep(0.2)
        client.sendall(body[1000:])
        assert client.recv(1000).startswith(b"HTTP/1.1 200 ")
        closer.join(60)
        assert not closer.is_alive()
    with here.artifacts.files.reading("0/late") as found:
        assert found.size == len(body)


def test_closing_is_quick_and_answers_whoever_waits_at_the_door(here):
    body = json.dumps({"run_id": here.run.id, "key": "k", "value": "v"})
    head = f"POST /api/2.0/mlflow/runs/set-tag HTTP/1.1\r\nHost: 127.0.0.1:{here.port}\r\nAuthorization: Bearer {TOKEN}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    silent = socket.create_connection(("127.0.0.1", here.port))
    unfinished = socket.create_connection(("127.0.0.1", here.port))
    unfinished.sendall(head[:30].encode())
    last = socket.create_connection(("127.0.0.1", here.port))
    last.sendall((head + body).encode())
    begin = time.monotonic()
    here.endpoint.close()
    assert time.monotonic() - begin < 25, "30 s are for those who are being answered"
    assert unfinished.recv(1000) == b""
    assert last.recv(1000).startswith(b"HTTP/1.1 200 ")
    assert silent.recv(1000) == b""
    assert here.store.get_run(here.run.id).tag("k") == "v"
    for client in (silent, unfinished, last):
        client.close()


def test_an_upload_that_breaks_off_leaves_nothing(here):
    with socket.create_connection(("127.0.0.1", here.port)) as client:
        head = f"PUT /api/2.0/mlflow-artifacts/artifacts/0/half HTTP/1.1\r\nHost: 127.0.0.1:{here.port}\r\n"
        client.sendall(f"{head}Authorization: Bearer {TOKEN}\r\nContent-Length: 1000\r\n\r\nhalf".encode())
        time.sleep(0.1)
    here.endpoint.close()
    assert not here.artifacts.files.list("0")
    assert [path for path in here.root.rglob("*") if path.is_file()] == []


def test_chunked_uploads(here):
    connection = here.connect()
    parts = iter([b"one ", b"two ", b"three" * 100_000])
    path = "/api/2.0/mlflow-artifacts/artifacts/0/chunked"
    connection.request("PUT", path, parts, {"Authorization": f"Bearer {TOKEN}"}, encode_chunked=True)
    assert connection.getresponse().status == 200
    assert here.ask("GET", path)[1] == b"one two " + b"three" * 100_000


@pytest.mark.parametrize(
    "path", ["../x", "%2e%2e/x", "a/%2e%2e/%2e%2e/x", "%252e%252e/x", "a/..%5c..%5cx", "%2Fetc/x", "a//b", "a/", "x%00y", "."]
)
def test_uploads_cannot_leave_the_root(here, path):
    assert here.ask("PUT", f"/api/2.0/mlflow-artifacts/artifacts/{path}", b"x")[0] == 400
    assert not here.root.exists() or not any(file.is_file() for file in here.root.parent.rglob("x*"))


def test_links_are_not_followed(here, tmp_path):
    (tmp_path / "secret").write_text("secret")
    (here.root / "0").mkdir(parents=True)
    (here.root / "0" / "link").symlink_to(tmp_path)
    (here.root / "0" / "file").symlink_to(tmp_path / "secret")
    base = "/api/2.0/mlflow-artifacts/artifacts"
    for path in ("0/link/secret", "0/file"):
        status, content = here.ask("GET", f"{base}/{path}")
        assert status in (400, 404)
        assert b'"secret"' not in content
    assert here.ask("PUT", f"{base}/0/link/new", b"x")[0] == 400
    assert here.ask("GET", f"{base}?path=0") == (200, b"{}")
    assert here.ask("DELETE", f"{base}/0/link")[0] == 200
    assert (tmp_path / "secret").read_text() == "secret"


def test_ranges_and_heads(here):
    base = "/api/2.0/mlflow-artifacts/artifacts/0/f.txt"
    here.ask("PUT", base, b"0123456789")
    assert here.ask("GET", base, Range="bytes=2-4") == (206, b"234")
    assert here.ask("GET", base, Range="bytes=7-") == (206, b"789")
    assert here.ask("GET", base, Range="bytes=-3") == (206, b"789")
    assert here.ask("GET", base, Range="bytes=20-")[0] == 416
    assert here.ask("HEAD", base) == (200, b"")
    assert here.ask("GET", "/api/2.0/mlflow-artifacts/artifacts/0")[0] == 400
    assert here.ask("GET", "/api/2.0/mlflow-artifacts/artifacts/1")[0] == 404
    listing = json.loads(here.ask("GET", "/api/2.0/mlflow-artifacts/artifacts?path=0")[1])
    assert listing == {"files": [{"path": "f.txt", "is_dir": False, "file_size": 10}]}


def test_what_is_not_there_is_404_and_wrong_verbs_405(here):
    assert here.ask("GET", "/api/3.0/mlflow/traces/x")[0] == 404
    assert here.ask("GET", "/nothing")[0] == 404
    assert here.ask("GET", "/api/2.0/mlflow/runs/create")[0] == 405
    assert here.ask("GET", "/health") == (200, b"OK")
    assert here.ask("GET", "/version")[0] == 200
    assert here.call("GET", "runs/get", run_id="nope")[1]["error_code"] == "RESOURCE_DOES_NOT_EXIST"


def test_bodies_must_be_json_and_of_bounded_size(here):
    path = "/api/2.0/mlflow/runs/set-tag"
    body = json.dumps({"run_id": here.run.id, "key": "k", "value": "v"}).encode()
    assert here.ask("POST", path, body)[0] == 400
    assert here.ask("POST", path, body, Content_Type="text/plain")[0] == 400
    assert here.ask("POST", path, body, Content_Type="application/json; charset=utf-8")[0] == 200
    assert here.ask("POST", path, json.dumps(body.decode()).encode(), Content_Type="application/json")[0] == 200
    assert here.ask("POST", path, b"not json", Content_Type="application/json")[0] == 400
    assert here.ask("POST", path, b"[" * 100_000, Content_Type="application/json")[0] == 400
    with socket.create_connection(("127.0.0.1", here.port)) as client:
        head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{here.port}\r\nAuthorization: Bearer {TOKEN}\r\n"
        client.sendall(f"{head}Content-Type: application/json\r\nContent-Length: 99999999999\r\n\r\n".encode())
        assert client.recv(100).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    ("call", "fields"),
    [
        ("runs/log-metric", {"key": "m", "value": "x", "timestamp": 1}),
        ("runs/log-metric", {"key": "m", "value": 1, "timestamp": -1}),
        ("runs/log-metric", {"key": "m", "value": 1}),
        ("runs/log-metric", {"key": "m", "value": 1, "timestamp": 1, "step": 1.5}),
        ("runs/log-metric", {"key": "m", "value": 1, "timestamp": 1, "step": 2**63}),
        ("runs/log-metric", {"key": "a*b", "value": 1, "timestamp": 1}),
        ("runs/log-metric", {"key": "a//b", "value": 1, "timestamp": 1}),
        ("runs/log-metric", {"key": "../a", "value": 1, "timestamp": 1}),
        ("runs/log-parameter", {"key": "p", "value": 1}),
        ("runs/log-parameter", {"key": "x" * 251, "value": "1"}),
        ("runs/log-batch", {"params": [{"key": "p", "value": "1"}, {"key": "p", "value": "1"}]}),
        ("runs/log-batch", {"params": [{"key": f"p{i}", "value": "1"} for i in range(101)]}),
        ("runs/log-batch", {"metrics": "x"}),
        ("runs/log-batch", {"metrics": [1]}),
        ("runs/set-tag", {"value": "v"}),
        ("runs/set-tag", {"key": "k", "runId": "x", "run_id": "y"}),
        ("runs/search", {"experiment_ids": ["0"], "filter": "nonsense"}),
        ("runs/search", {"experiment_ids": ["x"]}),
        ("runs/search", {"experiment_ids": ["0"], "page_token": "garbage"}),
        ("runs/search", {"experiment_ids": ["0"], "max_results": 50_001}),
        ("experiments/create", {"name": ""}),
        ("experiments/create", {"name": "Default"}),
        ("experiments/create", {"name": "x", "artifact_location": "runs:/x"}),
        ("experiments/create", {"name": "x", "artifact_location": "file:///tmp/x"}),
        ("experiments/create", {"name": "x", "artifact_location": "/tmp/x"}),
        ("experiments/search", {}),
        ("logged-models", {"experiment_id": "0", "name": "a/b"}),
        ("registered-models/create", {"name": "a/b"}),
    ],
)
def test_mistakes_are_the_clients(here, call, fields):
    status, message = here.call("POST", call, **{"run_id": here.run.id, **fields})
    assert status == 400, message
    assert message["error_code"] in ("INVALID_PARAMETER_VALUE", "RESOURCE_ALREADY_EXISTS", "BAD_REQUEST")
    assert here.store.get_run(here.run.id) == here.run


def test_numbers_come_in_many_spellings(here):
    spellings = [1, 1.0, "1", "1.0", "1e0", True]
    for number, value in enumerate(spellings):
        here.ok("POST", "runs/log-metric", runUuid=here.run.id, key="m", value=value, timestamp="5", step=f"{number}.0")
    assert [(point.value, point.step) for point in here.store.history(here.run.id, "m")] == [(1.0, i) for i in range(6)]
    for value, shown in (("NaN", "NaN"), ("Infinity", "Infinity"), ("-Infinity", "-Infinity"), (0.1, 0.1), (-0.0, -0.0)):
        here.ok("POST", "runs/log-metric", run_id=here.run.id, key=f"k{shown}".replace("-", "_"), value=value, timestamp=1)
    data = here.ok("GET", "runs/get", run_id=here.run.id)["run"]["data"]
    shown = {item["key"]: item["value"] for item in data["metrics"]}
    assert (shown["kNaN"], shown["kInfinity"], shown["k_Infinity"], shown["k0.1"]) == ("NaN", "Infinity", "-Infinity", 0.1)
    assert str(shown["k_0.0"]) == "-0.0"


def test_parameters_are_written_once(here):
    here.ok("POST", "runs/log-parameter", run_id=here.run.id, key="lr", value="0.1")
    here.ok("POST", "runs/log-parameter", run_id=here.run.id, key="lr", value="0.1")
    status, message = here.call("POST", "runs/log-parameter", run_id=here.run.id, key="lr", value="0.2")
    assert (status, message["error_code"]) == (400, "INVALID_PARAMETER_VALUE")


def test_deleted_runs_take_nothing(here):
    child = here.ok("POST", "runs/create", experiment_id="0")["run"]["info"]["run_id"]
    for _ in range(2):
        here.ok("POST", "runs/delete", run_id=child)
    assert here.call("POST", "runs/set-tag", run_id=child, key="k", value="v")[0] == 400
    here.ok("POST", "runs/restore", run_id=child)
    here.ok("POST", "runs/set-tag", run_id=child, key="k", value="v")
    here.ok("POST", "runs/delete-tag", run_id=child, key="k")
    assert here.call("POST", "runs/delete-tag", run_id=child, key="k")[0] == 404


def test_of_what_is_noted_at_the_same_time_nothing_is_lost(here):
    here.ok("POST", "registered-models/create", name="m")
    made = here.ok("POST", "logged-models", experiment_id="0", name="net")["model"]["info"]["model_id"]
    model = {"artifact_path": "m", "flavors": {}, "utc_time_created": "2020-01-01 00:00:00", "run_id": here.run.id}

    def note(number: int) -> None:
        for step in range(5):
            text = json.dumps({**model, "number": number * 5 + step})
            here.ok("POST", "runs/log-model", run_id=here.run.id, model_json=text)
            here.ok("POST", "model-versions/create", name="m", source=f"models:/{made}")

    threads = [threading.Thread(target=note, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    history = json.loads(here.store.get_run(here.run.id).tag("mlflow.log-model.history") or "")
    assert sorted(item["number"] for item in history) == list(range(30))
    [noted] = [tag.value for tag in here.store.models.get(made).tags if tag.key == "mlflow.modelVersions"]
    assert sorted(item["version"] for item in json.loads(noted)) == list(range(1, 31))
    here.ok("POST", "runs/set-tag", run_id=here.run.id, key="mlflow.log-model.history", value="mine")
    assert here.call("POST", "runs/log-model", run_id=here.run.id, model_json=json.dumps(model))[0] == 400


def test_experiments(here):
    made = here.ok("POST", "experiments/create", name="e", tags=[{"key": "t", "value": "1"}])["experiment_id"]
    found = here.ok("GET", "experiments/get-by-name", experiment_name="e")["experiment"]
    assert (found["experiment_id"], found["artifact_location"]) == (made, f"mlflow-artifacts:/{made}")
    here.ok("POST", "experiments/set-experiment-tag", experiment_id=made, key="u", value="2")
    names = [item["name"] for item in here.ok("POST", "experiments/search", max_results=10, filter="tags.u = '2'")["experiments"]]
    assert names == ["e"]
    run = here.ok("POST", "runs/create", experiment_id=made)["run"]["info"]["run_id"]
    here.ok("POST", "experiments/delete", experiment_id=made)
    assert here.store.get_run(run).lifecycle is Lifecycle.DELETED
    assert here.call("POST", "experiments/delete", experiment_id=made)[0] == 404
    assert here.call("POST", "runs/create", experiment_id=made)[0] == 400
    assert here.call("POST", "experiments/create", name="e")[1]["error_code"] == "RESOURCE_ALREADY_EXISTS"
    here.ok("POST", "experiments/restore", experiment_id=made)
    here.ok("POST", "experiments/update", experiment_id=made, new_name="f")
    assert here.call("POST", "experiments/update", experiment_id=made, new_name="Default")[0] == 400
    assert here.call("GET", "experiments/get-by-name", experiment_name="e")[0] == 404
    assert here.ok("GET", "experiments/search", max_results=1)["next_page_token"]


def test_pages_of_runs_and_history(here):
    for number in range(5):
        here.ok("POST", "runs/create", experiment_id="0", start_time=10 + number)
        here.ok("POST", "runs/log-metric", run_id=here.run.id, key="m", value=number, timestamp=number)
    starts: list[int] = []
    token = ""
    while True:
        page = here.ok("POST", "runs/search", experiment_ids=["0"], max_results=2, page_token=token)
        starts += [run["info"]["start_time"] for run in page["runs"]]
        token = page.get("next_page_token", "")
        if not token:
            break
    assert starts == [14, 13, 12, 11, 10, 1]
    first = here.ok("GET", "metrics/get-history", run_id=here.run.id, metric_key="m", max_results=3)
    rest = here.ok("GET", "metrics/get-history", run_id=here.run.id, metric_key="m", page_token=first["next_page_token"])
    assert [item["value"] for item in first["metrics"] + rest["metrics"]] == [0, 1, 2, 3, 4]
    bulk = here.ok("GET", "metrics/get-history-bulk-interval", run_ids=[here.run.id], metric_key="m", max_results=2)
    assert bulk["metrics"][-1]["value"] == 4
    assert here.ok("GET", "metrics/get-history", run_id="nobody", metric_key="m") == {}


def test_a_run_that_is_asked_for_twice_with_an_id_of_the_clients_is_made_once(here):
    tags = [{"key": "runproj.spool", "value": "chosen-1"}]
    asked = {"experiment_id": "0", "run_id": "chosen-1", "run_name": "one", "tags": tags}
    first = here.ok("POST", "runs/create", **asked)
    assert first["run"]["info"]["run_id"] == "chosen-1"
    assert here.ok("POST", "runs/create", **asked)["run"]["info"] == first["run"]["info"]
    for wrong in ([{"key": "runproj.spool", "value": "another"}], [{"key": "runproj.spool", "value": here.run.id}]):
        status, _ = here.call("POST", "runs/create", **{**asked, "tags": wrong})
        assert status == 400
    assert here.call("POST", "runs/create", **{**asked, "run_id": here.run.id})[0] == 400
    assert here.call("POST", "runs/create", **{**asked, "run_id": "../x"})[0] == 400
    without = here.ok("POST", "runs/create", experiment_id="0", run_id="chosen-2")
    assert without["run"]["info"]["run_id"] != "chosen-2"
