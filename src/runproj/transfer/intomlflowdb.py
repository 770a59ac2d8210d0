"""Writes into the SQLite file of an MLflow server, in a schema that MLflow itself has made."""

from __future__ import annotations

import contextlib
import sqlite3
import uuid
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import groupby
from operator import attrgetter
from pathlib import Path

from runproj.artifacts.files import put
from runproj.artifacts.folder import Folder
from runproj.core.models import DatasetInput, Lineage, LoggedModel, ModelMetric, ModelVersion
from runproj.core.run import Experiment, Param, Run, Tag
from runproj.core.transfer import Block, Loss, MovedModel, MovedRun, Point, Registration, Tree
from runproj.errors import NotFoundError, RefusedError, TrackingError, UsageError
from runproj.transfer import words
from runproj.transfer.mlflowdb import MlflowDatabase, opened
from runproj.transfer.registry import with_aliases
from runproj.transfer.trees import PROXIED, FolderTree, Places, plain_path, safe

_HEADS = {"dc11669786a5": "3.17"}
"""Schemas that are known, and the versions of MLflow that make them."""

_NAMES = "INSERT INTO {} (key, value, {}) VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET value = excluded.value"


class IntoMlflowDatabase:
    """A `Target`.  Each run is one transaction.

    artifacts: where the server keeps what it proxies; `mlartifacts` beside the database otherwise.
    """

    keeps_ids = True
    exact = False

    def __init__(self, path: Path, artifacts: Path | None) -> None:
        self._path = path
        with self._explained():
            self._connection = opened(path, "rw")
            self._connection.execute("PRAGMA foreign_keys = ON")
            self._check()
        self._reader = MlflowDatabase(path, Places(path.parent, ()), self._connection)
        default = next((found for found in self._reader.experiments() if found.id == "0"), None)
        local = plain_path(default.artifact_location) if default else None
        self._proxied = local is None
        self._root = artifacts or (local.parent if local is not None and local.is_absolute() else path.parent / "mlartifacts")
        self.name = f"MLflow's database {path} with files in {self._root}"

    def _check(self) -> None:
        """Raises `UsageError` for a schema that is not known."""
        upgrade = f"mlflow db upgrade sqlite:///{self._path.absolute()}"
        tables = {row["name"] for row in self._connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if "alembic_version" not in tables:
            raise UsageError(f"{self._path} is not a database of MLflow", fix=f"Let MLflow make one: {upgrade}")
        found = {row["version_num"] for row in self._connection.execute("SELECT version_num FROM alembic_version")}
        if not found or not found <= _HEADS.keys():
            known = ", ".join(f"{head} (MLflow {version})" for head, version in _HEADS.items())
            raise UsageError(
                f"{self._path} has a schema that runproj does not know how to write: {', '.join(sorted(found)) or 'none'}",
                why=f"Known: {known}.",
                fix=f"With that version of MLflow, run {upgrade}; or export to a server (http://…) instead.",
            )

    def find(self, name: str) -> Experiment | None:
        return next((found for found in self._reader.experiments() if found.name == name), None)

    def make(self, wanted: Experiment, name: str) -> Experiment:
        with self._writing() as connection:
            free = not connection.execute("SELECT 1 FROM experiments WHERE experiment_id = 0").fetchone()
            number = 0 if wanted.id == "0" and free else None
            values = (number, name, wanted.lifecycle.value, wanted.created, wanted.updated)
            (made,) = connection.execute(
                "INSERT INTO experiments (experiment_id, name, lifecycle_stage, creation_time, last_update_time)"
                " VALUES (?, ?, ?, ?, ?) RETURNING experiment_id",
                values,
            ).fetchone()
            location = wanted.artifact_location or (f"{PROXIED}/{made}" if self._proxied else str(self._root / str(made)))
            connection.execute("UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?", (location, made))
            _names(connection, "experiment_tags", "experiment_id", made, wanted.tags)
        found = self.find(name)
        assert found is not None
        return found

    def run(self, moved: MovedRun, experiment: Experiment, blocks: Iterable[Block]) -> Run:
        run = moved.run
        uri = run.artifact_uri or f"{experiment.artifact_location.rstrip('/')}/{run.id}/artifacts"
        with self._writing() as connection:
            values = (run.id, run.name, run.user, run.status.value, run.start, run.end, run.lifecycle.value, uri)
            connection.execute(
                "INSERT INTO runs (run_uuid, name, source_type, source_name, entry_point_name, source_version, user_id, status,"
                " start_time, end_time, lifecycle_stage, artifact_uri, experiment_id, deleted_time)"
                " VALUES (?, ?, 'UNKNOWN', '', '', '', ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (run_uuid) DO UPDATE SET"
                " name = excluded.name, status = excluded.status, end_time = excluded.end_time,"
                " lifecycle_stage = excluded.lifecycle_stage, deleted_time = excluded.deleted_time",
                (*values, int(experiment.id), moved.deleted),
            )
            _names(connection, "params", "run_uuid", run.id, run.params)
            _names(connection, "tags", "run_uuid", run.id, run.tags)
            for key, group in groupby(blocks, key=attrgetter("key")):
                _history(connection, run.id, key, group)
            for used in moved.lineage.datasets:
                _dataset(connection, run.id, int(experiment.id), used)
        return self.read(run.id)[0]

    def model(self, moved: MovedModel, experiment: Experiment) -> LoggedModel:
        model, number = moved.model, int(experiment.id)
        uri = model.artifact_uri or f"{experiment.artifact_location.rstrip('/')}/models/{model.id}/artifacts"
        kind = (model.model_type or None, model.source_run or None)
        texts, status = (model.id, number, model.name, uri), words.MODEL_NUMBERS[model.status]
        with self._writing() as connection:
            connection.execute(
                "INSERT INTO logged_models (model_id, experiment_id, name, artifact_location, creation_timestamp_ms,"
                " last_updated_timestamp_ms, status, lifecycle_stage, model_type, source_run_id)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (model_id) DO UPDATE SET status = excluded.status,"
                " last_updated_timestamp_ms = excluded.last_updated_timestamp_ms, lifecycle_stage = excluded.lifecycle_stage",
                (*texts, model.created, model.updated, status, moved.lifecycle.value, *kind),
            )
            for table, column, items in (("params", "param", model.params), ("tags", "tag", model.tags)):
                connection.executemany(
                    f"INSERT INTO logged_model_{table} (model_id, experiment_id, {column}_key, {column}_value)"
                    f" VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET {column}_value = excluded.{column}_value",
                    [(model.id, number, item.key, item.value) for item in items],
                )
            measured = [
                (model.id, *attrgetter("key", "timestamp", "step", "value")(item.metric), number, item.run_id, *_data(item))
                for item in model.metrics
            ]
            connection.executemany(
                "INSERT INTO logged_model_metrics (model_id, metric_name, metric_timestamp_ms, metric_step,"
                " metric_value, experiment_id, run_id, dataset_name, dataset_digest) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
                " ON CONFLICT DO NOTHING",
                measured,
            )
        return self.read_model(model.id)

    def link(self, run_id: str, lineage: Lineage) -> None:
        links = [("RUN_INPUT", run_id, "MODEL_INPUT", model, 0) for model in lineage.models_in]
        links += [("RUN_OUTPUT", run_id, "MODEL_OUTPUT", made.model_id, made.step) for made in lineage.models_out]
        with self._writing() as connection:
            for link in links:
                _link(connection, link)

    def versions(self, name: str) -> Iterable[ModelVersion]:
        return self._registered.get(name, ())

    @cached_property
    def _registered(self) -> dict[str, tuple[ModelVersion, ...]]:
        """The versions that were there before this transfer."""
        return {given.model.name: with_aliases(given) for given in self._reader.registry()}

    def register(self, registration: Registration) -> Sequence[Loss]:
        model = registration.model
        with self._writing() as connection:
            connection.execute(
                "INSERT INTO registered_models (name, creation_time, last_updated_time, description) VALUES (?, ?, ?, ?)"
                " ON CONFLICT DO UPDATE SET last_updated_time = excluded.last_updated_time",
                (model.name, model.created, model.updated, model.description or None),
            )
            _names(connection, "registered_model_tags", "name", model.name, model.tags)
            for version in registration.versions:
                _version(connection, version, version.stage.value)
            if registration.highest > max((version.version for version in registration.versions), default=0):
                gone = ModelVersion(model.name, registration.highest, "", "", model.updated, model.updated)
                _version(connection, gone, words.DELETED_VERSION)
            connection.executemany(
                "INSERT INTO registered_model_aliases (name, alias, version) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
                [(model.name, alias.alias, alias.version) for alias in model.aliases],
            )
        return ()

    def put(self, owner: Run | LoggedModel, file: Path, path: str) -> None:
        put(Folder(self._place(owner)), file, safe(path))

    def finish(self, wanted: Experiment, made: Experiment) -> None:
        """Nothing is left to do: states were written with the things."""

    def has(self, run_id: str) -> bool:
        return self._reader.one_run(run_id) is not None

    def has_model(self, model_id: str) -> bool:
        with self._explained():
            found = self._connection.execute("SELECT 1 FROM logged_models WHERE model_id = ?", (model_id,))
            return found.fetchone() is not None

    def read(self, run_id: str) -> tuple[Run, Iterator[Block]]:
        run = self._reader.one_run(run_id)
        if run is None:
            raise NotFoundError(f"{self.name} has no run {run_id}")
        return run, self._reader.points(run)

    def read_model(self, model_id: str) -> LoggedModel:
        model = self._reader.one_model(model_id)
        if model is None:
            raise NotFoundError(f"{self.name} has no logged model {model_id}")
        return model

    def name_of(self, experiment_id: str) -> str:
        return next((found.name for found in self._reader.experiments() if found.id == experiment_id), experiment_id)

    def tree(self, owner: Run | LoggedModel) -> Tree:
        return FolderTree(self._place(owner))

    def _place(self, owner: Run | LoggedModel) -> Path:
        """The folder of a run's or model's files."""
        uri = owner.artifact_uri
        if uri.startswith(f"{PROXIED}/"):
            return self._root / safe(uri.removeprefix(f"{PROXIED}/"))
        path = plain_path(uri)
        if path is None or not path.is_absolute():
            raise RefusedError(f"{uri} is not a folder of this machine")
        return path

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._explained():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.IntegrityError as error:
            raise RefusedError(f"{self._path} does not take this", why=str(error)) from error
        except sqlite3.Error as error:
            raise TrackingError(f"{self._path} cannot be written", why=str(error)) from error


def _data(item: ModelMetric) -> tuple[str | None, str | None]:
    return item.dataset_name or None, item.dataset_digest or None


def _names(connection: sqlite3.Connection, table: str, column: str, owner: object, items: Iterable[Param | Tag]) -> None:
    connection.executemany(_NAMES.format(table, column), [(item.key, item.value, owner) for item in items])


def _history(connection: sqlite3.Connection, run_id: str, key: str, blocks: Iterable[Block]) -> None:
    """Write the points of a metric, and the one that MLflow shows."""
    latest: Point | None = None
    for block in blocks:
        connection.executemany(
            "INSERT INTO metrics (key, timestamp, step, value, is_nan, run_uuid) VALUES (?, ?, ?, ?, ?, ?)"
            " ON CONFLICT DO NOTHING",
            [(key, *point, run_id) for point in block.points],
        )
        last = max(block.points, key=lambda point: (point[1], point[0], point[2]))
        if latest is None or (last[1], last[0], last[2]) > (latest[1], latest[0], latest[2]):
            latest = last
    if latest is not None:
        connection.execute(
            "INSERT INTO latest_metrics (key, timestamp, step, value, is_nan, run_uuid) VALUES (?, ?, ?, ?, ?, ?)"
            " ON CONFLICT DO UPDATE SET timestamp = excluded.timestamp, step = excluded.step, value = excluded.value,"
            " is_nan = excluded.is_nan",
            (key, *latest, run_id),
        )


def _dataset(connection: sqlite3.Connection, run_id: str, experiment: int, used: DatasetInput) -> None:
    data = used.dataset
    texts = (data.source_type, data.source, data.schema or None, data.profile or None)
    connection.execute(
        "INSERT INTO datasets (dataset_uuid, experiment_id, name, digest, dataset_source_type, dataset_source,"
        " dataset_schema, dataset_profile) VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        (uuid.uuid4().hex, experiment, data.name, data.digest, *texts),
    )
    (number,) = connection.execute(
        "SELECT dataset_uuid FROM datasets WHERE experiment_id = ? AND name = ? AND digest = ?",
        (experiment, data.name, data.digest),
    ).fetchone()
    edge = _link(connection, ("DATASET", number, "RUN", run_id, 0))
    connection.executemany(
        "INSERT INTO input_tags (input_uuid, name, value) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
        [(edge, tag.key, tag.value) for tag in used.tags],
    )


def _link(connection: sqlite3.Connection, link: tuple[str, str, str, str, int]) -> str:
    """Record what went into, or came out of, a run; returns the id of that."""
    connection.execute(
        "INSERT INTO inputs (input_uuid, source_type, source_id, destination_type, destination_id, step)"
        " VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        (uuid.uuid4().hex, *link),
    )
    (edge,) = connection.execute(
        "SELECT input_uuid FROM inputs WHERE source_type = ? AND source_id = ? AND destination_type = ? AND destination_id = ?",
        link[:4],
    ).fetchone()
    return str(edge)


def _version(connection: sqlite3.Connection, version: ModelVersion, stage: str) -> None:
    texts = (version.description, version.user, stage, version.source, version.run_id, version.run_link, version.storage)
    connection.execute(
        "INSERT INTO model_versions (name, version, creation_time, last_updated_time, description, user_id,"
        " current_stage, source, run_id, run_link, storage_location, status) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'READY')"
        " ON CONFLICT DO NOTHING",
        (version.name, version.version, version.created, version.updated, *(text or None for text in texts)),
    )
    connection.executemany(
        "INSERT INTO model_version_tags (name, version, key, value) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
        [(version.name, version.version, tag.key, tag.value) for tag in version.tags],
    )
