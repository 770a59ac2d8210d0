"""What must not get through the server's door, whoever knocks, and what is refused behind it."""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from runproj.core.run import NewRun
from runproj.server import incoming
from runproj.server.head import MAX_HEAD, Malformed, parse
from runproj.server.http import Limits, Server
from runproj.server.routes import every
from runproj.server.team import Address
from support.asked import HOST, Asked, asked, message

M = "/api/2.0/mlflow/"
F = "/api/2.0/mlflow-artifacts/artifacts"


@pytest.fixture
def here(isolated: Path) -> Iterator[Asked]:
    found = asked(isolated / "home", roots=("s3://team/runs", "file:///srv/shared"))
    yield found
    found.store.close()


@pytest.fixture
def port(here: Asked) -> Iterator[int]:
    """The same behind a socket."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        server = Server(listener, here.gate.handle, limits=Limits(connections=40))
        server.start()
        yield listener.getsockname()[1]
        server.close(timeout=1)


def exchange(port: int, *pieces: bytes) -> bytes:
    """All that comes back until the server closes the connection, which it does when there is nothing more to answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
        found = b""
        with contextlib.suppress(OSError):
            for piece in pieces:
                client.sendall(piece)
                time.sleep(0.02)
            client.shutdown(socket.SHUT_WR)
            while data := client.recv(65536):
                found += data
        return found


def test_an_answer_before_the_end_of_the_body_arrives(port):
    """Also at clients that send everything before they read."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
        client.sendall(
            b"PUT " + F.encode() + b"/0/x HTTP/1.1\r\nHost: " + HOST.encode() + b"\r\nContent-Length: 30000000\r\n\r\n"
        )
        for _ in range(30):
            client.sendall(bytes(1_000_000))
            time.sleep(0.005)
        assert client.recv(65536).startswith(b"HTTP/1.1 413 ")


HOSTS = [
    ("127.0.0.1:5000", True),
    ("localhost:5000", True),
    ("LOCALHOST:5000", True),
    ("[::1]:5000", True),
    ("runs.example.org", True),
    ("runs.example.org:5000", True),
    ("other.example.org:8443", True),
    ("other.example.org", False),
    ("other.example.org:5000", False),
    ("", False),
    ("127.0.0.1", False),
    ("localhost", False),
    ("127.0.0.1:80", False),
    ("127.0.0.1:5000.evil.example", False),
    ("10.evil.example:5000", False),
    ("192.168.evil.example:5000", False),
    ("localhost.evil.example:5000", False),
    ("evil.example", False),
    ("evil.example:5000", False),
    ("127.0.0.1:5000, evil.example", False),
    ("user@127.0.0.1:5000", False),
    ("127.1:5000", False),
    ("2130706433:5000", False),
    ("0.0.0.0:5000", False),
    ("localhost.:5000", False),
]


@pytest.mark.parametrize(("host", "passes"), HOSTS)
def test_only_exact_host_names_pass(here, host, passes):
    address = Address("127.0.0.1", 5000, ("runs.example.org", "other.example.org:8443"))
    gate = type(here.gate)(address.hosts(), here.gate.admit, here.gate.api, pages=True)
    for path in ("/health", f"{M}experiments/get?experiment_id=0", "/nothing"):
        answer = Asked(gate, here.store, here.artifacts, here.users, {}).ask("GET", path, host=host)
        assert (answer.status != 403) is passes, (host, path, answer.status)


ORIGINS = [
    "http://evil.example",
    "null",
    "",
    "http://127.0.0.1",
    "http://127.0.0.1:5001",
    "http://localhost:5000",
    "http://127.0.0.1:5000.evil.example",
    "http://evil.example/127.0.0.1:5000",
    "file://127.0.0.1:5000",
    "chrome-extension://127.0.0.1:5000",
    "127.0.0.1:5000",
]
FORMS = ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/plain; application/json", ""]


def counted(here: Asked) -> list[object]:
    """All that is in the store."""
    tables = (
        "experiments",
        "experiment_tags",
        "runs",
        "params",
        "tags",
        "points",
        "models",
        "registered_models",
        "users",
        "grants",
    )
    with here.store.database.reading() as connection:
        return [connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall() for table in tables]


def test_pages_of_others_change_and_read_nothing(here):
    run = here.store.create_run(NewRun("0", 1)).id
    before = counted(here)
    fields = {"experiment_id": "0", "run_id": run, "key": "k", "value": "v", "name": "n", "timestamp": 1, "new_name": "stolen"}
    for method, path, _ in every():
        target = path.replace("{model_id}", "m-1").replace("{tag_key}", "k").replace("*", f"0/{run}/artifacts/a")
        for origin in ORIGINS:
            answer = here.ask(method, target, json.dumps(fields).encode(), origin=origin, content_type="application/json")
            assert answer.status == 403, (method, target, origin)
        for site in ("cross-site", "same-site"):
            assert here.ask(method, target, b"{}", sec_fetch_site=site, sec_fetch_mode="no-cors").status == 403
    assert counted(here) == before
    assert not here.artifacts.files.list("0")


def test_forms_of_web_pages_are_no_calls(here):
    """Even from a browser that says nothing of the page it shows."""
    run = here.store.create_run(NewRun("0", 1)).id
    before = counted(here)
    fields = {"experiment_id": "0", "run_id": run, "key": "k", "value": "v", "name": "n", "timestamp": 1}
    for method, path, _ in every():
        if method != "POST":
            continue
        target = path.replace("{model_id}", "m-1").replace("*", f"0/{run}/artifacts/a")
        for form in FORMS:
            for body in (json.dumps(fields).encode(), b'{"experiment_id":"0","x":"="}', b""):
                answer = here.ask(method, target, body, content_type=form)
                assert answer.status in (400, 415), (target, form, answer.status)
    assert counted(here) == before


def test_nothing_is_changed_by_asking(here):
    run = here.store.create_run(NewRun("0", 1)).id
    before = counted(here)
    query = f"experiment_id=0&run_id={run}&key=k&value=v&name=n&new_name=x&stage=Production&version=1&alias=a&metric_key=k"
    for method, path, _ in every():
        target = path.replace("{model_id}", "m-1").replace("{tag_key}", "k").replace("*", f"0/{run}/artifacts/a")
        for asking in ("GET", "HEAD", "OPTIONS", "TRACE"):
            here.ask(asking, f"{target}?{query}", b"")
        if method not in ("GET", "HEAD"):
            here.ask("GET", f"{target}?_method={method}&{query}", b"", x_http_method_override=method)
    assert counted(here) == before


def test_the_servers_own_pages_may_ask(here):
    assert here.ask("GET", f"{M}experiments/get?experiment_id=0", origin=f"http://{HOST}").status == 200
    assert here.ask("GET", "/health", sec_fetch_site="cross-site", sec_fetch_mode="navigate").status == 200, "a link is followed"


LOCATIONS = [
    "file:///etc",
    "/etc",
    "file:///srv/shared",
    "file:///srv/shared/../../etc",
    "file:///srv/sharedx/a",
    "s3://team/runs/../other",
    "s3://team/runs/a?versionId=1",
    "s3://team/runs/a#b",
    "s3://team/runs/a;b",
    "s3://team/runs/a%2f..%2fb",
    "s3://other/runs/a",
    "S3://team/runs/a",
    "http://169.254.169.254/latest",
    "https://team/runs",
    "ftp://x/y",
    "dbfs:/x",
    "runs:/x",
    "mlflow-artifacts:/0/other",
    "mlflow-artifacts:/7",
    "mlflow-artifacts:/",
    "mlflow-artifacts://evil.example/x",
    "mlflow-artifacts:/x/../0",
    "mlflow-artifacts:/x//y",
    "mlflow-artifacts:/x\\..\\y",
    "mlflow-artifacts:/x/%2e%2e/0",
    "relative/path",
    "..",
    "\x00",
]


@pytest.mark.parametrize("location", LOCATIONS)
def test_clients_choose_no_location_that_was_not_offered(here, location):
    answer = here.call("POST", f"{M}experiments/create", name="x", artifact_location=location)
    assert answer.status == 400, answer.body
    assert message(answer)["error_code"] == "INVALID_PARAMETER_VALUE"
    assert here.store.experiments.named("x") is None


@pytest.mark.parametrize("location", ["mlflow-artifacts:/team/a", "s3://team/runs/new", "file:///srv/shared/a/b/"])
def test_locations_that_are_offered_can_be_chosen_once(here, location):
    made = message(here.call("POST", f"{M}experiments/create", name="x", artifact_location=location))
    found = message(here.call("GET", f"{M}experiments/get", experiment_id=made["experiment_id"]))["experiment"]
    assert found["artifact_location"] == location.rstrip("/")
    for other in (location, location.rstrip("/") + "/below", location.rstrip("/").rpartition("/")[0]):
        assert here.call("POST", f"{M}experiments/create", name="y", artifact_location=other).status == 400


SOURCES = [
    "/etc",
    "/etc/passwd",
    "file:///etc/passwd",
    "file:/etc",
    "file://localhost/etc",
    "file:///etc/passwd#x",
    "mlflow-artifacts:/0/other/artifacts",
    "mlflow-artifacts:/0/RUN/artifacts/../../other",
    "mlflow-artifacts:/0/RUN/artifacts/%2e%2e/x",
    "mlflow-artifacts:/0/RUN/artifacts/%252e%252e/x",
    "mlflow-artifacts:/0/RUN/artifactsx",
    "mlflow-artifacts://evil.example/0/RUN/artifacts",
    "runs:/RUN/../other",
    "runs:/RUN/a?b",
    "runs:/RUN/a#b",
    "runs:/OTHER/a",
    "models:/",
    "models:/m/x",
    "http://169.254.169.254/latest",
    "https://evil.example/x",
    "ftp://evil.example/x",
    "gopher://evil.example/x",
    "s3://user:password@bucket/x",
    "s3:///x",
    "dbfs:/x/../y",
    "model",
    "./model",
    "../model",
    "\\\\server\\share",
    "C:\\model",
    "runs:/RUN/a\x00",
    "runs:/RUN//etc/passwd",
    "runs:/RUN/%2Fetc/passwd",
    "runs:/RUN/a//b",
    "runs:/RUN/a://b",
    "runs://RUN/etc/passwd",
    "runs:///etc/passwd",
    "models://m/1",
    "models:/m//1",
    "mlflow-artifacts:/0/RUN/artifacts//etc/passwd",
    "file:////etc/passwd",
    "//etc/passwd",
    "s3://bucket//x",
]


@pytest.mark.parametrize("source", SOURCES)
def test_a_model_is_made_of_its_own_run_only(here, source):
    here.store.registry.create("m", "", ())
    run, other = (here.store.create_run(NewRun("0", 1)).id for _ in range(2))
    given = source.replace("RUN", run).replace("OTHER", other)
    for fields in ({"run_id": run}, {"run_id": run, "tags": [{"key": "mlflow.prompt.is_prompt", "value": "true"}]}):
        answer = here.call("POST", f"{M}model-versions/create", name="m", source=given, **fields)
        assert answer.status in (400, 404), answer.body
    assert message(here.call("GET", f"{M}model-versions/search")) == {}


def test_what_a_run_has_can_be_registered(here):
    here.store.registry.create("m", "", ())
    run = here.store.create_run(NewRun("0", 1)).id
    for source in (f"runs:/{run}/model", f"mlflow-artifacts:/0/{run}/artifacts/a b", "s3://bucket/model", "models:/m/1"):
        answer = here.call("POST", f"{M}model-versions/create", name="m", source=source, run_id=run)
        assert answer.status == 200, answer.body


def test_the_server_goes_to_no_address_that_a_client_names(here, monkeypatch):
    """Nothing connects anywhere, whatever fields hold."""
    went: list[object] = []
    monkeypatch.setattr(socket.socket, "connect", lambda self, address: went.append(address) or self.close())
    monkeypatch.setattr(socket, "getaddrinfo", lambda *arguments, **options: went.append(arguments) or [])
    run = here.store.create_run(NewRun("0", 1)).id
    for url in ("http://127.0.0.1:1/x", "http://169.254.169.254/latest", "http://[::ffff:7f00:1]/", "s3://bucket/x", "ftp://x/y"):
        for method, path, _ in every():
            target = path.replace("{model_id}", "m-1").replace("{tag_key}", "k").replace("*", f"0/{run}/artifacts/a")
            names = ("name", "key", "value", "source", "artifact_location", "path", "run_link", "experiment_name", "url")
            fields = {**dict.fromkeys(names, url), "run_id": run, "experiment_id": "0", "timestamp": 1, "max_results": 1}
            here.ask(method, target, json.dumps(fields).encode(), content_type="application/json")
            here.ask("GET", f"{target}?path={url}&run_id={run}", b"")
    assert not went


TRAVERSAL = [
    "..",
    "../secret",
    "a/../../secret",
    "%2e%2e/secret",
    "%2e%2e%2fsecret",
    "%252e%252e%252fsecret",
    "..%5csecret",
    "..\\secret",
    "/etc/passwd",
    "%2fetc%2fpasswd",
    "a/%00",
    "....//secret",
    "a//..//..//secret",
    "./../secret",
    "~/secret",
    "a/./../../secret",
    "%c0%ae%c0%ae/secret",
]


@pytest.mark.parametrize("path", TRAVERSAL)
def test_no_path_leaves_the_root(here, isolated, path):
    run = here.store.create_run(NewRun("0", 1)).id
    (isolated / "home" / "secret").write_text("geheim")
    for target in (f"{F}/{path}", f"{F}/0/{path}", f"{F}?path={path}", f"{M}artifacts/list?run_id={run}&path={path}"):
        for method in ("GET", "HEAD", "PUT", "DELETE", "POST"):
            answer = here.ask(method, target, b"overwritten")
            content = b"".join(answer.chunks or ()) + answer.body
            assert b"geheim" not in content and b"root:" not in content
            assert answer.status in (200, 400, 404, 405), (method, target, answer.status)
    assert (isolated / "home" / "secret").read_text() == "geheim"
    outside = [item.name for item in isolated.iterdir()] + [item.name for item in (isolated / "home").iterdir()]
    assert "passwd" not in outside and outside.count("secret") == 1


def test_a_link_that_is_swapped_in_never_leads_out(here, isolated):
    """Somebody with access to the folder swaps a folder for a link out of it while files below it are asked for."""
    outside = isolated / "outside"
    outside.mkdir()
    (outside / "a").write_text("geheim")
    assert here.ask("PUT", f"{F}/0/run/artifacts/d/a", b"inside").status == 200
    root = next(path for path in (isolated / "home").rglob("d") if path.is_dir())
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            with contextlib.suppress(OSError):
                root.rename(root.with_name("aside"))
                root.symlink_to(outside)
                root.unlink()
                root.with_name("aside").rename(root)

    swapper = threading.Thread(target=swap)
    swapper.start()
    seen = set()
    try:
        for number in range(10_000):
            answer = here.ask("GET", f"{F}/0/run/artifacts/d/a")
            seen.add(answer.status)
            if answer.chunks is not None:
                assert b"".join(answer.chunks) == b"inside"
                answer.chunks.close()
            if number % 100 == 0:
                here.ask("PUT", f"{F}/0/run/artifacts/d/b", b"written")
    finally:
        stop.set()
        swapper.join()
    assert sorted(os.listdir(outside)) == ["a"]
    assert seen <= {200, 400, 404}


def test_what_is_uploaded_is_not_run_by_a_browser(here, port):
    page = b"<script>alert(1)</script>"
    for name in ("a.html", "a.svg", "a.js", "a.xml", "a.xhtml", "a"):
        assert here.ask("PUT", f"{F}/0/r/artifacts/{name}", page).status == 200
        head = exchange(port, f"GET {F}/0/r/artifacts/{name} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n".encode())
        assert head.startswith(b"HTTP/1.1 200 ")
        assert b"\r\nContent-Disposition: attachment" in head
        assert b"\r\nX-Content-Type-Options: nosniff\r\n" in head
        assert b"\r\nContent-Security-Policy: sandbox; default-src 'none'" in head


@pytest.mark.parametrize("path", ["/health", "/nothing", f"{M}runs/get", f"{M}experiments/get?experiment_id=0", "/metrics"])
def test_every_answer_has_a_policy(port, path):
    for method in ("GET", "POST"):
        head = exchange(port, f"{method} {path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n".encode())
        assert head.count(b"\r\nContent-Security-Policy: sandbox; default-src 'none'") == 1
        assert b"Access-Control-Allow" not in head


GOOD = f"GET /health HTTP/1.1\r\nHost: {HOST}\r\n\r\n"


BAD_HEADS = {
    "no version": "GET /health\r\n\r\n",
    "old version": f"GET /health HTTP/0.9\r\nHost: {HOST}\r\n\r\n",
    "new version": f"GET /health HTTP/2.0\r\nHost: {HOST}\r\n\r\n",
    "long version": f"GET /health HTTP/1.10\r\nHost: {HOST}\r\n\r\n",
    "two blanks": f"GET  /health HTTP/1.1\r\nHost: {HOST}\r\n\r\n",
    "tab": f"GET\t/health HTTP/1.1\r\nHost: {HOST}\r\n\r\n",
    "blank in target": f"GET /a b HTTP/1.1\r\nHost: {HOST}\r\n\r\n",
    "fragment": f"GET /health#x HTTP/1.1\r\nHost: {HOST}\r\n\r\n",
    "absolute target": f"GET http://{HOST}/health HTTP/1.1\r\nHost: {HOST}\r\n\r\n",
    "authority target": f"CONNECT {HOST} HTTP/1.1\r\nHost: {HOST}\r\n\r\n",
    "small letters": f"get /health HTTP/1.1\r\nHost: {HOST}\r\n\r\n",
    "control in target": f"GET /health\x01 HTTP/1.1\r\nHost: {HOST}\r\n\r\n",
    "umlaut in target": f"GET /ä HTTP/1.1\r\nHost: {HOST}\r\n\r\n",
    "no host": "GET /health HTTP/1.1\r\n\r\n",
    "two hosts": f"GET /health HTTP/1.1\r\nHost: {HOST}\r\nHost: {HOST}\r\n\r\n",
    "folded": f"GET /health HTTP/1.1\r\nHost: {HOST}\r\nX: a\r\n b\r\n\r\n",
    "leading blank": f"GET /health HTTP/1.1\r\n Host: {HOST}\r\n\r\n",
    "blank before colon": f"GET /health HTTP/1.1\r\nHost : {HOST}\r\n\r\n",
    "no colon": f"GET /health HTTP/1.1\r\nHost: {HOST}\r\nnonsense\r\n\r\n",
    "no name": f"GET /health HTTP/1.1\r\nHost: {HOST}\r\n: x\r\n\r\n",
    "name with brackets": f"GET /health HTTP/1.1\r\nHost: {HOST}\r\nX(1): x\r\n\r\n",
    "bare CR": f"GET /health HTTP/1.1\r\nHost: {HOST}\r\nX: a\rY: b\r\n\r\n",
    "bare LF": f"GET /health HTTP/1.1\r\nHost: {HOST}\r\nX: a\nY: b\r\n\r\n",
    "NUL": f"GET /health HTTP/1.1\r\nHost: {HOST}\r\nX: a\x00b\r\n\r\n",
    "length twice": f"POST /x HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
    "length and chunks": f"POST /x HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
    "chunks twice": f"POST /x HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
    "coding list": f"POST /x HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
    "coding with a tail": f"POST /x HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked;x\r\n\r\n",
    "chunks in 1.0": f"POST /x HTTP/1.0\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n",
    "length list": f"POST /x HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 1, 1\r\n\r\n",
    "length with sign": f"POST /x HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: +1\r\n\r\n",
    "negative length": f"POST /x HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: -1\r\n\r\n",
    "length in hex": f"POST /x HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 0x1\r\n\r\n",
    "length in thousands": f"POST /x HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 1_0\r\n\r\n",
    "empty length": f"POST /x HTTP/1.1\r\nHost: {HOST}\r\nContent-Length:\r\n\r\n",
    "huge length": f"POST /x HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {10**30}\r\n\r\n",
    "many headers": f"GET /health HTTP/1.1\r\nHost: {HOST}\r\n" + "X: y\r\n" * 101 + "\r\n",
    "authorized twice": f"GET /health HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: a\r\nAuthorization: b\r\n\r\n",
}


@pytest.mark.parametrize("name", BAD_HEADS)
def test_what_can_be_read_in_two_ways_is_not_read(port, name):
    """One refusal, and nothing that follows on the connection is taken for a request."""
    with pytest.raises(Malformed):
        parse(BAD_HEADS[name].encode())
    found = exchange(port, BAD_HEADS[name].encode() + GOOD.encode() * 2)
    assert found.count(b"HTTP/1.1 ") == 1, found
    assert found[9:12] in (b"400", b"431", b"501"), found
    assert b"\r\nConnection: close\r\n" in found


def test_heads_that_are_right_are_read():
    head = parse(b"POST /a%20b?x=1&y HTTP/1.1\r\nHost:h\r\nX-A:  b \t\r\nx-a: c\r\nContent-Length: 05\r\nEmpty:\r\n\r\n")
    assert (head.method, head.path, head.query, head.length, head.keep) == ("POST", "/a%20b", "x=1&y", 5, True)
    assert head.headers == {"host": "h", "x-a": "b, c", "content-length": "05", "empty": ""}
    assert parse(b"GET / HTTP/1.0\r\n\r\n").keep is False
    assert parse(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").keep is True
    assert parse(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: Close\r\n\r\n").keep is False
    assert parse(b"PUT / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: Chunked\r\n\r\n").length is None


@pytest.mark.parametrize("text", ["x: " + " " * 60_000, "x:" + "a " * 30_000, "a" * 60_000, "x: y\r" * 10_000, ":" * 60_000])
def test_no_head_takes_long_to_read(text):
    data = f"GET / HTTP/1.1\r\nHost: h\r\n{text}\r\n\r\n".encode()
    begin = time.thread_time()  # what is not linear takes minutes
    with contextlib.suppress(Malformed):
        parse(data)
    assert time.thread_time() - begin < 3


def test_a_head_without_end_is_refused(port):
    found = exchange(port, b"GET / HTTP/1.1\r\nX: " + b"a" * (MAX_HEAD + 100))
    assert found.startswith(b"HTTP/1.1 431 ")
    assert exchange(port, b"GET /" + b"a" * MAX_HEAD + b" HTTP/1.1\r\nHost: x\r\n\r\n").startswith(b"HTTP/1.1 431 ")


CHUNKED = f"PUT {F}/0/r/artifacts/c HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()


@pytest.mark.parametrize(
    "body",
    [
        b"5\nhello\r\n0\r\n\r\n",
        b"5\r\nhelloX\r\n0\r\n\r\n",
        b"-5\r\nhello\r\n0\r\n\r\n",
        b"0x5\r\nhello\r\n0\r\n\r\n",
        b"g\r\n",
        b"\r\n",
        b"5 5\r\nhello\r\n0\r\n\r\n",
        b"5;%s\r\nhello\r\n0\r\n\r\n" % (b"a" * 2000),
        b"%s\r\n" % (b"f" * 17),
        b"5\r\nhello\n0\r\n\r\n",
    ],
)
def test_chunks_that_are_none_are_refused(here, port, body):
    found = exchange(port, CHUNKED + body + GOOD.encode())
    assert found.count(b"HTTP/1.1 ") <= 1
    assert b"200 OK" not in found
    assert not here.artifacts.files.list("0/r/artifacts")


def test_chunks_are_read_and_the_next_request_too(here, port):
    pieces = [CHUNKED, b"5;x=y\r\nhel", b"lo\r\n", b"6\r\n world\r\n0\r\nTrailer: x\r\n\r\n", GOOD.encode()]
    found = exchange(port, *pieces)
    assert found.count(b"HTTP/1.1 200 ") == 2
    assert b"".join(here.ask("GET", f"{F}/0/r/artifacts/c").chunks) == b"hello world"


def test_requests_in_one_piece_are_answered_in_order(port):
    found = exchange(port, (GOOD + GOOD.replace("/health", "/version") + GOOD.replace("/health", "/nothing")).encode())
    assert [part[:3] for part in found.split(b"HTTP/1.1 ")[1:]] == [b"200", b"200", b"404"]


def test_heads_alone_can_be_asked_for(port):
    for path in ("/health", f"{M}experiments/get?experiment_id=0"):
        found = exchange(port, f"HEAD {path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n".encode())
        assert found.startswith(b"HTTP/1.1 200 ") and found.endswith(b"\r\n\r\n")
        assert b"\r\nContent-Length: 0\r\n" not in found


def test_a_client_that_asks_first_is_answered_first(here, port):
    head = f"PUT {F}/0/r/artifacts/big HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
        client.sendall(head.encode())
        assert client.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b"hello")
        assert client.recv(1000).startswith(b"HTTP/1.1 200 ")
    refused = exchange(port, head.replace(f"Host: {HOST}", "Host: evil.example").encode())
    assert refused.startswith(b"HTTP/1.1 403 ")
    assert b"100 Continue" not in refused
    assert exchange(port, head.replace("100-continue", "200-ok").encode()).startswith(b"HTTP/1.1 417 ")


def test_bodies_have_limits(here, port):
    for length in (1 << 26) + 1, 1 << 40:
        head = (
            f"POST {M}runs/create HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
        )
        assert exchange(port, head.encode()).startswith(b"HTTP/1.1 413 ")
    head = f"PUT {F}/0/r/artifacts/b HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {(1 << 20) + 1}\r\n\r\n"
    assert exchange(port, head.encode()).startswith(b"HTTP/1.1 413 ")
    pieces = [CHUNKED, *[b"40000\r\n" + b"x" * 0x40000 + b"\r\n"] * 5, b"0\r\n\r\n"]
    assert b"200 OK" not in exchange(port, *pieces)
    assert not here.artifacts.files.list("0/r/artifacts")


def test_deep_and_odd_json_is_no_bug(here):
    for body in (
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b'"' * 3,
        b"\xff\xfe",
        b"nan",
        b'{"experiment_id": 1e999}',
        b'{"run_id": {"a": []}}',
    ):
        for path in ("runs/create", "runs/log-batch", "runs/search", "experiments/create", "logged-models"):
            assert here.ask("POST", M + path, body, content_type="application/json").status == (200 if "search" in path else 400)


def test_slow_clients_are_sent_away(here, port, monkeypatch):
    monkeypatch.setattr(incoming, "_HEAD", 0.4)
    monkeypatch.setattr(incoming, "_STALL", 0.4)
    for begin in (b"GET /health HTTP/1.1\r\nHost: ", CHUNKED, CHUNKED + b"5\r\nhe"):
        with socket.create_connection(("127.0.0.1", port), timeout=300) as client:
            client.sendall(begin)
            assert client.recv(1000) == b""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
        client.sendall(f"PUT {F}/0/r/artifacts/slow HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 1000\r\n\r\n".encode())
        ended = False
        try:
            for _ in range(100):
                client.send(b"x")
                readable, _, _ = select.select([client], [], [], 0.05)
                if readable:
                    ended = client.recv(1000) == b""
                    break
            else:
                raise AssertionError("a byte now and then was enough")
        except ConnectionError:  # it was closed with a byte of ours unread
            ended = True
        assert ended
    assert not here.artifacts.files.list("0/r/artifacts")


def test_more_connections_than_allowed_are_told_to_come_again(port):
    open_ones = [socket.create_connection(("127.0.0.1", port), timeout=60) for _ in range(40)]
    try:
        for client in open_ones:
            client.sendall(GOOD.encode())
            assert client.recv(1000).startswith(b"HTTP/1.1 200 ")
        refused = exchange(port, GOOD.encode())
        assert refused == b"" or (refused.startswith(b"HTTP/1.1 503 ") and b"Retry-After" in refused)
        open_ones.pop().close()
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not (answer := exchange(port, GOOD.encode())).startswith(b"HTTP/1.1 200 "):
            time.sleep(0.05)
        assert answer.startswith(b"HTTP/1.1 200 ")
    finally:
        for client in open_ones:
            client.close()


def test_no_name_of_a_file_is_a_header(here, port):
    name = "a%0d%0aSet-Cookie:%20x=y%22;.html"
    here.ask("PUT", f"{F}/0/r/artifacts/{name}", b"x")
    found = exchange(port, f"GET {F}/0/r/artifacts/{name} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n".encode())
    assert b"\nSet-Cookie" not in found
