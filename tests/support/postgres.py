"""A real PostgreSQL for tests: a cluster of our own in a temporary folder, and a new database for each test that asks."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.ports import free_port


def _program(name: str) -> str:
    """A program of the newest PostgreSQL that is installed; Debian keeps them out of PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[4]))
    program = str(found[-1]) if found else shutil.which(name)
    assert program, f"{name} is missing: install PostgreSQL (Debian: apt-get install postgresql)"
    return program


def _as_somebody(argv: list[str]) -> list[str]:
    """PostgreSQL refuses to run as root."""
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", *argv] if os.getuid() == 0 else argv


@pytest.fixture(scope="session")
def postgres_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server, without a database: `postgresql://tester@127.0.0.1:PORT`."""
    folder = Path(subprocess.run(["mktemp", "-d"], check=True, capture_output=True, text=True).stdout.strip())
    if os.getuid() == 0:
        shutil.chown(folder, "postgres", "postgres")
    data = folder / "data"
    initdb = [_program("initdb"), "-D", str(data), "-U", "tester", "--auth=trust", "-E", "UTF8", "--no-locale", "--no-sync"]
    subprocess.run(_as_somebody(initdb), check=True, capture_output=True, cwd="/")
    port = free_port()
    options = ["-p", str(port), "-k", str(folder), "-c", "listen_addresses=127.0.0.1", "-c", "max_connections=200"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            _as_somebody([_program("postgres"), "-D", str(data), *options]), stdout=log, stderr=log, cwd="/"
        )
    uri = f"postgresql://tester@127.0.0.1:{port}"
    try:
        _await(uri, process, folder / "log")
        yield uri
    finally:
        process.send_signal(2)  # fast shutdown
        process.wait(300)
        shutil.rmtree(folder, ignore_errors=True)


def _await(uri: str, process: subprocess.Popen[bytes], log: Path) -> None:
    import psycopg

    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and process.poll() is None:
        try:
            psycopg.connect(f"{uri}/postgres").close()
            return
        except psycopg.OperationalError:
            time.sleep(0.1)
    raise AssertionError(f"PostgreSQL did not start:\n{log.read_text()[-3000:]}")


def _command(uri: str, statement: str) -> None:
    """Have a server do something, also one that a test has just made crash."""
    import psycopg

    deadline = time.monotonic() + 300
    while True:
        try:
            with psycopg.connect(uri, autocommit=True) as connection:
                connection.execute(statement)
            return
        except psycopg.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


@pytest.fixture
def postgres(postgres_cluster: str) -> Iterator[str]:
    """The URI of an empty database."""
    import psycopg

    name = f"test_{os.urandom(6).hex()}"
    with psycopg.connect(f"{postgres_cluster}/postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} ENCODING 'UTF8' TEMPLATE template0")
    yield f"{postgres_cluster}/{name}"
    _command(f"{postgres_cluster}/postgres", f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
