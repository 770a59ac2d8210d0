"""How files of any name are called inside a capsule: plain ASCII, so that every zip program and every URI means the same."""

from __future__ import annotations

import os
from urllib.parse import quote, unquote_to_bytes

_PLAIN = "/-_.~+@=,"


def packed(*parts: str) -> str:
    """The name of a file in the zip, from its path."""
    return quote(os.fsencode("/".join(parts)), safe=_PLAIN)


def unpacked(name: str) -> str:
    """The path that `packed` made a name of."""
    return os.fsdecode(unquote_to_bytes(name))
