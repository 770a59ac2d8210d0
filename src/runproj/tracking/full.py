"""The embedded store with everything that MLflow's protocol knows beside runs: what a server serves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from runproj.core.run import Lifecycle, Run
from runproj.core.search import Clause, Order
from runproj.tracking import experiments, query, rows
from runproj.tracking.belongings import Belongings
from runproj.tracking.lineage import Lineages
from runproj.tracking.models import Models
from runproj.tracking.registry import Registry, Versions
from runproj.tracking.sql import Database
from runproj.tracking.store import SqlStore
from runproj.tracking.where import Where


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
        clauses: Sequence[Clause],
        orders: Sequence[Order],
        lifecycle: Lifecycle | None,
        limit: int,
        offset: int,
    ) -> list[Run]:
        """Runs that fit a filter of the search language, newest first unless `orders` says otherwise."""
        where = Where()
        where.one_of("r.experiment", [experiments.number_of(experiment) for experiment in experiment_ids])
        if lifecycle is not None:
            where.add("r.lifecycle = ?", lifecycle.value)
        query.add_clauses(where, clauses, query.RUNS)
        order, bound = query.order_sql(orders, query.RUNS, "r.started DESC, r.id ASC")
        with self.database.reading() as connection:
            found = connection.execute(
                f"SELECT {rows.RUN_COLUMNS} FROM runs r {where.sql} {order} LIMIT ? OFFSET ?",
                (*where.values, *bound, limit, offset),
            ).fetchall()
            return rows.load_runs(connection, found)
