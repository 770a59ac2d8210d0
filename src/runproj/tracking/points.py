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
_OF_METRIC = "FROM points p WHERE p.run = ? AND p.key = ?"


def key_numbers(database: Database, keys: Iterable[str]) -> Mapping[str, int]:
    """The numbers of metric keys, given to those that are new.

    In a transaction of its own: a number that others may know by now is never taken back.
    """
    known = database.metric_keys
    if missing := sorted(set(keys) - known.keys()):
        chosen = json.dumps(missing)
        with database.writing(durable=False) as connection:
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
    connection.executemany(
        "INSERT INTO latest_metrics AS old (run, key, step, timestamp, value, kind) VALUES (?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (run, key) DO UPDATE SET timestamp = excluded.timestamp, step = excluded.step, value = excluded.value,"
        " kind = excluded.kind"
        " WHERE (excluded.step, excluded.timestamp, excluded.value) > (old.step, old.timestamp, old.value)",
        [(run, key, *last) for key, last in sorted(latest.items())],
    )


def history(connection: Connection, run_id: str, key: str, limit: int | None = None, offset: int = 0) -> list[Metric]:
    """Points ordered by timestamp, step, value; all that follow `offset` of them where there is no `limit`."""
    place = _place(connection, run_id, key)
    if place is None:
        return []
    found = connection.execute(
        f"SELECT p.value, p.kind, p.timestamp, p.step {_OF_METRIC} ORDER BY {_IN_TIME} LIMIT ? OFFSET ?",
        (*place, ANY_STEP[1] if limit is None else limit, offset),
    ).fetchall()
    return _metrics(key, found)


def thinned(connection: Connection, run_id: str, key: str, limit: int, steps: tuple[int, int] = ANY_STEP) -> list[Metric]:
    """At most `limit` points, and the last one, ordered by step; those from step `steps[0]` to `steps[1]`, both included.

    The points are cut into `limit` runs of equal length and the first of each is taken, as MLflow does.  In a long history whose
    steps are regular this is done without looking at the other points; in a long one whose steps are not, the runs are of equal
    numbers of steps.
    """
    place = _place(connection, run_id, key)
    if place is None:
        return []
    within = f"{_OF_METRIC} AND p.step BETWEEN ? AND ?"
    count, first, last = one(connection.execute(f"SELECT count(*), min(p.step), max(p.step) {within}", (*place, *steps)))
    columns = "p.value, p.kind, p.timestamp, p.step"
    if count <= limit:
        found = connection.execute(f"SELECT {columns} {within} ORDER BY {_IN_STEPS}", (*place, *steps)).fetchall()
    elif count <= _SMALL:
        every = connection.execute(f"SELECT {columns} {within} ORDER BY {_IN_STEPS}", (*place, *steps)).fetchall()
        found = [every[number] for number in chosen(count, limit)]
    else:
        span = last - first + 1
        wanted = json.dumps([first + number * span // count for number in chosen(count, limit)])
        found = connection.execute(
            f"SELECT {columns} FROM points p JOIN ("
            "SELECT DISTINCT (SELECT min(q.step) FROM points q WHERE q.run = ? AND q.key = ? AND q.step >= w.value) AS step"
            " FROM (SELECT value FROM json_each(?)) AS w) AS s ON s.step = p.step"
            f" WHERE p.run = ? AND p.key = ? ORDER BY {_IN_STEPS}",
            (*place, wanted, *place),
        ).fetchall()
        found = _first_of_each_step(found)
    return _metrics(key, found)


def chosen(count: int, limit: int) -> list[int]:
    """Positions of the first of each of `limit` runs of `count` things, the longer runs first, and of the last thing."""
    length, longer = divmod(count, limit)
    starts = [number * length + min(number, longer) for number in range(limit)]
    return starts if starts[-1] == count - 1 else [*starts, count - 1]


def _first_of_each_step(found: Sequence[tuple[float, int, int, int]]) -> list[tuple[float, int, int, int]]:
    first: dict[int, tuple[float, int, int, int]] = {}
    for row in found:
        first.setdefault(row[3], row)
    if found and first[found[-1][3]] is not found[-1]:
        return [*first.values(), found[-1]]
    return list(first.values())


def _place(connection: Connection, run_id: str, key: str) -> tuple[int, int] | None:
    """Run and key as the points know them; None where either is unknown."""
    found = connection.execute(
        "SELECT r.seq, k.id FROM runs r, metric_keys k WHERE r.id = ? AND k.key = ?", (run_id, key)
    ).fetchone()
    return None if found is None else (found[0], found[1])


def _metrics(key: str, found: Iterable[tuple[float, int, int, int]]) -> list[Metric]:
    return [
        Metric(key, value if kind == 0 else rows.unpack(value, kind), timestamp, step) for value, kind, timestamp, step in found
    ]
