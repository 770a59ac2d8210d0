"""Rows ↔ values: how doubles, runs and experiments lie in the tables."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from runproj.core.run import Experiment, Lifecycle, Metric, Param, Run, RunStatus, Tag
from runproj.tracking.sql import Connection

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


_NUMBER = re.compile(r"\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*", re.ASCII)


def as_number(value: str) -> float | None:
    """The finite number that a parameter's text is; None where it is none."""
    if len(value) > 64 or not _NUMBER.fullmatch(value):
        return None
    number = float(value)
    return number if math.isfinite(number) else None


def text(value: str) -> str:
    """A text as it can be stored: bytes that are no UTF-8, as file names and arguments may hold, are written as `\\udcff`."""
    return value if value.isascii() else value.encode("utf-8", "backslashreplace").decode()


RUN_COLUMNS = 'r.seq, r.id, r.experiment, r.name, r.status, r.started, r.ended, r.artifact_uri, r."user", r.lifecycle'


def load_runs(connection: Connection, rows: Sequence[tuple[object, ...]]) -> list[Run]:
    """Runs from rows of `RUN_COLUMNS`, with their params, metrics and tags: three queries, however many runs."""
    chosen = numbers(row[0] for row in rows)
    params = grouped(
        (run, Param(key, value))
        for run, key, value in connection.execute(
            "SELECT run, key, value FROM params WHERE run IN (SELECT value FROM json_each(?)) ORDER BY run, key", (chosen,)
        )
    )
    tags = grouped(
        (run, Tag(key, value))
        for run, key, value in connection.execute(
            "SELECT run, key, value FROM tags WHERE run IN (SELECT value FROM json_each(?)) ORDER BY run, key", (chosen,)
        )
    )
    metrics = grouped(
        (run, Metric(key, unpack(value, kind), timestamp, step))
        for run, key, value, kind, timestamp, step in connection.execute(
            "SELECT m.run, k.key, m.value, m.kind, m.timestamp, m.step FROM latest_metrics m JOIN metric_keys k ON k.id = m.key"
            " WHERE m.run IN (SELECT value FROM json_each(?)) ORDER BY m.run, k.key",
            (chosen,),
        )
    )
    return [_run(row, params, metrics, tags) for row in rows]


def numbers(items: Iterable[object]) -> str:
    """Whole numbers as what `json_each` makes a table of."""
    return f"[{','.join(map(str, items))}]"


def grouped(pairs: Iterable[tuple[int, T]]) -> dict[int, list[T]]:
    """What belongs to each number, in order."""
    found: dict[int, list[T]] = {}
    for run, value in pairs:
        found.setdefault(run, []).append(value)
    return found


def _run(
    row: Sequence[object], params: Mapping[int, list[Param]], metrics: Mapping[int, list[Metric]], tags: Mapping[int, list[Tag]]
) -> Run:
    seq, run_id, experiment, name, status, started, ended, artifact_uri, user, lifecycle = row
    assert isinstance(seq, int)
    assert isinstance(started, int)
    return Run(
        id=str(run_id),
        experiment_id=str(experiment),
        name=str(name),
        status=RunStatus(status),
        start=started,
        end=ended if isinstance(ended, int) else None,
        artifact_uri=str(artifact_uri),
        user=str(user),
        lifecycle=Lifecycle(lifecycle),
        params=tuple(params.get(seq, ())),
        metrics=tuple(metrics.get(seq, ())),
        tags=tuple(tags.get(seq, ())),
    )


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
