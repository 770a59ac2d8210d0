"""How runs are sorted in SQL, and what comes after a place in that order."""

from __future__ import annotations

from collections.abc import Sequence

from runproj.core.condition import Entity, Order
from runproj.core.ordering import Place, Spot
from runproj.core.values import dataclass
from runproj.tracking.query import RUNS
from runproj.tracking.where import NOTHING, Sql, joined

_TABLES = {
    Entity.PARAM: "LEFT JOIN params {0} ON {0}.run = r.seq AND {0}.key = ?",
    Entity.TAG: "LEFT JOIN tags {0} ON {0}.run = r.seq AND {0}.key = ?",
    Entity.METRIC: "LEFT JOIN latest_metrics {0} ON {0}.run = r.seq AND {0}.key = (SELECT id FROM metric_keys WHERE key = ?)",
}


@dataclass(frozen=True)
class Term:
    """Something to sort by."""

    expression: str
    ascending: bool = True

    @property
    def text(self) -> str:
        return f"{self.expression} {'ASC' if self.ascending else 'DESC'}"


@dataclass(frozen=True)
class Sorting:
    """An ORDER BY with the tables that it needs; `after` is what comes after the place to go on from."""

    terms: tuple[Term, ...]
    joins: Sql = NOTHING
    after: Sql = NOTHING

    @property
    def text(self) -> str:
        return "ORDER BY " + ", ".join(term.text for term in self.terms)


def sorting(orders: Sequence[Order], after: Place | None, first: Sequence[tuple[Term, object]] = ()) -> Sorting:
    """Sort by `first`, whose values at the place are given beside them, then by `orders`, then newest first, then by id.

    after: the place, with a spot for each of `orders`.
    """
    terms: list[tuple[Term, object]] = list(first)
    joins: list[Sql] = []
    for number, order in enumerate(orders):
        spot = after.spots[number] if after else (0, None)
        if order.entity is Entity.ATTRIBUTE:
            terms += _attribute_terms(order, spot)
            continue
        alias = f"o{number}"
        joins.append(Sql(_TABLES[order.entity].format(alias), (order.key,)))
        terms += _terms(order, alias, spot)
    terms += [(Term("r.started", ascending=False), after and after.start), (Term("r.id"), after and after.id)]
    found = Sql(" ".join(join.text for join in joins), tuple(value for join in joins for value in join.values))
    return Sorting(tuple(term for term, _ in terms), found, _after(terms) if after else NOTHING)


def _attribute_terms(order: Order, spot: Spot) -> list[tuple[Term, object]]:
    column = RUNS.columns[order.key]
    value = (Term(column, order.ascending), spot[1])
    return [(Term(f"CASE WHEN {column} IS NULL THEN 2 ELSE 0 END"), spot[0]), value] if order.key in RUNS.absent else [value]


def _terms(order: Order, alias: str, spot: Spot) -> list[tuple[Term, object]]:
    nan = f"WHEN {alias}.kind = 1 THEN 1 " if order.entity is Entity.METRIC else ""
    rank = f"CASE WHEN {alias}.run IS NULL THEN 2 {nan}ELSE 0 END"
    return [(Term(rank), spot[0]), (Term(f"{alias}.value", order.ascending), spot[1])]


def _after(terms: Sequence[tuple[Term, object]]) -> Sql:
    """What comes after a place; where a term has no value there, all that share the terms before it have none."""
    (term, value), *others = terms
    if not others:
        return Sql(f"{term.expression} > ?", (value,))
    rest = _after(others)
    if value is None:
        return rest
    sign = ">" if term.ascending else "<"
    beyond = joined(" OR ", [Sql(f"{term.expression} {sign} ?", (value,)), rest])
    # the first half says nothing new, but an index can begin there
    return joined(" AND ", [Sql(f"{term.expression} {sign}= ?", (value,)), beyond])
