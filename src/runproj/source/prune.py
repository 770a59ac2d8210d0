"""Cached repositories and archives that nobody used lately; the next run that wants one fetches it again."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from runproj.files import Lock, LockedElsewhere, remove_tree, tree_size


def prune(cache: Path, days: float, *, dry_run: bool) -> Iterator[tuple[str, int]]:
    """Remove what was not used for `days`; yields what, in words, and its bytes.

    Only for a time when no run is in progress: a checkout borrows its objects from here.  A repository that is being
    fetched is locked, and is left alone.
    """
    for folder in sorted(cache.iterdir()) if cache.is_dir() else ():
        if not folder.is_dir() or _idle_days(folder) < days:
            continue
        lock = Lock(folder.with_name(folder.name + ".lock"))
        try:
            lock.acquire(wait=False)
        except LockedElsewhere:
            continue
        with lock:
            size = tree_size(folder)
            if not dry_run:
                remove_tree(folder)
        yield f"cached source {folder.name}", size


def _idle_days(folder: Path) -> float:
    """Days since anything directly in the folder, or in its notes on commits, was written."""
    candidates = [folder, *folder.iterdir(), *(folder / "runproj").glob("*")]
    return (time.time() - max(path.lstat().st_mtime for path in candidates)) / 86400
