"""Local packages: a digest over their files, and building from them without leaving anything behind."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from runproj.errors import EnvironmentFailure
from runproj.files import remove_tree, sha256_file

_IGNORED_FOLDERS = frozenset({".git", ".hg", ".svn", "__pycache__", ".tox", ".nox", ".venv", ".mypy_cache", ".pytest_cache"})


def digest_of(path: Path) -> str:
    """A sha256 over the names, contents and executable bits of all files at `path` (a folder, or one archive)."""
    if path.is_file():
        return sha256_file(path)
    if not path.is_dir():
        raise EnvironmentFailure(f"The local package {path.name!r} does not exist", why=f"No such file or folder: {path}")
    content = hashlib.sha256()
    for name in _files(path):
        file = path / name
        content.update(f"{name}\0{_content(file)}\0".encode(errors="surrogateescape"))
    return content.hexdigest()


def _content(file: Path) -> str:
    if file.is_symlink():
        return f"l{file.readlink()}"
    return ("x" if os.access(file, os.X_OK) else "f") + sha256_file(file)


def _files(root: Path) -> list[str]:
    """Paths of all files below `root`, sorted; what version control and Python keep for themselves left out."""
    found: list[str] = []
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if name not in _IGNORED_FOLDERS and not name.endswith(".egg-info")]
        links = [name for name in folders if Path(folder, name).is_symlink()]
        found += [os.path.relpath(Path(folder, name), root) for name in (*files, *links) if not name.endswith(".pyc")]
    return sorted(found)


@contextlib.contextmanager
def untouched(folder: Path) -> Iterator[None]:
    """Remove, at the end, what a package's build has added to the tree it was built from."""
    before = _listing(folder)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            _remove_new(folder, before)


def _listing(folder: Path) -> set[str]:
    found: set[str] = set()
    for here, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name != ".git"]
        found.update(f"{here}/{name}" for name in (*folders, *files))
    return found


def _remove_new(folder: Path, before: set[str]) -> None:
    for here, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name != ".git"]
        for name in [*folders]:
            if f"{here}/{name}" not in before:
                remove_tree(Path(here, name))
                folders.remove(name)
        for name in files:
            if f"{here}/{name}" not in before:
                Path(here, name).unlink(missing_ok=True)
