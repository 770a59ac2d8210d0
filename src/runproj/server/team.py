"""The team's server: one store and its artifacts, served on an address until it is told to stop."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from runproj.core.values import dataclass
from runproj.errors import UsageError
from runproj.server.accounts import Accounts
from runproj.server.gate import Gate
from runproj.server.http import Limits, Server
from runproj.server.rest import Api, Context
from runproj.server.watch import Watch, open_log
from runproj.tracking.totals import totals
from runproj.tracking.users import Users

if TYPE_CHECKING:
    from runproj.artifacts.direct import DirectArtifacts
    from runproj.tracking.full import FullStore

_BACKLOG = 1024


@dataclass(frozen=True)
class Address:
    """Where a server listens, and the host names that it answers to beside that address."""

    host: str
    port: int
    names: tuple[str, ...] = ()

    @property
    def url(self) -> str:
        return f"http://{bracketed(self.host)}:{self.port}"

    @property
    def loopback(self) -> bool:
        """Only this machine can reach it."""
        with contextlib.suppress(ValueError):
            return ipaddress.ip_address(self.host).is_loopback
        return self.host == "localhost"

    def hosts(self) -> frozenset[str]:
        """The values of the `Host` header that are meant for it."""
        names = {self.host, "localhost", *(("127.0.0.1", "::1") if self.loopback else ())}
        found = {f"{bracketed(name.lower())}:{self.port}" for name in names}
        for name in self.names:
            found |= {name.lower()} if _has_port(name) else {name.lower(), f"{name.lower()}:{self.port}"}
        if self.port == 80:
            found |= {name.removesuffix(":80") for name in found}
        return frozenset(found)


def bracketed(host: str) -> str:
    """A host as it stands in a URL."""
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def _has_port(name: str) -> bool:
    return name.rpartition(":")[2].isdigit() and not name.endswith("]")


@contextlib.contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """A listening socket.  Raises `UsageError` where the address cannot be had."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
        listener = socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except (OSError, OverflowError) as error:
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno and error.errno > 0 else str(error)
        raise UsageError(
            f"Cannot listen on {bracketed(host)}:{port}",
            why=reason,
            fix="Choose another --host or --port; --port 0 takes a free one.",
        ) from error
    with listener:
        yield listener


@dataclass(frozen=True)
class Options:
    """How a server is run.

    auth:       ask who somebody is even while there are no users.
    roots:      locations below which clients may keep artifacts of new experiments, beside the store's own.
    max_upload: bytes of one uploaded file.
    connections: served at the same time.
    access_log: file for a line about each answer; `-` for standard output, empty for none.
    shared:     folder through which the processes of one server know each other's counts; empty for one process.
    """

    auth: bool = False
    roots: tuple[str, ...] = ()
    max_upload: int = 1 << 40
    connections: int = 1000
    access_log: str = ""
    shared: str = ""


@dataclass(frozen=True)
class Served:
    """What a process serves, and where: all that another process needs to do the same.

    store, artifacts: as of the command line; None for the configured ones.
    descriptor: of the listening socket.
    alive:      of a pipe that ends when the process that started this one does; -1 for none.
    """

    store: str | None
    artifacts: str | None
    address: Address
    options: Options
    descriptor: int
    alive: int = -1


def refuse_open(address: Address, store: FullStore, options: Options) -> Accounts:
    """Raises `UsageError` for an address that others can reach while nobody is asked who they are."""
    accounts = Accounts(Users(store.database), required=options.auth)
    if not address.loopback and not accounts.asks():
        raise UsageError(
            f"Serving on {address.host} would let everybody on the network read and change everything",
            why="The store has no users, so that nobody is asked who they are.",
            fix="Make one with `runproj user add NAME --admin`, or leave out --host.",
        )
    return accounts


def make_room(connections: int) -> None:
    """Let this process have as many files open as that many connections need, each with a file and a database."""
    import resource

    wanted = 2 * connections + 200
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


@contextlib.contextmanager
def serving(
    listener: socket.socket, address: Address, store: FullStore, artifacts: DirectArtifacts, options: Options
) -> Iterator[None]:
    """Serve while the block lasts; at its end, requests that have arrived are answered.

    Raises `UsageError` as `refuse_open` does.
    """
    accounts = refuse_open(address, store, options)
    make_room(options.connections)
    log = open_log(options.access_log) if options.access_log else None
    watch = Watch(log, Path(options.shared) if options.shared else None)

    def metrics() -> str:
        return watch.exposition(totals(store.database), server.connections)

    context = Context(store, artifacts, renew=accounts.renew, roots=options.roots, metrics=metrics, max_upload=options.max_upload)
    gate = Gate(address.hosts(), accounts.admit, Api(context), pages=True)
    server = Server(listener, watch.counted(gate.handle), watch.done, Limits(options.connections))
    server.start()
    try:
        yield
    finally:
        server.close()
