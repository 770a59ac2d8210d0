"""The embedded store with everything that MLflow's protocol knows beside runs: what a server serves."""

from __future__ import annotations

from pathlib import Path

from runproj.core.finding import RunPage
from runproj.core.run import Run
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

    def find(self, page: RunPage) -> list[Run]:
        """Runs that fit, in order."""
        return [rows.as_run(row) for row in self.find_rows(page)]

    def find_rows(self, page: RunPage) -> list[rows.RunRow]:
        """As `find`, as plain rows: for pages of thousands."""
        numbers = tuple(dict.fromkeys(experiments.number_of(experiment) for experiment in page.experiments))
        most = page.offset + page.limit
        asked = finding.Question(numbers, page.lifecycle, page.condition, tuple(page.orders), most, page.after)
        with self.database.reading() as connection:
            return rows.load_run_rows(connection, finding.find(connection, asked)[page.offset :])
