"""The suite that is shipped for backends of other packages, over the example of one, and over ours."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

import pytest

from runproj.testing import BackendSuite, EngineSuite, Program
from support.ray import Ray
from support.slurm import Slurm


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
