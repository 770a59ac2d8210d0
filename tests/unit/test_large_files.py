"""Large files over connections that break: downloads go on, parts are sent again, damage is noticed."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from runproj.artifacts import large, open_artifacts
from runproj.artifacts.http import HttpArtifacts
from runproj.errors import DamagedError, RunprojError, TrackingError
from support.endpoint import TOKEN, Served, served


class Cutter:
    """A proxy that breaks its first connections after so many bytes of one direction, and counts what went through."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.down: list[int] = []  # bytes of answers after which each of the next connections is cut
        self.up: list[int] = []
        self.passed = 0
        self.between = lambda: None  # what happens when a connection was cut
        self.listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self.port))
            pumps = []
            for source, target, cuts in ((client, server, self.up), (server, client, self.down)):
                limit = cuts.pop(0) if cuts else None
                pumps.append(threading.Thread(target=self.pump, args=(source, target, limit, cuts is self.down), daemon=True))
            threading.Thread(target=self.connect, args=(pumps, client, server), daemon=True).start()

    def connect(self, pumps: list[threading.Thread], *ends: socket.socket) -> None:
        for pump in pumps:
            pump.start()
        for pump in pumps:
            pump.join()
        for end in ends:  # a sender whose data nobody reads would wait for ever, were it only shut down
            end.close()

    def pump(self, source: socket.socket, target: socket.socket, limit: int | None, counted: bool) -> None:
        count = 0
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                count += len(data)
                self.passed += len(data) if counted else 0
                if limit is not None and count > limit:
                    self.between()
                    break
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def here(isolated: Path) -> Iterator[Served]:
    with served(isolated / "runproj home") as found:
        yield found


@pytest.fixture
def cutter(here: Served) -> Iterator[Cutter]:
    cutter = Cutter(here.port)
    yield cutter
    cutter.listener.close()


@pytest.fixture
def remote(cutter: Cutter, isolated: Path, monkeypatch: pytest.MonkeyPatch) -> HttpArtifacts:
    monkeypatch.setattr(large, "_PAUSES", (0.0, 0.0, 0.0, 0.0))
    uri = f"http://localhost:{cutter.listener.getsockname()[1]}"
    found = open_artifacts(uri, home=isolated, environ={"MLFLOW_TRACKING_TOKEN": TOKEN})
    assert isinstance(found, HttpArtifacts)
    # the endpoint answers to its own address only: say that, and connect through the proxy
    found.remote._headers["Host"] = f"127.0.0.1:{cutter.port}"
    return found


def store(here: Served, content: bytes) -> None:
    path, prefix = "file", here.artifacts.place(here.run.artifact_uri)[1]
    with here.artifacts.files.writing(prefix + path) as file:
        file.write(content)


def test_a_download_goes_on_where_it_broke_off(here, cutter, remote, tmp_path):
    content = os.urandom(10_000_000)
    store(here, content)
    cutter.down = [4_000_000, 1_000, 3_000_000, 0, 2_000_000]
    remote.get(here.run, "file", tmp_path / "got")
    assert (tmp_path / "got").read_bytes() == content
    assert cutter.passed < 12_000_000
    assert [path.name for path in tmp_path.iterdir() if "got" in path.name or path.suffix == ".tmp"] == ["got"]


def test_a_file_that_is_replaced_meanwhile_is_fetched_anew(here, cutter, remote, tmp_path):
    store(here, b"old" * 2_000_000)
    cutter.down = [3_000_000]
    cutter.between = lambda: store(here, b"new one" * 1_000_000)
    remote.get(here.run, "file", tmp_path / "got")
    assert (tmp_path / "got").read_bytes() == b"new one" * 1_000_000


def test_a_server_that_stays_away_is_given_up(here, cutter, remote, tmp_path):
    store(here, b"x" * 1_000_000)
    cutter.down = [0] * 50
    with pytest.raises(TrackingError):
        remote.get(here.run, "file", tmp_path / "got")
    assert not (tmp_path / "got").exists()


@pytest.mark.parametrize("size", [1000, 5_000_000])
def test_a_damaged_file_is_not_handed_out(here, remote, tmp_path, size):
    store(here, bytes(size))
    path = here.folder(here.run) / "file"
    with path.open("r+b") as file:
        file.seek(size // 2)
        file.write(b"x")
    with pytest.raises(RunprojError, match="damaged") as caught:
        remote.get(here.run, "file", tmp_path / "got")
    assert size == 1000 or isinstance(caught.value, DamagedError)
    assert not (tmp_path / "got").exists()


def test_a_large_file_is_sent_in_parts_and_a_lost_part_again(here, cutter, remote, tmp_path):
    source = tmp_path / "large"
    source.write_bytes(os.urandom(1 << 20) * 70)
    cutter.up = [10_000_000, 3_000_000]  # the first connection has asked before
    remote.put(here.run, source, "models/large file")
    files, prefix = here.artifacts.place(here.run.artifact_uri)
    with files.reading(prefix + "models/large file") as file:
        assert b"".join(file.chunks()) == source.read_bytes()
    assert (next((here.root / ".blobs" / "uploads").iterdir()) / "done").exists()


def test_an_upload_in_parts_that_fails_is_forgotten(here, cutter, remote, tmp_path):
    source = tmp_path / "large"
    source.write_bytes(bytes(70 << 20))
    cutter.up = [10_000, *[2_000_000] * 100]
    with pytest.raises(TrackingError):
        remote.put(here.run, source, "models/large file")
    assert not here.artifacts.list(here.run)
