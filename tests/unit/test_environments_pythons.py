"""Interpreters: found past shims that do not work, chosen as the project asks or of its time, asked once."""

from __future__ import annotations

import os
import sys
from datetime import date
from pathlib import Path

import pytest

from runproj.environments.pythons import Pythons
from runproj.environments.versions import parse_wish, settled
from runproj.errors import EnvironmentFailure

TODAY = date(2026, 6, 1)


class Shelf:
    """A home with pyenv's folders and a PATH, filled with programs that answer as interpreters do."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.root = home / "pyenv root"
        self.shims = self.root / "shims"
        self.bin = home / "bin"
        for folder in (self.shims, self.bin):
            folder.mkdir(parents=True)
        self.environ = {"HOME": str(home), "PYENV_ROOT": str(self.root), "PATH": f"{self.shims}:{self.bin}"}

    def put(self, path: Path, version: str, level: str = "final") -> Path:
        """An interpreter that counts how often it is started."""
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = "\\000".join((version, level, "CPython", "%s", f"{version} (fake)"))
        path.write_text(f'#!/bin/sh\necho x >> "$0.asked"\nprintf \'{lines}\' "$0"\n')
        path.chmod(0o755)
        return path

    def pyenv(self, *versions: str) -> None:
        for version in versions:
            self.put(self.root / "versions" / version / "bin/python", version)
            broken = self.shims / f"python{version.rpartition('.')[0]}"
            broken.write_text("#!/bin/sh\necho 'pyenv: command not found' >&2\nexit 127\n")
            broken.chmod(0o755)

    def pythons(self) -> Pythons:
        return Pythons(self.home / "memory.json", self.home / "own", self.environ, system=self.home / "system")

    def version(self, text: str | None, day: date = TODAY, *, strict: bool = False) -> str | None:
        choice = self.pythons().choose(text, day, strict=strict)
        return choice.python.version if choice else None


@pytest.fixture
def shelf(isolated: Path) -> Shelf:
    return Shelf(isolated)


def test_pyenvs_interpreters_are_found_behind_broken_shims(shelf: Shelf) -> None:
    shelf.pyenv("3.8.18", "3.10.13")
    choice = shelf.pythons().choose("3.10", TODAY)
    assert choice and choice.python.path == str(shelf.root / "versions/3.10.13/bin/python")
    assert choice.notes == ()


def test_a_version_of_several_patches_is_the_newest(shelf: Shelf) -> None:
    shelf.pyenv("3.9.2", "3.9.18", "3.9.4", "3.10.1")
    assert shelf.version("3.9") == "3.9.18"
    assert shelf.version("3.9.4") == "3.9.4"
    assert shelf.version("3.9.*") == "3.9.18"
    assert shelf.version("==3.9.2") == "3.9.2"


def test_an_exact_version_falls_back_to_its_minor_and_says_so(shelf: Shelf) -> None:
    shelf.pyenv("3.8.18", "3.8.3", "3.9.18")
    choice = shelf.pythons().choose("3.8.2", TODAY)
    assert choice and choice.python.version == "3.8.18"
    assert "3.8.2" in choice.notes[0]
    assert "3.8.18" in choice.notes[0]
    assert shelf.version("3.8.2", strict=True) is None
    assert shelf.version("3.7.1") is None


@pytest.mark.parametrize(
    ("wish", "day", "expected"),
    [
        (None, date(2019, 8, 1), "3.7.16"),
        (None, date(2020, 1, 1), "3.7.16"),  # 3.8 had been out for three months
        (None, date(2020, 6, 1), "3.8.18"),
        (None, date(2015, 1, 1), "3.7.16"),
        (None, TODAY, "3.13.0"),
        (">=3.8", date(2022, 6, 1), "3.10.13"),
        (">=3.8,<3.11", TODAY, "3.10.13"),
        (">=3.11", date(2019, 1, 1), "3.13.0"),
        ("~=3.8.0", TODAY, "3.8.18"),
        ("^3.8", date(2021, 1, 1), "3.8.18"),
        ("!=3.13.*", TODAY, "3.10.13"),
        ("3", TODAY, "3.13.0"),
    ],
)
def test_the_interpreter_is_of_the_projects_time(shelf: Shelf, wish: str | None, day: date, expected: str) -> None:
    shelf.pyenv("3.7.16", "3.8.18", "3.10.13", "3.13.0")
    assert shelf.version(wish, day) == expected


def test_a_project_that_names_none_is_told_which_it_got(shelf: Shelf) -> None:
    shelf.pyenv("3.8.18", "3.13.0")
    choice = shelf.pythons().choose(None, date(2021, 1, 1))
    assert choice and "3.8" in choice.notes[0]
    ranged = shelf.pythons().choose(">=3.8", date(2021, 1, 1))
    assert ranged and ranged.notes == ()


def test_each_interpreter_is_asked_once_until_its_file_changes(shelf: Shelf) -> None:
    path = shelf.put(shelf.bin / "python3.9", "3.9.1")
    for _ in range(3):
        assert shelf.version("3.9") == "3.9.1"
    asked = path.with_name("python3.9.asked")
    assert asked.read_text() == "x\n"
    shelf.put(path, "3.9.2")
    assert shelf.version("3.9") == "3.9.2"
    assert asked.read_text() == "x\nx\n"


def test_those_that_cannot_fit_are_not_started(shelf: Shelf) -> None:
    shelf.pyenv("3.8.18", "3.9.18")
    assert shelf.version("3.9") == "3.9.18"
    assert not (shelf.root / "versions/3.8.18/bin/python.asked").exists()


def test_broken_and_unfinished_interpreters_do_not_count(shelf: Shelf) -> None:
    shelf.put(shelf.bin / "python3.9", "3.9.1", level="candidate")
    (shelf.bin / "python3.10").write_text("#!/nonexistent\n")
    (shelf.bin / "python3.10").chmod(0o755)
    (shelf.bin / "python3.11").symlink_to(shelf.bin / "gone")
    (shelf.bin / "python3.12").write_text("#!/bin/sh\nhead -c 100 /dev/urandom\n")
    (shelf.bin / "python3.12").chmod(0o755)
    assert shelf.pythons().find(None) == []


def test_a_memory_that_is_damaged_is_made_anew(shelf: Shelf) -> None:
    shelf.pyenv("3.9.18")
    (shelf.home / "memory.json").write_text('{"a": ')
    assert shelf.version("3.9") == "3.9.18"


def test_mise_asdf_uv_and_conda_are_looked_into(shelf: Shelf) -> None:
    home = shelf.home
    shelf.put(home / ".local/share/mise/installs/python/3.9.1/bin/python", "3.9.1")
    shelf.put(home / ".asdf/installs/python/3.9.2/bin/python", "3.9.2")
    shelf.put(home / ".local/share/uv/python/cpython-3.9.3-linux-x86_64-gnu/bin/python3", "3.9.3")
    shelf.put(home / "miniconda3/envs/old/bin/python3", "3.9.4")
    shelf.put(home / "own/cpython-3.9.5-linux-x86_64-gnu/bin/python3", "3.9.5")
    shelf.put(home / "system/usr/bin/python3.9", "3.9.6")
    shelf.put(home / "system/opt/tool/bin/python3", "3.9.7")
    found = [pin.version for pin in shelf.pythons().find(parse_wish("3.9"))]
    assert found == ["3.9.7", "3.9.6", "3.9.5", "3.9.4", "3.9.3", "3.9.2", "3.9.1"]


def test_an_interpreter_can_be_named_by_its_path(shelf: Shelf) -> None:
    choice = shelf.pythons().choose(sys.executable, TODAY)
    assert choice and choice.python.version == ".".join(map(str, sys.version_info[:3]))
    assert Path(choice.python.path).exists()
    assert shelf.version("/nonexistent/python") is None


def test_what_was_found_is_listed_where_nothing_fits(shelf: Shelf) -> None:
    shelf.pyenv("3.8.18", "3.9.18")
    error = shelf.pythons().missing("No Python 3.4", "3.4")
    assert "3.8.18" in error.why
    assert "3.9.18" in error.why
    assert "uv python install 3.4" in error.fix


@pytest.mark.parametrize("text", ["three", "3.8 or so", "", ">=x", "3.8,,y"])
def test_a_wish_without_meaning_is_refused(shelf: Shelf, text: str) -> None:
    with pytest.raises(EnvironmentFailure, match="not a version"):
        shelf.pythons().choose(text, TODAY)


def test_this_machine_has_the_interpreter_that_runs_this_test(isolated: Path) -> None:
    found = Pythons(isolated / "memory.json", isolated / "own", os.environ).find(
        parse_wish(f"{sys.version_info.major}.{sys.version_info.minor}")
    )
    assert ".".join(map(str, sys.version_info[:3])) in [pin.version for pin in found]


def test_a_python_settles_half_a_year_after_its_release() -> None:
    assert not settled((3, 11), date(2022, 12, 1))
    assert settled((3, 11), date(2023, 5, 1))
    assert not settled((3, 99), date(2099, 1, 1))
