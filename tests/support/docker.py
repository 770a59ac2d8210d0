"""A real Docker engine for tests, with images built for them.  `.ci/run` starts the engine where there is none."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest


class Docker:
    """The engine, seen from outside of runproj."""

    def __init__(self, base: str) -> None:
        self.base = base
        self.client = docker.from_env()
        self.made: list[str] = []

    def image(self, *lines: str, files: dict[str, str] | None = None, base: str | None = None) -> str:
        """Build an image from the base image and further Dockerfile lines; returns a name that only this test knows."""
        name = f"runproj-test-{uuid.uuid4().hex[:12]}:1"
        content = {"Dockerfile": "\n".join([f"FROM {base or self.base}", *lines]), **(files or {})}
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

    def containers(self, label: str = "runproj.home") -> list[str]:
        """Names of the containers there are, running or not."""
        return sorted(found.name for found in self.client.containers.list(all=True, filters={"label": label}))

    def gone(self, seconds: float = 15) -> None:
        """Wait until runproj has no container any more."""
        deadline = time.monotonic() + seconds
        while left := self.containers():
            assert time.monotonic() < deadline, f"still there: {left}"
            time.sleep(0.05)

    def close(self) -> None:
        for name in self.made:
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
