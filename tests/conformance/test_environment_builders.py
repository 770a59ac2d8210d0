"""What every environment builder promises (`EnvironmentBuilder`).  A new one is added to `BUILDERS` and passes unchanged."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from runproj import proc
from runproj.codec import from_json, to_json
from runproj.core.environment import DockerSpec, EnvironmentBuilder, EnvLock, EnvManager, EnvPlace, EnvSpec, LockOptions
from runproj.environments.channels import Channels
from runproj.environments.conda import CondaBuilder
from runproj.environments.conda_child import Rattler
from runproj.environments.docker import DockerBuilder
from runproj.environments.pythons import Pythons
from runproj.environments.system import SystemBuilder
from runproj.environments.uvtool import Uv
from runproj.environments.virtualenv import VirtualenvBuilder
from support.condachannel import Channel

HERE = f"{sys.version_info.major}.{sys.version_info.minor}"


def virtualenv(home: Path) -> EnvironmentBuilder:
    pythons = Pythons(home / "interpreters.json", home / "pythons", os.environ)
    return VirtualenvBuilder(Uv(home, os.environ), pythons, offline=False)


def conda(home: Path) -> EnvironmentBuilder:
    channel = Channel(home / "channel")
    channel.add_python()
    channel.index()
    uv = Uv(home, os.environ)
    pip = VirtualenvBuilder(uv, Pythons(home / "interpreters.json", home / "pythons", os.environ))
    return CondaBuilder(Rattler(home, os.environ), Channels({"conda-forge": channel.url}), uv, pip)


def system(home: Path) -> EnvironmentBuilder:
    return SystemBuilder(home / "system", os.environ)


def docker_images(home: Path) -> EnvironmentBuilder:
    return DockerBuilder(home, os.environ, lambda _: None)


BUILDERS: dict[str, Callable[[Path], EnvironmentBuilder]] = {
    "conda": conda,
    "docker": docker_images,
    "virtualenv": virtualenv,
    "system": system,
}


@pytest.fixture(params=sorted(BUILDERS))
def builder(request: pytest.FixtureRequest, isolated: Path) -> EnvironmentBuilder:
    return BUILDERS[request.param](isolated / "home")


@pytest.fixture
def spec(request: pytest.FixtureRequest, builder: EnvironmentBuilder) -> EnvSpec:
    if isinstance(builder, DockerBuilder):
        return EnvSpec(EnvManager.DOCKER, docker=DockerSpec(request.getfixturevalue("base_image")))
    return EnvSpec(python=HERE)


@pytest.fixture
def lock(builder: EnvironmentBuilder, spec: EnvSpec, isolated: Path) -> EnvLock:
    return builder.lock(spec, isolated, None, LockOptions())


@pytest.fixture
def built(builder: EnvironmentBuilder, lock: EnvLock, isolated: Path) -> Path:
    path = isolated / "built here" / "env"
    path.parent.mkdir()
    told: list[str] = []
    builder.build(lock, isolated, path, told.append)
    return path


def test_equal_requests_are_equal_digests_and_others_are_not(
    builder: EnvironmentBuilder, spec: EnvSpec, lock: EnvLock, isolated: Path
) -> None:
    assert builder.lock(spec, isolated, None, LockOptions()).digest == lock.digest
    assert len(lock.digest) == 64


def test_a_lock_is_a_document_that_comes_back_equal(lock: EnvLock) -> None:
    assert from_json(EnvLock, to_json(lock)) == lock


def test_a_built_environment_runs_commands_and_leaves_this_process_alone(
    builder: EnvironmentBuilder, lock: EnvLock, built: Path
) -> None:
    before = dict(os.environ)
    environment = builder.environment(lock, built)
    assert dict(os.environ) == before
    assert (environment.image is not None) is (environment.lock.place is EnvPlace.IMAGE)
    path = os.pathsep.join([*map(str, environment.bin), os.environ["PATH"]])
    container = ["docker", "run", "--rm", environment.image.id] if environment.image else []
    command = [*container, "/usr/bin/env", "python", "-c", "import sys; print(sys.version_info[0])"]
    ran = proc.run(command, env={**os.environ, "PATH": path})
    assert (ran.code, ran.out.decode()) == (0, f"{sys.version_info[0]}\n"), ran.text


def test_a_sound_environment_has_no_problem(builder: EnvironmentBuilder, lock: EnvLock, built: Path) -> None:
    assert builder.problem(lock, built) is None
    assert builder.problem(lock, built, thorough=True) is None
