"""One PostgreSQL database: connections, transactions, migrations, and the few words in which its SQL differs."""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from runproj.errors import RefusedError, RunprojError, TrackingError
from runproj.remote import scrubbed
from runproj.tracking import schema
from runproj.tracking.sql import Connection, Cursor, Dialect, one

if TYPE_CHECKING:
    import psycopg

    from runproj.tracking.dump import Backups

_MOST_IDLE = 8
_ONE_AT_A_TIME = schema.APPLICATION_ID
"""Number of the advisory lock that durable transactions and migrations hold."""

_NUMBERS = "(SELECT value::bigint AS value FROM json_array_elements_text(%s::json)) AS numbers"
_TEXTS = "(SELECT value FROM json_array_elements_text(%s::json)) AS texts"


@lru_cache(maxsize=1000)
def translated(sql: str) -> str:
    """A statement as this driver and database read it."""
    sql = sql.replace("%", "%%").replace("json_each(?) AS texts", _TEXTS).replace("json_each(?)", _NUMBERS)
    return sql.replace("?", "%s")


class _Connection:
    """A connection that is spoken to in SQLite's words."""

    dialect = Dialect.POSTGRESQL

    def __init__(self, driver: psycopg.Connection[Any]) -> None:
        self.driver = driver

    def execute(self, sql: str, values: Sequence[object] = (), /) -> Cursor:
        return self.driver.execute(translated(sql), values)

    def executemany(self, sql: str, rows: Iterable[Sequence[object]], /) -> object:
        with self.driver.cursor() as cursor:
            cursor.executemany(translated(sql), rows)
        return None


class PostgresDatabase:
    """A `Database` on a server.  `uri` is `postgresql://…` as libpq reads it; `backups` are made before its schema changes."""

    def __init__(self, uri: str, backups: Backups | None = None) -> None:
        self.uri = uri
        self._backups = backups
        self.shown = scrubbed(uri)
        self.metric_keys: dict[str, int] = {}
        self._idle: list[_Connection] = []
        self._lock = threading.Lock()
        self._process = os.getpid()
        self._ready = False

    @contextlib.contextmanager
    def reading(self) -> Iterator[Connection]:
        with self._connected("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY") as connection:
            yield connection
            connection.execute("ROLLBACK")

    @contextlib.contextmanager
    def writing(self, *, durable: bool = True) -> Iterator[Connection]:
        with self._connected("BEGIN") as connection:
            if durable:  # in fact all are: what is acknowledged must outlive a crash of the server's processes, too
                connection.execute("SELECT pg_advisory_xact_lock(?)", (_ONE_AT_A_TIME,))
            yield connection
            connection.execute("COMMIT")

    def close(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.driver.close()

    @contextlib.contextmanager
    def _connected(self, begin: str) -> Iterator[_Connection]:
        """A connection for this block alone, kept for the next one.  What is not committed when the block raises is undone."""
        with self._explained():
            connection = self._begun(begin)
            try:
                yield connection
            except RunprojError:  # our own word on what was asked: the connection is as good as before
                connection.execute("ROLLBACK")
                self._keep(connection)
                raise
            except BaseException:
                with contextlib.suppress(Exception):  # the first failure is the one to tell
                    connection.driver.close()
                raise
            self._keep(connection)

    def _begun(self, begin: str) -> _Connection:
        """A connection in a new transaction.  Kept ones may have died with an earlier life of the server."""
        import psycopg

        while (kept := self._take()) is not None:
            try:
                kept.execute(begin)
                return kept
            except psycopg.OperationalError:
                kept.driver.close()
        connection = self._connect()
        if not self._ready:
            self._migrate(connection)
            self._ready = True
        connection.execute(begin)
        return connection

    def _take(self) -> _Connection | None:
        with self._lock:
            if self._process != os.getpid():  # connections do not survive a fork
                self._idle, self._process = [], os.getpid()
            return self._idle.pop() if self._idle else None

    def _keep(self, connection: _Connection) -> None:
        with self._lock:
            keep = len(self._idle) < _MOST_IDLE
            if keep:
                self._idle.append(connection)
        if not keep:
            connection.driver.close()

    def _connect(self) -> _Connection:
        import psycopg

        return _Connection(psycopg.connect(self.uri, autocommit=True, connect_timeout=10, application_name="runproj"))

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn the server's refusals into `TrackingError`s.  A violated constraint is a bug of ours and passes as it is."""
        try:
            yield
        except RunprojError:
            raise
        except ImportError as error:
            fix = 'pip install "runproj[postgresql]"'
            raise TrackingError("Recording in PostgreSQL needs the package psycopg", why=str(error), fix=fix) from None
        except Exception as error:
            import psycopg

            if not isinstance(error, psycopg.Error) or isinstance(error, psycopg.IntegrityError | psycopg.ProgrammingError):
                raise
            why = _first_line(error)
            if isinstance(error, psycopg.DataError):
                raise RefusedError("The record cannot hold this text or number", why=why) from error
            fix = "Check that it runs, and that the address, the user and the password are right."
            raise TrackingError(f"The run database {self.shown} cannot be used", why=why, fix=fix) from error

    def _migrate(self, connection: _Connection) -> None:
        """Bring the schema up to date, in one transaction; others wait for it."""
        connection.execute("BEGIN")
        connection.execute("SELECT pg_advisory_xact_lock(?)", (_ONE_AT_A_TIME,))
        connection.execute("CREATE TABLE IF NOT EXISTS runproj_schema (version BIGINT NOT NULL)")
        found = connection.execute("SELECT version FROM runproj_schema").fetchone()
        version = found[0] if found else 0
        if found is None:
            connection.execute("INSERT INTO runproj_schema (version) VALUES (0)")
            if connection.execute(
                "SELECT 1 FROM pg_tables WHERE schemaname = current_schema() AND tablename = 'runs'"
            ).fetchone():
                raise TrackingError(
                    f"{self.shown} is not a run database of runproj",
                    why="It has a table `runs` that runproj did not make.",
                    fix="Give runproj a database, or a schema, of its own.",
                )
        if version > schema.VERSION:
            raise TrackingError(
                f"The run database {self.shown} was written by a newer runproj",
                why=f"Its schema has version {version}; this runproj knows versions up to {schema.VERSION}.",
                fix="Upgrade runproj (`pip install --upgrade runproj`), or set RUNPROJ_TRACKING_URI to another database.",
            )
        if 0 < version < schema.VERSION:
            self._back_up(connection, version)
        for steps in schema.MIGRATIONS[version:]:
            schema.migrate(connection, steps)
        connection.execute("UPDATE runproj_schema SET version = ?", (schema.VERSION,))
        connection.execute("COMMIT")

    def _back_up(self, connection: _Connection, version: int) -> None:
        """Keep the tables as they are.  They are not locked yet: pg_dump reads them beside this transaction."""
        from runproj.tracking.dump import Backups

        (within,) = one(connection.execute("SELECT current_schema()"))
        steps = [step for migration in schema.MIGRATIONS[version:] for step in migration]
        (self._backups or Backups()).before(self.uri, self.shown, str(within), version, steps)


def _first_line(error: Exception) -> str:
    """The driver's words, without the password that a connection string may hold."""
    text = re.sub(r"(password=)\S+", r"\1***", str(error)).strip()
    return text.splitlines()[0] if text else type(error).__name__
