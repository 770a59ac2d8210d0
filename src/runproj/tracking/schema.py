"""The embedded database's schema as numbered migrations: number n takes a database from version n - 1 to n.

A migration that was released is never edited; a change is a new one at the end.
"""

from __future__ import annotations

APPLICATION_ID = 0x52504A31  # "RPJ1": tells our databases from other programs'

_RUNS = (
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
        user TEXT NOT NULL,
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
    """
    INSERT INTO experiments (id, name, artifact_location, created, updated)
    VALUES (0, 'Default', 'mlflow-artifacts:/0', CAST(strftime('%s', 'now') AS INTEGER) * 1000,
            CAST(strftime('%s', 'now') AS INTEGER) * 1000)
    """,
)

MIGRATIONS: tuple[tuple[str, ...], ...] = (_RUNS,)

VERSION = len(MIGRATIONS)
