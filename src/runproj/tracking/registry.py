"""The model registry: names, their versions, aliases and stages."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import replace

from runproj.core.models import Alias, ModelVersion, RegisteredModel, Stage
from runproj.core.run import Tag
from runproj.core.search import Condition, Order
from runproj.errors import AlreadyExistsError, NotFoundError, RefusedError
from runproj.tracking import query, rows
from runproj.tracking.sql import Connection, Database, one
from runproj.tracking.where import Where

_MODEL = "m.id, m.name, m.description, m.created, m.updated"
_VERSION = (
    'm.id, m.name, v.version, v.source, v.storage, v.created, v.updated, v.run_id, v.run_link, v.model_id, v."user", v.stage,'
    " v.description"
)
_VERSIONS = "model_versions v JOIN registered_models m ON m.id = v.model"
_SET_TAG = (
    "INSERT INTO registered_model_tags (model, key, value) VALUES (?, ?, ?)"
    " ON CONFLICT (model, key) DO UPDATE SET value = excluded.value"
)
_SET_VERSION_TAG = (
    "INSERT INTO model_version_tags (model, version, key, value) VALUES (?, ?, ?, ?)"
    " ON CONFLICT (model, version, key) DO UPDATE SET value = excluded.value"
)


class Registry:
    """The registered models of a database.  Every method that names a model raises `NotFoundError` where there is none."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def create(self, name: str, description: str, tags: Sequence[Tag]) -> RegisteredModel:
        """Raises `AlreadyExistsError`."""
        now = _now()
        with self.database.writing() as connection:
            if connection.execute("SELECT 1 FROM registered_models WHERE name = ?", (name,)).fetchone():
                raise AlreadyExistsError(f"Registered Model (name={name}) already exists.")
            (model,) = one(
                connection.execute(
                    "INSERT INTO registered_models (name, description, created, updated) VALUES (?, ?, ?, ?) RETURNING id",
                    (name, description, now, now),
                )
            )
            connection.executemany(_SET_TAG, [(model, tag.key, tag.value) for tag in tags])
            return _get(connection, name)

    def get(self, name: str) -> RegisteredModel:
        with self.database.reading() as connection:
            return _get(connection, name)

    def update(self, name: str, *, new_name: str | None = None, description: str | None = None) -> RegisteredModel:
        """Rename or describe.  Raises `AlreadyExistsError` for a name that is taken."""
        with self.database.writing() as connection:
            model = _id(connection, name)
            if new_name is not None and new_name != name:
                if connection.execute("SELECT 1 FROM registered_models WHERE name = ?", (new_name,)).fetchone():
                    raise AlreadyExistsError(f"Registered Model (name={new_name}) already exists.")
                connection.execute("UPDATE registered_models SET name = ? WHERE id = ?", (new_name, model))
                now = _now()  # the name is a part of its versions
                connection.execute("UPDATE model_versions SET updated = ? WHERE model = ?", (now, model))
            if description is not None:
                connection.execute("UPDATE registered_models SET description = ? WHERE id = ?", (description, model))
            _touch(connection, model)
            return _get(connection, new_name or name)

    def delete(self, name: str) -> None:
        """With all its versions."""
        with self.database.writing() as connection:
            connection.execute("DELETE FROM registered_models WHERE id = ?", (_id(connection, name),))

    def search(self, condition: Condition, orders: Sequence[Order], limit: int, offset: int) -> list[RegisteredModel]:
        """Models that fit, by name unless `orders` says otherwise."""
        where = Where()
        order, bound = query.order_sql(orders, query.REGISTERED_MODELS, "m.name ASC")
        with self.database.reading() as connection:
            where.add_sql(query.condition_sql(condition, query.REGISTERED_MODELS, connection.dialect))
            found = connection.execute(
                f"SELECT {_MODEL} FROM registered_models m {where.sql} {order} LIMIT ? OFFSET ?",
                (*where.values, *bound, limit, offset),
            ).fetchall()
            return _load(connection, found)

    def set_tag(self, name: str, tag: Tag) -> None:
        with self.database.writing(durable=False) as connection:
            model = _id(connection, name)
            connection.execute(_SET_TAG, (model, tag.key, tag.value))
            _touch(connection, model)

    def delete_tag(self, name: str, key: str) -> None:
        """Does nothing where there is no such tag."""
        with self.database.writing(durable=False) as connection:
            model = _id(connection, name)
            connection.execute("DELETE FROM registered_model_tags WHERE model = ? AND key = ?", (model, key))

    def set_alias(self, name: str, alias: str, version: int) -> None:
        with self.database.writing() as connection:
            model = _version_id(connection, name, version)
            connection.execute(
                "INSERT INTO aliases (model, alias, version) VALUES (?, ?, ?)"
                " ON CONFLICT (model, alias) DO UPDATE SET version = excluded.version",
                (model, alias, version),
            )

    def delete_alias(self, name: str, alias: str) -> None:
        """Does nothing where there is no such alias."""
        with self.database.writing() as connection:
            connection.execute("DELETE FROM aliases WHERE model = ? AND alias = ?", (_id(connection, name), alias))

    def aliased(self, name: str, alias: str) -> ModelVersion:
        """The version that an alias means.  Raises `RefusedError` where it means none."""
        with self.database.reading() as connection:
            model = _id(connection, name)
            found = connection.execute("SELECT version FROM aliases WHERE model = ? AND alias = ?", (model, alias)).fetchone()
            if found is None:
                raise RefusedError(f"Registered model alias {alias} not found.")
            return _version(connection, name, found[0])


class Versions:
    """The versions of registered models.  Methods raise `NotFoundError` where the model or the version does not exist."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def create(self, version: ModelVersion) -> ModelVersion:
        """The next version of `version.name`; the number that `version` has is passed over."""
        now = _now()
        with self.database.writing() as connection:
            model = _id(connection, version.name)
            connection.execute("UPDATE registered_models SET versions = versions + 1, updated = ? WHERE id = ?", (now, model))
            (number,) = one(connection.execute("SELECT versions FROM registered_models WHERE id = ?", (model,)))
            texts = (version.source, version.storage, version.run_id, version.run_link, version.model_id, version.user)
            connection.execute(
                'INSERT INTO model_versions (model, version, source, storage, run_id, run_link, model_id, "user", description,'
                " created, updated) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (model, number, *texts, version.description, now, now),
            )
            connection.executemany(_SET_VERSION_TAG, [(model, number, tag.key, tag.value) for tag in version.tags])
            return _version(connection, version.name, number)

    def get(self, name: str, version: int) -> ModelVersion:
        with self.database.reading() as connection:
            return _version(connection, name, version)

    def describe(self, name: str, version: int, description: str) -> ModelVersion:
        with self.database.writing() as connection:
            model = _version_id(connection, name, version)
            connection.execute(
                "UPDATE model_versions SET description = ?, updated = ? WHERE model = ? AND version = ?",
                (description, _now(), model, version),
            )
            return _version(connection, name, version)

    def move(self, name: str, version: int, stage: Stage, *, archive_others: bool) -> ModelVersion:
        """Put a version on a stage; with `archive_others`, take those off that are there."""
        now = _now()
        with self.database.writing() as connection:
            model = _version_id(connection, name, version)
            if archive_others:
                connection.execute(
                    "UPDATE model_versions SET stage = 'Archived', updated = ? WHERE model = ? AND stage = ? AND version <> ?",
                    (now, model, stage.value, version),
                )
            connection.execute(
                "UPDATE model_versions SET stage = ?, updated = ? WHERE model = ? AND version = ?",
                (stage.value, now, model, version),
            )
            _touch(connection, model)
            return _version(connection, name, version)

    def delete(self, name: str, version: int) -> None:
        with self.database.writing() as connection:
            model = _version_id(connection, name, version)
            connection.execute("DELETE FROM model_versions WHERE model = ? AND version = ?", (model, version))

    def search(self, condition: Condition, orders: Sequence[Order], limit: int, offset: int) -> list[ModelVersion]:
        """Versions that fit, the last changed first unless `orders` says otherwise."""
        where = Where()
        order, bound = query.order_sql(orders, query.MODEL_VERSIONS, "v.updated DESC, m.name ASC, v.version DESC")
        with self.database.reading() as connection:
            where.add_sql(query.condition_sql(condition, query.MODEL_VERSIONS, connection.dialect))
            found = connection.execute(
                f"SELECT {_VERSION} FROM {_VERSIONS} {where.sql} {order} LIMIT ? OFFSET ?",
                (*where.values, *bound, limit, offset),
            ).fetchall()
            return _load_versions(connection, found)

    def set_tag(self, name: str, version: int, tag: Tag) -> None:
        with self.database.writing(durable=False) as connection:
            model = _version_id(connection, name, version)
            connection.execute(_SET_VERSION_TAG, (model, version, tag.key, tag.value))

    def delete_tag(self, name: str, version: int, key: str) -> None:
        """Does nothing where there is no such tag."""
        with self.database.writing(durable=False) as connection:
            model = _version_id(connection, name, version)
            connection.execute(
                "DELETE FROM model_version_tags WHERE model = ? AND version = ? AND key = ?", (model, version, key)
            )


def _now() -> int:
    return int(time.time() * 1000)


def _touch(connection: Connection, model: int) -> None:
    connection.execute("UPDATE registered_models SET updated = ? WHERE id = ?", (_now(), model))


def _id(connection: Connection, name: str) -> int:
    found = connection.execute("SELECT id FROM registered_models WHERE name = ?", (name,)).fetchone()
    if found is None:
        raise NotFoundError(f"Registered Model with name={name} not found")
    return int(found[0])


def _version_id(connection: Connection, name: str, version: int) -> int:
    model = _id(connection, name)
    if not connection.execute("SELECT 1 FROM model_versions WHERE model = ? AND version = ?", (model, version)).fetchone():
        raise NotFoundError(f"Model Version (name={name}, version={version}) not found")
    return model


def _get(connection: Connection, name: str) -> RegisteredModel:
    model = _id(connection, name)
    found = connection.execute(f"SELECT {_MODEL} FROM registered_models m WHERE m.id = ?", (model,)).fetchall()
    return _load(connection, found)[0]


def _version(connection: Connection, name: str, version: int) -> ModelVersion:
    model = _version_id(connection, name, version)
    found = connection.execute(
        f"SELECT {_VERSION} FROM {_VERSIONS} WHERE v.model = ? AND v.version = ?", (model, version)
    ).fetchall()
    return _load_versions(connection, found)[0]


def _load(connection: Connection, found: Sequence[tuple[object, ...]]) -> list[RegisteredModel]:
    chosen = (json.dumps([row[0] for row in found]),)
    within = "WHERE model IN (SELECT value FROM json_each(?)) ORDER BY model"
    tags = rows.grouped(
        (model, Tag(key, value))
        for model, key, value in connection.execute(f"SELECT model, key, value FROM registered_model_tags {within}, key", chosen)
    )
    aliases = rows.grouped(
        (model, Alias(alias, version))
        for model, alias, version in connection.execute(f"SELECT model, alias, version FROM aliases {within}, alias", chosen)
    )
    newest = connection.execute(
        f"SELECT {_VERSION} FROM {_VERSIONS} JOIN (SELECT model, max(version) AS version FROM model_versions"
        " WHERE model IN (SELECT value FROM json_each(?)) GROUP BY model, stage) n"
        " ON n.model = v.model AND n.version = v.version ORDER BY v.version",
        chosen,
    ).fetchall()
    latest = rows.grouped(
        (rows.integer(row[0]), version) for row, version in zip(newest, _load_versions(connection, newest), strict=True)
    )
    return [
        RegisteredModel(
            name=str(name),
            created=rows.integer(created),
            updated=rows.integer(updated),
            description=str(description),
            tags=tuple(tags.get(rows.integer(model), ())),
            aliases=tuple(aliases.get(rows.integer(model), ())),
            latest=tuple(latest.get(rows.integer(model), ())),
        )
        for model, name, description, created, updated in found
    ]


def _load_versions(connection: Connection, found: Sequence[tuple[object, ...]]) -> list[ModelVersion]:
    chosen = (json.dumps(list({rows.integer(row[0]) for row in found})),)
    within = "WHERE model IN (SELECT value FROM json_each(?))"
    tags: dict[tuple[object, object], list[Tag]] = {}
    for model, version, key, value in connection.execute(
        f"SELECT model, version, key, value FROM model_version_tags {within} ORDER BY key", chosen
    ):
        tags.setdefault((model, version), []).append(Tag(key, value))
    aliases: dict[tuple[object, object], list[str]] = {}
    for model, version, alias in connection.execute(f"SELECT model, version, alias FROM aliases {within} ORDER BY alias", chosen):
        aliases.setdefault((model, version), []).append(alias)
    loaded = []
    for model, name, number, source, storage, created, updated, *texts in found:
        run_id, run_link, model_id, user, stage, description = map(str, texts)
        version = ModelVersion(
            str(name), rows.integer(number), str(source), str(storage), rows.integer(created), rows.integer(updated)
        )
        version = replace(version, run_id=run_id, run_link=run_link, model_id=model_id, user=user, description=description)
        mine = (model, number)
        loaded.append(replace(version, stage=Stage(stage), tags=tuple(tags.get(mine, ())), aliases=tuple(aliases.get(mine, ()))))
    return loaded
