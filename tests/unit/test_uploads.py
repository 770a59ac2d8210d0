"""Uploads in parts: by plain requests, and by MLflow's own client."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.endpoint import TOKEN, Served, served
from support.mlflow import mlflow_environment

BASE = "/api/2.0/mlflow-artifacts"


@pytest.fixture
def here(isolated: Path) -> Iterator[Served]:
    with served(isolated / "runproj home") as found:
        yield found


def post(here: Served, what: str, folder: str, **fields: object) -> tuple[int, dict[str, object]]:
    body = json.dumps({"path": "/home/some one/large file.bin", **fields}).encode()
    status, content = here.ask("POST", f"{BASE}/mpu/{what}/{folder}", body, Content_Type="application/json")
    return status, json.loads(content)


def put(here: Served, credential: dict[str, object], content: bytes) -> dict[str, object]:
    """Send a part as clients do: to the address they were told, with the headers they were told and no others."""
    connection = here.connect()
    address = str(credential["url"])
    assert address.startswith(f"http://127.0.0.1:{here.port}/")
    connection.request("PUT", "/" + address.split("/", 3)[3], content, credential["headers"])
    answer = connection.getresponse()
    assert answer.status == 200, answer.read()
    answer.read()
    return {"part_number": credential["part_number"], "etag": answer.headers["ETag"], "url": address}


def uploads(here: Served) -> list[Path]:
    folder = here.root / ".blobs" / "uploads"
    return list(folder.iterdir()) if folder.exists() else []


def test_parts_in_any_order_and_twice(here):
    status, created = post(here, "create", "0/run/artifacts", num_parts=3)
    assert status == 200
    contents = [os.urandom(1_500_000), os.urandom(1_500_000), b"end"]
    sent = {}
    for index in (2, 0, 1, 0):
        sent[index] = put(here, created["credentials"][index], contents[index])
    put(here, created["credentials"][1], b"something else")  # the parts that are named at the end count
    assert here.ask("GET", f"{BASE}/artifacts?path=0/run/artifacts")[1] == b"{}"
    parts = [sent[index] for index in (0, 1, 2)]
    for _ in range(2):  # a client that did not hear the answer asks again
        status, answer = post(here, "complete", "0/run/artifacts", upload_id=created["upload_id"], parts=parts)
        assert (status, answer) == (200, {})
    status, content = here.ask("GET", f"{BASE}/artifacts/0/run/artifacts/large%20file.bin")
    assert (status, content) == (200, b"".join(contents))
    assert sorted(path.name for path in uploads(here)[0].iterdir()) == ["done", "lock", "path"]


def test_what_is_refused(here):
    _, created = post(here, "create", "0/run", num_parts=2)
    upload = created["upload_id"]
    first = put(here, created["credentials"][0], b"one")
    missing = {"part_number": 2, "etag": "0" * 64}
    traversal = {"part_number": 1, "etag": "../../path"}
    for parts in ([], [first, missing], [first, first], [traversal], [{"part_number": 1}]):
        assert post(here, "complete", "0/run", upload_id=upload, parts=parts)[0] == 400
    assert post(here, "complete", "0/other", upload_id=upload, parts=[first])[0] == 404
    assert post(here, "complete", "0/run", path="other", upload_id=upload, parts=[first])[0] == 404
    for wrong in ("x" * 32, "../" * 11, "", "a" * 31 + "\n"):
        assert post(here, "complete", "0/run", upload_id=wrong, parts=[first])[0] in (400, 404)
    for count in (-1, 10_001, "many"):
        assert post(here, "create", "0/run", num_parts=count)[0] == 400
    for folder in ("..", "0/%2e%2e/x", "0//x", ".blobs/uploads"):
        status, found = post(here, "create", folder, num_parts=1)
        if status == 200:
            part = put(here, found["credentials"][0], b"x")
            status, _ = post(here, "complete", folder, upload_id=found["upload_id"], parts=[part])
        assert status == 400, folder
    parts = f"{BASE}/mpu/parts"
    for place in (
        f"{upload}/0",
        f"{upload}/x",
        f"{upload}/10001",
        f"{upload}/00000199999",
        f"{upload}/01",
        upload,
        f"{upload}/1/2",
        f"{'x' * 32}/1",
        "../../1",
    ):
        assert here.ask("PUT", f"{parts}/{place}", b"x")[0] in (400, 404), place
    assert here.ask("PUT", f"{parts}/{upload}/1", b"x", Authorization="")[0] == 401
    assert not here.artifacts.files.list("0")


def test_an_aborted_upload_is_forgotten(here):
    _, created = post(here, "create", "0/run", num_parts=1)
    part = put(here, created["credentials"][0], b"one")
    for _ in range(2):
        assert post(here, "abort", "0/run", upload_id=created["upload_id"]) == (200, {})
    assert not uploads(here)
    assert post(here, "complete", "0/run", upload_id=created["upload_id"], parts=[part])[0] == 404


def test_an_abandoned_upload_is_given_up_after_a_day(here):
    for _ in range(2):
        _, created = post(here, "create", "0/run", num_parts=1)
        put(here, created["credentials"][0], b"one" * 10_000)
    old, young = uploads(here)
    os.utime(old, (time.time() - 90_000, time.time() - 90_000))
    assert here.artifacts.collect(dry_run=True) >= 30_000
    assert len(uploads(here)) == 2
    post(here, "create", "0/run", num_parts=1)
    assert not old.exists()
    assert young.exists()


def test_a_damaged_part_is_refused(here):
    _, created = post(here, "create", "0/run", num_parts=1)
    place = f"{BASE}/mpu/parts/{created['upload_id']}/1"
    assert here.ask("PUT", place, b"one", Content_MD5="AAAAAAAAAAAAAAAAAAAAAA==")[0] == 400
    assert [path.name for path in uploads(here)[0].iterdir()] == ["path"]


@pytest.mark.parametrize(
    ("headers", "address"),
    [
        (
            {"X_Forwarded_Proto": "https", "X_Forwarded_Host": "ml.example.org", "X_Forwarded_Prefix": "/a/"},
            "https://ml.example.org/a",
        ),
        ({"X_Forwarded_For": "10.0.0.1"}, None),
        ({"Via": "1.1 proxy"}, None),
    ],
)
def test_behind_a_proxy(here, headers, address):
    body = json.dumps({"path": "x", "num_parts": 1}).encode()
    status, content = here.ask("POST", f"{BASE}/mpu/create/0/run", body, Content_Type="application/json", **headers)
    if address is None:  # what makes MLflow's client upload in one piece instead
        assert status == 501
        assert json.loads(content)["message"].startswith("Multipart upload is not supported for the current artifact repository")
    else:
        assert json.loads(content)["credentials"][0]["url"].startswith(f"{address}/api/2.0/mlflow-artifacts/mpu/parts/")


CLIENT = """
import os, sys, mlflow
with mlflow.start_run() as run:
    mlflow.log_artifact(sys.argv[1], "models")
    found = mlflow.artifacts.download_artifacts(run_id=run.info.run_id, artifact_path="models/" + os.path.basename(sys.argv[1]))
    assert open(found, "rb").read() == open(sys.argv[1], "rb").read()
"""


@pytest.mark.slow
@pytest.mark.network
def test_the_real_client_uploads_in_parts(here, mlflow_python, tmp_path):
    source = tmp_path / "große datei.bin"
    source.write_bytes(os.urandom(5_500_000))
    environment = mlflow_environment(
        MLFLOW_TRACKING_URI=f"http://127.0.0.1:{here.port}",
        MLFLOW_TRACKING_TOKEN=TOKEN,
        MLFLOW_MULTIPART_UPLOAD_MINIMUM_FILE_SIZE="1000000",
        MLFLOW_MULTIPART_UPLOAD_CHUNK_SIZE="1000000",
    )
    subprocess.run([mlflow_python, "-c", CLIENT, source], env=environment, check=True, cwd=tmp_path)
    assert (uploads(here)[0] / "done").exists()
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    assert (here.root / ".blobs" / digest[:2] / digest).stat().st_nlink == 2


def test_a_part_that_was_damaged_on_disk_can_be_sent_again(here):
    _, created = post(here, "create", "0/run", num_parts=1)
    part = put(here, created["credentials"][0], b"one" * 1000)
    [stored] = uploads(here)[0].glob("1.*")
    stored.write_bytes(b"one" * 999)
    for status in (507, 200):
        found, answer = post(here, "complete", "0/run", upload_id=created["upload_id"], parts=[part])
        assert found == status, answer
        if status == 507:
            assert not here.artifacts.files.list("0/run")
            put(here, created["credentials"][0], b"one" * 1000)


def test_a_part_for_which_the_disk_has_no_room_is_not_kept(tmp_path):
    """A limit on the size of files stands in for the disk: the first write is cut short, and the next one fails."""
    code = """
import resource, sys
from pathlib import Path
from runproj.artifacts.parts import Parts
from runproj.errors import StorageError
parts = Parts(Path(sys.argv[1]))
upload = parts.begin("x")
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
try:
    parts.store(upload, 1, [b"x" * 8000])
except StorageError:
    print("told")
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "parts")], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("told\n", "")
    assert [path.name for path in tmp_path.glob("parts/*/*")] == ["path"]
