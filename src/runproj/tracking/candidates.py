"""Few runs among which all that fit a condition are, found by index; or the knowledge that they are many."""

from __future__ import annotations

from runproj.core.condition import And, Clause, Condition, Entity, Not, Operator, Or
from runproj.core.languages import ORDERED
from runproj.tracking.rows import numbers
from runproj.tracking.sql import Connection
from runproj.tracking.where import Sql

MOST = 2000
"""Up to so many runs are looked at one by one and sorted; where there are more, walking an index in order finds a page sooner."""

_FEW = 50  # fewer are not worth another look
_LOOKS = 20
_SHORT = 64  # up to here values of parameters and tags are indexed

_RANGES = ORDERED - {Operator.UNEQUAL}
_ATTRIBUTES = {"run_id": "id", "run_name": "name"}


class Candidates:
    """Looks for few candidates in the open transaction."""

    def __init__(self, connection: Connection, most: int = MOST) -> None:
        self.connection = connection
        self.most = most
        self.looks = _LOOKS

    def of(self, condition: Condition) -> set[int] | None:
        """Numbers of runs; every run that fits is among them.  None where they are many, or no index knows."""
        match condition:
            case Clause():
                query = _lookup(condition)
                return None if query is None else self.look(query)
            case And(parts):
                return self._both(parts)
            case Or(parts):
                return self._either(parts)
            case Not():
                return None

    def look(self, query: Sql) -> set[int] | None:
        """The runs that a query finds; None where they are many."""
        if self.looks <= 0:
            return None
        self.looks -= 1
        found = self.connection.execute(f"{query.text} LIMIT ?", (*query.values, self.most + 1)).fetchall()
        return {row[0] for row in found} if len(found) <= self.most else None

    def _both(self, parts: tuple[Condition, ...]) -> set[int] | None:
        best: set[int] | None = None
        for part in parts:
            found = self.of(part)
            if found is not None:
                best = found if best is None else best & found
                if len(best) < _FEW:
                    break
        return best

    def _either(self, parts: tuple[Condition, ...]) -> set[int] | None:
        every: set[int] = set()
        for part in parts:
            found = self.of(part)
            if found is None or len(every := every | found) > self.most:
                return None
        return every


def _lookup(clause: Clause) -> Sql | None:
    """The query of the runs that a clause is true of, where an index answers it."""
    match clause:
        case Clause(Entity.ATTRIBUTE, "run_id" | "run_name", Operator.EQUAL, str() as text):
            return Sql(f"SELECT seq FROM runs WHERE {_ATTRIBUTES[clause.key]} = ?", (text,))
        case Clause(Entity.ATTRIBUTE, "run_id" | "run_name", Operator.IN, tuple() as texts):
            return _any_of(f"SELECT seq FROM runs WHERE {_ATTRIBUTES[clause.key]} = ?", (), texts)
        case Clause(Entity.PARAM | Entity.TAG, key, Operator.EQUAL, str() as text):
            return Sql(_by_value(clause.entity), (key, text)) if len(text) <= _SHORT else None
        case Clause(Entity.PARAM | Entity.TAG, key, Operator.IN, tuple() as texts):
            return _any_of(_by_value(clause.entity), (key,), texts)
        case Clause(Entity.PARAM, key, operator, int() | float() as number) if operator in _RANGES:
            return Sql(
                f"SELECT run FROM params WHERE key = ? AND number IS NOT NULL AND number {operator.value} ?", (key, number)
            )
        case Clause(Entity.METRIC, key, operator, number) if operator in _RANGES:
            by_key = "key = (SELECT id FROM metric_keys WHERE key = ?)"
            return Sql(f"SELECT run FROM latest_metrics WHERE {by_key} AND kind <> 1 AND value {operator.value} ?", (key, number))
    return None


def _by_value(entity: Entity) -> str:
    table = "params" if entity is Entity.PARAM else "tags"
    return f"SELECT run FROM {table} WHERE key = ? AND value = ? AND length(value) <= {_SHORT}"


def _any_of(query: str, before: tuple[object, ...], texts: tuple[str, ...]) -> Sql | None:
    """One query for a handful of texts."""
    if len(texts) > _LOOKS or any(len(text) > _SHORT for text in texts):
        return None
    return Sql(" UNION ALL ".join([query] * len(texts)), tuple(value for text in texts for value in (*before, text)))


def within(seqs: set[int]) -> Sql:
    """The condition that a run is one of these."""
    return Sql("r.seq IN (SELECT value FROM json_each(?))", (numbers(sorted(seqs)),))
