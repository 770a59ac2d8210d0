"""The suite that is shipped for backends of other packages, over the example of one, and over ours."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pytest

from runproj.testing import BackendSuite, EngineSuite
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


class TestSlurm(EngineSuite):
    backend = "slurm"

    @pytest.fixture
    def environ(self, slurm: Slurm) -> Mapping[str, str]:
        return slurm.environ
