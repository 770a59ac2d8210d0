"""conda projects, for real: a channel made here, solved, installed and run without a conda on the machine."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import HOSTILE, Repository
from support.condachannel import MINOR, VERSION, Channel
from support.package_index import PackageIndex
from support.program import Cli

pytestmark = [pytest.mark.slow]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Channel:
    """Packages that all tests here start from."""
    channel = Channel(tmp_path_factory.mktemp("channel") / HOSTILE)
    channel.add_python()
    channel.add_module("greet", "1.0")
    channel.add_module("base", "1.0")
    channel.add_module("uses-greet", "1.0", depends=("python", "greet >=1"))
    channel.index()
    return channel


@pytest.fixture
def channel(made: Channel, tmp_path: Path) -> Channel:
    """A copy that the test may change."""
    return Channel(Path(shutil.copytree(made.folder, tmp_path / HOSTILE / "channel", copy_function=os.link)))


@pytest.fixture(scope="module")
def index() -> Iterator[PackageIndex]:
    made = PackageIndex()
    made.add_wheel("fromindex", "1.0", requires=("greet",), fromindex="import greet; V = 'fromindex with greet ' + greet.V\n")
    made.add_wheel("greet", "9.0", greet="V = 'of the index'\n")
    yield made
    made.close()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home") / f"runproj {HOSTILE}"


@pytest.fixture
def conda(cli: Cli, home: Path, channel: Channel, index: PackageIndex) -> Cli:
    """The program, for which `conda-forge` is the channel made here."""
    cli.env |= {
        "RUNPROJ_HOME": str(home),
        "RUNPROJ_CONDA_CHANNELS": f"conda-forge={channel.url}",
        "UV_DEFAULT_INDEX": index.url,
        "CONDA_PREFIX": "/of/the/caller",
    }
    return cli


def environment(*dependencies: str, pip: tuple[str, ...] = (), more: str = "") -> str:
    lines = [*dependencies, *([{"pip": list(pip)}] if pip else [])]
    return f"name: x\nchannels: [conda-forge]\ndependencies: {json.dumps(lines)}\n{more}"


def last(cli: Cli) -> dict:
    return cli.json("runs", "show", "@last")


def test_a_conda_project_with_a_pip_section_runs(conda: Cli, repository: Repository) -> None:
    code = "import sys, os, greet, fromindex; print(greet.V, fromindex.V, sys.prefix == os.environ['CONDA_PREFIX'])\n"
    files = {"environment.yml": environment("python", "greet", pip=("fromindex",)), "main.py": code}
    repository.commit(files)
    result = conda("run", repository.url, "-e", "main.py", "--env-manager", "conda")
    assert (result.returncode, result.stdout) == (0, "1.0 fromindex with greet 1.0 True\n"), result.stderr
    lock = last(conda)["plan"]["lock"]
    assert [(item["name"], item["version"], item["channel"]) for item in lock["conda"]] == [
        ("greet", "1.0", "conda-forge"),
        ("python", VERSION, "conda-forge"),
    ]
    assert all(len(item["sha256"]) == 64 for item in lock["conda"])
    assert "fromindex" in lock["pylock"] and 'name = "greet"' not in lock["pylock"], "conda's greet serves pip's package"
    assert "file:" not in json.dumps(lock["conda"])
    assert MINOR in lock["python"]["version"]
