"""Finding runs by the search language, so that a page costs what it holds rather than what the store holds.

Where an index names few candidates, they are looked at and sorted.  Otherwise an index is walked in the order that was asked for
until the page is full: that of the newest runs, or that of one metric's values.  What neither serves is sorted as a whole.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from runproj.core.condition import And, Clause, Condition, Entity, Operator, Order
from runproj.core.ordering import MISSING, NAN, PRESENT, Place, Spot
from runproj.core.run import Lifecycle
from runproj.tracking import query
from runproj.tracking.candidates import MOST, Candidates, within
from runproj.tracking.rows import RUN_COLUMNS, numbers
from runproj.tracking.sorting import Term, sorting
from runproj.tracking.sql import Connection, Row
from runproj.tracking.where import NOTHING, Sql, Where

_STREAMS = 16
"""As many walks are merged; for more experiments all runs are walked, and others' passed over."""

_STARTED, _ID = 5, 1  # in RUN_COLUMNS


@dataclass(frozen=True)
class Question:
    """Which runs, in which order.

    limit: counts from `after`, or from the beginning.
    few:   up to so many candidates are sorted rather than come across on a walk.
    extra: what holds of them as well.
    """

    experiments: tuple[int, ...]
    lifecycle: Lifecycle | None
    condition: Condition
    orders: tuple[Order, ...]
    limit: int
    after: Place | None = None
    few: int = MOST
    extra: Sql = NOTHING


def find(connection: Connection, asked: Question) -> list[Row]:
    """Rows of `RUN_COLUMNS`, in order."""
    few = _few(connection, asked)
    if few is not None:
        return _sorted(connection, replace(asked, extra=within(few))) if few else []
    return list(islice(_walk(connection, asked), asked.limit))


def _few(connection: Connection, asked: Question) -> set[int] | None:
    """All runs that can fit, where they are few enough to look at each."""
    candidates = Candidates(connection, asked.few)
    found = candidates.of(asked.condition)
    if found is None and asked.orders:
        scope = _scope(asked)
        return candidates.look(Sql(f"SELECT r.seq FROM runs r {scope.sql}", tuple(scope.values)))
    return found


def _walk(connection: Connection, asked: Question) -> Iterator[Row]:
    match asked.orders:
        case () | (Order(Entity.ATTRIBUTE, "start_time"),):
            return _by_time(connection, asked)
        case (Order(Entity.METRIC), *_):
            return _by_metric(connection, asked)
    return iter(_sorted(connection, asked))


def _scope(asked: Question, *, unindexed: bool = False) -> Where:
    """The experiments and the lifecycle.  unindexed: not to be answered by an index, since another one is walked."""
    where = Where()
    plus = "+" if unindexed else ""
    where.add(f"{plus}r.experiment IN (SELECT value FROM json_each(?))", numbers(asked.experiments))
    if asked.lifecycle is not None:
        where.add("r.lifecycle = ?", asked.lifecycle.value)
    return where


def _narrowed(connection: Connection, asked: Question, where: Where) -> Where:
    where.add_sql(query.condition_sql(asked.condition, query.RUNS, connection.dialect))
    where.add_sql(asked.extra)
    return where


def _sorted(connection: Connection, asked: Question) -> list[Row]:
    """All that fit, sorted; a page of them."""
    order = sorting(asked.orders, asked.after)
    where = _narrowed(connection, asked, _scope(asked, unindexed=bool(asked.extra.text)))
    where.add_sql(order.after)
    return list(
        connection.execute(
            f"SELECT {RUN_COLUMNS} FROM runs r {order.joins.text} {where.sql} {order.text} LIMIT ?",
            (*order.joins.values, *where.values, asked.limit),
        ).fetchall()
    )


def _by_time(connection: Connection, asked: Question) -> Iterator[Row]:
    """Walk the index of runs by time: that of each experiment, or of all."""
    ascending = bool(asked.orders) and asked.orders[0].ascending
    order = sorting((), None) if not ascending else sorting(asked.orders, None)
    if asked.after:
        order = sorting(asked.orders, asked.after) if ascending else sorting((), replace(asked.after, spots=()))
    lifecycles = list(Lifecycle) if asked.lifecycle is None else [asked.lifecycle]
    streams: list[Where] = []
    if len(asked.experiments) * len(lifecycles) <= _STREAMS:
        for experiment in dict.fromkeys(asked.experiments):
            for lifecycle in lifecycles:
                streams.append(Where(["r.experiment = ?", "r.lifecycle = ?"], [experiment, lifecycle.value]))
    else:
        for lifecycle in lifecycles:
            streams.append(_scope(replace(asked, lifecycle=lifecycle), unindexed=True))
    found = []
    for where in streams:
        _narrowed(connection, asked, where).add_sql(order.after)
        sql = f"SELECT {RUN_COLUMNS} FROM runs r {where.sql} {order.text} LIMIT ?"
        found.append(iter(connection.execute(sql, (*where.values, asked.limit))))
    sign = 1 if ascending else -1
    return heapq.merge(*found, key=lambda row: (sign * row[_STARTED], row[_ID]))


def _by_metric(connection: Connection, asked: Question) -> Iterator[Row]:
    """First the runs that have a value, by walking the index of values; then those with NaN; then those without the metric."""
    first, *others = asked.orders
    reached: Spot = (PRESENT, None)
    rest: Place | None = None
    if asked.after:
        reached, *spots = asked.after.spots
        rest = replace(asked.after, spots=tuple(spots))
    last = _last_rank(asked.condition, first.key)
    for rank in range(reached[0], last + 1):
        here = rest if rank == reached[0] else None
        if rank == MISSING:
            lacking = Clause(Entity.METRIC, first.key, Operator.IS_NULL, None)
            missing = replace(asked, condition=And((asked.condition, lacking)), orders=tuple(others), after=here)
            yield from _walk(connection, missing)
        else:
            yield from _values(connection, replace(asked, after=here), rank, reached[1])


def _values(connection: Connection, asked: Question, rank: int, value: object) -> Iterator[Row]:
    """The runs whose metric has a value, or is NaN."""
    first, *others = asked.orders
    leading = [(Term("w.value", first.ascending), value)] if rank == PRESENT else []
    order = sorting(others, asked.after, leading)
    where = _narrowed(connection, asked, _scope(asked, unindexed=True))
    where.add_sql(order.after)
    where.add("r.seq = w.run AND w.key = (SELECT id FROM metric_keys WHERE key = ?)", first.key)
    where.add("w.kind <> 1" if rank == PRESENT else "w.kind = 1")
    sql = f"SELECT {RUN_COLUMNS} FROM latest_metrics w CROSS JOIN runs r {order.joins.text} {where.sql} {order.text} LIMIT ?"
    return iter(connection.execute(sql, (*order.joins.values, *where.values, asked.limit)))


def _last_rank(condition: Condition, metric: str) -> int:
    """The last of values, NaN and missing that a run can have which fits."""
    parts: Sequence[Condition] = condition.parts if isinstance(condition, And) else (condition,)
    last = MISSING
    for part in parts:
        if (
            isinstance(part, Clause)
            and part.entity is Entity.METRIC
            and part.key == metric
            and part.operator is not Operator.IS_NULL
        ):
            last = min(last, NAN if part.operator in (Operator.UNEQUAL, Operator.IS_NOT_NULL) else PRESENT)
    return last
