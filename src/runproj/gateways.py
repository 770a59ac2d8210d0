"""Where on this machine a container can reach us: the address that the machine has in the container's network."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator, Mapping

from runproj import engine as engines
from runproj.engine import Engine, EngineAway, EngineError
from runproj.errors import BackendError


def of(network: str, engine: Engine) -> str:
    """The address, for a server to listen on; empty where this machine is not in that network.  Raises `BackendError`."""
    try:
        found = engine.get(f"/networks/{engines.segment(network)}")
    except EngineError as error:
        raise BackendError(f"There is no network {network!r}", why=error.message) from error
    except EngineAway as error:
        raise engines.unreachable(engine.where, error) from error
    return next((address for address in _gateways(found) if _is_ours(address)), "")


def _gateways(network: Mapping[str, object]) -> Iterator[str]:
    """Addresses that this machine may have in a network of the engine."""
    ipam, options = network.get("IPAM"), network.get("Options")
    configured = ipam.get("Config") if isinstance(ipam, dict) else None
    for entry in configured or ():
        if gateway := entry.get("Gateway"):
            yield gateway.partition("/")[0]
    name = options.get("com.docker.network.bridge.name") if isinstance(options, dict) else None
    with contextlib.suppress(OSError):
        yield _address_of(name or f"br-{str(network.get('Id', ''))[:12]}")


def _address_of(interface: str) -> str:
    """The IPv4 address of an interface (SIOCGIFADDR of netdevice(7)).  Raises `OSError`."""
    import fcntl

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        answer = fcntl.ioctl(probe, 0x8915, interface.encode()[:15].ljust(256, b"\0"))
    return socket.inet_ntoa(answer[20:24])


def _is_ours(address: str) -> bool:
    try:
        socket.create_server((address, 0)).close()
    except OSError:
        return False
    return True
