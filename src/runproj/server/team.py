"""The team's server: one store and its artifacts, served on an address until it is told to stop."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runproj.errors import UsageError
from runproj.server.accounts import Accounts
from runproj.server.gate import Gate
from runproj.server.http import Server
from runproj.server.rest import Api

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


@contextlib.contextmanager
def serving(
    listener: socket.socket, address: Address, store: FullStore, artifacts: DirectArtifacts, accounts: Accounts
) -> Iterator[None]:
    """Serve while the block lasts; at its end, requests that have arrived are answered.

    Raises `UsageError` for an address that others can reach while nobody is asked who they are.
    """
    if not address.loopback and not accounts.asks():
        raise UsageError(
            f"Serving on {address.host} would let everybody on the network read and change everything",
            why="The store has no users, so that nobody is asked who they are.",
            fix="Make one with `runproj user add NAME --admin`, or leave out --host.",
        )
    api = Api(store, artifacts, accounts.renew)
    server = Server(listener, Gate(address.hosts(), accounts.admit, api, pages=True).handle)
    server.start()
    try:
        yield
    finally:
        server.close()
