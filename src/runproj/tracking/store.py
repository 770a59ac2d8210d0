"""The record in a database of our own: an SQLite file, which runproj uses unless told otherwise, or PostgreSQL."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from runproj.core.numbers import as_number
from runproj.core.run import Experiment, Lifecycle, Metric, NewRun, Param, Run, RunChanges, RunQuery, Tag, TagName
from runproj.errors import NotFoundError, RefusedError
from runproj.tracking import experiments, points, rows
from runproj.tracking.names import no_experiment, run_name
from runproj.tracking.sql import Connection, Database, Dialect, one
from runproj.tracking.where import Where

_SHORT = 64  # up to here tag values are indexed


class SqlStore:
    """A `TrackingStore` in a database, or in the SQLite file at a path, which is made when it is first used.

    Safe for threads and processes.
    """

    def __init__(self, place: Path | Database) -> None:
        if isinstance(place, Path):
            from runproj.tracking.database import SqliteDatabase

            place = SqliteDatabase(place)
        self.database: Database = place

    def close(self) -> None:
        """Let go of the file."""
        self.database.close()

    def experiment(self, name: str, *, make: bool = True) -> Experiment:
        with self.database.reading() as connection:
            found = experiments.find_named(connection, name)
        if found is None:
            if not make:
                raise no_experiment(name)
            with self.database.writing() as connection:
                found = experiments.find_named(connection, name) or experiments.insert(connection, name)
        if found.lifecycle is Lifecycle.DELETED:
            fix = f"Choose another name, or restore it: runproj experiments restore {name!r}"
            raise RefusedError(f"The experiment {name!r} was deleted", fix=fix)
        return found

    def experiment_by_id(self, experiment_id: str) -> Experiment:
        with self.database.reading() as connection:
            return experiments.get(connection, experiment_id)

    def create_run(self, new: NewRun) -> Run:
        run_id = new.id or os.urandom(16).hex()
        with self.database.writing() as connection:
            insert_run(connection, run_id, new)
            return _get_run(connection, run_id)

    def get_run(self, run_id: str) -> Run:
        with self.database.reading() as connection:
            return _get_run(connection, run_id)

    def update(self, run_id: str, changes: RunChanges, *, only_active: bool = False) -> None:
        """As the protocol says.  only_active: raise `RefusedError` where the run is deleted."""
        decisive = (changes.status, changes.end, changes.lifecycle) != (None, None, None)
        numbers = points.key_numbers(self.database, {metric.key for metric in changes.metrics})
        with self.database.writing(durable=decisive) as connection:
            seq = run_seq(connection, run_id, only_active=only_active)
            _apply(connection, seq, run_id, changes)
            if changes.metrics:
                points.write(connection, seq, changes.metrics, numbers)

    def extend_tag(self, run_id: str, key: str, item: object) -> None:
        """Add an item to the JSON list that a tag is, or will be.  Raises `RefusedError` for a tag that is something else."""
        with self.database.writing() as connection:  # one after the other: neither of two items may be lost
            seq = run_seq(connection, run_id, only_active=True)
            found = connection.execute("SELECT value FROM tags WHERE run = ? AND key = ?", (seq, key)).fetchone()
            _write_tags(connection, seq, [Tag(key, rows.longer(found[0] if found else "", item))])

    def search(self, query: RunQuery) -> Sequence[Run]:
        where = _where(query)
        with self.database.reading() as connection:
            found = connection.execute(
                f"SELECT {rows.RUN_COLUMNS} FROM runs r {where.sql} ORDER BY r.started DESC, r.seq DESC LIMIT ? OFFSET ?",
                (*where.values, query.limit, query.offset),
            ).fetchall()
            return rows.load_runs(connection, found)

    def history(self, run_id: str, key: str) -> Sequence[Metric]:
        with self.database.reading() as connection:
            return points.history(connection, run_id, key)

    def history_page(self, run_id: str, key: str, limit: int | None, offset: int) -> Sequence[Metric]:
        """As `history`, at most `limit` points after the first `offset`."""
        with self.database.reading() as connection:
            return points.history(connection, run_id, key, limit, offset)

    def thinned(
        self, run_ids: Sequence[str], key: str, limit: int, steps: tuple[int, int] | None = None
    ) -> Sequence[tuple[str, Sequence[Metric]]]:
        """At most `limit` points of each run, and its last one, ordered by step; between two steps, both included."""
        with self.database.reading() as connection:
            return [(run_id, points.thinned(connection, run_id, key, limit, steps or points.ANY_STEP)) for run_id in run_ids]


def insert_run(connection: Connection, run_id: str, new: NewRun) -> None:
    """Record a new run with its params and tags.  Raises `NotFoundError` or `RefusedError` for an experiment without a future."""
    found = connection.execute(
        "SELECT artifact_location, lifecycle FROM experiments WHERE id = ?", (experiments.number_of(new.experiment_id),)
    ).fetchone()
    if found is None:
        raise NotFoundError(f"There is no experiment with id {new.experiment_id!r}")
    location, lifecycle = found
    if lifecycle != Lifecycle.ACTIVE.value:
        fix = f"Choose another, or restore it: runproj experiments restore {new.experiment_id}"
        raise RefusedError(f"The experiment with id {new.experiment_id} was deleted", fix=fix)
    if connection.execute("SELECT 1 FROM runs WHERE id = ?", (run_id,)).fetchone():
        raise RefusedError(f"There is already a run with id {run_id}")
    tags = {tag.key: tag.value for tag in new.tags}
    name = rows.text(new.name or tags.get(TagName.RUN_NAME) or run_name())
    tags[TagName.RUN_NAME] = name
    artifacts = f"{location.rstrip('/')}/{run_id}/artifacts"
    values = (run_id, int(new.experiment_id), name, rows.text(new.user), new.status.value, new.start, artifacts)
    (seq,) = one(
        connection.execute(
            'INSERT INTO runs (id, experiment, name, "user", status, started, artifact_uri) VALUES (?, ?, ?, ?, ?, ?, ?)'
            " RETURNING seq",
            values,
        )
    )
    _write_params(connection, seq, run_id, new.params)
    _write_tags(connection, seq, [Tag(key, value) for key, value in tags.items()])


def run_seq(connection: Connection, run_id: str, *, only_active: bool = False) -> int:
    """The number by which the tables know the run, which nobody else changes until the end of the transaction.

    Raises `NotFoundError`, and with `only_active` `RefusedError` for a deleted run.
    """
    alone = " FOR UPDATE" if connection.dialect is Dialect.POSTGRESQL else ""
    found = connection.execute(f"SELECT seq, lifecycle FROM runs WHERE id = ?{alone}", (run_id,)).fetchone()
    if found is None:
        raise NotFoundError(f"There is no run with id {run_id!r}")
    if only_active and found[1] != Lifecycle.ACTIVE.value:
        raise RefusedError(f"The run {run_id} must be in the 'active' state. Current state is deleted.")
    return int(found[0])


def _get_run(connection: Connection, run_id: str) -> Run:
    found = connection.execute(f"SELECT {rows.RUN_COLUMNS} FROM runs r WHERE r.id = ?", (run_id,)).fetchall()
    if not found:
        raise NotFoundError(f"There is no run with id {run_id!r}")
    return rows.load_runs(connection, found)[0]


def _apply(connection: Connection, seq: int, run_id: str, changes: RunChanges) -> None:
    """Write all changes but metrics into the open transaction."""
    _write_params(connection, seq, run_id, changes.params)
    tags = list(changes.tags)
    name = changes.name or next((tag.value for tag in reversed(tags) if tag.key == TagName.RUN_NAME), None)
    if name:
        tags.append(Tag(TagName.RUN_NAME, name))
    if tags:
        _write_tags(connection, seq, tags)
    if changes.deleted_tags:
        connection.executemany("DELETE FROM tags WHERE run = ? AND key = ?", [(seq, key) for key in changes.deleted_tags])
    columns: dict[str, object] = {}
    if name:
        columns["name"] = rows.text(name)
    if changes.status is not None:
        columns["status"] = changes.status.value
    if changes.end is not None:
        columns["ended"] = changes.end
    if changes.lifecycle is not None:
        columns["lifecycle"] = changes.lifecycle.value
        columns["deleted"] = int(time.time() * 1000) if changes.lifecycle is Lifecycle.DELETED else None
    if columns:
        assignments = ", ".join(f"{column} = ?" for column in columns)
        connection.execute(f"UPDATE runs SET {assignments} WHERE seq = ?", (*columns.values(), seq))


def _write_params(connection: Connection, seq: int, run_id: str, params: Iterable[Param]) -> None:
    for param in params:
        key, value = rows.text(param.key), rows.text(param.value)
        added = connection.execute(
            "INSERT INTO params (run, key, value, number) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
            (seq, key, value, as_number(value)),
        ).rowcount
        if added:
            continue
        (old,) = one(connection.execute("SELECT value FROM params WHERE run = ? AND key = ?", (seq, key)))
        if old != value:
            raise RefusedError(
                f"The parameter {param.key!r} of run {run_id} is {old!r} and cannot become {value!r}",
                why="Parameters are written once.",
                fix="Record what changes during a run as a metric or a tag.",
            )


def _write_tags(connection: Connection, seq: int, tags: Iterable[Tag]) -> None:
    connection.executemany(
        "INSERT INTO tags (run, key, value) VALUES (?, ?, ?) ON CONFLICT (run, key) DO UPDATE SET value = excluded.value",
        [(seq, rows.text(tag.key), rows.text(tag.value)) for tag in tags],
    )


def _where(wanted: RunQuery) -> Where:
    """The conditions of a query."""
    where = Where()
    if wanted.experiments:
        where.one_of("r.experiment", [experiments.number_of(experiment) for experiment in wanted.experiments])
    if wanted.lifecycle is not None:
        where.add("r.lifecycle = ?", wanted.lifecycle.value)
    if wanted.statuses:
        where.one_of("r.status", [status.value for status in wanted.statuses])
    if wanted.prefix:
        where.add("r.id >= ? AND r.id < ?", wanted.prefix, wanted.prefix + "\U0010ffff")
    if wanted.name is not None:
        where.add("r.name = ?", wanted.name)
    for tag in wanted.tags:
        short = f" AND length(value) <= {_SHORT}" if len(tag.value) <= _SHORT else ""
        where.add(f"r.seq IN (SELECT run FROM tags WHERE key = ? AND value = ?{short})", tag.key, tag.value)
    return where
