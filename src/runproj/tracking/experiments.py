"""Experiments in the database, beyond what the store's protocol needs."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from runproj.core.access import Role, experiment_number
from runproj.core.catalogue import ExperimentUse
from runproj.core.run import Experiment, Lifecycle, Tag
from runproj.errors import AlreadyExistsError, NotFoundError, RefusedError
from runproj.tracking import rows
from runproj.tracking.names import no_experiment
from runproj.tracking.sql import Connection, Database, one
from runproj.tracking.where import Where

if TYPE_CHECKING:
    from runproj.core.search import Condition, Order


_SET_TAG = (
    "INSERT INTO experiment_tags (experiment, key, value) VALUES (?, ?, ?)"
    " ON CONFLICT (experiment, key) DO UPDATE SET value = excluded.value"
)


class Experiments:
    """The experiments of a database."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def get(self, experiment_id: str) -> Experiment:
        """The experiment, deleted or not.  Raises `NotFoundError`, or `RefusedError` for what can be no id."""
        with self.database.reading() as connection:
            return get(connection, experiment_id)

    def named(self, name: str) -> Experiment | None:
        """The experiment of that name, deleted or not."""
        with self.database.reading() as connection:
            return find_named(connection, name)

    def referred(self, reference: str) -> Experiment:
        """The experiment of that name, or else of that id, deleted or not.  Raises `NotFoundError`."""
        with self.database.reading() as connection:
            found = find(connection, reference)
        if found is None:
            raise no_experiment(reference)
        return found

    def uses(self) -> Mapping[str, ExperimentUse]:
        """How each experiment is used, by its id; those without runs are left out."""
        with self.database.reading() as connection:
            found = connection.execute(
                "SELECT e.id, count(*), max(r.started) FROM experiments e"
                " JOIN runs r ON r.experiment = e.id AND r.lifecycle = e.lifecycle GROUP BY e.id"
            ).fetchall()
        return {str(experiment): ExperimentUse(int(runs), False, int(newest)) for experiment, runs, newest in found}

    def search(
        self,
        condition: Condition,
        orders: Sequence[Order],
        lifecycle: Lifecycle | None,
        limit: int,
        offset: int,
        only: frozenset[int] | None = None,
    ) -> list[Experiment]:
        """Experiments that fit, newest first unless `orders` says otherwise.  `only`: of these, by number."""
        from runproj.tracking import query

        where = Where()
        if lifecycle is not None:
            where.add("e.lifecycle = ?", lifecycle.value)
        if only is not None:
            where.one_of("e.id", sorted(only))
        order, bound = query.order_sql(orders, query.EXPERIMENTS, "e.created DESC, e.id DESC")
        with self.database.reading() as connection:
            where.add_sql(query.condition_sql(condition, query.EXPERIMENTS, connection.dialect))
            found = connection.execute(
                f"SELECT {rows.EXPERIMENT_COLUMNS} FROM experiments e {where.sql} {order} LIMIT ? OFFSET ?",
                (*where.values, *bound, limit, offset),
            ).fetchall()
            return rows.load_experiments(connection, found)

    def create(self, name: str, location: str = "", tags: Sequence[Tag] = (), owner: int | None = None) -> Experiment:
        """A new experiment.  Raises `AlreadyExistsError`; deleted experiments keep their names.

        owner: number of the user who may do everything with it.
        """
        with self.database.writing() as connection:
            if found := find_named(connection, name):
                state = (
                    "in deleted state. Restore it, or delete it for good, before" if found.lifecycle is Lifecycle.DELETED else ""
                )
                raise AlreadyExistsError(f"Experiment(name={name}) already exists{f' {state} using its name' if state else ''}.")
            made = insert(connection, name, location, tags)
            if owner is not None:
                grant = "INSERT INTO grants (account, experiment, role) VALUES (?, ?, ?)"
                connection.execute(grant, (owner, int(made.id), int(Role.ADMIN)))
            return made

    def rename(self, experiment_id: str, name: str) -> None:
        """Give an active experiment another name.  Raises `AlreadyExistsError` and `RefusedError`."""
        with self.database.writing() as connection:
            experiment = active(connection, experiment_id)
            other = find_named(connection, name)
            if other and other.id != experiment.id:
                raise AlreadyExistsError(f"There is already an experiment named {name!r}.")
            connection.execute("UPDATE experiments SET name = ?, updated = ? WHERE id = ?", (name, _now(), int(experiment.id)))

    def set_lifecycle(self, experiment_id: str, lifecycle: Lifecycle) -> None:
        """Delete or restore an experiment together with its runs.  Raises `NotFoundError` where it is in that state already."""
        with self.database.writing() as connection:
            experiment = get(connection, experiment_id)
            if experiment.lifecycle is lifecycle:
                raise NotFoundError(f"The experiment with id {experiment_id} is {lifecycle.value} already")
            now = _now()
            number = int(experiment.id)
            connection.execute("UPDATE experiments SET lifecycle = ?, updated = ? WHERE id = ?", (lifecycle.value, now, number))
            deleted = now if lifecycle is Lifecycle.DELETED else None
            connection.execute(
                "UPDATE runs SET lifecycle = ?, deleted = ? WHERE experiment = ?", (lifecycle.value, deleted, number)
            )

    def set_tag(self, experiment_id: str, tag: Tag) -> None:
        """Raises `RefusedError` for a deleted experiment."""
        with self.database.writing(durable=False) as connection:
            number = int(active(connection, experiment_id).id)
            connection.execute(_SET_TAG, (number, tag.key, tag.value))
            connection.execute("UPDATE experiments SET updated = ? WHERE id = ?", (_now(), number))

    def delete_tag(self, experiment_id: str, key: str) -> None:
        """Raises `NotFoundError` where there is no such tag."""
        with self.database.writing(durable=False) as connection:
            number = int(active(connection, experiment_id).id)
            gone = connection.execute("DELETE FROM experiment_tags WHERE experiment = ? AND key = ?", (number, key)).rowcount
            if not gone:
                raise NotFoundError(f"The experiment with id {experiment_id} has no tag {key!r}")


def find_named(connection: Connection, name: str) -> Experiment | None:
    """The experiment of that name, deleted or not."""
    found = connection.execute(f"SELECT {rows.EXPERIMENT_COLUMNS} FROM experiments e WHERE e.name = ?", (name,)).fetchall()
    return rows.load_experiments(connection, found)[0] if found else None


def find(connection: Connection, reference: str) -> Experiment | None:
    """The experiment of that name, or else of that id."""
    found = find_named(connection, reference)
    if found is None and (number := experiment_number(reference)) is not None:
        rows_found = connection.execute(
            f"SELECT {rows.EXPERIMENT_COLUMNS} FROM experiments e WHERE e.id = ?", (number,)
        ).fetchall()
        found = rows.load_experiments(connection, rows_found)[0] if rows_found else None
    return found


def insert(connection: Connection, name: str, location: str = "", tags: Sequence[Tag] = ()) -> Experiment:
    """Record a new experiment.  `location` is where its artifacts go; empty stands for the store's own root."""
    now = _now()
    (number,) = one(
        connection.execute(
            "INSERT INTO experiments (name, artifact_location, created, updated) VALUES (?, ?, ?, ?) RETURNING id",
            (name, location, now, now),
        )
    )
    if not location:
        location = f"mlflow-artifacts:/{number}"
        connection.execute("UPDATE experiments SET artifact_location = ? WHERE id = ?", (location, number))
    connection.executemany(
        _SET_TAG,
        [(number, tag.key, tag.value) for tag in tags],
    )
    return Experiment(str(number), name, location, Lifecycle.ACTIVE, now, now, tuple(tags))


def number_of(experiment_id: str) -> int:
    """The number that an experiment's id stands for.  Raises `RefusedError` where it is none."""
    number = experiment_number(experiment_id)
    if number is None:
        raise RefusedError(f"{experiment_id[:100]!r} is not an experiment id", why="Ids of experiments are whole numbers.")
    return number


def get(connection: Connection, experiment_id: str) -> Experiment:
    """The experiment, deleted or not.  Raises `NotFoundError`."""
    found = connection.execute(
        f"SELECT {rows.EXPERIMENT_COLUMNS} FROM experiments e WHERE e.id = ?", (number_of(experiment_id),)
    ).fetchall()
    if not found:
        raise NotFoundError(f"No Experiment with id={experiment_id} exists")
    return rows.load_experiments(connection, found)[0]


def active(connection: Connection, experiment_id: str) -> Experiment:
    """The experiment, which must not be deleted.  Raises `NotFoundError` and `RefusedError`."""
    experiment = get(connection, experiment_id)
    if experiment.lifecycle is Lifecycle.DELETED:
        raise RefusedError(f"The experiment {experiment_id} must be in the 'active' state. Current state is deleted.")
    return experiment


def _now() -> int:
    return int(time.time() * 1000)
