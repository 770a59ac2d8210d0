"""Fill a store with N runs of 10 params, 10 metrics and 5 tags: `fill_server.py ours N` (RUNPROJ_HOME) or `mlflow N DATABASE`.

Both by their tables, since thousands of runs over HTTP would take MLflow minutes.
"""

from __future__ import annotations

import random
import sqlite3
import sys
import uuid
from collections.abc import Iterator

START = 1_700_000_000_000


def runs(count: int) -> Iterator[tuple[str, int, dict[str, str], dict[str, float], dict[str, str]]]:
    """(id, start, params, metrics, tags) of runs with values that spread."""
    chance = random.Random(7)
    for number in range(count):
        params = {f"p{key}": str(round(chance.random(), 6)) for key in range(9)} | {"model": chance.choice(("xgb", "rf", "mlp"))}
        metrics = {f"m{key}": chance.random() for key in range(10)}
        tags = {f"t{key}": str(chance.randrange(10)) for key in range(4)} | {"mlflow.runName": f"run-{number}"}
        yield uuid.UUID(int=chance.getrandbits(128)).hex, START + number * 1000, params, metrics, tags


def ours(count: int) -> None:
    from runproj.core.run import Metric, NewRun, Param, Tag
    from runproj.settings import load
    from runproj.tracking import open_full_store, points
    from runproj.tracking.store import insert_run, run_seq

    settings = load()
    store = open_full_store(settings.tracking_uri, home=settings.home)
    numbers = points.key_numbers(store.database, [f"m{key}" for key in range(10)])
    with store.database.writing() as connection:
        for run_id, start, params, metrics, tags in runs(count):
            pairs = tuple(Param(*item) for item in params.items()), tuple(Tag(*item) for item in tags.items())
            insert_run(connection, run_id, NewRun("0", start, user="someone", params=pairs[0], tags=pairs[1]))
            latest = [Metric(key, value, start, 1) for key, value in metrics.items()]
            points.write(connection, run_seq(connection, run_id), latest, numbers)


def mlflow(count: int, path: str) -> None:
    database = sqlite3.connect(path)
    columns = (
        "run_uuid, name, source_type, source_name, user_id, status, start_time, lifecycle_stage, artifact_uri, experiment_id"
    )
    with database:
        for run_id, start, params, metrics, tags in runs(count):
            database.execute(
                f"INSERT INTO runs ({columns}) VALUES (?, ?, 'UNKNOWN', '', 'someone', 'RUNNING', ?, 'active', ?, 0)",
                (run_id, tags["mlflow.runName"], start, f"mlflow-artifacts:/0/{run_id}/artifacts"),
            )
            database.executemany(
                "INSERT INTO params (key, value, run_uuid) VALUES (?, ?, ?)", [(*p, run_id) for p in params.items()]
            )
            database.executemany("INSERT INTO tags (key, value, run_uuid) VALUES (?, ?, ?)", [(*t, run_id) for t in tags.items()])
            for table in ("metrics", "latest_metrics"):
                database.executemany(
                    f"INSERT INTO {table} (key, value, timestamp, step, is_nan, run_uuid) VALUES (?, ?, ?, 1, 0, ?)",
                    [(key, value, start, run_id) for key, value in metrics.items()],
                )


if __name__ == "__main__":
    if sys.argv[1] == "ours":
        ours(int(sys.argv[2]))
    else:
        mlflow(int(sys.argv[2]), sys.argv[3])
