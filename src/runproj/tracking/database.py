"""One SQLite file: connections, transactions, migrations, and the user's words for what can go wrong with it."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

from runproj.errors import RunprojError, TrackingError
from runproj.files import Lock
from runproj.tracking import schema
from runproj.tracking.sql import Connection, Dialect

_BUSY_SECONDS = 30
_MOST_IDLE = 8

_FIXES = {
    "SQLITE_FULL": "Free some space (`runproj gc` removes what no run needs), or set RUNPROJ_HOME to a larger disk.",
    "SQLITE_READONLY": "Make the file and its folder writable, or set RUNPROJ_TRACKING_URI to a database of your own.",
    "SQLITE_CANTOPEN": "Check that the folder exists and can be written, or set RUNPROJ_TRACKING_URI to another place.",
    "SQLITE_BUSY": "Another process keeps the database locked; end it, or try again.",
    "SQLITE_NOTADB": "Set RUNPROJ_TRACKING_URI to a database that runproj made, or to a new file.",
    "SQLITE_CORRUPT": "Restore the file from a backup, or rescue what can be read with `sqlite3 FILE .recover`.",
    "SQLITE_IOERR": "Look for a full or failing disk; the record itself is as it was before this command.",
}


class _Connection(sqlite3.Connection):
    dialect = Dialect.SQLITE


class SqliteDatabase:
    """A `Database` in the file at `path`.  Readers never wait; writers queue, those of other processes for up to 30 s."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.metric_keys: dict[str, int] = {}
        self._idle: list[_Connection] = []
        self._lock = threading.Lock()
        self._turn = threading.Lock()  # SQLite lets waiting writers sleep and does not mind whose turn it is
        self._process = os.getpid()

    @contextlib.contextmanager
    def reading(self) -> Iterator[Connection]:
        with self._connected() as connection:
            connection.execute("BEGIN")
            yield connection
            connection.rollback()

    @contextlib.contextmanager
    def writing(self, *, durable: bool = True) -> Iterator[Connection]:
        with self._connected() as connection, self._turn:
            connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            connection.commit()

    def close(self) -> None:
        """Close every connection that is not in use; the next use opens a new one."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    @contextlib.contextmanager
    def _connected(self) -> Iterator[_Connection]:
        """A connection for this block alone, kept for the next one.  What is not committed when the block raises is undone."""
        with self.explained():
            with self._lock:
                if self._process != os.getpid():  # connections do not survive a fork
                    self._idle, self._turn, self._process = [], threading.Lock(), os.getpid()
                connection = self._idle.pop() if self._idle else None
            connection = connection or self._open()
            try:
                yield connection
            except RunprojError:  # our own word on what was asked: the connection is as good as before
                connection.rollback()
                self._keep(connection)
                raise
            except BaseException:
                with contextlib.suppress(Exception):  # the first failure is the one to tell
                    connection.rollback()
                    connection.close()
                raise
            self._keep(connection)

    def _keep(self, connection: _Connection) -> None:
        with self._lock:
            keep = len(self._idle) < _MOST_IDLE
            if keep:
                self._idle.append(connection)
        if not keep:
            connection.close()

    @contextlib.contextmanager
    def explained(self) -> Iterator[None]:
        """Turn SQLite's refusals into `TrackingError`s.  A violated constraint is a bug of ours and passes as it is."""
        try:
            yield
        except (sqlite3.IntegrityError, sqlite3.ProgrammingError):
            raise
        except sqlite3.DatabaseError as error:
            raise self._explain(error) from error

    def _explain(self, error: sqlite3.DatabaseError) -> TrackingError:
        name = getattr(error, "sqlite_errorname", "") or ""
        fix = next((fix for prefix, fix in _FIXES.items() if name.startswith(prefix)), "")
        return TrackingError(f"The run database {self.path} cannot be used", why=str(error), fix=fix)

    def _open(self) -> _Connection:
        if not self.path.parent.is_dir():
            self._make_folder()
        connection = self._connect()
        try:
            if not self._current(connection):
                self._migrate(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _connect(self) -> _Connection:
        if not self.path.exists():  # it will hold what its owner's runs are about, and digests of passwords
            with contextlib.suppress(OSError):  # SQLite has better words for it
                os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        # threads use it one after the other, hence no check
        connection = sqlite3.connect(
            self.path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False, factory=_Connection
        )
        connection.execute("PRAGMA foreign_keys = ON")
        return connection

    def _make_folder(self) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TrackingError(
                f"The folder of the run database {self.path} cannot be made",
                why=error.strerror or str(error),
                fix="Check the permissions, or set RUNPROJ_HOME to a folder that can be written.",
            ) from error

    @staticmethod
    def _current(connection: _Connection) -> bool:
        """Whether the schema is ours and up to date: all that opening looks at, but once in the life of a database."""
        if connection.execute("PRAGMA user_version").fetchone() != (schema.VERSION,):
            return False
        return bool(connection.execute("PRAGMA application_id").fetchone()[0] == schema.APPLICATION_ID)

    def _version(self, connection: _Connection) -> int:
        """The schema's version; 0 for an empty file.  Raises `TrackingError` where it is not ours, or newer than we are."""
        connection.execute("BEGIN")  # somebody may be making the tables right now
        try:
            version = int(connection.execute("PRAGMA user_version").fetchone()[0])
            application = int(connection.execute("PRAGMA application_id").fetchone()[0])
            empty = connection.execute("SELECT 1 FROM sqlite_master").fetchone() is None
            if application != schema.APPLICATION_ID and not empty:
                raise self._foreign(connection)
        finally:
            connection.rollback()
        if version > schema.VERSION:
            raise TrackingError(
                f"The run database {self.path} was written by a newer runproj",
                why=f"Its schema has version {version}; this runproj knows versions up to {schema.VERSION}.",
                fix="Upgrade runproj (`pip install --upgrade runproj`), or set RUNPROJ_TRACKING_URI to another database.",
            )
        return version

    def _foreign(self, connection: _Connection) -> TrackingError:
        if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchone():
            why = "It looks like a database of an MLflow server, which only that server should write."
            server = f"mlflow server --backend-store-uri sqlite:///{self.path}"
            fix = f"Start `{server}` and set RUNPROJ_TRACKING_URI to its http address."
        else:
            why = "It has tables that runproj did not make."
            fix = "Set RUNPROJ_TRACKING_URI to a database that runproj made, or to a new file."
        return TrackingError(f"{self.path} is not a run database of runproj", why=why, fix=fix)

    def _migrate(self, connection: _Connection) -> None:
        """Bring the schema up to date.  One process does it, the others wait for it; killed halfway, it has not happened."""
        self._version(connection)  # other people's files are not even locked
        with Lock(self.path.with_name(self.path.name + ".lock")):
            version = self._version(connection)
            if 0 < version < schema.VERSION:
                self._back_up(connection, version)
            connection.execute("PRAGMA journal_mode = WAL")
            while version < schema.VERSION:
                connection.execute("BEGIN IMMEDIATE")
                try:
                    schema.migrate(connection, schema.MIGRATIONS[version])
                    version += 1
                    connection.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
                    connection.execute(f"PRAGMA user_version = {version}")
                    connection.commit()
                except BaseException:
                    connection.rollback()
                    raise

    def _back_up(self, connection: _Connection, version: int) -> None:
        """Keep the database as it is, beside itself: a newer schema cannot be read by an older runproj."""
        target = self.path.with_name(f"{self.path.name}.v{version}.backup")
        temporary = target.with_name(f"{target.name}.{os.getpid()}.tmp")
        try:
            temporary.unlink(missing_ok=True)
            os.close(os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            connection.execute("VACUUM INTO ?", (os.fspath(temporary),))  # into an empty file, which stays its owner's alone
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
