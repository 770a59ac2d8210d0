"""The search language asked of any store: the database itself, or a server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from runproj.core.finding import RunFinder, RunSearch
from runproj.core.run import Lifecycle, Run
from runproj.core.search import EVERYTHING, RUNS, parse_filter, parse_order
from runproj.tracking.full import FullStore

_EVERY_EXPERIMENT = 1_000_000


class LocalFinder:
    """A `RunFinder` on a database."""

    def __init__(self, store: FullStore) -> None:
        self.store = store

    def find_runs(self, search: RunSearch) -> Sequence[Run]:
        condition, orders = parse_filter(search.filter, RUNS), parse_order(search.order, RUNS)
        experiments = search.experiments or self._experiments()
        return self.store.find(experiments, condition, orders, Lifecycle.ACTIVE, search.limit)

    def _experiments(self) -> Sequence[str]:
        return [found.id for found in self.store.experiments.search(EVERYTHING, (), Lifecycle.ACTIVE, _EVERY_EXPERIMENT, 0)]


def open_finder(uri: str, *, home: Path, environ: Mapping[str, str]) -> RunFinder:
    """The store behind a tracking URI, to be asked in the search language.  Nothing is read before it is asked."""
    if uri.startswith(("http://", "https://")):
        from runproj.remote import Remote
        from runproj.tracking.http import HttpStore

        return HttpStore(Remote(uri, environ))
    from runproj.tracking import database_path

    return LocalFinder(FullStore(database_path(uri, home)))
