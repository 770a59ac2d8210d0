"""How files of any name are called inside a capsule: plain ASCII, so that every zip program and every URI means the same."""

from __future__ import annotations

import os
import re

_ODD = re.compile(rb"[^A-Za-z0-9/_.~+@,-]")
_ESCAPED = re.compile(rb"=([0-9A-F]{2})")


def packed(*parts: str) -> str:
    """The name of a file in the zip, from its path: bytes that are not plain are written like `=C3`."""
    return _ODD.sub(lambda found: b"=%02X" % found[0][0], os.fsencode("/".join(parts))).decode()


def unpacked(name: str) -> str:
    """The path that `packed` made a name of."""
    return os.fsdecode(_ESCAPED.sub(lambda found: bytes([int(found[1], 16)]), os.fsencode(name)))
