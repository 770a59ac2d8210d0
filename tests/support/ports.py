"""Ports for the services of tests."""

from __future__ import annotations

import random
import socket

_TAKEN: set[int] = set()


def free_port() -> int:
    """One that nobody has, and that the system gives to no connection meanwhile; another each time."""
    while True:
        port = random.SystemRandom().randrange(20_100, 32_700)  # below the ports of outgoing connections
        if port in _TAKEN:
            continue
        try:
            with socket.create_server(("127.0.0.1", port)):
                _TAKEN.add(port)
                return port
        except OSError:
            continue
