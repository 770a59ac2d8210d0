"""Environments in capsules: packed by the hashes of the lock, made again where there is no index."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from conftest import HOSTILE, Repository
from runproj.core.capsule import PackedEnvironment
from runproj.core.environment import Environment, EnvLock, EnvManager, EnvPlace, EnvSpec, LockOptions, PythonPin
from runproj.environments import EnvironmentCache
from runproj.environments.packing import Packer
from runproj.environments.uvtool import Uv
from runproj.errors import EnvironmentFailure
from runproj.files import sha256_file
from runproj.kept import BuiltWheel, Kept
from support.package_index import BACKEND, PackageIndex, local_package, sdist, wheel

HERE = f"{sys.version_info.major}.{sys.version_info.minor}"
BUILD = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'


def silent(_: str) -> None:
    pass


@pytest.fixture
def index() -> Iterator[PackageIndex]:
    served = PackageIndex()
    served.add_wheel("greet", "1.0", greet="def hello():\n    return 'hello'\n")
    project = f'[project]\nname = "built"\nversion = "2.0"\n{BUILD}'
    served.add(sdist("built", "2.0", {"pyproject.toml": project, "backend.py": BACKEND, "built.py": "V = 2\n"}))
    yield served
    served.close()


class Machine:
    """A home with an index, or without one."""

    def __init__(self, home: Path, index: PackageIndex | None) -> None:
        self.home = home
        self.environ = {**os.environ, "UV_DEFAULT_INDEX": index.url if index else "http://127.0.0.1:9/simple"}
        self.cache = EnvironmentCache(home, environ=self.environ, offline=index is None)

    def lock(self, project: Path, *lines: str, **options: str) -> EnvLock:
        spec = EnvSpec(origin="requirements.txt", python=HERE, requirements=lines)
        return self.cache.lock(spec, project, None, LockOptions(**options))

    def take(self, packed: PackedEnvironment, folder: Path, *, built: bool = True) -> None:
        """What an import does with the packages of a capsule."""
        kept = Kept(self.home)
        (self.home / "capsules").mkdir(parents=True, exist_ok=True)
        for item in packed.wheels:
            if built or not item.of:
                assert kept.objects.put(folder / item.path) == item.sha256
            if built and item.of:
                kept.keep_wheel(item.of, BuiltWheel(Path(item.path).name, item.sha256))


def said(environment: Environment, code: str, project: Path) -> str:
    assert environment.path
    env = {"PATH": os.environ["PATH"], **environment.variables}
    python = str(environment.path / "bin/python")
    return subprocess.run([python, "-c", code], cwd=project, env=env, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / HOSTILE / "project"
    for name, text in local_package("mine", {"src/mine/__init__.py": "W = 'mine'\n"}).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize("installer", ["uv", "pip"])
def test_wheels_source_archives_and_the_project_itself_are_carried(
    tmp_path: Path, index: PackageIndex, project: Path, installer: str
) -> None:
    here, there = Machine(tmp_path / HOSTILE / "here", index), Machine(tmp_path / HOSTILE / "there", None)
    lock = here.lock(project, "greet", "built", "-e .", installer=installer)
    folder = tmp_path / "wheels"
    folder.mkdir()
    packed = here.cache.pack(lock, project, folder, silent)
    assert packed.complete and packed.digest == lock.digest
    assert {wheel.path.rpartition("/")[2]: bool(wheel.of) for wheel in packed.wheels} == {
        "greet-1.0-py3-none-any.whl": False,
        "built-2.0-py3-none-any.whl": True,
        "mine-1.0-py3-none-any.whl": True,
    }
    assert all(sha256_file(folder / wheel.path) == wheel.sha256 for wheel in packed.wheels)
    assert not (project / "left-behind-by-the-build").exists()

    there.take(packed, folder)
    environment = there.cache.ensure(lock, project, silent)
    code = "import greet, built, mine; print(greet.hello(), built.V, mine.W, mine.__file__)"
    assert said(environment, code, project) == f"hello 2 mine {project / 'src/mine/__init__.py'}"
    assert [view.problem for view in there.cache.verify()] == [None]

    index.close()  # what came in a capsule can go on in another one
    onward = tmp_path / "onward"
    onward.mkdir()
    again = there.cache.pack(lock, project, onward, silent)
    assert {(wheel.path, wheel.sha256) for wheel in again.wheels} == {(wheel.path, wheel.sha256) for wheel in packed.wheels}


def test_a_lock_that_bears_the_digest_of_another_gets_an_environment_of_its_own(
    tmp_path: Path, index: PackageIndex, project: Path
) -> None:
    """A plan comes from anybody, and says what its digest is: it must not stand in for what others trust."""
    machine = Machine(tmp_path / "here", index)
    index.add_wheel("other", "1.0", other="")
    lock, foreign = machine.lock(project, "greet"), machine.lock(project, "other")
    machine.cache.ensure(replace(foreign, digest=lock.digest), project, silent)
    assert said(machine.cache.ensure(lock, project, silent), "import greet; print(greet.hello())", project) == "hello"
    environment = machine.cache.ensure(replace(foreign, digest="../../elsewhere"), project, silent)
    assert environment.path and environment.path.is_relative_to(tmp_path / "here" / "envs")
    assert len(machine.cache.list()) == 2
    assert machine.cache.examine(replace(lock, digest="../../elsewhere")) is None


def test_packages_of_repositories_and_of_addresses_are_carried(
    tmp_path: Path, index: PackageIndex, project: Path, make_repository
) -> None:
    here, there = Machine(tmp_path / "here", index), Machine(tmp_path / "there", None)
    remote = Repository(tmp_path / "remote")  # uv wants no hostile name here
    remote.commit(local_package("distant", {"src/distant.py": "D = 'distant'\n"}))
    address = f"{index.url.removesuffix('/simple')}/files/direct-1.0-py3-none-any.whl"
    index.add_wheel("direct", "1.0", direct="X = 'direct'\n")
    lock = here.lock(project, f"distant @ git+file://{remote.path}@{remote.head}", f"direct @ {address}")
    folder = tmp_path / "wheels"
    folder.mkdir()
    packed = here.cache.pack(lock, project, folder, silent)
    found = {wheel.path.rpartition("/")[2]: bool(wheel.of) for wheel in packed.wheels}
    assert found == {"distant-1.0-py3-none-any.whl": True, "direct-1.0-py3-none-any.whl": False}
    index.close()
    shutil.rmtree(remote.path)
    there.take(packed, folder)
    environment = there.cache.ensure(lock, project, silent)
    assert said(environment, "import distant, direct; print(distant.D, direct.X)", project) == "distant direct"


def test_wheels_for_an_interpreter_without_a_pip_are_chosen_by_what_it_is(
    tmp_path: Path, index: PackageIndex, project: Path
) -> None:
    architecture = platform.machine()
    base = wheel("old", "1.0", {"old.py": ""})[1]
    fitting = {f"old-1.0-cp38-cp38-manylinux2014_{architecture}.whl": "3.8.18", "old-1.0-cp36-cp36m-linux_x86_64.whl": "3.6.15"}
    fitting["old-1.0-cp37-cp37m-manylinux_2_17_x86_64.manylinux2014_x86_64.whl"] = "3.7.16"
    for name in (*fitting, "old-1.0-cp39-cp39-manylinux2014_x86_64.whl", "old-1.0-cp38-cp38-win_amd64.whl"):
        index.add((name, base))
    files = json.loads(index.answer("/simple/old/")[1] or b"")["files"]
    listed = ", ".join(
        f'{{ name = "{file["filename"]}", url = "{file["url"]}", hashes = {{ sha256 = "{file["hashes"]["sha256"]}" }} }}'
        for file in files
    )
    text = f'lock-version = "1.0"\n\n[[packages]]\nname = "old"\nversion = "1.0"\nwheels = [{listed}]\n'
    text += "".join(
        f'\n[[packages]]\nname = "elsewhere"\nversion = "1"\nmarker = "{marker}"\n'
        f'sdist = {{ name = "elsewhere-1.tar.gz", url = "{index.url}/none.tar.gz", hashes = {{ sha256 = "{"0" * 64}" }} }}\n'
        for marker in ("sys_platform == 'win32'", "os_name == 'nt'")
    )
    lock = EnvLock(EnvManager.VIRTUALENV, EnvPlace.HOST, "d" * 64, "test", "linux", pylock=text)
    uv = Uv(tmp_path / "home", os.environ)
    for name, version in fitting.items():
        into = tmp_path / version
        into.mkdir()
        packer = Packer(uv, PythonPin(version, "CPython", "/nonexistent"), silent)
        assert [item.path for item in packer.pack(lock, project, into)] == [name]


def test_what_was_built_elsewhere_is_not_taken_for_what_the_lock_names(
    tmp_path: Path, index: PackageIndex, project: Path
) -> None:
    here, there = Machine(tmp_path / "here", index), Machine(tmp_path / "there", None)
    lock = here.lock(project, "greet", "built")
    folder = tmp_path / "wheels"
    folder.mkdir()
    packed = here.cache.pack(lock, project, folder, silent)
    there.take(packed, folder, built=False)
    index.close()
    with pytest.raises(EnvironmentFailure, match="cannot be built"):
        there.cache.ensure(lock, project, silent)


def test_a_wheel_that_is_not_what_the_lock_names_is_refused_by_the_installer(
    tmp_path: Path, index: PackageIndex, project: Path
) -> None:
    here, there = Machine(tmp_path / "here", index), Machine(tmp_path / "there", None)
    lock = here.lock(project, "greet")
    digest = json.loads(index.answer("/simple/greet/")[1] or b"")["files"][0]["hashes"]["sha256"]
    (there.home / "capsules").mkdir(parents=True)
    target = Kept(there.home).objects.path(digest)
    target.parent.mkdir(parents=True)
    target.write_bytes(wheel("greet", "1.0", {"greet.py": "def hello():\n    return 'evil'\n"})[1])
    with pytest.raises(EnvironmentFailure, match="cannot be built") as error:
        there.cache.ensure(lock, project, silent)
    assert digest in error.value.why


def test_what_the_index_has_lost_is_named(tmp_path: Path, index: PackageIndex, project: Path) -> None:
    here = Machine(tmp_path / "here", index)
    lock = here.lock(project, "greet")
    index.files.clear()
    with pytest.raises(EnvironmentFailure, match="cannot be had") as error:
        here.cache.pack(lock, project, tmp_path, silent)
    assert "greet" in error.value.why


def test_an_environment_of_the_system_is_not_carried_and_that_is_said(tmp_path: Path, project: Path) -> None:
    here = Machine(tmp_path / "here", None)
    spec = EnvSpec(manager=EnvManager.SYSTEM)
    lock = here.cache.lock(spec, project, None, LockOptions(manager=EnvManager.SYSTEM))
    packed = here.cache.pack(lock, project, tmp_path, silent)
    assert packed.wheels == () and "does not hold it" in packed.notes[0]
