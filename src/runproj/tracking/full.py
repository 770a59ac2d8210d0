"""The embedded store with everything that MLflow's protocol knows beside runs: what a server serves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from runproj.core.ordering import Place
from runproj.core.run import Lifecycle, Run
from runproj.core.search import Condition, Order
from runproj.tracking import experiments, finding, rows
from runproj.tracking.belongings import Belongings
from runproj.tracking.lineage import Lineages
from runproj.tracking.models import Models
from runproj.tracking.registry import Registry, Versions
from runproj.tracking.sql import Database
from runproj.tracking.store import SqlStore


class FullStore(SqlStore):
    """A `SqlStore` with its experiments, lineage, logged models and registry, and with the search language."""

    def __init__(self, path: Path | Database) -> None:
        super().__init__(path)
        self.experiments = experiments.Experiments(self.database)
        self.belongings = Belongings(self.database)
        self.lineages = Lineages(self.database)
        self.models = Models(self.database)
        self.registry = Registry(self.database)
        self.versions = Versions(self.database)

    def find(
        self,
        experiment_ids: Sequence[str],
        condition: Condition,
        orders: Sequence[Order],
        lifecycle: Lifecycle | None,
        limit: int,
        offset: int = 0,
        after: Place | None = None,
    ) -> list[Run]:
        """Runs that fit a filter of the search language, newest first unless `orders` says otherwise.

        after: the place of the last run of the page before; better than an offset, which has to count.
        """
        return [rows.as_run(row) for row in self.find_rows(experiment_ids, condition, orders, lifecycle, limit, offset, after)]

    def find_rows(
        self,
        experiment_ids: Sequence[str],
        condition: Condition,
        orders: Sequence[Order],
        lifecycle: Lifecycle | None,
        limit: int,
        offset: int = 0,
        after: Place | None = None,
    ) -> list[rows.RunRow]:
        """As `find`, as plain rows: for pages of thousands."""
        numbers = tuple(dict.fromkeys(experiments.number_of(experiment) for experiment in experiment_ids))
        asked = finding.Question(numbers, lifecycle, condition, tuple(orders), offset + limit, after)
        with self.database.reading() as connection:
            return rows.load_run_rows(connection, finding.find(connection, asked)[offset:])
