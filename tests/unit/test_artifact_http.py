"""Files over HTTP: hashes as tags and digests, ranges, conditions, damage; what `gc` clears of them."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from runproj.core.run import NewRun
from support.endpoint import TOKEN, Served, served
from support.program import Cli

BASE = "/api/2.0/mlflow-artifacts/artifacts"
CONTENT = bytes(range(256)) * 12_000
DIGEST = hashlib.sha256(CONTENT)


@pytest.fixture
def here(isolated: Path) -> Iterator[Served]:
    with served(isolated / "runproj home") as found:
        yield found


def ask(here: Served, method: str = "GET", path: str = f"{BASE}/0/file", **headers: str):
    """Status, headers and content of an answer."""
    connection = here.connect()
    given = {"Authorization": f"Bearer {TOKEN}", **{name.replace("_", "-"): value for name, value in headers.items()}}
    connection.request(method, path, None, given)
    answer = connection.getresponse()
    return answer.status, answer.headers, answer.read()


def test_the_hash_is_tag_and_digest(here):
    here.ask("PUT", f"{BASE}/0/file", CONTENT)
    status, headers, content = ask(here)
    tag = f'"{DIGEST.hexdigest()}"'
    assert (status, content) == (200, CONTENT)
    assert headers["ETag"] == tag
    assert headers["Repr-Digest"] == f"sha-256=:{base64.b64encode(DIGEST.digest()).decode()}:"
    status, headers, content = ask(here, "HEAD")
    assert (status, content, headers["ETag"], int(headers["Content-Length"])) == (200, b"", tag, len(CONTENT))
    for condition in (tag, f'"x", {tag}', f"W/{tag}"):
        status, headers, content = ask(here, If_None_Match=condition)
        assert (status, content, headers["ETag"]) == (304, b"", tag)
    assert ask(here, If_None_Match='"x"')[0] == 200


def test_a_range_of_the_file_that_is_meant(here):
    here.ask("PUT", f"{BASE}/0/file", CONTENT)
    tag = ask(here, "HEAD")[1]["ETag"]
    assert ask(here, Range="bytes=5-", If_Range=tag)[::2] == (206, CONTENT[5:])
    assert ask(here, Range="bytes=5-", If_Range='"another"')[::2] == (200, CONTENT)
    (here.root / "0" / "theirs").write_bytes(b"put there by hand")
    status, headers, content = ask(here, path=f"{BASE}/0/theirs")
    assert (status, content, headers["Repr-Digest"]) == (200, b"put there by hand", None)


@pytest.mark.parametrize("size", [1, 1 << 20])
def test_a_small_damaged_file_is_an_error(here, size):
    here.ask("PUT", f"{BASE}/0/file", bytes(size))
    (here.root / "0" / "file").write_bytes(b"x" * size)
    status, _, content = ask(here)
    assert (status, json.loads(content)["error_code"]) == (507, "DATA_LOSS")
    assert "damaged" in json.loads(content)["message"]


def test_of_a_large_damaged_file_the_end_is_missing(here):
    import http.client

    here.ask("PUT", f"{BASE}/0/file", CONTENT)
    with (here.root / "0" / "file").open("r+b") as file:
        file.write(b"x")
    connection = here.connect()
    connection.request("GET", f"{BASE}/0/file", headers={"Authorization": f"Bearer {TOKEN}"})
    with pytest.raises(http.client.IncompleteRead):
        connection.getresponse().read()
    assert here.ask("GET", "/health")[0] == 200


@pytest.mark.parametrize(
    "header",
    [
        {"Content_MD5": base64.b64encode(hashlib.md5(b"other").digest()).decode()},
        {"Content_Digest": f"sha-256=:{base64.b64encode(hashlib.sha256(b'other').digest()).decode()}:"},
        {"Content_Digest": f"sha-512=:{base64.b64encode(hashlib.sha512(b'other').digest()).decode()}:"},
        {"Content_MD5": "not base64"},
    ],
)
def test_a_body_that_is_not_what_was_sent_is_refused(here, header):
    assert here.ask("PUT", f"{BASE}/0/file", b"body", **header)[0] == 400
    assert here.ask("GET", f"{BASE}/0/file")[0] == 404
    right = base64.b64encode(hashlib.md5(b"body").digest()).decode()
    assert here.ask("PUT", f"{BASE}/0/file", b"body", Content_MD5=right)[0] == 200


def test_the_pool_cannot_be_reached(here):
    here.ask("PUT", f"{BASE}/0/file", b"content")
    digest = hashlib.sha256(b"content").hexdigest()
    for path in (".blobs/lock", f".blobs/{digest[:2]}/{digest}", "%2eblobs/lock", ".BLOBS/lock"):
        for method in ("GET", "PUT", "DELETE"):
            assert here.ask(method, f"{BASE}/{path}", b"x" if method == "PUT" else None)[0] == 400, (method, path)
    assert here.ask("GET", f"{BASE}?path=.blobs")[0] == 400
    assert b"blobs" not in here.ask("GET", BASE)[1]
    assert here.ask("GET", f"{BASE}/0/file") == (200, b"content")


def test_gc_clears_what_deleted_runs_had(here, cli: Cli):
    keep = here.store.create_run(NewRun("0", 2))
    shared, own = os.urandom(100_000), os.urandom(300_000)
    for run, name, content in ((here.run, "a", shared), (here.run, "b", own), (keep, "a", shared)):
        prefix = here.artifacts.place(run.artifact_uri)[1]
        with here.artifacts.files.writing(prefix + name) as file:
            file.write(content)
    here.ok("POST", "runs/delete", run_id=here.run.id)
    dry = json.loads(cli("gc", "--deleted", "--dry-run", "--json").stdout)
    assert (here.folder(here.run) / "a").exists(), dry
    report = json.loads(cli("gc", "--deleted", "--json").stdout)
    assert 300_000 <= report["freed"] < 400_000
    assert not here.folder(here.run).exists()
    assert (here.folder(keep) / "a").read_bytes() == shared
    assert len(list((here.root / ".blobs").glob("??/*"))) == 1
