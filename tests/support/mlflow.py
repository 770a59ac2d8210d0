"""Real MLflow for tests: virtual environments with its clients, kept between test runs, and a server process.

The environments are kept below $RUNPROJ_TEST_CACHE where it is set, and below pytest's own cache folder otherwise.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from runproj.files import Lock, remove_tree
from support.ports import free_port

FULL = ("mlflow==3.17.2", "scikit-learn==1.8.0")
SECOND = ("mlflow-skinny==2.22.1",)
FULL_SECOND = ("mlflow==2.22.1", "scikit-learn==1.6.1", "matplotlib==3.10.1", "setuptools<80")
FIRST = ("mlflow-skinny==1.30.1", "setuptools<70")

MakeEnvironment = Callable[[tuple[str, ...]], Path]


@pytest.fixture(scope="session")
def cached_environment(request: pytest.FixtureRequest) -> MakeEnvironment:
    """Makes a virtual environment with the packages that are named, once for ever; returns its interpreter."""
    config = request.config
    assert config.cache
    root = Path(os.environ.get("RUNPROJ_TEST_CACHE") or config.cache.mkdir("environments"))
    return lambda packages: _build(root, packages)


@pytest.fixture(scope="session")
def mlflow_python(cached_environment: MakeEnvironment) -> Path:
    """The interpreter of an environment with the newest mlflow and scikit-learn."""
    return cached_environment(FULL)


def _build(root: Path, packages: tuple[str, ...]) -> Path:
    version = ".".join(map(str, sys.version_info[:2]))
    name = packages[0].replace("==", "-") + "-" + hashlib.sha256(repr((packages, version)).encode()).hexdigest()[:8]
    folder = root / name
    python, ready = folder / "bin" / "python", folder / "ready"
    if ready.exists():
        return python
    root.mkdir(parents=True, exist_ok=True)
    with Lock(root / f"{name}.lock"):
        if not ready.exists():
            remove_tree(folder)
            environ = {"UV_CACHE_DIR": str(root / "uv"), **os.environ}
            uv = [sys.executable, "-m", "uv"]
            subprocess.run([*uv, "venv", "-q", "--python", sys.executable, str(folder)], check=True, env=environ)
            subprocess.run([*uv, "pip", "install", "-q", "--python", str(python), *packages], check=True, env=environ)
            ready.touch()
    return python


def mlflow_environment(**variables: str) -> dict[str, str]:
    """The environment of a test without anything that would lead MLflow elsewhere, or to the network."""
    base = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "PYTHON"))}
    return {**base, "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true", "GIT_PYTHON_REFRESH": "quiet", **variables}


@pytest.fixture(scope="session")
def mlflow_server(mlflow_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real `mlflow server` with proxied artifacts, which all tests of a process share."""
    with mlflow_serves(mlflow_python, tmp_path_factory.mktemp("mlflow server")) as url:
        yield url


@contextmanager
def mlflow_serves(python: Path, folder: Path) -> Iterator[str]:
    """A real `mlflow server` that keeps all it has in a folder, and its address."""
    port = free_port()
    command = [
        *(str(python), "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
        *("--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}", "--artifacts-destination", str(folder / "artifacts")),
    ]
    environ = mlflow_environment(MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false")  # half a dozen processes that nobody asks
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, env=environ, cwd=folder, stdout=log, stderr=log, start_new_session=True)
    try:
        _await(f"http://127.0.0.1:{port}/health", process, folder / "log")
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, 15)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.wait()


def _await(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except OSError:
            if process.poll() is not None:
                break
            time.sleep(0.2)
    raise AssertionError(f"mlflow server did not start:\n{log.read_text()[-3000:]}")
