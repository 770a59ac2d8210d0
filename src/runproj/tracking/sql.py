"""What the statements of the store are written for: one spelling of SQL, two databases.

Statements are written as SQLite reads them, with `?` for what is bound; PostgreSQL's connection translates the few words that
differ.  A set of numbers is `IN (SELECT value FROM json_each(?))`, a set of texts `IN (SELECT value FROM json_each(?) AS texts)`,
each bound to a JSON list.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from enum import Enum
from typing import Any, Protocol

Row = tuple[Any, ...]
"""A row as the driver gives it: what a column holds is known to its reader only, hence `Any`."""


class Dialect(Enum):
    SQLITE = "sqlite"
    POSTGRESQL = "postgresql"


class Cursor(Protocol):
    """The result of a statement.  `rowcount` is the number of rows that it changed."""

    @property
    def rowcount(self) -> int: ...

    def fetchone(self) -> Row | None: ...

    def fetchall(self) -> Sequence[Row]: ...

    def __iter__(self) -> Iterator[Row]: ...


class Connection(Protocol):
    """A connection inside a transaction."""

    @property
    def dialect(self) -> Dialect: ...

    def execute(self, sql: str, values: Sequence[object] = (), /) -> Cursor: ...

    def executemany(self, sql: str, rows: Iterable[Sequence[object]], /) -> object: ...


class Database(Protocol):
    """Where the tables are.  Safe for threads; every method raises `TrackingError` where the database cannot be used.

    metric_keys: numbers of metric keys that are known to be stored; a key's number never changes.
    """

    metric_keys: dict[str, int]

    def reading(self) -> AbstractContextManager[Connection]:
        """A connection inside a read transaction: every query in the block sees one state of the database."""

    def writing(self, *, durable: bool = True) -> AbstractContextManager[Connection]:
        """A connection inside a write transaction, committed at the end of the block, undone by an exception.

        durable: on return the changes survive a loss of power, and no other durable transaction went on beside this one, so
        that what the block read still holds.  Without it they survive the death of every process, and may be made beside others.
        """

    def close(self) -> None:
        """Let go of every connection that is not in use."""


def one(cursor: Cursor) -> Row:
    """The first row of a statement that always has one."""
    row = cursor.fetchone()
    assert row is not None
    return row
