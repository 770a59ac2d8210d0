"""The suite that is shipped for backends of other packages, over the example of one, and over ours."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

import pytest

from runproj.testing import HOSTILE, BackendSuite, EngineSuite, Program
from support import warm
from support.kubernetes import Kubernetes, pod_with
from support.ray import Ray
from support.slurm import Slurm
from support.sshd import Sshd
from support.waiting import until


@pytest.fixture(autouse=True)
def _forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands are forks, where they can be: that of a package of its own is started as it is for whoever uses the suite."""
    started = Program.__call__

    def call(self: Program, *arguments: str, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        prepared = warm.find(self.environ)
        if prepared is None:
            return started(self, *arguments, timeout=timeout)
        return prepared.run(list(arguments), self.environ, self.project)

    monkeypatch.setattr(Program, "__call__", call)


class TestLocal(BackendSuite):
    backend = "local"


class TestPackageOfItsOwn(EngineSuite):
    """`example_backends/background`, as pip installs it."""

    backend = "background"
    config = MappingProxyType({"nice": 1})

    @pytest.fixture
    def environ(self, background: Path) -> Mapping[str, str]:
        return {"PYTHONPATH": str(background)}


class TestQueue(EngineSuite):
    """With a worker that takes three runs at a time."""

    backend = "queue"

    @pytest.fixture(autouse=True)
    def _worker(self, program: Program) -> Iterator[None]:
        log = (program.project / "worker.log").open("w")
        command = program.command("worker", "--parallel", "3")
        worker = subprocess.Popen(command, env=program.environ, cwd=program.project, stdout=log, stderr=log)
        until(lambda: list((program.home / "queue" / "workers").glob("*.json")))  # it hears signals by now
        yield
        worker.terminate()
        assert worker.wait(200) == 0
        log.close()


class TestSlurm(EngineSuite):
    backend = "slurm"

    @pytest.fixture
    def environ(self, slurm: Slurm) -> Mapping[str, str]:
        return slurm.environ


class TestRay(EngineSuite):
    backend = "ray"

    @pytest.fixture
    def environ(self, ray: Ray) -> Mapping[str, str]:
        return ray.environ


class TestRayFar(TestRay):
    """On nodes that see neither this home nor a tracking server."""

    config = MappingProxyType({"python": sys.executable})


class TestKubernetes(EngineSuite):
    backend = "kubernetes"

    @pytest.fixture
    def environ(self, kubernetes: Kubernetes) -> Mapping[str, str]:
        return kubernetes.environ

    @pytest.fixture
    def program(self, tmp_path: Path, environ: Mapping[str, str]) -> Program:
        """Its home is seen by the pods."""
        folder = tmp_path / HOSTILE
        made = Program(folder, self.backend, pod_with(folder / "runproj home"), environ)
        made.home.mkdir()
        return made


class TestSsh(EngineSuite):
    backend = "ssh"

    @pytest.fixture
    def program(self, tmp_path: Path, sshd: Sshd) -> Program:
        return Program(tmp_path / HOSTILE, self.backend, sshd.config, {})
