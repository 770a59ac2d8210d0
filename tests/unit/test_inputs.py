"""Fetching declared inputs: what goes wrong on the way is named as what it is."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from runproj import inputs
from runproj.errors import StartError


@contextmanager
def answering(content: bytes) -> Iterator[str]:
    """A server that gives one answer, whatever it is asked, and hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            connection.recv(65536)
            connection.sendall(content)
            connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/data"
        thread.join()


HEAD = b"HTTP/1.1 200 OK\r\n"


def test_a_file_is_fetched(tmp_path: Path) -> None:
    with answering(HEAD + b"Content-Length: 5\r\n\r\nhello") as uri:
        inputs.fetch(uri, tmp_path / "below" / "data", print)
    assert (tmp_path / "below" / "data").read_bytes() == b"hello"


@pytest.mark.parametrize(
    "answer",
    [
        HEAD + b"Content-Length: 50\r\n\r\nhello",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nff\r\nhello",
        b"nonsense\r\n\r\n",
        b"",
        b"HTTP/1.1 404 Not Found\r\n\r\n",
    ],
)
def test_what_does_not_arrive_whole_is_explained_and_not_kept(tmp_path: Path, answer: bytes) -> None:
    with answering(answer) as uri, pytest.raises(StartError, match="Cannot fetch http:"):
        inputs.fetch(uri, tmp_path / "data", print)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("uri", ["http://[bad/x", "http:///nothing", "https://127.0.0.1:port/x", "s3://bucket/x", "http://a b/"])
def test_an_address_that_cannot_be_used_is_explained(tmp_path: Path, uri: str) -> None:
    with pytest.raises(StartError, match="Cannot fetch"):
        inputs.fetch(uri, tmp_path / "data", print)
