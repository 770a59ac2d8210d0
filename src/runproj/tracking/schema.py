"""The store's schema as numbered migrations: number n takes a database from version n - 1 to n.

A migration that was released is never edited; a change is a new one at the end.  The statements are SQLite's; `for_postgresql`
says the same in the other dialect.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence

from runproj.core.numbers import as_number
from runproj.tracking.sql import Connection, Dialect

Step = str | Callable[[Connection], None]

APPLICATION_ID = 0x52504A31  # "RPJ1": tells our databases from other programs'


def _make_default_experiment(connection: Connection) -> None:
    now = int(time.time()) * 1000
    connection.execute(
        "INSERT INTO experiments (id, name, artifact_location, created, updated)"
        " VALUES (0, 'Default', 'mlflow-artifacts:/0', ?, ?)",
        (now, now),
    )


_RUNS: tuple[Step, ...] = (
    """
    CREATE TABLE experiments (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        name TEXT NOT NULL UNIQUE,
        artifact_location TEXT NOT NULL,
        lifecycle TEXT NOT NULL DEFAULT 'active' CHECK (lifecycle IN ('active', 'deleted')),
        created INTEGER NOT NULL,
        updated INTEGER NOT NULL
    )
    """,
    """
    CREATE TABLE experiment_tags (
        experiment INTEGER NOT NULL REFERENCES experiments (id) ON DELETE CASCADE,
        key TEXT NOT NULL,
        value TEXT NOT NULL,
        PRIMARY KEY (experiment, key)
    ) WITHOUT ROWID
    """,
    # `seq` is what the other tables refer to: small, and in the order of creation.
    """
    CREATE TABLE runs (
        seq INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        experiment INTEGER NOT NULL REFERENCES experiments (id),
        name TEXT NOT NULL,
        "user" TEXT NOT NULL,
        status TEXT NOT NULL CHECK (status IN ('SCHEDULED', 'RUNNING', 'FINISHED', 'FAILED', 'KILLED')),
        started INTEGER NOT NULL,
        ended INTEGER,
        artifact_uri TEXT NOT NULL,
        lifecycle TEXT NOT NULL DEFAULT 'active' CHECK (lifecycle IN ('active', 'deleted')),
        deleted INTEGER
    )
    """,
    "CREATE INDEX runs_newest ON runs (started DESC, seq DESC)",
    "CREATE INDEX runs_of_experiment ON runs (experiment, started DESC, seq DESC)",
    "CREATE INDEX runs_by_name ON runs (name)",
    """
    CREATE TABLE params (
        run INTEGER NOT NULL REFERENCES runs (seq) ON DELETE CASCADE,
        key TEXT NOT NULL,
        value TEXT NOT NULL,
        PRIMARY KEY (run, key)
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE tags (
        run INTEGER NOT NULL REFERENCES runs (seq) ON DELETE CASCADE,
        key TEXT NOT NULL,
        value TEXT NOT NULL,
        PRIMARY KEY (run, key)
    ) WITHOUT ROWID
    """,
    # Runs are found by short tag values (parent run, attempt, commit); long ones (notes, histories) are not worth an index.
    "CREATE INDEX tags_by_value ON tags (key, value) WHERE length(value) <= 64",
    "CREATE TABLE metric_keys (id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE)",
    # SQLite has no NaN and no negative zero: `kind` is 1 for NaN (with value 0) and 2 for -0.0; every other double is `value`.
    """
    CREATE TABLE points (
        run INTEGER NOT NULL REFERENCES runs (seq) ON DELETE CASCADE,
        key INTEGER NOT NULL REFERENCES metric_keys (id),
        timestamp INTEGER NOT NULL,
        step INTEGER NOT NULL,
        value REAL NOT NULL,
        kind INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (run, key, timestamp, step, value, kind)
    ) WITHOUT ROWID
    """,
    # The greatest (step, timestamp, value) of each key, kept while points arrive, so that readers never look at histories.
    """
    CREATE TABLE latest_metrics (
        run INTEGER NOT NULL REFERENCES runs (seq) ON DELETE CASCADE,
        key INTEGER NOT NULL REFERENCES metric_keys (id),
        timestamp INTEGER NOT NULL,
        step INTEGER NOT NULL,
        value REAL NOT NULL,
        kind INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (run, key)
    ) WITHOUT ROWID
    """,
    _make_default_experiment,
)

_LINEAGE: tuple[Step, ...] = (
    """
    CREATE TABLE datasets (
        id INTEGER PRIMARY KEY,
        experiment INTEGER NOT NULL REFERENCES experiments (id) ON DELETE CASCADE,
        name TEXT NOT NULL,
        digest TEXT NOT NULL,
        source_type TEXT NOT NULL,
        source TEXT NOT NULL,
        schema TEXT NOT NULL,
        profile TEXT NOT NULL,
        UNIQUE (experiment, name, digest)
    )
    """,
    """
    CREATE TABLE run_datasets (
        run INTEGER NOT NULL REFERENCES runs (seq) ON DELETE CASCADE,
        dataset INTEGER NOT NULL REFERENCES datasets (id),
        PRIMARY KEY (run, dataset)
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE run_dataset_tags (
        run INTEGER NOT NULL,
        dataset INTEGER NOT NULL,
        key TEXT NOT NULL,
        value TEXT NOT NULL,
        PRIMARY KEY (run, dataset, key),
        FOREIGN KEY (run, dataset) REFERENCES run_datasets (run, dataset) ON DELETE CASCADE
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE run_models (
        run INTEGER NOT NULL REFERENCES runs (seq) ON DELETE CASCADE,
        direction TEXT NOT NULL CHECK (direction IN ('input', 'output')),
        model TEXT NOT NULL,
        step INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (run, direction, model, step)
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE models (
        seq INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        experiment INTEGER NOT NULL REFERENCES experiments (id),
        name TEXT NOT NULL,
        artifact_uri TEXT NOT NULL,
        status TEXT NOT NULL,
        model_type TEXT NOT NULL,
        source_run TEXT NOT NULL,
        created INTEGER NOT NULL,
        updated INTEGER NOT NULL,
        lifecycle TEXT NOT NULL DEFAULT 'active' CHECK (lifecycle IN ('active', 'deleted'))
    )
    """,
    "CREATE INDEX models_of_experiment ON models (experiment, created DESC)",
    "CREATE INDEX models_of_run ON models (source_run)",
    """
    CREATE TABLE model_params (
        model INTEGER NOT NULL REFERENCES models (seq) ON DELETE CASCADE,
        key TEXT NOT NULL,
        value TEXT NOT NULL,
        PRIMARY KEY (model, key)
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE model_tags (
        model INTEGER NOT NULL REFERENCES models (seq) ON DELETE CASCADE,
        key TEXT NOT NULL,
        value TEXT NOT NULL,
        PRIMARY KEY (model, key)
    ) WITHOUT ROWID
    """,
    # A metric that is logged with a model belongs to its run and, with its dataset, to the model.
    """
    CREATE TABLE model_metrics (
        model INTEGER NOT NULL REFERENCES models (seq) ON DELETE CASCADE,
        key TEXT NOT NULL,
        run TEXT NOT NULL,
        timestamp INTEGER NOT NULL,
        step INTEGER NOT NULL,
        value REAL NOT NULL,
        kind INTEGER NOT NULL DEFAULT 0,
        dataset_name TEXT NOT NULL,
        dataset_digest TEXT NOT NULL,
        PRIMARY KEY (model, key, run, timestamp, step, value, kind, dataset_name, dataset_digest)
    ) WITHOUT ROWID
    """,
)

_REGISTRY: tuple[Step, ...] = (
    # `versions` counts the versions ever made: numbers are not used again.
    """
    CREATE TABLE registered_models (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        description TEXT NOT NULL,
        created INTEGER NOT NULL,
        updated INTEGER NOT NULL,
        versions INTEGER NOT NULL DEFAULT 0
    )
    """,
    """
    CREATE TABLE registered_model_tags (
        model INTEGER NOT NULL REFERENCES registered_models (id) ON DELETE CASCADE,
        key TEXT NOT NULL,
        value TEXT NOT NULL,
        PRIMARY KEY (model, key)
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE model_versions (
        model INTEGER NOT NULL REFERENCES registered_models (id) ON DELETE CASCADE,
        version INTEGER NOT NULL,
        source TEXT NOT NULL,
        storage TEXT NOT NULL,
        run_id TEXT NOT NULL,
        run_link TEXT NOT NULL,
        model_id TEXT NOT NULL,
        "user" TEXT NOT NULL,
        stage TEXT NOT NULL DEFAULT 'None' CHECK (stage IN ('None', 'Staging', 'Production', 'Archived')),
        description TEXT NOT NULL,
        created INTEGER NOT NULL,
        updated INTEGER NOT NULL,
        PRIMARY KEY (model, version)
    ) WITHOUT ROWID
    """,
    "CREATE INDEX model_versions_of_run ON model_versions (run_id)",
    """
    CREATE TABLE model_version_tags (
        model INTEGER NOT NULL,
        version INTEGER NOT NULL,
        key TEXT NOT NULL,
        value TEXT NOT NULL,
        PRIMARY KEY (model, version, key),
        FOREIGN KEY (model, version) REFERENCES model_versions (model, version) ON DELETE CASCADE
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE aliases (
        model INTEGER NOT NULL,
        alias TEXT NOT NULL,
        version INTEGER NOT NULL,
        PRIMARY KEY (model, alias),
        FOREIGN KEY (model, version) REFERENCES model_versions (model, version) ON DELETE CASCADE
    ) WITHOUT ROWID
    """,
)


def _number_params(connection: Connection) -> None:
    found = connection.execute("SELECT run, key, value FROM params").fetchall()
    numbers = [(number, run, key) for run, key, value in found if (number := as_number(value)) is not None]
    connection.executemany("UPDATE params SET number = ? WHERE run = ? AND key = ?", numbers)


# What searches begin with: the newest runs, values of parameters as text and as numbers, values of metrics; and the points of a
# metric by step, for plots.
_SEARCH: tuple[Step, ...] = (
    "DROP INDEX runs_newest",
    "DROP INDEX runs_of_experiment",
    "CREATE INDEX runs_newest ON runs (lifecycle, started DESC, id)",
    "CREATE INDEX runs_of_experiment ON runs (experiment, lifecycle, started DESC, id)",
    "ALTER TABLE params ADD COLUMN number REAL",
    _number_params,
    "CREATE INDEX params_by_value ON params (key, value) WHERE length(value) <= 64",
    "CREATE INDEX params_by_number ON params (key, number) WHERE number IS NOT NULL",
    "CREATE INDEX latest_metrics_by_value ON latest_metrics (key, value, run, kind) WHERE kind <> 1",
    "CREATE INDEX latest_metrics_nan ON latest_metrics (key, run, kind) WHERE kind = 1",
    "CREATE INDEX points_by_step ON points (run, key, step)",
)

_USERS: tuple[Step, ...] = (
    # Roles are the numbers of `core.access.Role`; `everywhere` holds on every experiment.  A number is not used again.
    """
    CREATE TABLE users (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        name TEXT NOT NULL UNIQUE,
        password TEXT NOT NULL,
        admin INTEGER NOT NULL,
        everywhere INTEGER NOT NULL,
        registry INTEGER NOT NULL,
        created INTEGER NOT NULL
    )
    """,
    """
    CREATE TABLE user_tokens (
        digest TEXT NOT NULL PRIMARY KEY,
        account INTEGER NOT NULL REFERENCES users (id) ON DELETE CASCADE,
        created INTEGER NOT NULL,
        expires INTEGER
    ) WITHOUT ROWID
    """,
    "CREATE INDEX user_tokens_of_account ON user_tokens (account)",
    """
    CREATE TABLE grants (
        account INTEGER NOT NULL REFERENCES users (id) ON DELETE CASCADE,
        experiment INTEGER NOT NULL REFERENCES experiments (id) ON DELETE CASCADE,
        role INTEGER NOT NULL,
        PRIMARY KEY (account, experiment)
    ) WITHOUT ROWID
    """,
)

_TOKENS: tuple[Step, ...] = ("ALTER TABLE user_tokens ADD COLUMN name TEXT NOT NULL DEFAULT ''",)

MIGRATIONS: tuple[tuple[Step, ...], ...] = (_RUNS, _LINEAGE, _REGISTRY, _SEARCH, _USERS, _TOKENS)

VERSION = len(MIGRATIONS)


def migrate(connection: Connection, steps: Sequence[Step]) -> None:
    """Take the steps of one migration inside the connection's transaction."""
    for step in steps:
        if not isinstance(step, str):
            step(connection)
        else:
            connection.execute(step if connection.dialect is Dialect.SQLITE else for_postgresql(step))


_ADDS = re.compile(r"\s*(CREATE (TABLE|(UNIQUE )?INDEX)|DROP INDEX|ALTER TABLE \w+ ADD COLUMN)\b")


def additive(steps: Sequence[Step]) -> bool:
    """Whether steps take nothing away: what is recorded stays as it is, beside what is new."""
    return all(step is _number_params if not isinstance(step, str) else _ADDS.match(step) is not None for step in steps)


_WORDS = (
    (r"INTEGER PRIMARY KEY( AUTOINCREMENT)?", "BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY"),
    (r"\bINTEGER\b", "BIGINT"),
    (r"\bREAL\b", "DOUBLE PRECISION"),
    (r"\bTEXT\b", 'TEXT COLLATE "C"'),  # by code points, as SQLite compares
    (r"\) WITHOUT ROWID", ")"),
)


def for_postgresql(statement: str) -> str:
    """A statement of the schema in PostgreSQL's words."""
    for pattern, word in _WORDS:
        statement = re.sub(pattern, word, statement)
    return statement
