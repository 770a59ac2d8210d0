"""A tracking server that is away, in trouble, or none at all."""

from __future__ import annotations

import base64
import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from runproj import remote
from runproj.client import wire
from runproj.core.run import NewRun, RunQuery
from runproj.errors import NotFoundError, RefusedError, TrackingError, UsageError
from runproj.tracking import open_store
from support.endpoint import served

SECRETS = {"MLFLOW_TRACKING_USERNAME": "somebody", "MLFLOW_TRACKING_PASSWORD": "hunter2"}


class Script(HTTPServer):
    """Answers with what it is told to, one after the other, and remembers what it was asked."""

    def __init__(self, answers: list[tuple[int, bytes]]) -> None:
        self.answers = answers
        self.asked: list[tuple[str, str, str]] = []
        super().__init__(("127.0.0.1", 0), Player)

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/base"


class Player(BaseHTTPRequestHandler):
    server: Script

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.asked.append((self.command, self.path, self.headers.get("Authorization", "")))
        status, body = self.server.answers.pop(0) if len(self.server.answers) > 1 else self.server.answers[0]
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET  # noqa: N815 - the standard library's name

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Script]]:
    monkeypatch.setattr(remote, "_PAUSES", (0.0, 0.01, 0.02))
    started: list[Script] = []

    def start(*answers: tuple[int, bytes]) -> Script:
        started.append(Script(list(answers)))
        threading.Thread(target=started[-1].serve_forever, daemon=True).start()
        return started[-1]

    yield start
    for server in started:
        server.shutdown()
        server.server_close()


def store_at(uri: str, **environ: str):
    return open_store(uri, home=Path("/nowhere"), environ=environ)


def test_nobody_there(script):
    store = store_at("http://somebody:hunter2@127.0.0.1:9")
    with pytest.raises(TrackingError, match="cannot be reached") as caught:
        store.get_run("x")
    assert "hunter2" not in str(caught.value)
    assert "127.0.0.1:9" in str(caught.value)
    assert "refused" in caught.value.why


REFUSAL = b'{"error_code": "INVALID_PARAMETER_VALUE", "message": "too large for us"}'


@pytest.fixture
def rude() -> Iterator[str]:
    """A server that refuses everything as soon as it knows what it is, and hangs up on whoever is still sending."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    with listener.accept()[0] as connection:
                        connection.recv(100)
                        head = b"HTTP/1.1 413 X\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(REFUSAL)
                        connection.sendall(head + REFUSAL)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_a_refusal_is_heard_before_the_body_was_sent(rude, tmp_path):
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(30_000_000)
    server = remote.Remote(rude, {})
    with path.open("rb") as file, pytest.raises(RefusedError, match="too large for us"):
        server.upload("0/x/artifacts/large", file, 30_000_000)
    with pytest.raises(RefusedError, match="too large for us"):  # a part of a larger one
        server.put("/api/2.0/mlflow-artifacts/mpu/parts/x/1", bytes(8 << 20))
    with pytest.raises(wire.Rejected, match="too large for us"):
        wire.Server(wire.Http(rude, {})).put("0/x/artifacts/large", str(path))


def test_credentials_are_sent_and_never_shown(script):
    server = script((401, b"hunter2 is wrong" * 100))
    login = "Basic " + base64.b64encode(b"somebody:hunter2").decode()
    for store in (store_at(server.uri, **SECRETS), store_at(server.uri.replace("//", "//somebody:hunter2@"))):
        with pytest.raises(TrackingError, match="refuses access") as caught:
            store.get_run("x")
        assert "hunter2" not in str(caught.value)
        assert "is wrong" in caught.value.why
    store = store_at(server.uri, MLFLOW_TRACKING_TOKEN="token\n")
    with pytest.raises(TrackingError):
        store.get_run("x")
    assert [asked[2] for asked in server.asked] == [login, login, "Bearer token"]
    assert {asked[1] for asked in server.asked} == {"/base/api/2.0/mlflow/runs/get?run_id=x"}
    with pytest.raises(UsageError) as wrong:
        store_at(server.uri, MLFLOW_TRACKING_TOKEN="to\nken")
    assert "ken\n" not in str(wrong.value)


def test_trouble_that_passes_is_waited_for(script):
    run = b'{"run": {"info": {"run_id": "x", "status": "RUNNING", "start_time": "5", "lifecycle_stage": "active"}}}'
    server = script((503, b"busy"), (502, b""), (200, run))
    found = store_at(server.uri).get_run("x")
    assert (found.id, found.start) == ("x", 5)
    assert len(server.asked) == 3


def test_trouble_that_stays_is_told(script):
    server = script((500, b"<html>oh no</html>"))
    with pytest.raises(TrackingError, match="status 500") as caught:
        store_at(server.uri).get_run("x")
    assert "oh no" in caught.value.why
    assert len(server.asked) == 3


def test_a_run_is_never_made_twice(script):
    server = script((503, b"busy"))
    with pytest.raises(TrackingError):
        store_at(server.uri).create_run(NewRun("0", 1))
    assert len(server.asked) == 1


@pytest.mark.parametrize("body", [b"<html>hello</html>", b"[]", b"{}"])
def test_something_else_answers(script, body):
    with pytest.raises(TrackingError, match="answer"):
        store_at(script((200, body)).uri).get_run("x")


def test_a_kept_connection_that_the_server_closed(isolated):
    """Servers close idle connections when they like; the next request takes a new one."""
    with served(isolated / "home") as here:
        environ = {"MLFLOW_TRACKING_TOKEN": here.environment["MLFLOW_TRACKING_TOKEN"]}
        store = store_at(here.environment["MLFLOW_TRACKING_URI"], **environ)
        assert store.get_run(here.run.id).id == here.run.id
        store.remote._local.connection.sock.shutdown(2)
        assert [run.id for run in store.search(RunQuery())] == [here.run.id]
        with pytest.raises(NotFoundError):
            store.get_run("nobody")
        assert store.get_run(here.run.id).id == here.run.id


def test_no_proxy_is_obeyed():
    for host, names, expected in [
        ("a.example.org", "example.org", True),
        ("a.example.org", ".example.org, x", True),
        ("example.org", "*.example.org", True),
        ("badexample.org", "example.org", False),
        ("anything", "*", True),
        ("localhost", "", False),
        ("localhost", "localhost:80", True),
    ]:
        assert remote._bypassed(host, names) is expected


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("http://user:pass@host:5000/base/?token=x", "http://host:5000/base"),
        ("https://user@[::1]:5000", "https://[::1]:5000"),
        ("https://host", "https://host"),
    ],
)
def test_an_address_is_shown_without_what_opens_the_door(uri: str, shown: str) -> None:
    assert remote.scrubbed(uri) == shown
