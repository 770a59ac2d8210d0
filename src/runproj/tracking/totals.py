"""How much there is in a database, for those who watch a server."""

from __future__ import annotations

from runproj.tracking.sql import Database, one

_TABLES = {"experiments": "experiments", "runs": "runs", "logged_models": "models", "registered_models": "registered_models"}


def totals(database: Database) -> dict[str, int]:
    """Numbers of things, deleted ones included."""
    with database.reading() as connection:
        return {name: int(one(connection.execute(f"SELECT count(*) FROM {table}"))[0]) for name, table in _TABLES.items()}
