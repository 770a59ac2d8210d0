"""Fresh folders for working trees, named after the process that owns them, so that those of dead processes are told apart."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import socket
from pathlib import Path

from runproj import proc
from runproj.files import explained, remove_tree


def _machine() -> str:
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


def _boot() -> str:
    return hashlib.sha256(proc.boot_id().encode()).hexdigest()[:8]


def fresh(checkouts: Path) -> Path:
    """A folder of this process's own below `checkouts`, made empty."""
    me = proc.identify(os.getpid())
    path = checkouts / f"{_machine()}-{_boot()}-{me.pid}-{me.started}-{secrets.token_hex(4)}"
    with explained(path):
        path.mkdir(parents=True)
    return path


def sweep(checkouts: Path) -> int:
    """Remove what processes of this machine that are gone left below `checkouts`; returns how many folders."""
    try:
        names = os.listdir(checkouts)
    except FileNotFoundError:
        return 0
    removed = 0
    for name in names:
        if _orphaned(name):
            with contextlib.suppress(OSError):
                remove_tree(checkouts / name)
                removed += 1
    return removed


def _orphaned(name: str) -> bool:
    if name.startswith(".trash-"):
        owner = name.split("-")[1]
        return owner.isdigit() and proc.start_time(int(owner)) is None
    parts = name.split("-")
    if len(parts) != 5 or parts[0] != _machine() or not (parts[2].isdigit() and parts[3].isdigit()):
        return False  # of another machine that shares the folder: not ours to judge
    return parts[1] != _boot() or proc.start_time(int(parts[2])) != int(parts[3])
