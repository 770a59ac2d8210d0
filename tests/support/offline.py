"""Commands without a network: a namespace of their own in which only this machine's own address works."""

from __future__ import annotations

import sys
from collections.abc import Sequence

_UP = """
import fcntl, os, socket, struct, sys
with socket.socket() as s:
    fcntl.ioctl(s, 0x8914, struct.pack("16sh14x", b"lo", 0x1 | 0x40))  # SIOCSIFFLAGS: IFF_UP | IFF_RUNNING
os.execvp(sys.argv[1], sys.argv[1:])
"""


def without_network(command: Sequence[str]) -> list[str]:
    """The command line that runs another one in such a namespace."""
    return ["unshare", "-n", "--", sys.executable, "-I", "-c", _UP, *command]
