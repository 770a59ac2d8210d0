"""What can be removed without any run missing it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from runproj.core.values import dataclass
from runproj.files import remove_tree

_CLIENT_DAYS = 30
"""Days after which a copy of the logging client, which each run touches, belongs to a runproj that is not used any more."""

_JUST_NOW = 1 / 1440
"""Days.  What is younger may belong to a run that began after the runs in progress were counted."""


@dataclass(frozen=True)
class Garbage:
    """Something to remove: its path, and why, in words."""

    path: Path
    why: str


def leftovers(home: Path, spools: Iterable[Path], live_runs: Iterable[str], days: float) -> Iterator[Garbage]:
    """Working folders of runs that are over, what servers refused long ago, and files that nobody has touched for a while."""
    live = set(live_runs)
    for folder in _children(home / "runs"):
        if folder.name not in live and _age(folder) > max(days, _JUST_NOW):
            yield Garbage(folder, f"kept checkout of run {folder.name[:8]}")
    for name in ("views", "plans"):
        for path in _children(home / "cache" / name):
            if _age(path) > 1:
                yield Garbage(path, f"scratch file {path.name}")
    for folder in () if live else _children(home / "cache" / "client"):
        if not folder.name.startswith(".") and _age(folder) > _CLIENT_DAYS:
            yield Garbage(folder, f"unused copy of the logging client {folder.name[:8]}")
    yield from _conda_packages(home / "cache" / "conda", max(days, _JUST_NOW), building=bool(live))
    for folder in spools:
        yield from _refused(folder, max(days, _JUST_NOW))
    for name in ("active", "runs", "parcels", "envs", "checkouts", "cache/client"):
        for path in _children(home / name):
            if path.name.startswith(".") and _age(path) > 1:
                yield Garbage(path, f"half-written {path.name}")


def _conda_packages(cache: Path, days: float, *, building: bool) -> Iterator[Garbage]:
    """Package files that no environment was made of lately, and what was unpacked long ago, which can be done again."""
    for folder in _children(cache / "archives"):
        if _age(folder) > days:
            name = next((file.name for file in _children(folder)), folder.name[:12])
            yield Garbage(folder, f"unused conda package {name}")
    for path in () if building else _children(cache / "pkgs"):
        if _age(path) > days and path.is_dir():
            yield Garbage(path, f"unpacked conda package {path.name}")


def _refused(root: Path, days: float) -> Iterator[Garbage]:
    """Spools of which only what a server refused is left, and which nobody sends again just now."""
    from runproj.client.spool import REFUSED, held

    for folder in (*root.glob(f"{REFUSED}*"), *root.glob(f"run-*/{REFUSED}*")):
        events = folder / "refused.jsonl"
        if _age(events if events.exists() else folder) > days and not held(str(folder)):
            yield Garbage(folder, f"events that a server refused, {folder.relative_to(root)}")


def _children(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _age(path: Path) -> float:
    """Days since the last change."""
    try:
        return (time.time() - path.lstat().st_mtime) / 86400
    except FileNotFoundError:
        return 0.0


def remove(items: Iterable[Garbage]) -> None:
    for item in items:
        remove_tree(item.path)
