"""Rows ↔ values: how doubles, runs and experiments lie in the tables."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from operator import itemgetter
from typing import NamedTuple, TypeVar

from runproj.core.run import Experiment, Lifecycle, Metric, Param, Run, RunStatus, Tag
from runproj.errors import RefusedError
from runproj.tracking.sql import Connection, Row

T = TypeVar("T")

_NAN, _NEGATIVE_ZERO = 1, 2


def pack(value: float) -> tuple[float, int]:
    """A double as the columns (value, kind), from which `unpack` makes the very same double."""
    if math.isnan(value):
        return 0.0, _NAN
    if value == 0.0 and math.copysign(1.0, value) < 0:
        return 0.0, _NEGATIVE_ZERO
    return value, 0


def unpack(value: float, kind: int) -> float:
    if kind == _NAN:
        return math.nan
    return -0.0 if kind == _NEGATIVE_ZERO else value


def text(value: str) -> str:
    """A text as it can be stored: bytes that are no UTF-8, as file names and arguments may hold, are written as `\\udcff`."""
    return value if value.isascii() else value.encode("utf-8", "backslashreplace").decode()


def longer(listed: str, item: object) -> str:
    """A list in JSON, as tags hold some, with one item more.  Raises `RefusedError` where there is something else."""
    try:
        known = json.loads(listed or "[]")
    except ValueError:
        known = None
    if not isinstance(known, list):
        raise RefusedError("The tag to which something is added is not a JSON list", fix="Delete the tag.")
    return json.dumps([*known, item])


RUN_COLUMNS = 'r.seq, r.id, r.experiment, r.name, r.status, r.started, r.ended, r.artifact_uri, r."user", r.lifecycle'


class RunRow(NamedTuple):
    """A run as plain columns: what a page of thousands is made of before it becomes values or JSON.

    params and tags: (key, value);  metrics: (key, value, timestamp, step), the value as a double again.
    """

    seq: int
    id: str
    experiment: int
    name: str
    status: str
    started: int
    ended: int | None
    artifact_uri: str
    user: str
    lifecycle: str
    params: list[tuple[str, str]]
    metrics: list[tuple[str, float, int, int]]
    tags: list[tuple[str, str]]


def load_run_rows(connection: Connection, rows: Sequence[Row]) -> list[RunRow]:
    """Rows of `RUN_COLUMNS` with their params, metrics and tags: four queries, however many runs."""
    chosen = (numbers(row[0] for row in rows),)
    among = "WHERE run IN (SELECT value FROM json_each(?)) ORDER BY run, key"
    params: dict[int, list[tuple[str, str]]] = {row[0]: [] for row in rows}
    tags: dict[int, list[tuple[str, str]]] = {row[0]: [] for row in rows}
    metrics: dict[int, list[tuple[str, float, int, int]]] = {row[0]: [] for row in rows}
    for run, key, value in connection.execute(f"SELECT run, key, value FROM params {among}", chosen).fetchall():
        params[run].append((key, value))
    for run, key, value in connection.execute(f"SELECT run, key, value FROM tags {among}", chosen).fetchall():
        tags[run].append((key, value))
    found = connection.execute(f"SELECT run, key, value, kind, timestamp, step FROM latest_metrics {among}", chosen).fetchall()
    names = _metric_names(connection, {row[1] for row in found})
    for run, number, value, kind, timestamp, step in found:
        metrics[run].append((names[number], unpack(value, kind) if kind else value, timestamp, step))
    return [RunRow._make((*row, params[row[0]], sorted(metrics[row[0]], key=_first), tags[row[0]])) for row in rows]


_first = itemgetter(0)


def _metric_names(connection: Connection, chosen: Iterable[int]) -> dict[int, str]:
    found = connection.execute(
        "SELECT id, key FROM metric_keys WHERE id IN (SELECT value FROM json_each(?))", (numbers(chosen),)
    ).fetchall()
    return dict(found)


def load_runs(connection: Connection, rows: Sequence[Row]) -> list[Run]:
    """As `load_run_rows`, as values."""
    return [as_run(row) for row in load_run_rows(connection, rows)]


def as_run(row: RunRow) -> Run:
    return Run(
        id=row.id,
        experiment_id=str(row.experiment),
        name=row.name,
        status=RunStatus(row.status),
        start=row.started,
        end=row.ended,
        artifact_uri=row.artifact_uri,
        user=row.user,
        lifecycle=Lifecycle(row.lifecycle),
        params=tuple([Param(key, value) for key, value in row.params]),
        metrics=tuple([Metric(*metric) for metric in row.metrics]),
        tags=tuple([Tag(key, value) for key, value in row.tags]),
    )


def numbers(items: Iterable[object]) -> str:
    """Whole numbers as what `json_each` makes a table of."""
    return f"[{','.join(map(str, items))}]"


def grouped(pairs: Iterable[tuple[int, T]]) -> dict[int, list[T]]:
    """What belongs to each number, in order."""
    found: dict[int, list[T]] = {}
    for run, value in pairs:
        found.setdefault(run, []).append(value)
    return found


EXPERIMENT_COLUMNS = "e.id, e.name, e.artifact_location, e.lifecycle, e.created, e.updated"


def load_experiments(connection: Connection, rows: Sequence[tuple[object, ...]]) -> list[Experiment]:
    """Experiments from rows of `EXPERIMENT_COLUMNS`, with their tags."""
    chosen = numbers(row[0] for row in rows)
    tags = grouped(
        (experiment, Tag(key, value))
        for experiment, key, value in connection.execute(
            "SELECT experiment, key, value FROM experiment_tags WHERE experiment IN (SELECT value FROM json_each(?))"
            " ORDER BY experiment, key",
            (chosen,),
        )
    )
    return [
        Experiment(
            str(row[0]),
            str(row[1]),
            str(row[2]),
            Lifecycle(row[3]),
            integer(row[4]),
            integer(row[5]),
            tuple(tags.get(integer(row[0]), ())),
        )
        for row in rows
    ]


def integer(value: object) -> int:
    """A column that the schema declares as a whole number."""
    assert isinstance(value, int)
    return value
