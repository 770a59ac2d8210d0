"""A real Docker engine for tests, with images built for them.  `.ci/run` starts the engine where there is none."""

from __future__ import annotations

import io
import os
import socket
import subprocess
import tarfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import docker
import pytest

from runproj.containers import home_mark
from support.program import Cli


class Docker:
    """The engine, seen from outside of runproj."""

    def __init__(self, base: str) -> None:
        self.base = base
        self.client = docker.from_env()
        self.made: list[str] = []

    def image(self, *lines: str, files: dict[str, str] | None = None) -> str:
        """Build an image from the base image and further Dockerfile lines; returns a name that only this test knows.

        So is the image itself: the engine would give the same one to other tests that build the same lines, and who removes it by
        its id removes that of all.
        """
        mark = uuid.uuid4().hex[:12]
        name = f"runproj-test-{mark}:1"
        stages = [f"FROM {self.base}", *lines]
        last = max(number for number, line in enumerate(stages) if line.startswith("FROM "))
        stages.insert(last + 1, f"LABEL runproj.test={mark}")
        content = {"Dockerfile": "\n".join(stages), **(files or {})}
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            for path, text in content.items():
                entry = tarfile.TarInfo(path)
                entry.size = len(text.encode())
                archive.addfile(entry, io.BytesIO(text.encode()))
        buffer.seek(0)
        self.client.images.build(fileobj=buffer, custom_context=True, tag=name, rm=True)
        self.made.append(name)
        return name

    def small(self, which: str) -> str:
        """An image of 2 MB with `cat`, `sh` that is no bash, and a file `/which`."""
        collect = "RUN mkdir -p /out/bin && cp /bin/cat /out/bin && cp /bin/dash /out/bin/sh && "
        collect += "cp -L --parents $(ldd /bin/cat /bin/dash | grep -o '/[^ :]*' | sort -u | grep /lib) /out"
        lines = (collect, "FROM scratch", "COPY --from=0 /out /", "COPY which /which")
        return self.image(*lines, files={"which": which})

    def containers(self, cli: Cli) -> list[str]:
        """Names of the containers of a home, running or not."""
        label = f"runproj.home={home_mark(Path(cli.env['RUNPROJ_HOME']))}"
        return sorted(
            found.name for found in self.client.containers.list(all=True, ignore_removed=True, filters={"label": label})
        )

    def gone(self, cli: Cli, seconds: float = 0) -> None:
        """Wait until a home has no container any more."""
        deadline = time.monotonic() + seconds
        while left := self.containers(cli):
            assert time.monotonic() < deadline, f"still there: {left}"
            time.sleep(0.05)

    def forget(self, repository: str) -> None:
        """Remove all images of a repository, or of all repositories of a registry, whatever they are called."""
        for image in self.client.api.images():
            names = [*(image["RepoTags"] or ()), *(image["RepoDigests"] or ())]
            if any(name.startswith((f"{repository}:", f"{repository}@", f"{repository}/")) for name in names):
                with suppress(docker.errors.ImageNotFound):
                    self.client.images.remove(image["Id"], force=True)

    def close(self) -> None:
        for name in self.made:
            with suppress(docker.errors.ImageNotFound):
                self.client.images.remove(name, force=True)
        self.client.close()


@pytest.fixture(scope="session")
def base_image() -> str:
    """The base image's name; it is made where there is none."""
    script = Path(__file__).with_name("base_image.sh")
    folder = os.environ.get("RUNPROJ_TEST_CACHE") or Path(__file__).parents[2] / ".ci" / "cache"
    made = subprocess.run([script, folder], stdout=subprocess.PIPE, text=True, check=True)
    return made.stdout.strip()


@pytest.fixture(scope="module")
def engine(base_image: str) -> Iterator[Docker]:
    found = Docker(base_image)
    yield found
    found.close()


@contextmanager
def registry_at(folder: Path, password: str = "") -> Iterator[str]:
    """An image registry of our own, with a user `somebody` if there is a password; gives its address."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    (folder / "config.yml").write_text(
        f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: '{folder}/data'}}}}\nhttp: {{addr: '{address}'}}\n"
        "log: {accesslog: {disabled: true}, level: error}\n"
        + (f"auth: {{htpasswd: {{realm: test, path: '{folder}/users'}}}}\n" if password else "")
    )
    if password:  # perl is on every Debian, and its crypt knows the one hash that the registry takes
        script = "print crypt($ARGV[0], q{$2b$05$abcdefghijklmnopqrstuu})"
        hashed = subprocess.run(["perl", "-e", script, password], check=True, capture_output=True, text=True).stdout
        (folder / "users").write_text(f"somebody:{hashed}\n")
    (folder / "data").mkdir()
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(["docker-registry", "serve", folder / "config.yml"], stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 20
        while True:
            with suppress(ConnectionError), socket.create_connection(address.split(":"), timeout=5):
                break
            assert process.poll() is None and time.monotonic() < deadline, (folder / "log").read_text()
            time.sleep(0.05)
        yield address
    finally:
        process.kill()
        process.wait()
