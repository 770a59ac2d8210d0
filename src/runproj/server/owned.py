"""What an endpoint remembers of the run it serves, and of the runs that were made through it."""

from __future__ import annotations

import threading
from dataclasses import replace

from runproj.core.run import NewRun, RunChanges, RunStatus, Tag, TagName


class Owned:
    """The run whose state belongs to the executor, and its children."""

    def __init__(self, run_id: str, experiment_id: str) -> None:
        self.run_id = run_id
        self.experiment_id = experiment_id
        self.reported_status: RunStatus | None = None
        self._open: set[str] = set()
        self._lock = threading.Lock()

    def open_runs(self) -> set[str]:
        with self._lock:
            return set(self._open)

    def begun(self, run_id: str) -> None:
        with self._lock:
            self._open.add(run_id)

    def child(self, new: NewRun) -> NewRun:
        """A new run as a child of ours, unless it says whose child it is."""
        if any(tag.key == TagName.PARENT for tag in new.tags):
            return new
        return replace(new, tags=(*new.tags, Tag(TagName.PARENT, self.run_id)))

    def allowed(self, run_id: str, changes: RunChanges) -> RunChanges:
        """The changes without those that are the executor's to make."""
        return replace(changes, status=None, end=None) if run_id == self.run_id else changes

    def noted(self, run_id: str, changes: RunChanges) -> None:
        """Keep in mind what a client said of a run's end."""
        if changes.status is None:
            return
        if run_id == self.run_id:
            self.reported_status = changes.status
            return
        with self._lock:
            if changes.status.final:
                self._open.discard(run_id)
            else:
                self._open.add(run_id)
