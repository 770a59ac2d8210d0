"""The server is killed, again and again, while a training logs: nothing is lost, nothing is there twice, nobody notices."""

from __future__ import annotations

import json
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from conftest import HOSTILE
from support.clients import Flaky, start

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]

POINTS, KILLS, KEYS = 100_000, 20, 4

TRAINING = f"""
import json, runproj
slowest, failed = 0, 0
with runproj.start_run("killed") as run:
    runproj.log_param("before", 1)
    for step in range({POINTS} // {KEYS}):
        for key in range({KEYS}):
            try:
                runproj.log_metric("metric.%d" % key, step * {KEYS} + key, step=step)
            except BaseException:
                failed += 1
    runproj.log_param("after", 2)
    runproj.set_tag("tag", "it's")
    runproj.log_text("all of it", "notes.txt")
done = runproj.flush(200)
print(json.dumps([run.id, failed, done]))
"""


def stored(database: Path) -> int:
    """Points in the database at the moment, asked without a server."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=10)) as connection:
        return connection.execute("SELECT count(*) FROM points").fetchone()[0]


def test_twenty_times_in_a_hundred_thousand_metrics(tmp_path: Path) -> None:
    home = tmp_path / HOSTILE / "server"
    home.mkdir(parents=True)
    kills = 0
    with Flaky(home) as server:
        training = start(TRAINING, tmp_path, RUNPROJ_TRACKING_URI=server.url, RUNPROJ_HOME=str(tmp_path / "client"))
        while kills < KILLS:
            seen = stored(home / "runproj.db")
            assert seen < POINTS, f"everything was sent after {kills} kills"
            while stored(home / "runproj.db") < min(seen + POINTS // (KILLS + 5) // 2, POINTS):
                assert training.poll() is None, training.communicate()
                time.sleep(0.005)
            server.kill()
            kills += 1
            server.start()
        said, errors = training.communicate(timeout=200)
        assert (training.returncode, errors) == (0, "")
        run_id, failed, done = json.loads(said)
        assert (failed, done) == (0, True)
    check(home / "runproj.db", run_id)
    assert [path.read_text() for path in home.glob("artifacts/*/*/artifacts/notes.txt")] == ["all of it"]


def check(database: Path, run_id: str) -> None:
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("SELECT id, status FROM runs").fetchall() == [(run_id, "FINISHED")]
        found = connection.execute("SELECT k.key, p.step, p.value FROM points p JOIN metric_keys k ON k.id = p.key").fetchall()
        params = dict(connection.execute("SELECT key, value FROM params").fetchall())
        tags = dict(connection.execute("SELECT key, value FROM tags").fetchall())
    wanted = {(f"metric.{key}", step, float(step * KEYS + key)) for step in range(POINTS // KEYS) for key in range(KEYS)}
    assert len(found) == POINTS, "each once"
    assert set(found) == wanted
    assert (params, tags["tag"]) == ({"before": "1", "after": "2"}, "it's")
