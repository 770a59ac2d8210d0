"""Locking: what a request becomes, as of which date, with which interpreter, and when it is answered from the store."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from conftest import HOSTILE
from runproj.core.environment import DockerSpec, EnvManager, EnvSpec, LockOptions
from runproj.environments import EnvironmentCache, pylock
from runproj.errors import EnvironmentFailure, UsageError
from support.package_index import PackageIndex, local_package, sdist

HERE = f"{sys.version_info.major}.{sys.version_info.minor}"
COMMIT = datetime(2022, 6, 1, 12, tzinfo=UTC)


@pytest.fixture
def index() -> Iterator[PackageIndex]:
    """greet 1.0 of 2020 and 2.0 of 2023; base of both times; setuptools."""
    served = PackageIndex()
    served.add_wheel("greet", "1.0", "2020-01-01", ("base",))
    served.add_wheel("greet", "2.0", "2023-01-01", ("base",))
    served.add_wheel("base", "1.5", "2019-01-01")
    served.add_wheel("base", "3.0", "2023-01-01")
    served.add_wheel("setuptools", "60.0", "2022-01-01", pkg_resources="OLD = True\n")
    served.add_wheel("setuptools", "82.0", "2026-02-01", setuptools="")
    yield served
    served.close()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / HOSTILE / "project"
    folder.mkdir()
    return folder


class Locker:
    """A cache over an index, for one project."""

    def __init__(self, home: Path, project: Path, index: PackageIndex) -> None:
        self.home, self.project = home, project
        self.environ = {**os.environ, "UV_DEFAULT_INDEX": index.url, "UV_PYTHON_DOWNLOADS": "never"}

    def __call__(self, *lines: str, when: datetime | None = COMMIT, options: LockOptions | None = None, **spec: object):
        asked = EnvSpec(**{"origin": "requirements.txt", "python": HERE, "requirements": lines, **spec})
        places = {"conda-forge": (self.home / "no channel").as_uri()}
        cache = EnvironmentCache(self.home, environ=self.environ, conda_places=places)
        return cache.lock(asked, self.project, when, options or LockOptions())


@pytest.fixture
def lock(isolated: Path, project: Path, index: PackageIndex) -> Locker:
    return Locker(isolated / "runproj home", project, index)


def versions(text: str | None) -> dict[str, str]:
    return {package["name"]: package["version"] for package in pylock.packages(text or "")}


def test_a_project_is_resolved_as_the_index_stood_at_its_commit(lock: Locker) -> None:
    found = lock("greet")
    assert versions(found.pylock) == {"greet": "1.0", "base": "1.5", "setuptools": "60.0"}
    assert found.as_of == "2022-06-03T00:00:00Z", "the midnight that ends the day after the commit"
    assert found.notes == ()
    pylock.require_hashes(found.pylock or "", "lock")


def test_commits_of_one_day_share_a_lock(lock: Locker) -> None:
    one, other = lock("greet"), lock("greet", when=COMMIT.replace(hour=23))
    assert one == other


@pytest.mark.parametrize(
    ("as_of", "greet"), [("now", "2.0"), ("2022-01-01", "1.0"), ("2023-01-01", "2.0"), ("2022-12-31T23:00:00+00:00", "1.0")]
)
def test_the_date_can_be_chosen(lock: Locker, as_of: str, greet: str) -> None:
    assert versions(lock("greet", options=LockOptions(as_of=as_of)).pylock)["greet"] == greet


def test_a_working_tree_without_a_date_is_resolved_now(lock: Locker) -> None:
    found = lock("greet", when=None)
    assert (versions(found.pylock)["greet"], found.as_of) == ("2.0", None)


def test_a_date_that_is_none_is_a_mistake_of_the_command_line(lock: Locker) -> None:
    with pytest.raises(UsageError, match="yesterday"):
        lock("greet", options=LockOptions(as_of="yesterday"))


def test_where_the_date_has_no_solution_todays_index_is_used_and_the_note_says_why(lock: Locker) -> None:
    found = lock("greet>=2")
    assert (versions(found.pylock)["greet"], found.as_of) == ("2.0", None)
    assert "2022-06-03" in found.notes[0]
    assert "greet" in found.notes[0]
    with pytest.raises(EnvironmentFailure, match="greet"):
        lock("greet>=2", options=LockOptions(strict=True))


def test_an_index_without_upload_times_is_used_as_it_is_today(lock: Locker, index: PackageIndex) -> None:
    index.upload_times = False
    found = lock("greet")
    assert (versions(found.pylock)["greet"], found.as_of) == ("2.0", None)
    assert len(found.notes) == 1


def test_setuptools_of_its_time_is_there_unless_the_project_decides(lock: Locker, index: PackageIndex) -> None:
    assert versions(lock("greet", options=LockOptions(as_of="now")).pylock)["setuptools"] == "60.0", "before pkg_resources left"
    assert versions(lock("greet", "setuptools>=80", options=LockOptions(as_of="now")).pylock)["setuptools"] == "82.0"
    assert lock(python=None, origin="nothing declared").pylock.endswith("packages = []\n"), (
        "nothing declared is an empty environment"
    )
    for name in [name for name in index.files if name.startswith("setuptools")]:
        del index.files[name]
    assert versions(lock("base").pylock) == {"base": "1.5"}, "an index without setuptools is no obstacle"


def test_an_environment_without_requirements_asks_no_index(lock: Locker, index: PackageIndex) -> None:
    lock(python=None, origin="nothing declared")
    assert index.requests == []


def test_build_requirements_are_part_of_the_environment(lock: Locker) -> None:
    assert versions(lock("greet", build_requirements=("setuptools==60.0",)).pylock)["setuptools"] == "60.0"


def test_extra_packages_are_added_and_recorded(lock: Locker) -> None:
    found = lock("base", options=LockOptions(extra=("greet",)))
    assert set(versions(found.pylock)) == {"base", "greet", "setuptools"}
    assert found.extra == ("greet",)
    assert found.digest != lock("base").digest


def test_the_same_request_is_answered_from_the_store_until_relock(lock: Locker, index: PackageIndex) -> None:
    first = lock("greet", when=None)
    index.add_wheel("greet", "3.0", "2024-01-01")
    asked = len(index.requests)
    assert lock("greet", when=None) == first
    assert len(index.requests) == asked, "without the index"
    lock.environ["UV_DEFAULT_INDEX"] += "?"  # another index is another request
    again = lock("greet", when=None, options=LockOptions(relock=True))
    assert versions(again.pylock)["greet"] == "3.0"


def test_files_that_the_requirements_include_are_part_of_the_request(lock: Locker, project: Path) -> None:
    (project / "more").mkdir()
    (project / "more/base.txt").write_text("-r deeper.txt\n")
    (project / "more/deeper.txt").write_text("base\n")
    (project / "limits.txt").write_text("base<2\n")
    lines = ("-r more/base.txt", "-c limits.txt")
    assert versions(lock(*lines, when=None).pylock)["base"] == "1.5"
    (project / "limits.txt").write_text("base>2\n")
    assert versions(lock(*lines, when=None).pylock)["base"] == "3.0"
    (project / "more/deeper.txt").write_text("base\ngreet\n")
    assert versions(lock(*lines, when=None).pylock)["greet"] == "2.0"
    (project / "more/deeper.txt").unlink()
    with pytest.raises(EnvironmentFailure, match=r"deeper\.txt"):
        lock(*lines)


def test_a_requirement_that_does_not_exist_is_told_in_the_resolvers_words(lock: Locker) -> None:
    with pytest.raises(EnvironmentFailure) as failure:
        lock("greeet")
    assert "greeet was not found" in failure.value.why
    assert "'greeet'" in failure.value.fix


def test_an_index_that_is_away_is_not_asked_twice_and_named_as_the_cause(lock: Locker) -> None:
    lock.environ |= {"UV_DEFAULT_INDEX": "http://user:secret@127.0.0.1:9/simple", "UV_HTTP_RETRIES": "0"}
    with pytest.raises(EnvironmentFailure) as failure:
        lock("greet")
    assert "network" in failure.value.fix
    assert "secret" not in str(failure.value)


def test_passwords_of_an_index_stay_out_of_the_lock(lock: Locker, index: PackageIndex) -> None:
    lock.environ["UV_DEFAULT_INDEX"] = index.url.replace("://", "://user:hunter2@")
    found = lock("greet")
    assert versions(found.pylock)["greet"] == "1.0"
    assert "hunter2" not in (found.pylock or "")
    assert not any("hunter2" in path.read_text(errors="replace") for path in (lock.home / "locks").iterdir())


def test_offline_says_what_to_do_when_something_is_not_cached(lock: Locker) -> None:
    with pytest.raises(EnvironmentFailure) as failure:
        lock("greet", options=LockOptions(offline=True))
    assert "--offline" in failure.value.fix


def test_a_local_package_is_in_the_digest_and_its_path_in_no_lock(lock: Locker, project: Path, tmp_path: Path) -> None:
    package = project / "my pkg"
    for name, text in local_package("tool", {"tool.py": "V = 1\n"}, requires=("base",)).items():
        (package / name).parent.mkdir(exist_ok=True)
        (package / name).write_text(text)
    first = lock("./my pkg")
    assert [(local.path, local.editable) for local in first.local_packages] == [("my pkg", False)]
    assert str(tmp_path) not in (first.pylock or "")
    assert versions(first.pylock)["base"] == "1.5", "its own requirements are locked"
    assert sorted(path.name for path in package.iterdir()) == ["backend.py", "pyproject.toml", "tool.py"], (
        "the build left nothing"
    )
    (package / "tool.py").write_text("V = 2\n")
    second = lock("./my pkg")
    assert first.digest != second.digest
    (package / "tool.py").write_text("V = 1\n")
    assert lock("./my pkg").digest == first.digest


def test_a_project_elsewhere_has_the_same_digest(lock: Locker, project: Path, tmp_path: Path) -> None:
    digests = []
    for folder in (project, tmp_path / "elsewhere"):
        folder.mkdir(exist_ok=True)
        for name, text in local_package("tool", {"tool.py": ""}).items():
            (folder / name).write_text(text)
        lock.project = folder
        digests.append(lock("-e .", when=None).digest)
    assert digests[0] == digests[1]


def test_a_lock_of_the_projects_own_is_used_as_it_is(lock: Locker, project: Path) -> None:
    text = lock("greet").pylock or ""
    (project / "pylock.toml").write_text(text)
    asked = replace(LockOptions(), as_of="now")
    found = lock(lock_file="pylock.toml", origin="pylock.toml", options=asked)
    assert versions(found.pylock) == versions(text)
    more = lock(lock_file="pylock.toml", origin="pylock.toml", options=replace(asked, extra=("greet", "setuptools")))
    assert versions(more.pylock) == versions(text)
    (project / "pylock.toml").write_text(text.replace("hashes", "other"))
    with pytest.raises(EnvironmentFailure, match="no hashes"):
        lock(lock_file="pylock.toml", origin="pylock.toml", options=asked)
    (project / "pylock.toml").write_text("[[packages")
    with pytest.raises(EnvironmentFailure, match="TOML"):
        lock(lock_file="pylock.toml", origin="pylock.toml", options=asked)


def test_extra_packages_join_a_lock_of_the_projects_own(lock: Locker, project: Path) -> None:
    (project / "pylock.toml").write_text(lock("base<2").pylock or "")
    found = lock(lock_file="pylock.toml", origin="pylock.toml", options=LockOptions(as_of="now", extra=("greet",)))
    assert versions(found.pylock) == {"base": "1.5", "greet": "2.0", "setuptools": "60.0"}


def test_a_uv_lock_is_used_without_a_network_and_a_stale_one_is_noted(lock: Locker, project: Path, index: PackageIndex) -> None:
    import subprocess

    declared = f'[project]\nname = "app"\nversion = "1"\nrequires-python = ">={HERE}"\ndependencies = ["greet<2"]\n'
    (project / "pyproject.toml").write_text(declared)
    uv = Path(sys.executable).with_name("uv")
    subprocess.run([uv, "lock", "-q", "--cache-dir", lock.home / "other"], cwd=project, env=lock.environ, check=True)
    index.requests.clear()
    found = lock(lock_file="uv.lock", origin="uv.lock", python=None)
    assert versions(found.pylock) == {"greet": "1.0", "base": "3.0"}
    assert (index.requests, found.notes) == ([], ())
    (project / "pyproject.toml").write_text(declared.replace("greet<2", "base"))
    assert "older than pyproject.toml" in lock(lock_file="uv.lock", origin="uv.lock", python=None).notes[0]


def test_conda_dependencies_come_from_the_index_with_a_note(lock: Locker) -> None:
    spec = {"manager": EnvManager.CONDA, "conda": ("python=" + HERE, "greet=1.0=py36_0", "cudatoolkit=10"), "python": None}
    found = lock(**spec)
    assert versions(found.pylock)["greet"] == "1.0"
    assert found.manager is EnvManager.VIRTUALENV
    assert any("cudatoolkit" in note for note in found.notes)
    assert "Conda is not used" in found.notes[0]
    assert "no channel there" in found.notes[0]
    asked = {**spec, "channels": ("defaults",)}
    assert "RUNPROJ_CONDA_CHANNELS" in lock(**asked).notes[0], "Anaconda's own channel needs a decision"
    assert not any(
        "Conda is not used" in note for note in lock(**asked, options=LockOptions(manager=EnvManager.VIRTUALENV)).notes
    )


def test_a_project_with_an_image_can_be_run_without_it(lock: Locker) -> None:
    used = lock("base", manager=EnvManager.DOCKER, docker=DockerSpec("image"), options=LockOptions(manager=EnvManager.VIRTUALENV))
    assert any("docker_env" in note for note in used.notes)


def test_a_source_package_is_built_with_what_there_was_at_the_date(lock: Locker, index: PackageIndex) -> None:
    """Its build needs `oldtool`, of which only the version of the time still works."""
    index.add_wheel("oldtool", "1.0", "2020-01-01", oldtool="def check(): pass\n")
    index.add_wheel("oldtool", "2.0", "2023-01-01", oldtool="raise SystemExit('oldtool 2 cannot do this')\n")
    files = local_package("fromsource", {"fromsource.py": ""})
    files["pyproject.toml"] = (
        files["pyproject.toml"].replace("requires = []", 'requires = ["oldtool"]').replace("[project]", "[tool.own]")
    )
    files["backend.py"] = "import oldtool; oldtool.check()\n" + files["backend.py"]
    index.add(sdist("fromsource", "1.0", files), "2021-01-01")
    with pytest.raises(EnvironmentFailure) as failure:
        lock("fromsource", options=LockOptions(as_of="now"))
    assert "oldtool 2 cannot do this" in failure.value.why
    found = lock("fromsource")
    assert (versions(found.pylock)["fromsource"], found.as_of) == ("1.0", "2022-06-03T00:00:00Z")


def test_an_interpreter_that_is_missing_is_asked_of_uv_where_downloads_are_allowed(lock: Locker, index: PackageIndex) -> None:
    lock.environ |= {"UV_PYTHON_DOWNLOADS": "automatic", "UV_PYTHON_INSTALL_MIRROR": index.url, "UV_HTTP_RETRIES": "0"}
    lock.environ |= {"PYENV_ROOT": "", "PATH": "/nonexistent"}
    with pytest.raises(EnvironmentFailure, match=r"Python 3\.14 ") as failure:
        lock("base", python="3.14", options=LockOptions(offline=True))
    assert index.requests == []
    with pytest.raises(EnvironmentFailure, match=r"Python 3\.14 ") as failure:
        lock("base", python="3.14")
    assert any("cpython-3.14" in path for path in index.requests)
    assert ".".join(map(str, sys.version_info[:3])) in failure.value.why, "what there is instead is listed"


def test_settings_of_the_shell_do_not_change_what_is_chosen(lock: Locker, tmp_path: Path) -> None:
    (tmp_path / "limits.txt").write_text("greet>5\n")
    lock.environ |= {
        "UV_CONSTRAINT": str(tmp_path / "limits.txt"),
        "UV_EXCLUDE_NEWER": "2000-01-01",
        "UV_RESOLUTION": "lowest",
        "UV_PYTHON": "/nonexistent",
        "UV_NO_CACHE": "1",
        "VIRTUAL_ENV": "/nonexistent",
        "PYTHONHOME": "/nonexistent",
        "PYTHONPATH": "/nonexistent",
    }
    assert versions(lock("greet", options=LockOptions(as_of="now")).pylock)["greet"] == "2.0"
