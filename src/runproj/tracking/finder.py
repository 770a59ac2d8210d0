"""The search language asked of any store: the database itself, or a server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from runproj.core.condition import Entity
from runproj.core.evaluate import fits
from runproj.core.finding import RunFinder, RunPage, RunSearch
from runproj.core.ordering import ordered
from runproj.core.run import Lifecycle, Run
from runproj.core.search import EVERYTHING, RUNS, clauses_of, parse_filter, parse_order
from runproj.errors import RefusedError
from runproj.tracking.full import FullStore

_EVERYTHING = 1_000_000


class LocalFinder:
    """A `RunFinder` on a database."""

    def __init__(self, store: FullStore) -> None:
        self.store = store

    def find_runs(self, search: RunSearch) -> Sequence[Run]:
        condition, orders = parse_filter(search.filter, RUNS), parse_order(search.order, RUNS)
        experiments = search.experiments or self._experiments()
        return self.store.find(RunPage(experiments, condition, orders, Lifecycle.ACTIVE, search.limit))

    def _experiments(self) -> Sequence[str]:
        return [found.id for found in self.store.experiments.search(EVERYTHING, (), Lifecycle.ACTIVE, _EVERYTHING, 0)]


class ServerFinder:
    """A `RunFinder` on a server that may know less of the language: what it refuses is looked for here, among all its runs."""

    def __init__(self, server: RunFinder) -> None:
        self.server = server

    def find_runs(self, search: RunSearch) -> Sequence[Run]:
        condition, orders = parse_filter(search.filter, RUNS), parse_order(search.order, RUNS)
        try:
            return self.server.find_runs(search)
        except RefusedError:
            if any(
                clause.entity is Entity.DATASET for clause in clauses_of(condition)
            ):  # servers do not tell those with the runs
                raise
        runs = self.server.find_runs(replace(search, filter="", order=(), limit=_EVERYTHING))
        return ordered((run for run in runs if fits(condition, run)), orders)[: search.limit]


def open_finder(uri: str, *, home: Path, environ: Mapping[str, str]) -> RunFinder:
    """The store behind a tracking URI, to be asked in the search language.  Nothing is read before it is asked."""
    if uri.startswith(("http://", "https://")):
        from runproj.remote import Remote
        from runproj.tracking.http import HttpStore

        return ServerFinder(HttpStore(Remote(uri, environ)))
    from runproj.tracking import open_full_store

    return LocalFinder(open_full_store(uri, home=home))
