"""A store of runproj, as a source and as a target."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

from runproj.core.models import Lineage, LoggedModel, ModelVersion
from runproj.core.run import Experiment, Run, RunStatus
from runproj.core.tracking import ArtifactInfo, ArtifactStore
from runproj.core.transfer import Block, Loss, MovedModel, MovedRun, Registration, Tree
from runproj.errors import NotFoundError
from runproj.tracking import points, restore
from runproj.tracking.full import FullStore
from runproj.transfer.trees import safe

_RUNS = 200
"""Runs that are read at once."""

_POINTS = 100_000
"""Points after which a transaction is committed: whoever else writes waits no longer than that takes."""


class OurStore:
    """A `Shelf` and a `Target`.

    name:  what it is, for people.
    files: the artifacts of the store.
    """

    keeps_ids = True
    exact = True

    def __init__(self, store: FullStore, files: ArtifactStore, name: str) -> None:
        self.name = name
        self._store = store
        self._files = files
        self._whole = restore.Whole(store.database)

    def experiments(self) -> Iterable[Experiment]:
        return self._whole.experiments()

    def runs(self, experiment: Experiment) -> Iterable[MovedRun]:
        ids = iter(self._whole.run_ids(experiment))
        while part := list(islice(ids, _RUNS)):
            yield from self.some(part)

    def some(self, ids: Sequence[str]) -> Iterable[MovedRun]:
        lineages = self._store.lineages.of(ids)
        for moved in self._whole.runs(ids):
            yield replace(moved, lineage=lineages.get(moved.run.id, Lineage()))

    def experiment(self, experiment_id: str) -> Experiment:
        return self._store.experiments.get(experiment_id)

    def points(self, run: Run) -> Iterator[Block]:
        return self._whole.points(run.id)

    def models(self, experiment: Experiment) -> Iterable[MovedModel]:
        for model_id, lifecycle in self._whole.models(experiment):
            yield MovedModel(self._store.models.get(model_id, deleted=True), lifecycle)

    def registry(self) -> Iterable[Registration]:
        for name, highest, numbers in self._whole.registered():
            versions = tuple(self._store.versions.get(name, number) for number in numbers)
            yield Registration(self._store.registry.get(name), versions, highest)

    def beyond(self) -> Iterable[Loss]:
        return ()

    def tree(self, owner: Run | LoggedModel) -> Tree:
        self._files.list(_placed(owner))  # says at once where the place is out of reach
        return StoredTree(self._files, _placed(owner))

    def find(self, name: str) -> Experiment | None:
        return self._store.experiments.named(name)

    def make(self, wanted: Experiment, name: str) -> Experiment:
        with self._store.database.writing() as connection:
            restore.add_experiment(connection, wanted, name)
        return self._named(name)

    def _named(self, name: str) -> Experiment:
        found = self.find(name)
        if found is None:
            raise NotFoundError(f"The experiment {name!r} is not in {self.name} any more")
        return found

    def run(self, moved: MovedRun, experiment: Experiment, blocks: Iterable[Block]) -> Run:
        uri = moved.run.artifact_uri or f"{experiment.artifact_location.rstrip('/')}/{moved.run.id}/artifacts"
        rest = iter(blocks)
        part = _points_up_to(rest, _POINTS)
        seq = None
        while True:
            numbers = points.key_numbers(self._store.database, {block.key for block in part})
            with self._store.database.writing(durable=False) as connection:
                if seq is None:
                    seq = restore.put_run(connection, moved, int(experiment.id), uri)
                for block in part:
                    restore.put_points(connection, seq, block, numbers[block.key])
            part = _points_up_to(rest, _POINTS)
            if not part:
                return self._store.get_run(moved.run.id)

    def model(self, moved: MovedModel, experiment: Experiment) -> LoggedModel:
        location = f"{experiment.artifact_location.rstrip('/')}/models/{moved.model.id}/artifacts"
        with self._store.database.writing(durable=False) as connection:
            restore.put_model(connection, moved, int(experiment.id), moved.model.artifact_uri or location)
        return self.read_model(moved.model.id)

    def link(self, run_id: str, lineage: Lineage) -> None:
        with self._store.database.writing(durable=False) as connection:
            restore.put_links(connection, run_id, lineage)

    def versions(self, name: str) -> Iterable[ModelVersion]:
        with self._store.database.reading() as connection:
            of_name = "SELECT id FROM registered_models WHERE name = ?"
            found = connection.execute(f"SELECT version FROM model_versions WHERE model = ({of_name})", (name,)).fetchall()
        return [self._store.versions.get(name, number) for (number,) in found]

    def register(self, registration: Registration) -> Sequence[Loss]:
        with self._store.database.writing() as connection:
            restore.put_registration(connection, registration)
        return ()

    def put(self, owner: Run | LoggedModel, file: Path, path: str) -> None:
        self._files.put(_placed(owner), file, safe(path))

    def finish(self, wanted: Experiment, made: Experiment) -> None:
        """Nothing is left to do: states were written with the things."""

    def has(self, run_id: str) -> bool:
        with self._store.database.reading() as connection:
            return connection.execute("SELECT 1 FROM runs WHERE id = ?", (run_id,)).fetchone() is not None

    def has_model(self, model_id: str) -> bool:
        with self._store.database.reading() as connection:
            return connection.execute("SELECT 1 FROM models WHERE id = ?", (model_id,)).fetchone() is not None

    def read(self, run_id: str) -> tuple[Run, Iterator[Block]]:
        return self._store.get_run(run_id), self._whole.points(run_id)

    def read_model(self, model_id: str) -> LoggedModel:
        return self._store.models.get(model_id, deleted=True)

    def name_of(self, experiment_id: str) -> str:
        return self._store.experiments.get(experiment_id).name


class StoredTree:
    """A `Tree` in an `ArtifactStore`."""

    def __init__(self, files: ArtifactStore, place: Run) -> None:
        self._files = files
        self._place = place

    def files(self) -> Iterable[ArtifactInfo]:
        waiting = [""]
        while waiting:
            for info in self._files.list(self._place, waiting.pop()):
                if info.size is None:
                    waiting.append(info.path)
                else:
                    yield info

    def fetch(self, path: str, into: Path) -> Path:
        self._files.get(self._place, path, into)
        return into


def _placed(owner: Run | LoggedModel) -> Run:
    """What an `ArtifactStore` takes for the owner of files: it looks at id and location only."""
    if isinstance(owner, Run):
        return owner
    return Run(owner.id, owner.experiment_id, "", RunStatus.FINISHED, 0, artifact_uri=owner.artifact_uri)


def _points_up_to(blocks: Iterator[Block], limit: int) -> list[Block]:
    found: list[Block] = []
    count = 0
    for block in blocks:
        found.append(block)
        count += len(block.points)
        if count >= limit:
            break
    return found
