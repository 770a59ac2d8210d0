"""Logged models: what `mlflow.<flavor>.log_model` records beside the files."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Sequence
from dataclasses import replace

from runproj.core.models import LoggedModel, ModelMetric, ModelStatus
from runproj.core.run import Metric, Param, Tag
from runproj.core.search import Condition, Entity, Order
from runproj.errors import NotFoundError, RefusedError
from runproj.tracking import experiments, query, rows
from runproj.tracking.sql import Connection, Database, one
from runproj.tracking.where import Sql, Where

_COLUMNS = "m.seq, m.id, m.experiment, m.name, m.artifact_uri, m.status, m.created, m.updated, m.model_type, m.source_run"


class Models:
    """The logged models of a database."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def create(
        self, experiment_id: str, name: str, model_type: str, source_run: str, params: Sequence[Param], tags: Sequence[Tag]
    ) -> LoggedModel:
        """A new model without files.  Raises `NotFoundError` and `RefusedError` for an experiment without a future."""
        model_id, now = f"m-{uuid.uuid4().hex}", int(time.time() * 1000)
        with self.database.writing() as connection:
            experiment = experiments.active(connection, experiment_id)
            uri = f"{experiment.artifact_location.rstrip('/')}/models/{model_id}/artifacts"
            values = (model_id, int(experiment.id), name, uri, ModelStatus.PENDING.value, model_type, source_run, now, now)
            (seq,) = one(
                connection.execute(
                    "INSERT INTO models (id, experiment, name, artifact_uri, status, model_type, source_run, created, updated)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING seq",
                    values,
                )
            )
            _insert_params(connection, seq, params)
            _insert_tags(connection, seq, tags)
            return _get(connection, model_id)

    def get(self, model_id: str, *, deleted: bool = False) -> LoggedModel:
        """Raises `NotFoundError`; for a deleted model, too, unless `deleted`."""
        with self.database.reading() as connection:
            return _get(connection, model_id, deleted=deleted)

    def finalize(self, model_id: str, status: ModelStatus) -> LoggedModel:
        """Record that the model's files are there, or will never be."""
        with self.database.writing() as connection:
            seq = _seq(connection, model_id)
            connection.execute("UPDATE models SET status = ? WHERE seq = ?", (status.value, seq))
            _touch(connection, seq)
            return _get(connection, model_id)

    def delete(self, model_id: str) -> None:
        """Does nothing for a model that is deleted already."""
        with self.database.writing() as connection:
            seq = _seq(connection, model_id, deleted=True)
            connection.execute("UPDATE models SET lifecycle = 'deleted' WHERE seq = ?", (seq,))

    def add_params(self, model_id: str, params: Sequence[Param]) -> None:
        """Raises `RefusedError` for a parameter that is there already."""
        with self.database.writing(durable=False) as connection:
            _insert_params(connection, _seq(connection, model_id), params)

    def set_tags(self, model_id: str, tags: Sequence[Tag]) -> LoggedModel:
        with self.database.writing(durable=False) as connection:
            seq = _seq(connection, model_id)
            _insert_tags(connection, seq, tags)
            _touch(connection, seq)
            return _get(connection, model_id)

    def extend_tag(self, model_id: str, key: str, item: object) -> None:
        """Add an item to the JSON list that a tag is, or will be.  Raises `RefusedError` for a tag that is something else."""
        with self.database.writing() as connection:  # one after the other: neither of two items may be lost
            seq = _seq(connection, model_id)
            found = connection.execute("SELECT value FROM model_tags WHERE model = ? AND key = ?", (seq, key)).fetchone()
            _insert_tags(connection, seq, [Tag(key, rows.longer(found[0] if found else "", item))])
            _touch(connection, seq)

    def delete_tag(self, model_id: str, key: str) -> None:
        """Raises `NotFoundError` where there is no such tag."""
        with self.database.writing(durable=False) as connection:
            seq = _seq(connection, model_id)
            if not connection.execute("DELETE FROM model_tags WHERE model = ? AND key = ?", (seq, key)).rowcount:
                raise NotFoundError(f"The logged model {model_id} has no tag {key!r}")

    def log_metrics(self, metrics: Sequence[ModelMetric]) -> None:
        """Add measurements to their models.  Raises `NotFoundError`."""
        with self.database.writing(durable=False) as connection:
            for item in metrics:
                point, seq = item.metric, _seq(connection, item.model_id)
                values = (point.timestamp, point.step, *rows.pack(point.value), item.dataset_name, item.dataset_digest)
                connection.execute(
                    "INSERT INTO model_metrics (model, key, run, timestamp, step, value, kind, dataset_name, dataset_digest)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                    (seq, point.key, item.run_id, *values),
                )

    def search(
        self,
        experiment_ids: Sequence[str],
        condition: Condition,
        orders: Sequence[Order],
        limit: int,
        offset: int,
        datasets: Sequence[tuple[str, str]] = (),
    ) -> list[LoggedModel]:
        """Models that fit, newest first unless `orders` says otherwise.

        datasets: names, and digests or "" for any, to whose metrics the condition is confined; models without one do not fit.
        """
        where, target = Where(), _confined(datasets)
        where.add("m.lifecycle = 'active'")
        where.one_of("m.experiment", [experiments.number_of(experiment) for experiment in experiment_ids])
        order, bound = query.order_sql(orders, target, "m.created DESC, m.id ASC")
        if datasets:
            which, values = _of_datasets(datasets)
            where.add_sql(Sql(f"EXISTS (SELECT 1 FROM model_metrics WHERE model = m.seq AND {which})", values))
        with self.database.reading() as connection:
            where.add_sql(query.condition_sql(condition, target, connection.dialect))
            found = connection.execute(
                f"SELECT {_COLUMNS} FROM models m {where.sql} {order} LIMIT ? OFFSET ?", (*where.values, *bound, limit, offset)
            ).fetchall()
            return _load(connection, found)


def _confined(datasets: Sequence[tuple[str, str]]) -> query.Target:
    """Logged models, with no other metrics than those of the datasets."""
    if not datasets:
        return query.LOGGED_MODELS
    which, values = _of_datasets(datasets)
    metrics = query.LOGGED_MODELS.collections[Entity.METRIC].replace("model = m.seq", f"model = m.seq AND {which}")
    collections = {**query.LOGGED_MODELS.collections, Entity.METRIC: metrics}
    return replace(query.LOGGED_MODELS, collections=collections, bound={Entity.METRIC: values})


def _of_datasets(datasets: Sequence[tuple[str, str]]) -> tuple[str, tuple[str, ...]]:
    terms = ["dataset_name = ? AND dataset_digest = ?" if digest else "dataset_name = ?" for _, digest in datasets]
    return f"({' OR '.join(terms)})", tuple(text for dataset in datasets for text in dataset if text)


def _seq(connection: Connection, model_id: str, *, deleted: bool = False) -> int:
    found = connection.execute("SELECT seq, lifecycle FROM models WHERE id = ?", (model_id,)).fetchone()
    if found is None or (found[1] == "deleted" and not deleted):
        raise NotFoundError(f"Logged model with ID '{model_id}' not found.")
    return int(found[0])


def _get(connection: Connection, model_id: str, *, deleted: bool = False) -> LoggedModel:
    seq = _seq(connection, model_id, deleted=deleted)
    found = connection.execute(f"SELECT {_COLUMNS} FROM models m WHERE m.seq = ?", (seq,)).fetchall()
    return _load(connection, found)[0]


def _touch(connection: Connection, seq: int) -> None:
    connection.execute("UPDATE models SET updated = ? WHERE seq = ?", (int(time.time() * 1000), seq))


def _insert_params(connection: Connection, seq: int, params: Sequence[Param]) -> None:
    for param in params:
        added = connection.execute(
            "INSERT INTO model_params (model, key, value) VALUES (?, ?, ?) ON CONFLICT DO NOTHING", (seq, param.key, param.value)
        ).rowcount
        if not added:
            raise RefusedError(f"The parameter {param.key!r} of the logged model is set already")


def _insert_tags(connection: Connection, seq: int, tags: Sequence[Tag]) -> None:
    connection.executemany(
        "INSERT INTO model_tags (model, key, value) VALUES (?, ?, ?)"
        " ON CONFLICT (model, key) DO UPDATE SET value = excluded.value",
        sorted({tag.key: (seq, tag.key, tag.value) for tag in tags}.values()),
    )


def _load(connection: Connection, found: Sequence[tuple[object, ...]]) -> list[LoggedModel]:
    chosen = (json.dumps([row[0] for row in found]),)
    within = "WHERE model IN (SELECT value FROM json_each(?)) ORDER BY model, key"
    params = rows.grouped(
        (model, Param(key, value)) for model, key, value in connection.execute(f"SELECT * FROM model_params {within}", chosen)
    )
    tags = rows.grouped(
        (model, Tag(key, value)) for model, key, value in connection.execute(f"SELECT * FROM model_tags {within}", chosen)
    )
    names = {row[0]: str(row[1]) for row in found}
    metrics = rows.grouped(
        (model, ModelMetric(Metric(key, rows.unpack(value, kind), at, step), names[model], run, data, digest))
        for model, key, run, at, step, value, kind, data, digest in connection.execute(
            "SELECT model, key, run, timestamp, step, value, kind, dataset_name, dataset_digest FROM model_metrics"
            f" {within}, step, timestamp, value",
            chosen,
        )
    )
    return [
        LoggedModel(
            id=str(model_id),
            experiment_id=str(experiment),
            name=str(name),
            artifact_uri=str(uri),
            status=ModelStatus(status),
            created=rows.integer(created),
            updated=rows.integer(updated),
            model_type=str(model_type),
            source_run=str(source_run),
            params=tuple(params.get(rows.integer(seq), ())),
            tags=tuple(tags.get(rows.integer(seq), ())),
            metrics=tuple(metrics.get(rows.integer(seq), ())),
        )
        for seq, model_id, experiment, name, uri, status, created, updated, model_type, source_run in found
    ]
