"""The store as an endpoint's clients see it."""

from __future__ import annotations

from runproj.core.run import NewRun, Run, RunChanges
from runproj.server.owned import Owned
from runproj.tracking.full import FullStore
from runproj.tracking.store import SqlStore


class OwnedRunStore(FullStore):
    """A store in which one run is ended by its executor only, and new runs are its children."""

    def __init__(self, store: SqlStore, owned: Owned) -> None:
        super().__init__(store.database)
        self.owned = owned

    def create_run(self, new: NewRun) -> Run:
        run = super().create_run(self.owned.child(new))
        self.owned.begun(run.id)
        return run

    def update(self, run_id: str, changes: RunChanges, *, only_active: bool = False) -> None:
        super().update(run_id, self.owned.allowed(run_id, changes), only_active=only_active)
        self.owned.noted(run_id, changes)
