"""One suite for every ArtifactStore: a folder, a bucket, our endpoint in front of both, and a real MLflow server's proxy."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from conftest import HOSTILE
from runproj.artifacts import open_artifacts
from runproj.core.run import NewRun, Run
from runproj.core.tracking import ArtifactInfo, ArtifactStore
from runproj.errors import NotFoundError, RunprojError
from runproj.tracking import open_store

NAMES = ["plain.txt", "with blank & 100% .txt", "ünï 文字 🙂.txt", "quote'\".txt", "plus+and=.txt", ".hidden", "a;b,c@d"]


class Place(NamedTuple):
    artifacts: ArtifactStore
    run: Run
    home: Path


@pytest.fixture(
    params=[
        "folder",
        "s3",
        "ours over http",
        "s3 over http",
        pytest.param("mlflow server", marks=[pytest.mark.slow, pytest.mark.network]),
    ]
)
def place(request: pytest.FixtureRequest, isolated: Path) -> Iterator[Place]:
    home = isolated / "runproj home"
    uri = f"sqlite:///{home / 'runproj.db'}"
    if request.param == "mlflow server":
        uri = request.getfixturevalue("mlflow_server")
    store = open_store(uri, home=home, environ={})
    run = store.create_run(NewRun(store.experiment("files").id, 0))
    bucket = request.getfixturevalue("s3") if request.param.startswith("s3") else ""
    artifacts = open_artifacts(uri, home=home, environ=os.environ, place=bucket)
    if not request.param.endswith("over http"):
        yield Place(artifacts, run, home)
        return
    from runproj.server.endpoint import Endpoint

    with socket.create_server(("127.0.0.1", 0)) as listener:
        endpoint = Endpoint(listener, "secret", store, artifacts, run.id, run.experiment_id)
        endpoint.start()
        remote = f"http://127.0.0.1:{listener.getsockname()[1]}"
        yield Place(open_artifacts(remote, home=home, environ={"MLFLOW_TRACKING_TOKEN": "secret"}), run, home)
        endpoint.close()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / HOSTILE / "files"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / "a file"


def put(place: Place, source: Path, path: str, content: bytes = b"content") -> None:
    source.write_bytes(content)
    place.artifacts.put(place.run, source, path)


def get(place: Place, source: Path, path: str) -> bytes:
    into = source.with_name("result")
    place.artifacts.get(place.run, path, into)
    return into.read_bytes()


@pytest.mark.parametrize("content", [b"", b"x", bytes(range(256)) * 10, os.urandom(3_000_001)], ids=len)
def test_bytes_come_back(place, source, content):
    put(place, source, "some/where/file.bin", content)
    assert get(place, source, "some/where/file.bin") == content
    assert place.artifacts.list(place.run, "some/where") == [ArtifactInfo("some/where/file.bin", len(content))]


@pytest.mark.parametrize("name", NAMES)
def test_any_name(place, source, name):
    put(place, source, f"folder {name}/{name}")
    assert get(place, source, f"folder {name}/{name}") == b"content"
    assert place.artifacts.list(place.run) == [ArtifactInfo(f"folder {name}", None)]
    assert place.artifacts.list(place.run, f"folder {name}") == [ArtifactInfo(f"folder {name}/{name}", 7)]


def test_a_later_file_replaces_an_earlier_one(place, source):
    put(place, source, "file", b"old and long")
    put(place, source, "file", b"new")
    assert get(place, source, "file") == b"new"


def test_the_listing_is_sorted_and_one_level_deep(place, source):
    for path in ("b/deep/er", "b.txt", "a", "c/x"):
        put(place, source, path)
    assert place.artifacts.list(place.run) == [
        ArtifactInfo("a", 7),
        ArtifactInfo("b", None),
        ArtifactInfo("b.txt", 7),
        ArtifactInfo("c", None),
    ]
    assert place.artifacts.list(place.run, "b") == [ArtifactInfo("b/deep", None)]


def test_what_is_not_there(place, source):
    put(place, source, "folder/file")
    assert list(place.artifacts.list(place.run, "nowhere/at/all")) == []
    assert list(place.artifacts.list(place.run, "folder/file")) == []
    with pytest.raises(NotFoundError):
        get(place, source, "folder/other")
    with pytest.raises(RunprojError):
        get(place, source, "folder")
    assert not source.with_name("result").exists()


def test_adopting_takes_the_file_away(place, source):
    source.write_bytes(b"log")
    place.artifacts.adopt(place.run, source, "logs/out.log")
    assert not source.exists()
    assert get(place, source, "logs/out.log") == b"log"


@pytest.mark.parametrize("path", ["../x", "/etc/x", "a/../../x", "a//b", "", ".", "a/..", "./a", "a/"])
def test_paths_cannot_leave_the_run(place, source, path):
    with pytest.raises(RunprojError):
        put(place, source, path)
    with pytest.raises(RunprojError):
        get(place, source, path)
