"""Fixtures every test shares.  No test touches the user's home folder or git configuration."""

from __future__ import annotations

import os
import signal
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from support.program import PROJECT, Cli

pytest.register_assert_rewrite("runproj.testing")  # so that what fails in it is shown, as in tests of one's own

pytest_plugins = [
    "support.placing",
    "support.cluster",
    "support.docker",
    "support.kubernetes",
    "support.mlflow",
    "support.postgres",
    "support.ray",
    "support.s3",
    "support.slurm",
    "support.sshd",
    "support.teamserver",
    "support.wheels",
]

COSTLY = ("mlflow_server", "kubernetes", "engine", "far_engine", "ray", "slurm")
"""Fixtures that take long to make, or that tests of several modules share: the tests of each run in one process."""

HOSTILE = 'it\'s a "Größe" $(x) `y`\n;&'
"""A folder name with everything that breaks careless code; used in path fixtures."""


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of the processes that run tests, one makes what is costly, and runs all tests that use it; the largest part begins first.

    A machine without a cache builds Kubernetes meanwhile: its tests are not first, and not last either, for they mostly wait.
    """
    groups = {item: name for item in items if (name := _group(item))}
    sizes = Counter(groups.values())
    for item, name in groups.items():
        item.add_marker(pytest.mark.xdist_group(name))

    def place(item: pytest.Item) -> tuple[int, int, str]:
        name = groups.get(item, "")
        if name == "kubernetes":
            return 2, 0, name
        if name:
            return 0, -sizes[name], name
        return (3 if "tests/unit/" in item.nodeid else 1), 0, ""

    items.sort(key=place)


def _group(item: pytest.Item) -> str:
    """What a test shares with others that are to run in the same process."""
    used = set(getattr(item, "fixturenames", ()))
    if "[mlflow server" in item.name:  # asked for by the value of a parameter
        used.add("mlflow_server")
    if shared := next((name for name in COSTLY if name in used), None):
        return shared
    return item.nodeid.partition("::")[0] if "made" in used else ""  # a module's own


def pytest_collection_finish(session: pytest.Session) -> None:
    """Versions of pytest and pytest-xdist that do not fit each other ignore groups without a word."""
    if getattr(session.config.option, "loadgroup", False):
        grouped = [item for item in session.items if item.get_closest_marker("xdist_group")]
        assert all("@" in item.nodeid for item in grouped), "pytest-xdist does not keep groups of tests together"


@pytest.fixture(autouse=True, scope="session")
def _signals_as_in_a_terminal() -> None:
    """Programs that the tests start can be stopped, even where the tests themselves were started in the background."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


@pytest.fixture(autouse=True)
def isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home with a hostile name, a git identity, and no runproj or MLflow settings from outside."""
    home = tmp_path / HOSTILE
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("RUNPROJ_HOME", str(home / "runproj home"))
    for name in list(os.environ):
        if name.startswith(("MLFLOW_", "AWS_", "GIT_AUTHOR", "GIT_COMMITTER", "XDG_")) or name in (
            "RUNPROJ_TRACKING_URI",
            "RUNPROJ_ARTIFACTS_URI",
            "VIRTUAL_ENV",
        ):
            monkeypatch.delenv(name)
    monkeypatch.setenv("RUNPROJ_CONDA_CHANNELS", f"conda-forge={(home / 'no channel').as_uri()}")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(home / ".gitconfig"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    (home / ".gitconfig").write_text("[user]\n name = Test\n email = test@example.org\n[init]\n defaultBranch = main\n")
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    return home


class Repository:
    """A real git repository made by a test."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        self.git("init", "-q")

    def git(self, *arguments: str, **environment: str) -> str:
        result = subprocess.run(
            ["git", *arguments], cwd=self.path, env={**os.environ, **environment}, check=True, capture_output=True, text=True
        )
        return result.stdout.strip()

    def write(self, files: dict[str, str | bytes]) -> None:
        for name, content in files.items():
            target = self.path / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content if isinstance(content, bytes) else content.encode())

    def commit(self, files: dict[str, str | bytes], message: str = "a commit", date: str | None = None) -> str:
        """Write files, commit everything, and return the full commit hash.  `date` is ISO 8601."""
        self.write(files)
        self.git("add", "-A")
        when = {"GIT_AUTHOR_DATE": date, "GIT_COMMITTER_DATE": date} if date else {}
        self.git("commit", "-q", "--allow-empty", "-m", message, **when)
        return self.head

    @property
    def head(self) -> str:
        return self.git("rev-parse", "HEAD")

    @property
    def url(self) -> str:
        from urllib.parse import quote

        return "file://" + quote(str(self.path))


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """An empty git repository in a folder with a hostile name."""
    return Repository(tmp_path / HOSTILE / "project")


@pytest.fixture
def make_repository(tmp_path: Path):
    """Makes further repositories by name."""
    return lambda name: Repository(tmp_path / HOSTILE / name)


@pytest.fixture
def cli(isolated: Path) -> Cli:
    """The program with an empty home."""
    return Cli(isolated)


@pytest.fixture
def project(repository: Repository) -> Repository:
    """A repository with an MLproject of several entry points."""
    repository.commit(PROJECT)
    return repository
