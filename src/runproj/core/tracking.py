"""The record's two protocols: runs in a TrackingStore, files in an ArtifactStore."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from runproj.core.run import Experiment, Metric, NewRun, Run, RunChanges, RunQuery
from runproj.core.values import dataclass


class TrackingStore(Protocol):
    """Where runs are recorded.  Every method raises `TrackingError` when the store cannot be reached or written."""

    def experiment(self, name: str, *, make: bool = True) -> Experiment:
        """The experiment of that name, made if there is none; or, without `make`, a `NotFoundError`."""

    def experiment_by_id(self, experiment_id: str) -> Experiment:
        """The experiment.  Raises `NotFoundError`."""

    def create_run(self, new: NewRun) -> Run:
        """Record a run.  On return it is durable and visible to every reader."""

    def get_run(self, run_id: str) -> Run:
        """The run, deleted or not.  Raises `NotFoundError`."""

    def update(self, run_id: str, changes: RunChanges) -> None:
        """Apply all changes or none.  A parameter is written once: another value for it is a `TrackingError`.

        Repeating an update changes nothing: the same metric point is stored once.
        """

    def search(self, query: RunQuery) -> Sequence[Run]:
        """Runs that fit, newest first."""

    def history(self, run_id: str, key: str) -> Sequence[Metric]:
        """Every point of a metric, ordered by timestamp, step, value; empty where there is none."""


@dataclass(frozen=True)
class ArtifactInfo:
    """A file or folder of a run.  `path` is relative to the run's root, with `/`; `size` in bytes, None for a folder."""

    path: str
    size: int | None


class ArtifactStore(Protocol):
    """Where the files of runs are kept.  Paths are relative, with `/`; one that leaves the run's root is refused."""

    def put(self, run: Run, source: Path, path: str) -> None:
        """Store a file.  It is visible under `path` only when it is complete; an earlier file of that name is replaced."""

    def adopt(self, run: Run, source: Path, path: str) -> None:
        """As `put`, for a file that the caller needs no more: it may be moved, and is gone afterwards."""

    def get(self, run: Run, path: str, into: Path) -> None:
        """Write the file to `into`.  Raises `NotFoundError`."""

    def list(self, run: Run, path: str = "") -> Sequence[ArtifactInfo]:
        """What is directly below the folder `path`, sorted by name; empty where there is nothing."""
