"""Finding runs by the search language, so that a page costs what it holds rather than what the store holds.

Where an index names few candidates, they are looked at and sorted.  Otherwise an index is walked in the order that was asked for
until the page is full: that of the newest runs, or that of one metric's values.  What neither serves is sorted as a whole.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice

from runproj.core.condition import And, Clause, Condition, Entity, Operator, Order
from runproj.core.ordering import MISSING, NAN, PRESENT, Place, Spot
from runproj.core.run import Lifecycle
from runproj.core.values import dataclass
from runproj.tracking import query
from runproj.tracking.candidates import MOST, Candidates, Estimate, both, steps
from runproj.tracking.rows import RUN_COLUMNS, numbers
from runproj.tracking.sorting import Term, sorting
from runproj.tracking.sql import Connection, Dialect, Row
from runproj.tracking.where import Sql, Where

_STREAMS = 16
"""As many walks are merged; for more experiments all runs are walked, and others' passed over."""

_STARTED, _ID = 5, 1  # in RUN_COLUMNS


@dataclass(frozen=True)
class Question:
    """Which runs, in which order.

    limit: counts from `after`, or from the beginning.
    steps: how far to walk at most.
    few:   up to so many candidates are sorted rather than come across on a walk; 0 for always walking.
    """

    experiments: tuple[int, ...]
    lifecycle: Lifecycle | None
    condition: Condition
    orders: tuple[Order, ...]
    limit: int
    after: Place | None = None
    few: int = MOST
    steps: int | None = None


def find(connection: Connection, asked: Question) -> list[Row]:
    """Rows of `RUN_COLUMNS`, in order."""
    estimate = _candidates(connection, asked) if asked.few else None
    if estimate is None:
        return list(islice(_walk(connection, asked), asked.limit))
    if estimate.size == 0:
        return []
    expected = steps(estimate, asked.limit)
    if _walkable(asked) and asked.few < estimate.size and expected < estimate.size:
        # what fits may have gathered where the walk comes last: then it is given up in time
        found = list(islice(_walk(connection, replace(asked, steps=int(2 * expected) + asked.few)), asked.limit))
        if len(found) == asked.limit:
            return found
    return _sorted(connection, asked, estimate.query)


def _walkable(asked: Question) -> bool:
    """Whether one index is in that order."""
    match asked.orders:
        case () | (Order(Entity.ATTRIBUTE, "start_time"),):
            return len(asked.experiments) == 1 and asked.lifecycle is not None
        case (Order(Entity.METRIC), *_):
            return True
    return False


def _candidates(connection: Connection, asked: Question) -> Estimate | None:
    """The runs that an index knows of, if they are all that can fit."""
    candidates = Candidates(connection)
    found = candidates.of(asked.condition)
    if not asked.orders:  # this walk does not leave the experiments
        return found
    scope = _scope(asked)
    return both(found, candidates.look(Sql(f"SELECT r.seq AS run FROM runs r {scope.sql}", tuple(scope.values))))


def _walk(connection: Connection, asked: Question) -> Iterator[Row]:
    match asked.orders:
        case () | (Order(Entity.ATTRIBUTE, "start_time"),):
            return _by_time(connection, asked)
        case (Order(Entity.METRIC), *_):
            return _by_metric(connection, asked)
    return iter(_sorted(connection, asked))


def _scope(asked: Question, plus: str = "") -> Where:
    """The experiments and the lifecycle.  A plus keeps SQLite from answering them by an index, where another one is walked."""
    where = Where()
    where.add(f"{plus}r.experiment IN (SELECT value FROM json_each(?))", numbers(asked.experiments))
    if asked.lifecycle is not None:
        where.add(f"{plus}r.lifecycle = ?", asked.lifecycle.value)
    return where


def _plus(connection: Connection) -> str:
    """PostgreSQL knows what its tables hold, and needs no advice."""
    return "+" if connection.dialect is Dialect.SQLITE else ""


def _narrowed(connection: Connection, asked: Question, where: Where, target: query.Target = query.RUNS) -> Where:
    where.add_sql(query.condition_sql(asked.condition, target, connection.dialect))
    return where


def _sorted(connection: Connection, asked: Question, among: Sql | None = None) -> list[Row]:
    """All that fit, of those that `among` finds or of all, sorted; a page of them."""
    order = sorting(asked.orders, asked.after)
    tables, where, target = Sql("runs r"), _scope(asked, _plus(connection)), query.RUNS
    if among is not None:  # CROSS JOIN: in this order
        tables, target = Sql(f"({among.text}) AS w CROSS JOIN runs r", among.values), query.RUNS_AMONG
        where.add("r.seq = w.run")
    _narrowed(connection, asked, where, target).add_sql(order.after)
    found = connection.execute(
        f"SELECT r.seq FROM {tables.text} {order.joins.text} {where.sql} {order.text} LIMIT ?",
        (*tables.values, *order.joins.values, *where.values, asked.limit),
    ).fetchall()
    return _rows(connection, [row[0] for row in found])


def _rows(connection: Connection, seqs: Sequence[int]) -> list[Row]:
    """The rows of these runs, in this order: what is sorted is carried lightly, and read when it is chosen."""
    sql = f"SELECT {RUN_COLUMNS} FROM runs r WHERE r.seq IN (SELECT value FROM json_each(?))"
    rows = {row[0]: row for row in connection.execute(sql, (numbers(seqs),)).fetchall()}
    return [rows[seq] for seq in seqs]


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
            streams.append(_over_all(asked, lifecycle, _plus(connection)))
    found = []
    for where in streams:
        where.add_sql(order.after)
        if asked.steps is not None and len(streams) == 1:  # several would end at different times
            _cut(connection, "runs r", Term("r.started", ascending), where, asked.steps)
        _narrowed(connection, asked, where)
        sql = f"SELECT {RUN_COLUMNS} FROM runs r {where.sql} {order.text} LIMIT ?"
        found.append(iter(connection.execute(sql, (*where.values, asked.limit))))
    sign = 1 if ascending else -1
    return heapq.merge(*found, key=lambda row: (sign * row[_STARTED], row[_ID]))


def _over_all(asked: Question, lifecycle: Lifecycle, plus: str) -> Where:
    """The scope for a walk over the runs of all experiments, which the index of the lifecycle orders."""
    where = _scope(replace(asked, lifecycle=None), plus)
    where.add("r.lifecycle = ?", lifecycle.value)
    return where


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
        if asked.steps is not None and rank > reached[0]:
            return
        if rank == MISSING:
            lacking = Clause(Entity.METRIC, first.key, Operator.IS_NULL, None)
            missing = replace(asked, condition=And((lacking, asked.condition)), orders=tuple(others), after=here)
            yield from _walk(connection, missing)
        else:
            yield from _values(connection, replace(asked, after=here), rank, reached[1])


def _values(connection: Connection, asked: Question, rank: int, value: object) -> Iterator[Row]:
    """The runs whose metric has a value, or is NaN."""
    first, *others = asked.orders
    leading = Term("w.value", first.ascending)
    order = sorting(others, asked.after, [(leading, value)] if rank == PRESENT else [])
    where = Where()
    where.add("w.key = (SELECT id FROM metric_keys WHERE key = ?)", first.key)
    where.add("w.kind <> 1" if rank == PRESENT else "w.kind = 1")
    if asked.steps is not None and rank == PRESENT:
        if asked.after:
            where.add(f"w.value {'>=' if first.ascending else '<='} ?", value)
        _cut(connection, "latest_metrics w", leading, where, asked.steps)
    _narrowed(connection, asked, where, query.RUNS_AMONG)
    where.extend(_scope(asked, _plus(connection)))
    where.add("r.seq = w.run")
    where.add_sql(order.after)
    sql = f"SELECT {RUN_COLUMNS} FROM latest_metrics w CROSS JOIN runs r {order.joins.text} {where.sql} {order.text} LIMIT ?"
    return iter(connection.execute(sql, (*order.joins.values, *where.values, asked.limit)))


def _cut(connection: Connection, table: str, term: Term, where: Where, steps: int) -> None:
    """Let a walk end before the value that it meets after so many steps."""
    sql = f"SELECT {term.expression} FROM {table} {where.sql} ORDER BY {term.text} LIMIT 1 OFFSET ?"
    for (end,) in connection.execute(sql, (*where.values, steps)).fetchall():
        where.add(f"{term.expression} {'<' if term.ascending else '>'} ?", end)


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
