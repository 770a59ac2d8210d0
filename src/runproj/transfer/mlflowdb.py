"""Reads the SQLite file of an MLflow server (2.x to 3.x) as it lies there; the file is never written."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from runproj.core.models import (
    Alias,
    Dataset,
    DatasetInput,
    Lineage,
    LoggedModel,
    ModelMetric,
    ModelOutput,
    ModelVersion,
    RegisteredModel,
)
from runproj.core.run import Experiment, Metric, Param, Run, Tag
from runproj.core.transfer import Block, Loss, MovedModel, MovedRun, Registration, Tree
from runproj.errors import TrackingError, UsageError
from runproj.transfer import points, words
from runproj.transfer.trees import Places

Row = Mapping[str, object]

_BEYOND = {
    "trace_info": "traces",
    "evaluation_datasets": "evaluation datasets",
    "scorers": "scorers",
    "webhooks": "webhooks",
    "endpoints": "gateway endpoints",
    "label_schemas": "label schemas",
    "review_queues": "review queues",
    "mcp_servers": "MCP servers",
}


class MlflowDatabase:
    """A `Source`.  places: where artifacts may be found."""

    def __init__(self, path: Path, places: Places, connection: sqlite3.Connection | None = None) -> None:
        self.name = f"MLflow's database {path}"
        self._path = path
        self._places = places
        with self._explained():
            self._connection = connection or opened(path, "ro")
            if connection is None:
                self._connection.execute("BEGIN")  # all of it from one moment, whoever writes meanwhile
        if not self._columns("alembic_version") or not self._columns("runs"):
            raise UsageError(f"{path} is not a database of MLflow")

    def experiments(self) -> Iterable[Experiment]:
        tags = self._grouped("experiment_tags", "experiment_id", "key", "value")
        for row in self._rows("experiments", order="experiment_id"):
            if not self._foreign(row):
                yield Experiment(
                    id=_text(row, "experiment_id"),
                    name=_text(row, "name"),
                    artifact_location=_text(row, "artifact_location"),
                    lifecycle=words.lifecycle(row.get("lifecycle_stage")),
                    created=_number(row, "creation_time"),
                    updated=_number(row, "last_update_time"),
                    tags=tuple(Tag(key, value) for key, value in tags.get(_text(row, "experiment_id"), ())),
                )

    def runs(self, experiment: Experiment) -> Iterable[MovedRun]:
        for row in self._rows("runs", "experiment_id = ?", (int(experiment.id),), order="start_time, run_uuid"):
            run_id = _text(row, "run_uuid")
            mark = str(self._count("metrics", "run_uuid = ?", (run_id,)))
            yield MovedRun(self._run(row), self._lineage(run_id), _number(row, "deleted_time") or None, mark)

    def one_run(self, run_id: str) -> Run | None:
        """The run of that id."""
        return next((self._run(row) for row in self._rows("runs", "run_uuid = ?", (run_id,))), None)

    def _run(self, row: Row) -> Run:
        run_id = _text(row, "run_uuid")
        params = self._rows("params", "run_uuid = ?", (run_id,))
        return Run(
            id=run_id,
            experiment_id=_text(row, "experiment_id"),
            name=_text(row, "name"),
            status=words.run_status(row.get("status")),
            start=_number(row, "start_time"),
            end=_number(row, "end_time") or None,
            artifact_uri=_text(row, "artifact_uri"),
            user=_text(row, "user_id"),
            lifecycle=words.lifecycle(row.get("lifecycle_stage")),
            params=tuple(Param(_text(param, "key"), _text(param, "value")) for param in params),
            tags=tuple(Tag(_text(tag, "key"), _text(tag, "value")) for tag in self._rows("tags", "run_uuid = ?", (run_id,))),
        )

    def points(self, run: Run) -> Iterator[Block]:
        known = self._columns("metrics")
        step = "step" if "step" in known else "0"
        kind = "is_nan" if "is_nan" in known else "0"
        with self._explained():
            found = self._connection.execute(
                f"SELECT key, timestamp, {step}, CASE WHEN {kind} THEN 0.0 ELSE CAST(value AS REAL) END, CAST({kind} AS INTEGER)"
                " FROM metrics WHERE run_uuid = ? ORDER BY key, timestamp, 3, 4, 5",
                (run.id,),
            )
            found.row_factory = None  # plain tuples
            yield from points.blocks(found)

    def models(self, experiment: Experiment) -> Iterable[MovedModel]:
        for row in self._rows("logged_models", "experiment_id = ?", (int(experiment.id),), order="creation_timestamp_ms"):
            yield MovedModel(self._model(row), words.lifecycle(row.get("lifecycle_stage")))

    def one_model(self, model_id: str) -> LoggedModel | None:
        """The logged model of that id."""
        return next((self._model(row) for row in self._rows("logged_models", "model_id = ?", (model_id,))), None)

    def _model(self, row: Row) -> LoggedModel:
        model_id = _text(row, "model_id")
        params = self._rows("logged_model_params", "model_id = ?", (model_id,))
        tags = self._rows("logged_model_tags", "model_id = ?", (model_id,))
        return LoggedModel(
            id=model_id,
            experiment_id=_text(row, "experiment_id"),
            name=_text(row, "name"),
            artifact_uri=_text(row, "artifact_location"),
            status=words.model_status(row.get("status")),
            created=_number(row, "creation_timestamp_ms"),
            updated=_number(row, "last_updated_timestamp_ms"),
            model_type=_text(row, "model_type"),
            source_run=_text(row, "source_run_id"),
            params=tuple(Param(_text(item, "param_key"), _text(item, "param_value")) for item in params),
            tags=tuple(Tag(_text(item, "tag_key"), _text(item, "tag_value")) for item in tags),
            metrics=tuple(map(_model_metric, self._rows("logged_model_metrics", "model_id = ?", (model_id,)))),
        )

    def registry(self) -> Iterable[Registration]:
        tags = self._grouped("registered_model_tags", "name", "key", "value")
        aliases = self._grouped("registered_model_aliases", "name", "alias", "version")
        version_tags: dict[tuple[str, int], list[Tag]] = {}
        for row in self._rows("model_version_tags"):
            place = (_text(row, "name"), _number(row, "version"))
            version_tags.setdefault(place, []).append(Tag(_text(row, "key"), _text(row, "value")))
        versions: dict[str, list[Row]] = {}
        for row in self._rows("model_versions", order="version"):
            if not self._foreign(row):
                versions.setdefault(_text(row, "name"), []).append(row)
        for row in self._rows("registered_models", order="name"):
            if self._foreign(row):
                continue
            name = _text(row, "name")
            model = RegisteredModel(
                name=name,
                created=_number(row, "creation_time"),
                updated=_number(row, "last_updated_time"),
                description=_text(row, "description"),
                tags=tuple(Tag(key, value) for key, value in tags.get(name, ())),
                aliases=tuple(Alias(alias, int(version)) for alias, version in aliases.get(name, ())),
            )
            mine = versions.get(name, [])
            living = [item for item in mine if _text(item, "current_stage") != words.DELETED_VERSION]
            made = tuple(_version(item, version_tags.get((name, _number(item, "version")), ())) for item in living)
            yield Registration(model, made, max((_number(item, "version") for item in mine), default=0))

    def tree(self, owner: Run | LoggedModel) -> Tree:
        return self._places.tree(owner.artifact_uri)

    def beyond(self) -> Iterable[Loss]:
        for table, what in _BEYOND.items():
            if count := self._count(table):
                yield Loss(what, "runproj has no place for them", count)
        for table in ("experiments", "registered_models"):
            if "workspace" in self._columns(table) and (count := self._count(table, "workspace <> 'default'")):
                yield Loss(table.replace("_", " "), "they are in another workspace than `default`", count)

    def _lineage(self, run_id: str) -> Lineage:
        datasets = []
        for link in self._rows("inputs", "destination_type = 'RUN' AND destination_id = ?", (run_id,)):
            tags = self._rows("input_tags", "input_uuid = ?", (_text(link, "input_uuid"),))
            for row in self._rows("datasets", "dataset_uuid = ?", (_text(link, "source_id"),)):
                fields = ("name", "digest", "dataset_source_type", "dataset_source", "dataset_schema", "dataset_profile")
                data = Dataset(*(_text(row, field) for field in fields))
                datasets.append(DatasetInput(data, tuple(Tag(_text(tag, "name"), _text(tag, "value")) for tag in tags)))
        used = self._rows("inputs", "source_type = 'RUN_INPUT' AND source_id = ?", (run_id,))
        made = self._rows("inputs", "source_type = 'RUN_OUTPUT' AND source_id = ?", (run_id,))
        return Lineage(
            tuple(datasets),
            tuple(_text(row, "destination_id") for row in used),
            tuple(ModelOutput(_text(row, "destination_id"), _number(row, "step")) for row in made),
        )

    @lru_cache(maxsize=100)  # noqa: B019 - one object for the life of the process
    def _columns(self, table: str) -> frozenset[str]:
        """The columns of a table; none where this age of MLflow has no such table."""
        with self._explained():
            return frozenset(row["name"] for row in self._connection.execute(f"PRAGMA table_info({table})"))

    def _rows(self, table: str, where: str = "1", values: Sequence[object] = (), order: str = "") -> list[Row]:
        """Rows of a table that may not exist; a column that does not exist is absent."""
        if not self._columns(table):
            return []
        with self._explained():
            ordered = f" ORDER BY {order}" if order else ""
            found = self._connection.execute(f"SELECT * FROM {table} WHERE {where}{ordered}", values)
            return [dict(row) for row in found]

    def _grouped(self, table: str, by: str, *columns: str) -> dict[str, list[list[str]]]:
        found: dict[str, list[list[str]]] = {}
        for row in self._rows(table):
            if not self._foreign(row):
                found.setdefault(_text(row, by), []).append([_text(row, column) for column in columns])
        return found

    def _count(self, table: str, where: str = "1", values: Sequence[object] = ()) -> int:
        if not self._columns(table):
            return 0
        return int(self._connection.execute(f"SELECT count(*) FROM {table} WHERE {where}", values).fetchone()[0])

    @staticmethod
    def _foreign(row: Row) -> bool:
        return row.get("workspace", "default") != "default"

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise TrackingError(f"{self._path} cannot be read", why=str(error)) from error


def opened(path: Path, mode: str) -> sqlite3.Connection:
    """A connection to a file that exists; `mode` is "ro" or "rw"."""
    if not path.is_file():
        raise UsageError(f"There is no file {path}")
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode={mode}", uri=True, timeout=30, isolation_level=None)
    connection.row_factory = sqlite3.Row
    return connection


def _model_metric(row: Row) -> ModelMetric:
    value = row.get("metric_value")
    number = float(value) if isinstance(value, int | float) else float("nan")  # SQLite makes NULL of NaN
    metric = Metric(_text(row, "metric_name"), number, _number(row, "metric_timestamp_ms"), _number(row, "metric_step"))
    data, digest = _text(row, "dataset_name"), _text(row, "dataset_digest")
    return ModelMetric(metric, _text(row, "model_id"), _text(row, "run_id"), data, digest)


def _version(row: Row, tags: Sequence[Tag]) -> ModelVersion:
    source = _text(row, "source")
    return ModelVersion(
        name=_text(row, "name"),
        version=_number(row, "version"),
        source=source,
        storage=_text(row, "storage_location") or source,
        created=_number(row, "creation_time"),
        updated=_number(row, "last_updated_time"),
        run_id=_text(row, "run_id"),
        run_link=_text(row, "run_link"),
        model_id=words.model_of(source),
        user=_text(row, "user_id"),
        stage=words.stage(row.get("current_stage")),
        description=_text(row, "description"),
        tags=tuple(tags),
    )


def _text(row: Row, column: str) -> str:
    value = row.get(column)
    return "" if value is None else str(value)


def _number(row: Row, column: str) -> int:
    value = row.get(column)
    return int(value) if isinstance(value, int | float) else 0
