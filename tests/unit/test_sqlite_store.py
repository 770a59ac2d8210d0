"""What the embedded store promises beyond the protocol: crowds, damage, other people's files, speed."""

from __future__ import annotations

import math
import os
import sqlite3
import struct
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from runproj.core.condition import EVERYTHING
from runproj.core.run import Metric, NewRun, Param, RunChanges, RunQuery, Tag
from runproj.errors import RefusedError, TrackingError
from runproj.tracking import points, schema
from runproj.tracking.full import FullStore
from runproj.tracking.sql import Dialect
from runproj.tracking.store import SqlStore, insert_run, run_seq


@pytest.fixture
def path(isolated: Path) -> Path:
    return isolated / "sub folder" / "runs.db"


def new(**fields: object) -> NewRun:
    return NewRun(**{"experiment_id": "0", "start": 1, **fields})  # type: ignore[arg-type]  # fields of NewRun


def test_every_double_comes_back_bit_by_bit(path):
    store = SqlStore(path)
    run = store.create_run(new())
    values = [math.nan, math.inf, -math.inf, -0.0, 0.0, 2.0**53 + 2, 5e-324, -2.2e-308, 1.7976931348623157e308, 0.1 + 0.2]
    store.update(run.id, RunChanges(metrics=tuple(Metric("m", value, 7, step) for step, value in enumerate(values))))
    found = [point.value for point in SqlStore(path).history(run.id, "m")]
    assert [struct.pack("d", value) for value in found] == [struct.pack("d", value) for value in values]


def test_zeros_of_either_sign_are_two_points(path):
    store = SqlStore(path)
    run = store.create_run(new())
    for _ in range(2):
        store.update(run.id, RunChanges(metrics=(Metric("m", 0.0, 1), Metric("m", -0.0, 1))))
    assert sorted(math.copysign(1, point.value) for point in store.history(run.id, "m")) == [-1, 1]


def test_an_id_that_is_given_is_kept(path):
    store = SqlStore(path)
    assert store.create_run(new(id="a" * 32)).id == "a" * 32
    with pytest.raises(RefusedError, match="already"):
        store.create_run(new(id="a" * 32))


def test_text_that_is_no_unicode_is_recorded_readably(path):
    store, odd = SqlStore(path), os.fsdecode(b"a\xffb")
    run = store.create_run(new(name=odd, params=(Param("p", odd), Param("nul", "a\0b")), tags=(Tag("t", odd),)))
    store.update(run.id, RunChanges(params=(Param("p", odd),)))
    assert store.get_run(run.id) == run
    assert (run.name, run.tag("t"), run.params) == (r"a\udcffb", r"a\udcffb", (Param("nul", "a\0b"), Param("p", r"a\udcffb")))


def test_all_changes_or_none(path):
    store = SqlStore(path)
    run = store.create_run(new(params=(Param("p", "1"),)))
    changes = RunChanges(params=(Param("q", "1"), Param("p", "2")), metrics=(Metric("m", 1.0, 1),), tags=(Tag("t", "1"),), end=5)
    with pytest.raises(RefusedError, match="'p'"):
        store.update(run.id, changes)
    assert store.get_run(run.id) == run


CROWD = """
import sys
from pathlib import Path
from runproj.core.condition import EVERYTHING
from runproj.core.run import Metric, NewRun, Param, RunChanges
from runproj.tracking.sql import Dialect
from runproj.tracking.store import SqlStore, insert_run, run_seq
store = SqlStore(Path(sys.argv[1]))
sys.stdin.readline()
experiment = store.experiment("crowd").id
for number in range(5):
    run = store.create_run(NewRun(experiment, start=number, params=(Param("p", sys.argv[2]),)))
    for step in range(5):
        store.update(run.id, RunChanges(metrics=(Metric("m", step, step, step),)))
"""


def test_a_crowd_that_starts_on_an_empty_disk(path):
    """Processes and threads make the database, the experiment and runs at the same time; nobody hears of locks."""
    crowd = [
        subprocess.Popen([sys.executable, "-c", CROWD, str(path), str(n)], stdin=subprocess.PIPE, stderr=subprocess.PIPE)
        for n in range(8)
    ]
    for process in crowd:
        assert process.stdin
        process.stdin.write(b"go\n")
        process.stdin.flush()
    store, problems = SqlStore(path), []

    def write(number: int) -> None:
        try:
            experiment = store.experiment("crowd").id
            for _ in range(5):
                run = store.create_run(NewRun(experiment, start=number))
                store.update(run.id, RunChanges(metrics=(Metric("m", 1.0, 1),)))
        except Exception as error:
            problems.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for process in crowd:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors.decode()
    assert problems == []
    assert len(store.search(RunQuery((store.experiment("crowd").id,), limit=1000))) == 8 * 5 + 24 * 5


def test_a_database_of_a_newer_version(path):
    SqlStore(path).experiment("x")
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version = {schema.VERSION + 1}")
    with pytest.raises(TrackingError, match="newer") as caught:
        SqlStore(path).experiment("x")
    assert "pgrade" in caught.value.fix


class Speaking(sqlite3.Connection):
    dialect = Dialect.SQLITE


@pytest.mark.parametrize("version", range(1, schema.VERSION))
def test_older_databases_are_brought_up_to_date(path, version):
    path.parent.mkdir()
    with sqlite3.connect(path, factory=Speaking) as connection:
        for migration in schema.MIGRATIONS[:version]:
            schema.migrate(connection, migration)
        connection.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {version}")
    store = SqlStore(path)
    run = store.create_run(new())
    assert FullStore(path).registry.search(EVERYTHING, (), 10, 0) == []
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (schema.VERSION,)
    assert SqlStore(path).get_run(run.id) == run


@pytest.mark.parametrize(("table", "hint"), [("alembic_version", "mlflow server"), ("anything", "new file")])
def test_other_programs_databases_are_left_alone(path, table, hint):
    path.parent.mkdir()
    with sqlite3.connect(path) as connection:
        connection.execute(f"CREATE TABLE {table} (x)")
    before = path.read_bytes()
    with pytest.raises(TrackingError) as caught:
        SqlStore(path).experiment("x")
    assert hint in caught.value.fix
    assert path.read_bytes() == before


def test_a_file_that_is_no_database(path):
    path.parent.mkdir()
    path.write_bytes(b"something else entirely" * 100)
    with pytest.raises(TrackingError, match="cannot be used") as caught:
        SqlStore(path).experiment("x")
    assert caught.value.fix


def test_a_full_disk_loses_nothing(path):
    store = SqlStore(path)
    run = store.create_run(new())
    with store.database.reading() as connection:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages + 5}")
    with pytest.raises(TrackingError, match="cannot be used") as caught:
        for step in range(100):
            tags = (Tag(f"t{step}", "x" * 10_000),)
            store.update(run.id, RunChanges(tags=tags))
    assert "full" in caught.value.why
    assert "space" in caught.value.fix
    store.close()
    again = SqlStore(path)
    again.update(run.id, RunChanges(tags=(Tag("after", "x"),)))
    assert again.get_run(run.id).tag("t0") == "x" * 10_000


def test_a_folder_that_cannot_be_made(isolated):
    (isolated / "file").touch()
    with pytest.raises(TrackingError, match="cannot be made"):
        SqlStore(isolated / "file" / "runs.db").experiment("x")


def test_killed_while_writing(path):
    """A process that is killed inside a transaction leaves the store as it was."""
    store = SqlStore(path)
    run = store.create_run(new())
    code = f"""
import os, signal
from pathlib import Path
from runproj.tracking.sql import Dialect
from runproj.tracking.store import SqlStore, insert_run, run_seq
with SqlStore(Path({str(path)!r})).database.writing() as connection:
    connection.execute("UPDATE runs SET name = 'half done'")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == -9
    assert store.get_run(run.id) == run
    store.update(run.id, RunChanges(name="whole"))


def test_a_thousand_runs_are_found_fast(path):
    store = SqlStore(path)
    numbers = points.key_numbers(store.database, {f"m{key}" for key in range(5)})
    with store.database.writing() as connection:
        for number in range(1_000):
            params = tuple(Param(f"p{key}", str(number)) for key in range(10))
            insert_run(connection, f"{number:032x}", new(start=number, params=params, tags=(Tag("mark", str(number)),)))
            metrics = tuple(Metric(f"m{key}", number, 1) for key in range(5))
            run_id = f"{number:032x}"
            points.write(connection, run_seq(connection, run_id), metrics, numbers)
    counted: list[str] = []
    with store.database.reading() as connection:
        connection.set_trace_callback(counted.append)
    found = store.search(RunQuery(limit=100))
    assert sum(statement.startswith("SELECT") for statement in counted) == 5  # however many runs
    assert [run.start for run in found] == list(range(999, 899, -1))
    assert (len(found[0].params), len(found[0].metrics)) == (10, 5)
    plan = connection.execute(
        "EXPLAIN QUERY PLAN SELECT run FROM tags WHERE key = 'mark' AND value = '7' AND length(value) <= 64"
    ).fetchall()
    assert "tags_by_value" in plan[0][3]
    assert [run.start for run in store.search(RunQuery(tags=(Tag("mark", "7"),)))] == [7]


def test_opening_again_does_no_work(path):
    SqlStore(path).experiment("x")
    store, seen = SqlStore(path), []
    connect = store.database._connect

    def traced() -> sqlite3.Connection:
        connection = connect()
        connection.set_trace_callback(seen.append)
        return connection

    store.database._connect = traced  # type: ignore[method-assign]  # to see what is sent
    store.database._open()
    assert seen == ["PRAGMA user_version", "PRAGMA application_id"]


def test_threads_that_come_and_go_leave_no_connections(path):
    store = SqlStore(path)
    run = store.create_run(new())
    before = len(os.listdir("/proc/self/fd"))
    for number in range(200):
        thread = threading.Thread(target=store.update, args=(run.id, RunChanges(tags=(Tag("t", str(number)),))))
        thread.start()
        thread.join()
    assert len(os.listdir("/proc/self/fd")) < before + 50
    assert store.get_run(run.id).tag("t") == "199"


def test_a_fork_uses_connections_of_its_own(path):
    store = SqlStore(path)
    run = store.create_run(new())
    child = os.fork()
    if child == 0:
        try:
            store.update(run.id, RunChanges(tags=(Tag("child", "1"),)))
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    store.update(run.id, RunChanges(tags=(Tag("parent", "1"),)))
    assert (store.get_run(run.id).tag("child"), store.get_run(run.id).tag("parent")) == ("1", "1")


def test_reading_goes_on_while_somebody_writes(path):
    store, other = SqlStore(path), SqlStore(path)
    run = store.create_run(new())
    with store.database.writing() as connection:
        connection.execute("UPDATE runs SET name = 'later'")
        assert other.get_run(run.id).name == run.name
    assert other.get_run(run.id).name == "later"


def test_the_file_is_its_owners_alone(path):
    before = os.umask(0o022)
    try:
        SqlStore(path).experiment("x")
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.with_name(path.name + "-wal").stat().st_mode & 0o777 == 0o600
