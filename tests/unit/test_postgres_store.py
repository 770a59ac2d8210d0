"""What the store promises on PostgreSQL beyond the protocol: crowds, restarts, other people's tables, clear refusals."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import struct
import subprocess
import sys
import threading
import time

import psycopg
import pytest

from runproj.core.condition import EVERYTHING
from runproj.core.finding import RunPage
from runproj.core.models import Dataset, DatasetInput, Lineage
from runproj.core.run import Metric, NewRun, Param, RunChanges, RunQuery, Tag
from runproj.errors import RefusedError, TrackingError
from runproj.tracking import schema
from runproj.tracking.full import FullStore
from runproj.tracking.postgres import PostgresDatabase, translated
from runproj.tracking.store import SqlStore


@pytest.fixture
def store(postgres: str) -> SqlStore:
    return SqlStore(PostgresDatabase(postgres))


def test_statements_are_translated():
    assert translated("a LIKE '50%' AND b = ?") == "a LIKE '50%%' AND b = %s"
    assert "::bigint" in translated("x IN (SELECT value FROM json_each(?))")
    assert "::bigint" not in translated("x IN (SELECT value FROM json_each(?) AS texts)")


def test_every_double_comes_back_bit_by_bit(store):
    run = store.create_run(NewRun("0", 1))
    values = [math.nan, math.inf, -math.inf, -0.0, 0.0, 2.0**53 + 2, 5e-324, -2.2e-308, 1.7976931348623157e308, 0.1 + 0.2]
    store.update(run.id, RunChanges(metrics=tuple(Metric("m", value, 7, step) for step, value in enumerate(values))))
    found = [point.value for point in store.history(run.id, "m")]
    assert [struct.pack("d", value) for value in found] == [struct.pack("d", value) for value in values]


CROWD = """
import sys
from runproj.core.run import Metric, NewRun, Param, RunChanges
from runproj.tracking.full import FullStore
from runproj.tracking.postgres import PostgresDatabase
from runproj.tracking.store import SqlStore
store = SqlStore(PostgresDatabase(sys.argv[1]))
sys.stdin.readline()
experiment = store.experiment("crowd").id
for number in range(5):
    run = store.create_run(NewRun(experiment, start=number, params=(Param("p", sys.argv[2]),)))
    for step in range(5):
        store.update(run.id, RunChanges(metrics=tuple(Metric(f"m{key}", step, step, step) for key in range(20))))
"""


def test_a_crowd_that_starts_on_an_empty_database(postgres, store):
    """Processes and threads make the tables, the experiment and the same metric keys at the same time."""
    crowd = [
        subprocess.Popen([sys.executable, "-c", CROWD, postgres, str(n)], stdin=subprocess.PIPE, stderr=subprocess.PIPE)
        for n in range(4)
    ]
    for process in crowd:
        assert process.stdin
        process.stdin.write(b"go\n")
        process.stdin.flush()
    problems: list[Exception] = []
    shared = SqlStore(PostgresDatabase(postgres)).create_run(NewRun("0", 1)).id

    def write(number: int) -> None:
        try:
            experiment = store.experiment("crowd").id
            for step in range(5):
                run = store.create_run(NewRun(experiment, start=number))
                store.update(run.id, RunChanges(metrics=(Metric("m1", 1.0, 1),)))
                keys = range(20) if number % 2 else range(19, -1, -1)  # in either order: nobody waits for each other for ever
                store.update(shared, RunChanges(metrics=tuple(Metric(f"m{key}", number, 1, step) for key in keys)))
        except Exception as error:
            problems.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for process in crowd:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors.decode()
    assert problems == []
    assert len(store.search(RunQuery((store.experiment("crowd").id,), limit=1000))) == 4 * 5 + 12 * 5
    assert len(store.history(shared, "m3")) == 12 * 5


def test_kept_connections_may_have_died(postgres, store):
    run = store.create_run(NewRun("0", 1))
    with psycopg.connect(postgres, autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'runproj'")
    assert store.get_run(run.id) == run
    store.update(run.id, RunChanges(name="still there"))


def test_all_changes_or_none(store):
    run = store.create_run(NewRun("0", 1, params=(Param("p", "1"),)))
    changes = RunChanges(params=(Param("q", "1"), Param("p", "2")), metrics=(Metric("m", 1.0, 1),), tags=(Tag("t", "1"),), end=5)
    with pytest.raises(RefusedError, match="'p'"):
        store.update(run.id, changes)
    assert store.get_run(run.id) == run


def test_a_text_that_it_cannot_hold_is_refused(store):
    run = store.create_run(NewRun("0", 1))
    with pytest.raises(RefusedError, match="cannot hold"):
        store.update(run.id, RunChanges(params=(Param("nul", "a\0b"),)))
    store.update(run.id, RunChanges(params=(Param("plain", "ab"),)))


def test_a_database_of_a_newer_version(postgres, store):
    store.experiment("x")
    with psycopg.connect(postgres) as connection:
        connection.execute("UPDATE runproj_schema SET version = %s", (schema.VERSION + 1,))
    with pytest.raises(TrackingError, match="newer") as caught:
        SqlStore(PostgresDatabase(postgres)).experiment("x")
    assert "pgrade" in caught.value.fix


def test_other_programs_databases_are_left_alone(postgres):
    with psycopg.connect(postgres) as connection:
        connection.execute("CREATE TABLE runs (run_uuid TEXT)")
    with pytest.raises(TrackingError, match="not a run database"):
        SqlStore(PostgresDatabase(postgres)).experiment("x")
    with psycopg.connect(postgres) as connection:
        assert connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone() == (1,)


def test_a_server_that_is_away_is_explained():
    with pytest.raises(TrackingError, match="cannot be used") as caught:
        SqlStore(PostgresDatabase("postgresql://someone:secret@127.0.0.1:9/x")).experiment("x")
    assert "secret" not in str(caught.value)


def test_who_may_read_nothing_finds_nothing(postgres):
    store = FullStore(PostgresDatabase(postgres))
    assert store.experiments.search(EVERYTHING, (), None, 10, 0, only=frozenset()) == []
    assert store.models.search([], EVERYTHING, (), 10, 0) == []
    assert store.find(RunPage([], EVERYTHING)) == []


def test_the_same_datasets_in_either_order(postgres):
    """Whoever adds them at the same time waits for the other, and not in a circle."""
    store = FullStore(PostgresDatabase(postgres))
    datasets = [DatasetInput(Dataset(f"data {number}", "1")) for number in range(200)]
    problems: list[Exception] = []

    def add(order: int) -> None:
        try:
            store.lineages.add(store.create_run(NewRun("0", 1)).id, Lineage(tuple(datasets[::order])))
        except Exception as error:
            problems.append(error)

    threads = [threading.Thread(target=add, args=(order,)) for order in (1, -1) * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []


def test_what_is_acknowledged_outlives_a_crash_of_the_server(postgres, store):
    run = store.create_run(NewRun("0", 1)).id
    store.update(run, RunChanges(metrics=(Metric("new key", 1.0, 1),)))
    with contextlib.suppress(psycopg.OperationalError), psycopg.connect(postgres) as connection:
        [(pid,)] = connection.execute("SELECT pg_backend_pid()").fetchall()
        os.kill(pid, signal.SIGKILL)  # the server ends all its processes and reads its log again
    deadline = time.monotonic() + 60
    while True:
        try:
            assert len(store.history(run, "new key")) == 1
            break
        except TrackingError:
            assert time.monotonic() < deadline
            time.sleep(0.2)
