"""For backends whose jobs write where this machine can read."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

_POLL = 0.1


def follow_file(path: Path, going_on: Callable[[], bool]) -> Iterator[bytes]:
    """What is in a file and what comes, until `going_on` says no; a file that is moved when it is complete is read to its end."""
    while True:
        more_may_come = going_on()
        try:
            file = path.open("rb")
            break
        except FileNotFoundError:
            if not more_may_come:
                return
            time.sleep(_POLL)
    with file:
        while True:
            more_may_come = going_on()
            while data := file.read(1 << 16):
                yield data
            if not more_may_come:
                return
            time.sleep(_POLL)
