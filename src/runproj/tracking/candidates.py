"""Which index leads to few runs among which all that fit are, and whether looking at each costs less than walking to a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from runproj.core.condition import And, Clause, Condition, Entity, Not, Operator, Or
from runproj.core.languages import ORDERED
from runproj.core.values import dataclass
from runproj.tracking.sql import Connection, one
from runproj.tracking.where import Sql

MOST = 2_000
"""So many runs may always be looked at one by one, and sorted."""

_COUNTED = 50_000  # nobody counts further: an index has told enough
_FEW = 50  # fewer are not worth another look
_LOOKS = 20
_SHORT = 64  # up to here values of parameters and tags are indexed

_RANGES = ORDERED - {Operator.UNEQUAL}
_BY_ATTRIBUTE = {"run_id": "SELECT seq AS run FROM runs WHERE id", "run_name": "SELECT seq AS run FROM runs WHERE name"}


@dataclass(frozen=True)
class Estimate:
    """Every run that fits is among the `size` ones that `query` finds, each once; `share` of all runs is expected to fit."""

    query: Sql
    size: int
    share: float


class Candidates:
    """Looks at indexes in the open transaction."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.looks = _LOOKS
        (self.total,) = one(connection.execute("SELECT coalesce(max(seq), 0) + 1 FROM runs"))

    def of(self, condition: Condition) -> Estimate | None:
        """The best that an index knows; None where there are many, or no index knows."""
        match condition:
            case Clause():
                query = _lookup(condition)
                return None if query is None else self.look(query)
            case And(parts):
                return self._every(parts)
            case Or(parts):
                return self._either(parts)
            case Not():
                return None

    def look(self, query: Sql) -> Estimate | None:
        """What is known of the runs that a query finds."""
        if self.looks <= 0:
            return None
        self.looks -= 1
        counted = f"SELECT count(*) FROM ({query.text} LIMIT ?) AS found"
        (size,) = one(self.connection.execute(counted, (*query.values, _COUNTED + 1)))
        return Estimate(query, size, size / self.total) if size <= _COUNTED else None

    def _every(self, parts: Sequence[Condition]) -> Estimate | None:
        best: Estimate | None = None
        for part in parts:
            best = both(best, self.of(part))
            if best is not None and best.size <= _FEW:
                break
        return best

    def _either(self, parts: Sequence[Condition]) -> Estimate | None:
        found: list[Estimate] = []
        for part in parts:
            estimate = self.of(part)
            if estimate is None:
                return None
            found.append(estimate)
        size = sum(estimate.size for estimate in found)
        text = " UNION ".join(f"SELECT run FROM ({estimate.query.text}) AS found" for estimate in found)
        query = Sql(text, tuple(value for estimate in found for value in estimate.query.values))
        return Estimate(query, size, min(1.0, size / self.total)) if size <= _COUNTED else None


def both(one: Estimate | None, other: Estimate | None) -> Estimate | None:
    """The smaller of two, as if they had nothing to do with each other."""
    if one is None or other is None:
        return one or other
    best = min(one, other, key=lambda estimate: estimate.size)
    return replace(best, share=one.share * other.share)


def steps(estimate: Estimate, limit: int) -> float:
    """How far a walk in order is expected to go for `limit` runs that fit."""
    return limit / max(estimate.share, 1e-9)


def _lookup(clause: Clause) -> Sql | None:
    """The query of the runs that a clause is true of, where an index answers it."""
    match clause:
        case Clause(Entity.ATTRIBUTE, "run_id" | "run_name", Operator.EQUAL, str() as text):
            return Sql(f"{_BY_ATTRIBUTE[clause.key]} = ?", (text,))
        case Clause(Entity.ATTRIBUTE, "run_id" | "run_name", Operator.IN, tuple() as texts):
            return _any_of(f"{_BY_ATTRIBUTE[clause.key]} = ?", (), texts)
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
    texts = tuple(dict.fromkeys(texts))
    if len(texts) > _LOOKS or any(len(text) > _SHORT for text in texts):
        return None
    return Sql(" UNION ALL ".join([query] * len(texts)), tuple(value for text in texts for value in (*before, text)))
