"""A real Ray of one node for tests, in a virtual environment of its own, with a token; on ports that nobody else has."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from runproj.backends.ray_api import RayApi
from runproj.errors import BackendError
from runproj.files import Lock
from support.ports import free_port

PACKAGE = "ray[default]>=2.52"


def installed() -> Path:
    """The folder with Ray's programs; it is installed where it is missing."""
    cache = Path(os.environ.get("RUNPROJ_TEST_CACHE") or Path(__file__).parents[2] / ".ci" / "cache")
    folder = cache / f"ray-{sys.version_info[0]}.{sys.version_info[1]}"
    uv = Path(sys.executable).with_name("uv")
    cache.mkdir(parents=True, exist_ok=True)
    lock = Lock(cache / f"{folder.name}.lock")
    lock.acquire()
    try:
        if not (folder / "complete").exists():
            shutil.rmtree(folder, ignore_errors=True)
            subprocess.run([uv, "venv", "-q", "-p", sys.executable, folder], check=True)
            subprocess.run([uv, "pip", "install", "-q", "-p", folder, PACKAGE], check=True)
            (folder / "complete").touch()
    finally:
        lock.release()
    return folder / "bin"


class Ray:
    """The cluster.  `environ`: variables with which it is reached;  `home`: the home folder of its jobs."""

    def __init__(self) -> None:
        self._bin = installed()
        self._folder = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp"))  # short: it holds sockets
        self.home = self._folder / "home"
        self.home.mkdir()
        self._token = secrets.token_hex(24)
        self._ports = [free_port() for _ in range(6)]
        self.environ = {"RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{self._ports[1]}", "RAY_AUTH_TOKEN": self._token}
        self.api = RayApi(self.environ["RAY_API_SERVER_ADDRESS"], self._token)
        self._head: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        names = ("port", "dashboard-port", "dashboard-agent-listen-port", "dashboard-agent-grpc-port", "ray-client-server-port")
        command = [self._bin / "ray", "start", "--head", "--block", "--node-ip-address=127.0.0.2", "--dashboard-host=127.0.0.1"]
        command += [f"--{name}={port}" for name, port in zip(names, self._ports, strict=False)]
        command += ["--num-cpus=2", "--object-store-memory=80000000", "--disable-usage-stats", f"--temp-dir={self._folder}"]
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("RUNPROJ_", "MLFLOW_", "AWS_"))}
        environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self._token, "HOME": str(self.home)}
        environ["PATH"] = f"{self._bin}:{os.environ['PATH']}"
        with (self._folder / "start.log").open("ab") as log:
            self._head = subprocess.Popen(
                command, env=environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + 300
        while not self._ready():
            if self._head.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"Ray did not start:\n{(self._folder / 'start.log').read_text()[-3000:]}")
            time.sleep(0.2)

    def _ready(self) -> bool:
        """Whether a job could begin now."""
        try:
            self.api.jobs()
        except BackendError:
            return False
        return True

    def executor(self, run_id: str) -> int:
        """The process that executes a run without seeing the home that it is of."""
        (said,) = self._folder.glob(f"session_2*/logs/runproj-{run_id}/here")
        return int(said.read_text().split()[1])

    def kill(self) -> None:
        """End all of it at once; what it started goes on as it can."""
        for pid in self._processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if self._head is not None:
            self._head.wait()

    def _processes(self) -> list[int]:
        """Of Ray itself: those that name its folder."""
        found = [] if self._head is None or self._head.poll() is not None else [self._head.pid]
        mark = str(self._folder).encode()
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = path.read_bytes()
            except OSError:
                continue
            if mark in words or (words.startswith(b"ray::") and self._mine(path.parent)):
                found.append(int(path.parent.name))
        return found

    def _mine(self, process: Path) -> bool:
        try:
            return self._token.encode() in (process / "environ").read_bytes()
        except OSError:
            return False

    def stop(self) -> None:
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)


@pytest.fixture(scope="session")
def ray() -> Iterator[Ray]:
    """A Ray that runs."""
    found = Ray()
    try:
        found.start()
        yield found
    finally:
        found.stop()


if __name__ == "__main__":  # to have it installed before tests want it
    print(installed())
