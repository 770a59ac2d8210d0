"""A record that was made elsewhere, written as it is: ids, times and states are given, not chosen.  And read whole."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, islice, repeat
from operator import itemgetter

from runproj.core.models import Lineage, ModelVersion
from runproj.core.numbers import as_number
from runproj.core.run import Experiment, Lifecycle
from runproj.core.transfer import Block, MovedModel, MovedRun, Registration
from runproj.tracking import experiments, lineage, points, rows
from runproj.tracking.rows import text
from runproj.tracking.sql import Connection, Database, Dialect, one

_BLOCK = 20_000


def add_experiment(connection: Connection, wanted: Experiment, name: str) -> Experiment:
    """A new experiment; where its location is empty, its artifacts go into the store's own root."""
    made = experiments.insert(connection, text(name), wanted.artifact_location, wanted.tags)
    connection.execute(
        "UPDATE experiments SET lifecycle = ?, created = ?, updated = ? WHERE id = ?",
        (wanted.lifecycle.value, wanted.created or made.created, wanted.updated or made.updated, int(made.id)),
    )
    return made


def put_run(connection: Connection, moved: MovedRun, experiment: int, artifact_uri: str) -> int:
    """Record a run with its params, tags and datasets, or bring one up to date; returns its number."""
    run = moved.run
    texts = (run.id, experiment, text(run.name), text(run.user), run.status.value)
    (seq,) = one(
        connection.execute(
            'INSERT INTO runs (id, experiment, name, "user", status, started, ended, artifact_uri, lifecycle, deleted)'
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET name = excluded.name,"
            " status = excluded.status, ended = excluded.ended, lifecycle = excluded.lifecycle, deleted = excluded.deleted"
            " RETURNING seq",
            (*texts, run.start, run.end, artifact_uri, run.lifecycle.value, moved.deleted),
        )
    )
    params = [(seq, text(param.key), text(param.value), as_number(text(param.value))) for param in run.params]
    _insert(connection, "params (run, key, value, number)", params, "ON CONFLICT DO NOTHING")
    tags = {tag.key: (seq, text(tag.key), text(tag.value)) for tag in run.tags}
    update = "ON CONFLICT (run, key) DO UPDATE SET value = excluded.value"
    _insert(connection, "tags (run, key, value)", list(tags.values()), update)
    for used in moved.lineage.datasets:
        lineage.add_dataset(connection, seq, experiment, used)
    return int(seq)


def put_points(connection: Connection, run: int, block: Block, number: int) -> None:
    """Add the points of a metric, which has a `number`, to a run."""
    found = [(run, number, *point) for point in block.points]
    _insert(connection, "points (run, key, timestamp, step, value, kind)", found, "ON CONFLICT DO NOTHING")
    timestamp, step, value, kind = max(block.points, key=itemgetter(1, 0, 2))
    points.keep_latest(connection, [(run, number, step, timestamp, value, kind)])


def _insert(connection: Connection, table: str, found: Sequence[Sequence[object]], conflict: str) -> None:
    """Many rows at once, each database in the way that it does that fast."""
    if not found:
        return
    width = len(found[0])
    row = f"({', '.join(repeat('?', width))})"
    if connection.dialect is Dialect.SQLITE:
        connection.executemany(f"INSERT INTO {table} VALUES {row} {conflict}", found)
        return
    columns = [list(column) for column in zip(*found, strict=True)]
    arrays = ", ".join(f"?::{_type(column)}[]" for column in columns)
    connection.execute(f"INSERT INTO {table} SELECT * FROM unnest({arrays}) {conflict}", columns)


def _type(column: Sequence[object]) -> str:
    """PostgreSQL's word for what is in a column.  A column of nothing is one of numbers: parameters that are none."""
    first = next((value for value in column if value is not None), 0.0)
    return "bigint" if isinstance(first, int) else "float8" if isinstance(first, float) else "text"


def put_model(connection: Connection, moved: MovedModel, experiment: int, artifact_uri: str) -> None:
    """Record a logged model with its params, tags and metrics, or bring one up to date."""
    model = moved.model
    texts = (model.id, experiment, text(model.name), artifact_uri, model.status.value, model.model_type)
    (seq,) = one(
        connection.execute(
            "INSERT INTO models (id, experiment, name, artifact_uri, status, model_type, source_run, created, updated, lifecycle)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET status = excluded.status,"
            " updated = excluded.updated, lifecycle = excluded.lifecycle RETURNING seq",
            (*texts, model.source_run, model.created, model.updated, moved.lifecycle.value),
        )
    )
    update = "ON CONFLICT (model, key) DO UPDATE SET value = excluded.value"
    _insert(connection, "model_params (model, key, value)", _pairs(seq, model.params), update)
    _insert(connection, "model_tags (model, key, value)", _pairs(seq, model.tags), update)
    columns = "model, key, run, timestamp, step, value, kind, dataset_name, dataset_digest"
    measured = [
        (
            seq,
            point.key,
            item.run_id,
            point.timestamp,
            point.step,
            *rows.pack(point.value),
            item.dataset_name,
            item.dataset_digest,
        )
        for item in model.metrics
        for point in (item.metric,)
    ]
    _insert(connection, f"model_metrics ({columns})", measured, "ON CONFLICT DO NOTHING")


def _pairs(number: int, items: Iterable[object]) -> list[tuple[object, ...]]:
    return [(number, text(str(getattr(item, "key", ""))), text(str(getattr(item, "value", "")))) for item in items]


def put_links(connection: Connection, run_id: str, made: Lineage) -> None:
    """Record which logged models a run used and made."""
    (seq,) = one(connection.execute("SELECT seq FROM runs WHERE id = ?", (run_id,)))
    links = [(seq, "input", model, 0) for model in made.models_in]
    links += [(seq, "output", output.model_id, output.step) for output in made.models_out]
    _insert(connection, "run_models (run, direction, model, step)", links, "ON CONFLICT DO NOTHING")


def put_registration(connection: Connection, given: Registration) -> None:
    """Record a registered model, or add what it lacks: versions that are there stay as they are."""
    model = given.model
    (number,) = one(
        connection.execute(
            "INSERT INTO registered_models AS old (name, description, created, updated, versions) VALUES (?, ?, ?, ?, ?)"
            " ON CONFLICT (name) DO UPDATE SET updated = excluded.updated, versions ="
            " CASE WHEN excluded.versions > old.versions THEN excluded.versions ELSE old.versions END RETURNING id",
            (text(model.name), text(model.description), model.created, model.updated, given.highest),
        )
    )
    keep = "ON CONFLICT DO NOTHING"
    _insert(connection, "registered_model_tags (model, key, value)", _pairs(number, model.tags), keep)
    columns = 'source, storage, run_id, run_link, model_id, "user", stage, description, created, updated'
    _insert(connection, f"model_versions (model, version, {columns})", [_version(number, item) for item in given.versions], keep)
    tags = [(number, item.version, *pair[1:]) for item in given.versions for pair in _pairs(0, item.tags)]
    _insert(connection, "model_version_tags (model, version, key, value)", tags, keep)
    aliases = [(number, text(alias.alias), alias.version) for alias in model.aliases]
    _insert(connection, "aliases (model, alias, version)", aliases, keep)


def _version(model: int, item: ModelVersion) -> tuple[object, ...]:
    texts = (item.source, item.storage, item.run_id, item.run_link, item.model_id, item.user, item.stage.value, item.description)
    return (model, item.version, *map(text, texts), item.created, item.updated)


class Whole:
    """Everything of a database, read as it is."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def experiments(self) -> list[Experiment]:
        with self.database.reading() as connection:
            found = connection.execute(f"SELECT {rows.EXPERIMENT_COLUMNS} FROM experiments e ORDER BY e.id").fetchall()
            return rows.load_experiments(connection, found)

    def run_ids(self, experiment: Experiment) -> list[str]:
        """Ids of all runs of an experiment, oldest first."""
        with self.database.reading() as connection:
            found = connection.execute("SELECT id FROM runs WHERE experiment = ? ORDER BY started, seq", (int(experiment.id),))
            return [run_id for (run_id,) in found]

    def runs(self, ids: Sequence[str]) -> list[MovedRun]:
        """These runs, without lineage."""
        with self.database.reading() as connection:
            chosen = json.dumps(list(ids))
            within = "WHERE r.id IN (SELECT value FROM json_each(?) AS texts) ORDER BY r.started, r.seq"
            found = connection.execute(f"SELECT {rows.RUN_COLUMNS} FROM runs r {within}", (chosen,)).fetchall()
            times = connection.execute(f"SELECT r.id, r.deleted FROM runs r {within}", (chosen,))
            deleted: dict[str, int | None] = dict(times.fetchall())
            counted = connection.execute(
                "SELECT r.id, count(*) FROM runs r JOIN points p ON p.run = r.seq"
                " WHERE r.id IN (SELECT value FROM json_each(?) AS texts) GROUP BY r.id",
                (chosen,),
            )
            counts: dict[str, int] = dict(counted.fetchall())
            return [
                MovedRun(run, deleted=deleted[run.id], mark=str(counts.get(run.id, 0)))
                for run in rows.load_runs(connection, found)
            ]

    def points(self, run_id: str) -> Iterator[Block]:
        """The whole history of a run, keys in order; the transaction lasts as long as somebody asks for more."""
        with self.database.reading() as connection:
            keys = connection.execute(
                "SELECT k.key, l.run, l.key FROM latest_metrics l JOIN metric_keys k ON k.id = l.key JOIN runs r ON r.seq = l.run"
                " WHERE r.id = ? ORDER BY k.key",
                (run_id,),
            ).fetchall()
            for key, *place in keys:
                found = iter(
                    connection.execute(
                        "SELECT timestamp, step, value, kind FROM points WHERE run = ? AND key = ?"
                        " ORDER BY timestamp, step, value, kind",
                        place,
                    )
                )
                while part := list(islice(found, _BLOCK)):
                    yield Block(key, part)

    def models(self, experiment: Experiment) -> list[tuple[str, Lifecycle]]:
        """Ids and states of an experiment's logged models."""
        with self.database.reading() as connection:
            found = connection.execute(
                "SELECT id, lifecycle FROM models WHERE experiment = ? ORDER BY seq", (int(experiment.id),)
            )
            return [(model, Lifecycle(lifecycle)) for model, lifecycle in found]

    def registered(self) -> list[tuple[str, int, list[int]]]:
        """Name, highest number and version numbers of each registered model."""
        with self.database.reading() as connection:
            models = connection.execute("SELECT id, name, versions FROM registered_models ORDER BY name").fetchall()
            versions = connection.execute("SELECT model, version FROM model_versions ORDER BY model, version").fetchall()
        numbers = {model: [version for _, version in group] for model, group in groupby(versions, itemgetter(0))}
        return [(name, highest, numbers.get(model, [])) for model, name, highest in models]
