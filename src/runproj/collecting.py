"""What no run needs, of one home folder, found and removed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from runproj.errors import RefusedError, StorageError, UsageError
from runproj.files import tree_size

if TYPE_CHECKING:
    from runproj.core.views import GcReport
    from runproj.wiring import Wiring


def collect_garbage(wiring: Wiring, *, days: float, deleted: bool, dry_run: bool) -> GcReport:
    """Remove what no run needs."""
    from runproj import garbage
    from runproj.core.views import GcReport

    live = [info.run_id for info in wiring.leases.all()]
    items = list(garbage.leftovers(wiring.settings.home, wiring.settings.spools, live, days))
    freed = sum(tree_size(item.path) for item in items)
    if not dry_run:
        garbage.remove(items)
    removed = [item.why for item in items]
    for view in wiring.environments.prune(days=days, dry_run=dry_run):
        removed.append(f"environment {view.digest[:12]} ({view.origin})")
        freed += view.size or 0
    for what, size in () if live else wiring.sources.prune(days=days, dry_run=dry_run):
        removed.append(what)
        freed += size
    for what, size in _purged(wiring, dry_run=dry_run) if deleted else ():
        removed.append(what)
        freed += size
    if not wiring.remote and (size := wiring.direct_artifacts().collect(dry_run=dry_run)):
        removed.append("contents of artifacts that are gone")
        freed += size
    return GcReport(tuple(removed), freed, dry_run)


def _purged(wiring: Wiring, *, dry_run: bool) -> Iterator[tuple[str, int]]:
    """Remove what is marked as deleted; says what, and the bytes that this frees."""
    if wiring.remote:
        raise UsageError("What is deleted on a remote server is removed by that server", fix="Leave out --deleted.")
    from runproj.tracking import open_database
    from runproj.tracking.purge import find_deleted, purge

    database = open_database(wiring.settings.tracking_uri, home=wiring.settings.home)
    artifacts = wiring.direct_artifacts()
    for item in find_deleted(database):
        size, left = 0, ""
        if not dry_run:
            if not purge(database, item):
                continue
            try:  # last: a record needs its files
                size = artifacts.delete_at(item.artifact_uri, item.id) if item.artifact_uri else 0
            except (RefusedError, StorageError) as error:
                left = f" without its files: {error}"
        yield f"{item.kind.value} {item.id[:8]} ({item.name}){left}", size
