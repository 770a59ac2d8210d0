"""For backends whose jobs write where this machine can read: what can be seen of a parcel and its executor."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from runproj.codec import DocumentError, from_json
from runproj.core.backend import JobHandle

_POLL = 0.1
_HEARTBEATS = 30.0
"""Seconds after which an executor that gave no sign of life is gone; it gives one every ten."""


def has_ended(parcel: Path) -> bool:
    """Whether its executor has recorded how the job ended."""
    return (parcel / "record" / "ended.json").exists()


def is_given_up(parcel: Path) -> bool:
    """Whether somebody wants the job stopped: one that has not begun will not do anything."""
    return (parcel / "given-up").exists()


def is_alive(parcel: Path) -> bool:
    """Whether the executor has given a sign of life: it may outlive what its engine knows of the job."""
    with contextlib.suppress(OSError):
        beats = [path.stat().st_mtime for path in (parcel / "record" / "active").glob("*.json")]
        return any(time.time() - beat < _HEARTBEATS for beat in beats)
    return False


def details_of(handle: JobHandle, ticket: Path) -> Mapping[str, str]:
    """Where a job is; what was noted in its parcel before it was submitted, where nobody lived to tell more."""
    if not handle.details:
        with contextlib.suppress(OSError, DocumentError):
            return from_json(dict[str, str], ticket.read_bytes())
    return handle.details


def follow_log(home: Path, run_id: str, stream: str, *, follow: bool) -> Iterator[bytes]:
    """A stream of a run that writes into this home."""
    parcel = home / "parcels" / run_id

    def going_on() -> bool:  # asks nobody: the parcel goes when the run has been closed
        return follow and parcel.exists() and not has_ended(parcel)

    return follow_file(home / "runs" / run_id / "logs" / f"{stream}.log", going_on)


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
