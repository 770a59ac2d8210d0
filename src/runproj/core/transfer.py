"""A record on its way from one store to another: what readers give, what writers take, and what is told of it.

Readers and writers know nothing of each other: N kinds of sources and M kinds of targets are N + M files.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from runproj.core.models import Lineage, LoggedModel, ModelVersion, RegisteredModel
from runproj.core.run import Experiment, Lifecycle, Run
from runproj.core.tracking import ArtifactInfo
from runproj.core.values import dataclass

Point = tuple[int, int, float, int]
"""Timestamp, step, value, kind.  NaN is value 0.0 of kind 1 and -0.0 is value 0.0 of kind 2, so that points have an order."""

ORIGIN = "runproj.imported_from"
"""Tag that holds the id that a run had, where the target chooses ids."""

_NOTHING = Lineage()


@dataclass(frozen=True)
class Block:
    """Consecutive points of a metric."""

    key: str
    points: Sequence[Point]


@dataclass(frozen=True)
class MovedRun:
    """A run; its history comes apart from it.

    deleted: when it was deleted, in milliseconds.
    mark:    changes when its history does; cheaply had.
    """

    run: Run
    lineage: Lineage = _NOTHING
    deleted: int | None = None
    mark: str = ""


@dataclass(frozen=True)
class MovedModel:
    model: LoggedModel
    lifecycle: Lifecycle = Lifecycle.ACTIVE


@dataclass(frozen=True)
class Registration:
    """A registered model with all its versions.  `highest` is the highest number that a version ever had."""

    model: RegisteredModel
    versions: tuple[ModelVersion, ...]
    highest: int = 0


@dataclass(frozen=True)
class Loss:
    """Something that was not taken over, how much of it, and why.

    differs: the target has something else in its place.
    """

    what: str
    why: str
    count: int = 1
    differs: bool = False


@dataclass(frozen=True)
class Fingerprint:
    """What a run holds: numbers of parameters, tags and points, and a sha256 over all of them."""

    params: int
    tags: int
    points: int
    sha256: str


@dataclass(frozen=True)
class FileMoved:
    """An artifact.  `path` relative to its run or model; `size` in bytes; `sha256` is empty where it was only listed."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class ItemMoved:
    """A run or a logged model.

    id, target: what it is called in the source and in the target.
    state:      "copied", "kept" (an earlier transfer of these two places has moved it), "wrong" (the target does not hold what
                the source does), "there" or "differs": the target has had one of that id, which is the same, or is not; either
                way it stays as it is.
    experiment: the name of the experiment that it is in where the state is "there" or "differs".
    """

    kind: str
    id: str
    target: str
    state: str
    fingerprint: Fingerprint | None = None
    files: tuple[FileMoved, ...] = ()
    problems: tuple[str, ...] = ()
    experiment: str = ""


@dataclass(frozen=True)
class TransferReport:
    """`import` and `export`.  `verified` is false where anything in the target is not what it is in the source.

    notes: what is in the target in another way than it was: under new ids, or among what was there before.
    """

    source: str
    target: str
    dry_run: bool
    verified: bool
    experiments: int
    runs: int
    points: int
    models: int
    registered_models: int
    versions: int
    files: int
    bytes: int
    seconds: float
    items: tuple[ItemMoved, ...]
    losses: tuple[Loss, ...]
    notes: tuple[str, ...] = ()


class Tree(Protocol):
    """The files of one run or logged model, in a source."""

    def files(self) -> Iterable[ArtifactInfo]:
        """All files, with paths relative to the tree; the size is None for what cannot be copied (a symbolic link)."""

    def fetch(self, path: str, into: Path) -> Path:
        """Where the file is on this machine: where it has always been, or `into`."""


class Source(Protocol):
    """A store that is read.  Every method raises `TrackingError` where it cannot be read.

    name: what it is, for people; without secrets.
    """

    name: str

    def experiments(self) -> Iterable[Experiment]:
        """All of them, deleted ones too."""

    def runs(self, experiment: Experiment) -> Iterable[MovedRun]:
        """All runs of an experiment, deleted ones too, oldest first."""

    def points(self, run: Run) -> Iterator[Block]:
        """The whole history: keys in order, the points of each in order of timestamp, step, value and kind, each once."""

    def models(self, experiment: Experiment) -> Iterable[MovedModel]:
        """The logged models of an experiment, deleted ones too where the source tells."""

    def registry(self) -> Iterable[Registration]:
        """All registered models."""

    def tree(self, owner: Run | LoggedModel) -> Tree:
        """The files of a run or logged model.  Raises `StorageError` where they cannot be reached."""

    def beyond(self) -> Iterable[Loss]:
        """What it holds that no target takes, and what of it could not be read so far."""


class Shelf(Source, Protocol):
    """A `Source` from which single runs can be taken."""

    def experiment(self, experiment_id: str) -> Experiment:
        """The experiment of that id."""

    def some(self, ids: Sequence[str]) -> Iterable[MovedRun]:
        """These runs, deleted or not.  Raises `NotFoundError`."""

    def read_model(self, model_id: str) -> LoggedModel:
        """The logged model of that id.  Raises `NotFoundError`."""


class Target(Protocol):
    """A store that is written.

    name:      what it is, for people; without secrets.
    keeps_ids: runs and logged models keep their ids.
    exact:     it holds every double; others make -0.0 to 0.0, and infinities to the largest numbers.
    """

    name: str
    keeps_ids: bool
    exact: bool

    def find(self, name: str) -> Experiment | None:
        """The experiment of that name, deleted or not."""

    def make(self, wanted: Experiment, name: str) -> Experiment:
        """Record an experiment under a name that is free."""

    def run(self, moved: MovedRun, experiment: Experiment, blocks: Iterable[Block]) -> Run:
        """Record a run, or complete one; returns it as it is called and located here.  `blocks` is read to its end."""

    def model(self, moved: MovedModel, experiment: Experiment) -> LoggedModel:
        """Record a logged model, or complete one; returns it as it is called and located here."""

    def link(self, run_id: str, lineage: Lineage) -> None:
        """Record which logged models a run of the target used and made."""

    def versions(self, name: str) -> Iterable[ModelVersion]:
        """The versions of a registered model that the target has, with their aliases, before `register` is called for it.

        Times are 0 where the target chooses them.
        """

    def register(self, registration: Registration) -> Sequence[Loss]:
        """Record a registered model, or add what is missing to it; returns what it could not take."""

    def put(self, owner: Run | LoggedModel, file: Path, path: str) -> None:
        """Store a copy of a file."""

    def finish(self, wanted: Experiment, made: Experiment) -> None:
        """All runs of an experiment that was made here are there."""

    def has(self, run_id: str) -> bool:
        """Whether a run of that id is in the target."""

    def has_model(self, model_id: str) -> bool:
        """Whether a logged model of that id is in the target."""

    def read(self, run_id: str) -> tuple[Run, Iterator[Block]]:
        """What the target holds of a run, as a `Source` would give it."""

    def read_model(self, model_id: str) -> LoggedModel:
        """The logged model of that id."""

    def name_of(self, experiment_id: str) -> str:
        """The name of an experiment of the target."""

    def tree(self, owner: Run | LoggedModel) -> Tree:
        """The files that the target has of a run or logged model."""
