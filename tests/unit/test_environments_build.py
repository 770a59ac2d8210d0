"""Building: once, completely or not at all, with what the lock says; checked, leased, pruned."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from conftest import HOSTILE
from runproj import codec
from runproj.core.environment import Environment, EnvLock, EnvManager, EnvSpec, LockOptions
from runproj.environments import EnvironmentCache
from runproj.errors import EnvironmentFailure, NotFoundError, RunprojError
from support.package_index import PackageIndex, local_package

HERE = f"{sys.version_info.major}.{sys.version_info.minor}"


def silent(_: str) -> None:
    pass


@pytest.fixture
def index() -> Iterator[PackageIndex]:
    served = PackageIndex()
    served.add_wheel("greet", "1.0", greet="def hello():\n    return 'hello'\n")
    served.add_wheel("setuptools", "60.0", pkg_resources="OLD = True\n")
    yield served
    served.close()


class Machine:
    """A home, a project and an index."""

    def __init__(self, home: Path, project: Path, index: PackageIndex) -> None:
        self.home, self.project, self.index = home, project, index
        self.environ = {**os.environ, "UV_DEFAULT_INDEX": index.url}

    def cache(self, **options: bool) -> EnvironmentCache:
        return EnvironmentCache(self.home, environ=self.environ, **options)

    def lock(self, *lines: str, options: LockOptions | None = None, **spec: object) -> EnvLock:
        asked = EnvSpec(**{"origin": "requirements.txt", "python": HERE, "requirements": lines, **spec})
        return self.cache().lock(asked, self.project, None, options or LockOptions())

    def ensure(self, lock: EnvLock, cache: EnvironmentCache | None = None) -> Environment:
        """The environment; without a cache of the caller's, nobody is in it afterwards."""
        used = cache or self.cache()
        environment = used.ensure(lock, self.project, silent)
        if cache is None:
            used.release(lock)
        return environment

    def make(self, *lines: str) -> tuple[EnvLock, Environment]:
        lock = self.lock(*lines)
        return lock, self.ensure(lock)

    def site(self, environment: Environment) -> Path:
        assert environment.path
        return next(environment.path.glob("lib/python3*/site-packages"))


@pytest.fixture
def machine(isolated: Path, tmp_path: Path, index: PackageIndex) -> Machine:
    project = tmp_path / HOSTILE / "project"
    project.mkdir()
    return Machine(isolated / "runproj home", project, index)


def run(environment: Environment, code: str, cwd: Path | None = None) -> str:
    """Run Python in the environment, as the executor does."""
    variables = {name: value for name, value in os.environ.items() if name not in environment.unset}
    variables |= {"PATH": os.pathsep.join([*map(str, environment.bin), variables["PATH"]]), **environment.variables}
    done = subprocess.run(["python", "-c", code], env=variables, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def test_an_environment_holds_what_its_lock_says(machine: Machine) -> None:
    _, environment = machine.make("greet")
    assert run(environment, "import greet; print(greet.hello())") == "hello"
    assert run(environment, "import pkg_resources; print(pkg_resources.OLD)") == "True", "as every environment of old had it"
    assert run(environment, "import sys; print(sys.prefix)") == str(environment.path)
    assert environment.variables["VIRTUAL_ENV"] == str(environment.path)
    assert {"PYTHONHOME", "PYTHONPATH", "PYENV_VERSION", "CONDA_PREFIX"} <= set(environment.unset)
    assert list((machine.home / "cache/scratch").iterdir()) == []


def test_a_second_use_starts_nothing(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    lock, first = machine.make("greet")
    machine.index.close()
    from runproj import proc

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr(proc, "stream", refuse)
    assert machine.lock("greet") == lock
    assert machine.ensure(lock) == first


def test_a_warm_use_is_cheap(machine: Machine) -> None:
    lock, _ = machine.make("greet")
    asked = EnvSpec(origin="requirements.txt", python=HERE, requirements=("greet",))
    calls: list[str] = []
    for _ in range(2):  # the second time nothing is loaded any more
        calls.clear()
        sys.setprofile(lambda frame, event, _: calls.append(frame.f_code.co_name) if "call" in event else None)
        try:
            cache = machine.cache()
            assert cache.lock(asked, machine.project, None, LockOptions()) == lock
            cache.ensure(lock, machine.project, silent)
        finally:
            sys.setprofile(None)
    assert len(calls) < 1500


BUILD = """
import os, sys
from pathlib import Path
from runproj import codec
from runproj.core.environment import EnvLock
from runproj.environments import EnvironmentCache
lock = codec.from_json(EnvLock, Path(sys.argv[2]).read_bytes())
said = lambda text: print(text, flush=True)
print("have", EnvironmentCache(Path(sys.argv[1])).ensure(lock, Path(sys.argv[3]), said).path)
"""


def build_command(machine: Machine, lock: EnvLock) -> list[str]:
    file = machine.home / "wanted.json"
    file.write_text(codec.to_json(lock))
    return [sys.executable, "-c", BUILD, str(machine.home), str(file), str(machine.project)]


def test_eight_at_once_make_one_build(machine: Machine) -> None:
    lock = machine.lock("greet")
    command = build_command(machine, lock)
    started = [subprocess.Popen(command, env=machine.environ, stdout=subprocess.PIPE, text=True) for _ in range(8)]
    said = [process.communicate(timeout=120)[0] for process in started]
    assert [process.returncode for process in started] == [0] * 8
    assert sum("creating a virtualenv" in text for text in said) == 1
    assert all("have " in text for text in said)
    assert any("waiting for process" in text for text in said)


@pytest.mark.slow
def test_killed_at_any_point_the_next_use_builds_it_whole(machine: Machine, tmp_path: Path) -> None:
    """Walks the points at which the builder changes the disk, and kills it there."""
    lock = machine.lock("greet")
    command = build_command(machine, lock)
    calls = "mkdir,rename,unlink,unlinkat,rmdir,fsync,flock,clone,ftruncate,wait4"
    killed = 0
    for call in calls.split(","):
        for count in range(1, 100):
            folder = machine.home / "envs"
            subprocess.run(["rm", "-rf", folder], check=True)
            inject = f"inject={call}:signal=KILL:when={count}"
            argv = ["strace", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e", inject, *command]
            done = subprocess.run(argv, env=machine.environ, capture_output=True, text=True, timeout=120)
            manifests = list(folder.glob("*/manifest.json"))
            if manifests:  # then it is whole
                assert (manifests[0].parent / "env/bin/python").exists()
                assert list(manifests[0].parent.glob("env/lib/*/site-packages/greet.py"))
            if done.returncode == 0:
                break
            killed += 1
            environment = machine.ensure(lock)
            assert run(environment, "import greet; print(greet.hello())") == "hello", (call, count)
            assert machine.cache().verify()[0].problem is None
    assert killed >= 12
    machine.cache().prune(days=0)
    assert [path.name for path in (machine.home / "envs").iterdir() if path.is_dir()] == []


def test_what_a_killed_installer_left_is_not_reused(machine: Machine) -> None:
    lock = machine.lock("greet")
    half = machine.home / "envs" / lock.digest[:32] / "env"
    write(half, {"bin/python": "", "pyvenv.cfg": "", f"lib/python{HERE}/site-packages/half.py": ""})
    environment = machine.ensure(lock)
    assert run(environment, "import greet; print(greet.hello())") == "hello"
    assert not list(machine.site(environment).glob("half.py"))


@pytest.mark.parametrize("damage", ["python", "package", "manifest", "everything"])
def test_damage_that_a_glance_shows_is_repaired(machine: Machine, damage: str) -> None:
    lock, environment = machine.make("greet")
    assert environment.path
    match damage:
        case "python":
            (environment.path / "bin/python").unlink()
        case "package":
            (machine.site(environment) / "greet.py").unlink()
        case "manifest":
            (environment.path.parent / "manifest.json").write_text('{"digest": "')
        case _:
            subprocess.run(["rm", "-rf", environment.path], check=True)
    assert run(machine.ensure(lock), "import greet; print(greet.hello())") == "hello"


def test_a_package_that_a_run_installed_is_gone_at_the_next(machine: Machine) -> None:
    lock, environment = machine.make("greet")
    (machine.site(environment) / "intruder.py").write_text("")
    assert "intruder.py" not in os.listdir(machine.site(machine.ensure(lock)))


def test_packages_that_a_run_added_are_left_to_it_while_it_runs(machine: Machine) -> None:
    lock = machine.lock("greet")
    environment = machine.ensure(lock, machine.cache())
    (machine.site(environment) / "intruder.py").write_text("")
    assert machine.ensure(lock) == environment
    (machine.site(environment) / "greet.py").unlink()
    (machine.home / "envs" / lock.digest[:32] / "env/pyvenv.cfg").unlink()
    with pytest.raises(EnvironmentFailure, match="another run"):
        machine.ensure(lock)


def test_bytecode_is_no_damage(machine: Machine) -> None:
    lock, environment = machine.make("greet")
    run(environment, "import greet")
    built = (environment.path.parent / "manifest.json").stat().st_mtime_ns
    machine.ensure(lock)
    assert (environment.path.parent / "manifest.json").stat().st_mtime_ns == built
    assert machine.cache().verify()[0].problem is None


def test_verify_finds_one_flipped_bit_and_the_next_use_repairs_it(machine: Machine) -> None:
    lock, environment = machine.make("greet")
    target = machine.site(environment) / "greet.py"
    content = bytearray(target.read_bytes())
    content[5] ^= 1
    target.unlink()  # a hard link: the package cache keeps its own
    target.write_bytes(content)
    assert machine.cache().list()[0].problem is None, "a glance does not show it"
    assert "greet.py" in (machine.cache().verify(lock.digest[:8])[0].problem or "")
    assert machine.cache().list()[0].problem
    assert run(machine.ensure(lock), "import greet; print(greet.hello())") == "hello"
    assert machine.cache().verify()[0].problem is None


def test_prune_leaves_what_is_used_and_what_was_used_lately(machine: Machine) -> None:
    old, lately = machine.lock("greet"), machine.lock("setuptools")
    user = machine.cache()
    machine.ensure(old, user)
    machine.ensure(lately)
    for path in (machine.home / "envs").glob(f"{old.digest[:32]}.used"):
        os.utime(path, (1, 1))
    assert machine.cache().prune(days=30) == (), "in use"
    user.release(old)
    assert [view.digest for view in machine.cache().prune(days=30, dry_run=True)] == [old.digest]
    assert len(machine.cache().list()) == 2
    assert [view.digest for view in machine.cache().prune(days=30)] == [old.digest]
    assert [view.digest for view in machine.cache().list()] == [lately.digest]
    assert machine.cache().prune(days=0, keep=1) == ()
    assert run(machine.ensure(old), "import greet; print(greet.hello())") == "hello"


def test_hold_keeps_an_environment(machine: Machine) -> None:
    lock, _ = machine.make("greet")
    with machine.cache().hold(lock):
        assert machine.cache().prune(days=0) == ()
    assert len(machine.cache().prune(days=0)) == 1


def test_show_and_list_tell_what_there_is(machine: Machine) -> None:
    assert machine.cache().list() == ()
    lock, environment = machine.make("greet")
    view, shown = machine.cache().show(lock.digest[:6])
    assert (view.digest, view.packages, view.origin, view.path) == (lock.digest, 2, "requirements.txt", str(environment.path))
    assert view.size and view.size > 1000
    assert view.used and abs(view.used / 1000 - time.time()) < 60
    assert shown == lock
    with pytest.raises(NotFoundError, match="ffff"):
        machine.cache().show("ffff")


def test_a_build_that_fails_says_why_and_leaves_nothing(machine: Machine) -> None:
    files = local_package("broken", {"broken.py": ""})
    files["backend.py"] = "def build_wheel(*_, **__): raise RuntimeError('no compiler, no luck')\n"
    write(machine.project, {f"broken/{name}": text for name, text in files.items()})
    lock = machine.lock("./broken")
    with pytest.raises(EnvironmentFailure) as failure:
        machine.ensure(lock)
    assert "no compiler, no luck" in failure.value.why
    assert failure.value.fix
    assert [path for path in (machine.home / "envs").iterdir() if path.is_dir()] == []
    assert list((machine.home / "cache/scratch").iterdir()) == []


def test_a_file_that_is_not_what_was_locked_is_refused(machine: Machine) -> None:
    lock = machine.lock("greet")
    subprocess.run(["rm", "-rf", machine.home / "cache/uv"], check=True)
    machine.index.add_wheel("greet", "1.0", greet="def hello():\n    return 'nasty'\n")
    with pytest.raises(EnvironmentFailure, match=r"(?i)hash"):
        machine.ensure(lock)


def test_a_local_package_works_when_its_checkout_is_gone(machine: Machine) -> None:
    write(machine.project, {f"tool/{name}": text for name, text in local_package("tool", {"tool.py": "V = 1\n"}).items()})
    first = machine.lock("./tool")
    environment = machine.ensure(first)
    assert (machine.project / "tool/left-behind-by-the-build").exists() is False
    (machine.project / "tool/tool.py").write_text("V = 2\n")
    second = machine.lock("./tool")
    assert first.digest != second.digest
    other = machine.ensure(second)
    subprocess.run(["rm", "-rf", machine.project], check=True)
    assert run(environment, "import tool; print(tool.V)") == "1"
    assert run(other, "import tool; print(tool.V)") == "2"


def test_an_editable_package_is_read_from_the_runs_own_checkout(machine: Machine, tmp_path: Path) -> None:
    files = local_package("tool", {"src/tool/__init__.py": "", "data.txt": "next to it"})
    write(machine.project, files)
    lock = machine.lock("-e .")
    environment = machine.ensure(lock)
    assert environment.variables["PYTHONPATH"] == str(machine.project / "src")
    where = run(environment, "import tool; print(tool.__file__)")
    assert where == str(machine.project / "src/tool/__init__.py")
    another = tmp_path / "another checkout"
    write(another, files)
    elsewhere = machine.cache().ensure(lock, another, silent)
    assert run(elsewhere, "import tool; print(tool.__file__)") == str(another / "src/tool/__init__.py")
    subprocess.run(["rm", "-rf", another, machine.project], check=True)
    assert "site-packages" in run(elsewhere, "import tool; print(tool.__file__)"), "a copy stays behind"


@pytest.mark.parametrize("reason", ["generated", "hides"])
def test_an_editable_package_that_cannot_be_read_in_place_is_used_from_its_copy(machine: Machine, reason: str) -> None:
    extra = {"GENERATE": ""} if reason == "generated" else {"random.py": "raise SystemExit('not the real one')\n"}
    write(machine.project, local_package("tool", {"tool.py": "import random\n", **extra}))
    environment = machine.ensure(machine.lock("-e ."))
    assert "PYTHONPATH" not in environment.variables
    assert "site-packages" in run(environment, "import tool; print(tool.__file__)")


def test_a_local_package_that_changed_after_locking_is_refused(machine: Machine) -> None:
    write(machine.project, local_package("tool", {"tool.py": ""}))
    lock = machine.lock(".")
    (machine.project / "tool.py").write_text("CHANGED = 1\n")
    with pytest.raises(EnvironmentFailure, match="not what it was"):
        machine.ensure(lock)


def test_an_interpreter_that_is_gone_is_named(machine: Machine) -> None:
    lock = machine.lock("greet")
    assert lock.python
    python = replace(lock.python, version="3.7.99", path="/nonexistent/python3.7")
    with pytest.raises(EnvironmentFailure, match=r"3\.7\.99") as failure:
        machine.ensure(replace(lock, python=python, digest="0" * 64))
    assert lock.python.version in failure.value.why, "what was found is listed"


def test_pip_installs_the_same_files(machine: Machine) -> None:
    machine.environ |= {"PIP_INDEX_URL": machine.index.url, "PIP_FIND_LINKS": ""}
    lock = machine.lock("greet", options=LockOptions(installer="pip"))
    environment = machine.ensure(lock)
    assert run(environment, "import greet; print(greet.hello())") == "hello"
    assert lock.digest == machine.lock("greet").digest


def test_the_package_cache_is_shared_by_hard_links(machine: Machine) -> None:
    _, environment = machine.make("greet")
    assert (machine.site(environment) / "greet.py").stat().st_nlink > 1


@pytest.mark.slow
def test_a_full_disk_is_told_and_a_later_try_succeeds(machine: Machine, tmp_path: Path) -> None:
    """On a file system of its own, which is small."""
    small = tmp_path / "small"
    small.mkdir()
    machine.index.add_wheel("large", "1.0", large="# " + os.urandom(3_000_000).hex() + "\n")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", small], check=True)
    try:
        machine.home = small / "home"
        failures = 0
        try:
            machine.ensure(machine.lock("large"))
        except RunprojError as error:
            failures += 1
            assert "space" in f"{error.why} {error.fix}".lower()
        assert failures == 1
        assert list((machine.home / "envs").glob("*/manifest.json")) == []
        subprocess.run(["mount", "-o", "remount,size=100m", small], check=True)
        environment = machine.ensure(machine.lock("large"))
        assert run(environment, "import large; print('fits')") == "fits"
    finally:
        subprocess.run(["umount", "-l", small], check=True)


def test_system_is_recorded_and_nothing_is_installed(machine: Machine) -> None:
    options = LockOptions(manager=EnvManager.SYSTEM)
    machine.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{machine.environ['PATH']}"
    lock = machine.lock("greet", options=options)
    assert lock.python and lock.python.path == sys.executable
    assert any(item.startswith("pytest==") for item in lock.installed)
    assert any("not installed" in note for note in lock.notes)
    environment = machine.ensure(lock)
    assert json.loads(run(environment, "import sys, json; print(json.dumps(sys.executable))")) == sys.executable
    with pytest.raises(EnvironmentFailure, match="one that was recorded"):
        machine.ensure(replace(lock, installed=()))
    with pytest.raises(EnvironmentFailure, match="--with"):
        machine.lock("greet", options=replace(options, extra=("six",)))


@pytest.mark.network
@pytest.mark.slow
def test_the_real_index_as_it_stood(machine: Machine) -> None:
    del machine.environ["UV_DEFAULT_INDEX"]
    lock = machine.cache().lock(
        EnvSpec(python=HERE, requirements=("six", "numpy")), machine.project, datetime(2023, 2, 1, tzinfo=UTC), LockOptions()
    )
    assert 'name = "numpy"\nversion = "1.24.1"' in (lock.pylock or "")
    assert run(machine.ensure(lock), "import numpy, pkg_resources; print(numpy.__version__)") == "1.24.1"
