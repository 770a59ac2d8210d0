"""The points of metrics: how they are added, and how a history is read whole, in pages, or thinned out for a plot."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence

from runproj.core.run import Metric
from runproj.tracking import rows
from runproj.tracking.sql import Connection, Database, one

_SMALL = 20_000
"""Points up to which a history is thinned out exactly; a larger one costs as much as it has points."""

ANY_STEP = (-(1 << 63), (1 << 63) - 1)

_IN_TIME = "p.timestamp, p.step, p.value, p.kind"
_IN_STEPS = "p.step, p.timestamp, p.value, p.kind"
_COLUMNS = "p.value, p.kind, p.timestamp, p.step"
_OF_METRIC = "FROM points p WHERE p.run = ? AND p.key = ?"


_Point = tuple[float, int, int, int]


def key_numbers(database: Database, keys: Iterable[str]) -> Mapping[str, int]:
    """The numbers of metric keys, given to those that are new.

    In a durable transaction of its own: a number that others may know by now is never taken back, whatever is lost.
    """
    known = database.metric_keys
    if missing := sorted(set(keys) - known.keys()):
        chosen = json.dumps(missing)
        with database.writing() as connection:
            connection.executemany("INSERT INTO metric_keys (key) VALUES (?) ON CONFLICT DO NOTHING", [(key,) for key in missing])
            found = connection.execute(
                "SELECT key, id FROM metric_keys WHERE key IN (SELECT value FROM json_each(?) AS texts)", (chosen,)
            ).fetchall()
        known.update(found)
    return known


def write(connection: Connection, run: int, metrics: Sequence[Metric], numbers: Mapping[str, int]) -> None:
    """Add points to a run, and keep its latest values.  A point that is there already changes nothing."""
    points: list[tuple[int, int, int, int, float, int]] = []
    latest: dict[int, tuple[int, int, float, int]] = {}
    for metric in metrics:
        key, step, timestamp = numbers[metric.key], metric.step, metric.timestamp
        value, kind = rows.pack(metric.value)
        points.append((run, key, timestamp, step, value, kind))
        last = latest.get(key)
        if last is None or (step, timestamp, value) > last[:3]:
            latest[key] = (step, timestamp, value, kind)
    connection.executemany(
        "INSERT INTO points (run, key, timestamp, step, value, kind) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        sorted(points),  # in the order of the table: neighbours are on the same page
    )
    keep_latest(connection, [(run, key, *last) for key, last in sorted(latest.items())])


def keep_latest(connection: Connection, found: Sequence[tuple[int, int, int, int, float, int]]) -> None:
    """Note points (run, key, step, timestamp, value, kind) as the latest ones of their metrics, where they are."""
    connection.executemany(
        "INSERT INTO latest_metrics AS old (run, key, step, timestamp, value, kind) VALUES (?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (run, key) DO UPDATE SET timestamp = excluded.timestamp, step = excluded.step, value = excluded.value,"
        " kind = excluded.kind"
        " WHERE (excluded.step, excluded.timestamp, excluded.value) > (old.step, old.timestamp, old.value)",
        found,
    )


def history(connection: Connection, run_id: str, key: str, limit: int | None = None, offset: int = 0) -> list[Metric]:
    """Points ordered by timestamp, step, value; all that follow `offset` of them where there is no `limit`."""
    place = _place(connection, run_id, key)
    if place is None:
        return []
    found = connection.execute(
        f"SELECT {_COLUMNS} {_OF_METRIC} ORDER BY {_IN_TIME} LIMIT ? OFFSET ?",
        (*place, ANY_STEP[1] if limit is None else limit, offset),
    ).fetchall()
    return _metrics(key, found)


def thinned(connection: Connection, run_id: str, key: str, limit: int, steps: tuple[int, int] = ANY_STEP) -> list[Metric]:
    """At most `limit` points, and the last one, ordered by step; those from step `steps[0]` to `steps[1]`, both included.

    The points are cut into `limit` runs of equal length and the first of each is taken, as MLflow does.  A long history is not
    read for that: its runs are of equal numbers of steps, which is the same where steps are regular; where there are few steps
    (all points of many programs are at step 0), of equal time.
    """
    place = _place(connection, run_id, key)
    if place is None:
        return []
    within = f"{_OF_METRIC} AND p.step BETWEEN ? AND ?"
    bound = (*place, *steps)
    (count,) = one(connection.execute(f"SELECT count(*) FROM (SELECT 1 {within} LIMIT {_SMALL + 1}) AS counted", bound))
    if count > _SMALL:
        return _metrics(key, _leaps(connection, within, bound, limit))
    found = connection.execute(f"SELECT {_COLUMNS} {within} ORDER BY {_IN_STEPS}", bound).fetchall()
    return _metrics(key, found if count <= limit else [found[number] for number in chosen(count, limit)])


def _leaps(connection: Connection, within: str, bound: tuple[int, int, int, int], limit: int) -> list[_Point]:
    """About `limit` points of a long history, each found by a step down an index."""
    run, key, low, high = bound
    first, last = _ends(connection, "step", within, bound)
    by_step = last - first >= limit
    if by_step:
        leap = f"SELECT {_COLUMNS} {within} ORDER BY {_IN_STEPS} LIMIT 1"
    else:
        first, last = _ends(connection, "timestamp", within, bound)
        # the plus keeps the database from going by steps
        leap = f"SELECT {_COLUMNS} {_OF_METRIC} AND p.timestamp >= ? AND +p.step BETWEEN ? AND ? ORDER BY {_IN_TIME} LIMIT 1"
    span, column = last - first + 1, 3 if by_step else 2
    found: list[_Point] = []
    for start in chosen(span, limit) if span > limit else range(span):
        target = first + start
        if not found or target > found[-1][column]:
            values = (run, key, target, high) if by_step else (run, key, target, low, high)
            found += connection.execute(leap, values).fetchall()
    backwards = ", ".join(f"{name} DESC" for name in _IN_STEPS.split(", "))
    end = one(connection.execute(f"SELECT {_COLUMNS} {within} ORDER BY {backwards} LIMIT 1", bound))
    return sorted({*found, end}, key=lambda point: (point[3], point[2], point[0]))


def _ends(connection: Connection, axis: str, within: str, bound: Sequence[int]) -> tuple[int, int]:
    (first,) = one(connection.execute(f"SELECT min(p.{axis}) {within}", bound))
    (last,) = one(connection.execute(f"SELECT max(p.{axis}) {within}", bound))
    return first, last


def chosen(count: int, limit: int) -> list[int]:
    """Positions of the first of each of `limit` runs of `count` things, the longer runs first, and of the last thing."""
    length, longer = divmod(count, limit)
    starts = [number * length + min(number, longer) for number in range(limit)]
    return starts if starts[-1] == count - 1 else [*starts, count - 1]


def _place(connection: Connection, run_id: str, key: str) -> tuple[int, int] | None:
    """Run and key as the points know them; None where either is unknown."""
    found = connection.execute(
        "SELECT r.seq, k.id FROM runs r, metric_keys k WHERE r.id = ? AND k.key = ?", (run_id, key)
    ).fetchone()
    return None if found is None else (found[0], found[1])


def _metrics(key: str, found: Iterable[_Point]) -> list[Metric]:
    return [
        Metric(key, value if kind == 0 else rows.unpack(value, kind), timestamp, step) for value, kind, timestamp, step in found
    ]
