"""Which experiment something belongs to: what permissions are about."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence

from runproj.tracking.sql import Database

_MOST_KNOWN = 10_000
_FRESH = 10.0
"""Seconds.  A run never moves to another experiment, but it can be removed and come back in another one."""


class Belongings:
    """Experiments, by number, of runs, logged models and locations.  What does not exist belongs to none."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._runs: dict[str, int] = {}
        self._since = time.monotonic()

    def of_runs(self, ids: Sequence[str]) -> list[int]:
        if time.monotonic() - self._since > _FRESH:
            self._runs, self._since = {}, time.monotonic()
        seen = self._runs
        known = {run: seen[run] for run in ids if run in seen}
        if unknown := [run for run in ids if run not in known]:
            found = self._rows("SELECT id, experiment FROM runs WHERE id IN (SELECT value FROM json_each(?) AS texts)", unknown)
            if len(seen) + len(found) > _MOST_KNOWN:
                self._runs = seen = {}
            seen.update(found)
            known.update(found)
        return list(dict.fromkeys(known.values()))

    def of_models(self, ids: Sequence[str]) -> list[int]:
        rows = self._rows("SELECT id, experiment FROM models WHERE id IN (SELECT value FROM json_each(?) AS texts)", ids)
        return list(dict.fromkeys(rows.values()))

    def at(self, locations: Sequence[str]) -> list[int]:
        """The experiments that keep their artifacts at one of `locations`."""
        sql = "SELECT id, id FROM experiments WHERE artifact_location IN (SELECT value FROM json_each(?) AS texts)"
        return list(self._rows(sql, locations).values())

    def overlapping(self, location: str) -> bool:
        """Whether an experiment keeps its artifacts at `location`, above it, or below it."""
        above = [location[:end] for end in range(len(location) + 1) if end == len(location) or location[end] == "/"]
        sql = (
            "SELECT 1 FROM experiments WHERE artifact_location IN (SELECT value FROM json_each(?) AS texts)"
            " OR (artifact_location >= ? AND artifact_location < ?) LIMIT 1"
        )
        with self.database.reading() as connection:
            values = (json.dumps(above), location + "/", location + "0")
            return connection.execute(sql, values).fetchone() is not None

    def _rows(self, sql: str, texts: Sequence[str]) -> dict[str, int]:
        with self.database.reading() as connection:
            return {str(key): int(experiment) for key, experiment in connection.execute(sql, (json.dumps(list(texts)),))}
