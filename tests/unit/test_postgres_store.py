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
from pathlib import Path

import psycopg
import pytest

from runproj.core.condition import EVERYTHING
from runproj.core.finding import RunPage
from runproj.core.models import Dataset, DatasetInput, Lineage
from runproj.core.run import Metric, NewRun, Param, RunChanges, RunQuery, Tag
from runproj.errors import RefusedError, TrackingError
from runproj.tracking import open_database, schema
from runproj.tracking import postgres as postgres_module
from runproj.tracking.dump import Backups
from runproj.tracking.full import FullStore
from runproj.tracking.postgres import PostgresDatabase, translated
from runproj.tracking.store import SqlStore
from support.team import team_server


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


def of_version(uri: str, version: int) -> None:
    """Make the tables as a runproj of that schema had them, with a run in them."""
    with psycopg.connect(uri, autocommit=True) as connection:
        speaking = postgres_module._Connection(connection)
        connection.execute("CREATE TABLE runproj_schema (version BIGINT NOT NULL)")
        connection.execute("INSERT INTO runproj_schema (version) VALUES (%s)", (version,))
        for steps in schema.MIGRATIONS[:version]:
            schema.migrate(speaking, steps)
        connection.execute("INSERT INTO experiments (name, artifact_location, created, updated) VALUES ('an old one', 'x', 1, 1)")


@pytest.mark.parametrize("version", [1, schema.VERSION - 1])
def test_an_older_database_is_dumped_and_brought_up_to_date(postgres, tmp_path, version):
    of_version(postgres, version)
    said: list[str] = []
    uri = postgres.replace("tester@", "tester:se%20cret@")
    store = FullStore(open_database(uri, home=tmp_path, note=said.append))
    assert store.experiments.referred("an old one").created == 1
    (kept,) = (tmp_path / "backups").iterdir()
    assert (kept.name.endswith(f".v{version}.dump"), kept.stat().st_mode & 0o777) == (True, 0o600)
    assert [str(kept) in text and "cret" not in text for text in said] == [True]
    shown = subprocess.run(["pg_restore", "-f", "-", str(kept)], capture_output=True, text=True, check=True).stdout
    assert "an old one" in shown and f"COPY public.runproj_schema (version) FROM stdin;\n{version}\n" in shown
    assert FullStore(open_database(postgres, home=tmp_path, note=said.append)).experiments.get("0")
    assert len(said) == 1, "it is up to date"


def test_without_a_dump_only_what_takes_nothing_away_is_done(postgres, tmp_path, monkeypatch):
    of_version(postgres, schema.VERSION - 1)
    monkeypatch.setenv("PATH", str(tmp_path))
    said: list[str] = []
    FullStore(open_database(postgres, home=tmp_path, note=said.append)).experiments.get("0")
    assert [("without a backup" in text, "pg_dump is not on PATH" in text) for text in said] == [(True, True)]
    taking = ("DELETE FROM tags",)
    with pytest.raises(TrackingError, match="no backup") as caught:
        Backups(tmp_path, note=said.append).before(postgres, "shown", "public", 3, taking)
    assert "--no-backup" in caught.value.fix
    Backups(tmp_path, unsaved=True, note=said.append).before(postgres, "shown", "public", 3, taking)
    assert len(said) == 2


def test_a_dump_that_fails_leaves_nothing_and_says_why(tmp_path):
    said: list[str] = []
    away = "postgresql://someone:secret@127.0.0.1:9/x"
    Backups(tmp_path / "here", note=said.append).before(away, "shown", "public", 3, ("CREATE TABLE x (y)",))
    assert ("pg_dump failed" in said[0], "secret" in said[0]) == (True, False), said
    assert list((tmp_path / "here").iterdir()) == []


def test_a_server_is_told_that_there_need_be_no_backup(cli, postgres):
    of_version(postgres, schema.VERSION - 1)
    with team_server("--store", postgres, "--no-backup") as team:
        assert team.ok("GET", "experiments/get-by-name", experiment_name="an old one")
    assert list((Path(cli.env["RUNPROJ_HOME"]) / "backups").iterdir()), "pg_dump is there all the same"


@pytest.mark.parametrize(
    ("step", "adds"),
    [
        ("ALTER TABLE a ADD COLUMN b TEXT", True),
        ("\n    CREATE TABLE a (b TEXT)", True),
        ("CREATE UNIQUE INDEX a ON b (c)", True),
        ("DROP INDEX a", True),
        ("DROP TABLE a", False),
        ("ALTER TABLE a DROP COLUMN b", False),
        ("UPDATE a SET b = 1", False),
        (print, False),
    ],
)
def test_steps_that_add_are_known(step, adds):
    assert schema.additive([step]) is adds
    assert all(schema.additive(steps) for steps in schema.MIGRATIONS[1:])


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
