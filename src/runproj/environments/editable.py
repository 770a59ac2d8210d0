"""Editable packages without a link into a checkout that will be gone.

`-e .` promises that the code that runs is the code of the tree.  The environment holds an ordinary copy, so that it works when
the run's checkout has been removed; beside it, a run reads the package's modules from its own checkout, by PYTHONPATH, wherever
that is the same thing: every module of the copy is in the tree with the same content (nothing was compiled or generated), and
the folder has no module that would hide one of the standard library.
"""

from __future__ import annotations

import csv
import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import unquote, urlsplit

from runproj.core.environment import LocalPackage
from runproj.core.values import dataclass


@dataclass(frozen=True)
class Root:
    """A folder of the project, relative to it, that holds the modules of an editable package."""

    path: str


def python_path(found: Iterable[Root], project: Path) -> str:
    """PYTHONPATH for a run in `project`; empty for none."""
    return os.pathsep.join(os.path.normpath(project / root.path) for root in found)


def roots(packages: Iterable[LocalPackage], project: Path, environment: Path) -> tuple[Root, ...]:
    """The folders from which editable packages can be read as they were installed."""
    found: list[Root] = []
    for package in packages:
        if package.editable and (root := _root(package, project, environment)) is not None:
            found.append(root)
    return tuple(found)


def _root(package: LocalPackage, project: Path, environment: Path) -> Root | None:
    record = _record(package, project, environment)
    if record is None:
        return None
    site = record.parent.parent
    modules = [name for name in _recorded(record) if not name.startswith(("..", record.parent.name))]
    for sub in ("src", "lib", "python", "."):
        folder = project / package.path / sub
        if modules and folder.is_dir() and all(_same(site / name, folder / name) for name in modules):
            return None if _hides(folder) else Root(os.path.normpath(Path(package.path, sub)))
    return None


def _record(package: LocalPackage, project: Path, environment: Path) -> Path | None:
    """RECORD of the distribution that was installed from that folder, or from the wheel that a capsule has in its stead."""
    wanted = (project / package.path).resolve()
    for origin in environment.glob("lib/python3*/site-packages/*.dist-info/direct_url.json"):
        try:
            url = json.loads(origin.read_text()).get("url", "")
        except (OSError, ValueError):
            continue
        place = Path(unquote(urlsplit(url).path))
        if url.startswith("file:") and (place.resolve() == wanted or place.parent.name == package.digest):
            return origin.with_name("RECORD")
    return None


def _recorded(record: Path) -> list[str]:
    with record.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        return [row[0] for row in csv.reader(file) if row]


def _same(one: Path, other: Path) -> bool:
    try:
        return one.read_bytes() == other.read_bytes()
    except OSError:
        return False


def _hides(folder: Path) -> bool:
    """Whether modules of the folder would be found before those of the standard library that have their name."""
    names = {path.stem if path.suffix == ".py" else path.name for path in folder.iterdir()}
    return bool(
        {name for name in names if (folder / name).is_dir() or (folder / f"{name}.py").exists()} & sys.stdlib_module_names
    )
