"""`runproj lock` and `--locked`: locks that are committed with a project."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import Repository
from runproj.codec import from_json
from runproj.core.environment import LockFile
from runproj.environments import pylock
from support.package_index import PackageIndex, local_package
from support.program import Cli

HERE = f"{sys.version_info.major}.{sys.version_info.minor}"
FILES = {
    "MLproject": "name: x\npython_env: python_env.yaml\nentry_points: {main: {command: python main.py}}\n",
    "python_env.yaml": f"python: '{HERE}'\ndependencies: [greet, -r more.txt]\n",
    "more.txt": "base\n",
    "main.py": "import greet, base; print(greet.V, base.V)\n",
}


@pytest.fixture
def index() -> Iterator[PackageIndex]:
    served = PackageIndex()
    served.add_wheel("greet", "1.0", "2020-01-01")
    served.add_wheel("base", "1.0", "2020-01-01")
    yield served
    served.close()


@pytest.fixture
def program(cli: Cli, index: PackageIndex) -> Cli:
    cli.env |= {"UV_DEFAULT_INDEX": index.url, "UV_PYTHON_DOWNLOADS": "never"}
    return cli


@pytest.fixture
def locked(program: Cli, repository: Repository) -> Repository:
    """A project with its lock."""
    repository.write(FILES)
    assert program("lock", str(repository.path)).returncode == 0
    repository.commit({})
    return repository


def versions(folder: Path) -> dict[str, str]:
    return {item["name"]: item["version"] for item in pylock.packages((folder / "pylock.toml").read_text())}


def test_a_committed_lock_is_what_runs_use(program: Cli, locked: Repository, index: PackageIndex) -> None:
    index.add_wheel("greet", "2.0", "2024-01-01")
    index.requests.clear()
    result = program("run", locked.url, "--locked")
    assert (result.returncode, result.stdout) == (0, "1.0 1.0\n"), result.stderr
    assert not [path for path in index.requests if "/simple/" in path], "nothing is resolved"
    assert program("run", locked.url).stdout == "1.0 1.0\n", "the lock counts without --locked, too"
    assert "left aside" in program("plan", locked.url, "--as-of", "now").stderr
    assert program("lock", str(locked.path), "--check").returncode == 0
    before = (locked.path / "pylock.toml").read_bytes()
    assert program.json("lock", str(locked.path))["state"] == "current"
    assert (locked.path / "pylock.toml").read_bytes() == before
    report = program.json("lock", str(locked.path), "--upgrade")
    assert (report["state"], versions(locked.path)) == ("written", {"base": "1.0", "greet": "2.0"})


def test_the_same_request_is_the_same_file_and_the_same_digest_elsewhere(
    program: Cli, locked: Repository, tmp_path: Path
) -> None:
    text = (locked.path / "pylock.toml").read_text()
    assert str(tmp_path) not in text
    here = program.json("plan", locked.url, "--locked")["lock"]
    program.env["RUNPROJ_HOME"] = str(tmp_path / "other home")
    assert program.json("plan", locked.url, "--locked")["lock"]["digest"] == here["digest"]
    copy = Path(shutil.copytree(locked.path, tmp_path / "copy"))
    (copy / "pylock.toml").unlink()
    assert program.json("lock", str(copy))["digest"] == here["digest"]
    assert (copy / "pylock.toml").read_text() == text


@pytest.mark.parametrize(
    ("change", "options", "why"),
    [
        ({"python_env.yaml": f"python: '{HERE}'\ndependencies: [greet]\n"}, (), "asks for something else"),
        ({"more.txt": "base<2\n"}, (), "asks for something else"),
        ({}, ("--with", "greet"), "asks for something else"),
        ({}, ("--env-manager", "conda"), "it was made for virtualenv"),
    ],
)
def test_locked_refuses_what_the_lock_does_not_say(
    program: Cli, locked: Repository, change: dict[str, str | bytes], options: tuple[str, ...], why: str
) -> None:
    locked.commit(change)
    result = program("run", locked.url, "--locked", *options)
    assert (result.returncode, result.stdout) == (125, "")
    assert why in result.stderr
    if change:
        assert program("lock", str(locked.path), "--check").returncode == 1
        free = program("run", locked.url)
        assert free.returncode == (0 if "more.txt" in change else 1)
        assert "pylock.toml is left aside" in free.stderr
        assert any("left aside" in note for note in program.json("runs", "show", "@last")["plan"]["notes"])


def test_a_lock_of_another_system_is_not_used(program: Cli, locked: Repository) -> None:
    file = locked.path / "pylock.toml"
    machine = os.uname().machine
    assert f'platform = "linux-{machine}"' in file.read_text()
    locked.commit({"pylock.toml": file.read_text().replace(f"linux-{machine}", "darwin-arm64")})
    result = program("run", locked.url, "--locked")
    assert result.returncode == 125
    assert "it was made for darwin-arm64" in result.stderr


def test_another_interpreter_is_taken_only_where_the_lock_need_not_be_exact(program: Cli, locked: Repository) -> None:
    file = locked.path / "pylock.toml"
    newest = program.json("plan", locked.url)["lock"]["python"]["version"]
    locked.commit({"pylock.toml": file.read_text().replace(f'python = "{newest}"', f'python = "{HERE}.99"')})
    refused = program("run", locked.url, "--locked")
    assert refused.returncode == 125
    assert f"{HERE}.99" in refused.stderr
    near = program("run", locked.url)
    assert (near.returncode, near.stdout) == (0, "1.0 1.0\n"), near.stderr
    assert f"Python {HERE}.99 is not installed" in near.stderr


def test_without_a_lock_locked_refuses(program: Cli, repository: Repository) -> None:
    repository.commit(FILES)
    result = program("run", repository.url, "--locked")
    assert result.returncode == 125
    assert "runproj lock" in result.stderr
    assert program.json("lock", str(repository.path), "--check")["state"] == "missing"
    assert not (repository.path / "pylock.toml").exists()
    assert program("run", repository.url, "--locked", "--relock").returncode == 2
    assert program("run", repository.url, "--locked", "--env-manager", "system").returncode == 125
    assert program("lock", str(repository.path), "--env-manager", "system").returncode == 125
    assert program("lock", str(repository.path / "nowhere")).returncode == 2


def test_a_lock_of_a_date(program: Cli, repository: Repository, index: PackageIndex) -> None:
    index.add_wheel("greet", "2.0", "2024-01-01")
    repository.commit(FILES, date="2022-06-01T12:00:00+00:00")
    assert program.json("lock", str(repository.path), "--as-of", "commit")["as_of"] == "2022-06-03T00:00:00Z"
    assert versions(repository.path)["greet"] == "1.0"
    assert program.json("lock", str(repository.path), "--upgrade")["as_of"] is None
    assert versions(repository.path)["greet"] == "2.0"


def test_the_code_of_a_local_package_may_change_and_what_it_needs_may_not(program: Cli, repository: Repository) -> None:
    repository.write(
        local_package("mine", {"mine.py": "V = 1\n", "main.py": "import mine, base; print(mine.V)\n"}, requires=("base",))
    )
    repository.write({"requirements.txt": "./\n", ".python-version": HERE})
    assert program("lock", str(repository.path)).returncode == 0
    repository.commit({})
    asked = ("run", repository.url, "-e", "main.py", "--locked")
    assert program(*asked).stdout == "1\n"
    repository.commit({"mine.py": "V = 2\n"})
    assert program(*asked).stdout == "2\n"
    project = (repository.path / "pyproject.toml").read_text()
    repository.commit({"pyproject.toml": project.replace('"base"', '"base", "greet"')})
    assert program(*asked).returncode == 125


def test_locks_of_other_tools_are_used_as_they_are_but_not_when_they_are_stale(program: Cli, repository: Repository) -> None:
    declared = f'[project]\nname = "x"\nversion = "1"\nrequires-python = ">={HERE}"\ndependencies = ["base"]\n'
    repository.write({"pyproject.toml": declared, "main.py": "import base; print(base.V)\n"})
    uv = Path(sys.executable).with_name("uv")
    subprocess.run([uv, "lock", "-q", "--no-cache", "--python", sys.executable], cwd=repository.path, env=program.env, check=True)
    repository.commit({})
    assert program.json("lock", str(repository.path))["state"] == "own"
    asked = ("run", repository.url, "-e", "main.py", "--locked")
    assert program(*asked).stdout == "1.0\n"
    repository.commit({"pyproject.toml": declared.replace('"base"', '"greet"')})
    result = program(*asked)
    assert result.returncode == 125
    assert "uv.lock is older than pyproject.toml" in result.stderr


def test_a_lock_file_that_cannot_be_read_is_told(program: Cli, locked: Repository) -> None:
    text = (locked.path / "pylock.toml").read_text()
    for broken in (text.replace("request = ", "wish = "), text.replace("hashes = ", "sums = "), text + "nonsense\n"):
        locked.commit({"pylock.toml": broken})
        result = program("run", locked.url, "--locked")
        assert result.returncode == 125
        assert "Traceback" not in result.stderr
    (locked.path / "pylock.toml").unlink()
    for broken in ("{}", json.dumps({"request": "", "version": 2, "lock": {}})):
        locked.commit({"runproj.lock": broken})
        result = program("run", locked.url, "--locked")
        assert result.returncode == 125
        assert "runproj.lock" in result.stderr
    assert from_json(LockFile, json.dumps({"request": "r", "lock": MINIMAL})).version == 1


MINIMAL = {"manager": "conda", "place": "host", "digest": "", "origin": "conda.yaml", "platform": "linux-x86_64"}
