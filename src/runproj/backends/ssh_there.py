"""The other machine's half of the ssh backend: lays a parcel out, starts its executor once, and says what has become of it.

`python -m runproj.backends.ssh_there MARK VERB FOLDER …`.  What it prints is counted from MARK on: shells that greet whoever
logs in do so on the same stream.  FOLDER holds the jobs; each has, in a folder named by its run:

    lock      locked by whoever lays the job out, and then by its executor for as long as it lives
    started   from then on the job is never started again
    parcel/   what came, and the record
    given-up  it is not to be started any more
    collected its record has been brought home: the folder goes when its executor has
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import select
import shutil
import signal
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from runproj import proc
from runproj.errors import StartError
from runproj.files import atomic_write, remove_tree, sweep_trash
from runproj.packing import HERE, LOGS, PACKED, REST, pack

COMPLETE = "complete"
"""Last member of an archive: without it the connection broke before all of it was here."""
REFUSED = 3
"""Exit code where standard error says, in one line, what is wrong."""
_PIECE = 1 << 20
_POLL = 0.2
_LEAVING = 5.0
"""Seconds that an executor may take to leave when all is recorded."""
_ABANDONED = 86400.0
"""Seconds after which what was laid out for a job and never started is removed: its secrets are in it."""
_PATIENCE = 30.0
"""Seconds to wait for another process that lays the same job out."""


class Refused(Exception):
    """Cannot be done; the message says why."""


class Place:
    """A job's folder."""

    def __init__(self, folder: Path, run_id: str) -> None:
        if not re.fullmatch(r"[0-9a-f]{32}", run_id):
            raise Refused(f"{run_id!r} is no run")
        self.folder, self.parcel = folder / run_id, folder / run_id / "parcel"
        self.record = self.parcel / "record"

    def locked(self, kind: int = fcntl.LOCK_EX) -> int | None:
        """The lock, or None where somebody else has it.  Raises `FileNotFoundError` where there is no job."""
        descriptor = os.open(self.folder / "lock", os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        return descriptor

    @property
    def alive(self) -> bool:
        """Whether its executor lives, or somebody lays it out.  Raises `FileNotFoundError`."""
        descriptor = self.locked(fcntl.LOCK_SH)  # who only looks does not see others that look
        if descriptor is not None:
            os.close(descriptor)
        return descriptor is None

    def has(self, name: str) -> bool:
        return (self.folder / name).exists()


# -- starting


def begin(place: Place) -> None:
    """Lay the parcel on standard input out, and start its executor in a session of its own.  Said again, it changes nothing."""
    place.folder.parent.mkdir(parents=True, exist_ok=True)
    _sweep(place.folder.parent)
    with contextlib.suppress(FileExistsError):
        place.folder.mkdir(mode=0o700)
    (place.folder / "lock").touch()
    deadline = time.monotonic() + _PATIENCE
    while (lock := place.locked()) is None:
        if place.has("started"):
            return
        if time.monotonic() > deadline:
            raise Refused("another connection is laying this job out; try again")
        time.sleep(_POLL)
    if place.has("started") or place.has("given-up"):
        return
    _lay_out(place)
    if not place.has("given-up"):  # meanwhile; whoever says so later finds the parcel, and tells the executor
        _start(place, lock)


def _lay_out(place: Place) -> None:
    """Raises `Refused`, and leaves nothing."""
    shutil.rmtree(place.parcel, ignore_errors=True)
    try:
        with tarfile.open(fileobj=sys.stdin.buffer, mode="r|") as archive:
            archive.extraction_filter = getattr(tarfile, "data_filter", lambda member, _: member)  # the first 3.11 has none
            archive.extractall(place.parcel)
        (place.parcel / COMPLETE).unlink()
    except (OSError, tarfile.TarError) as error:
        shutil.rmtree(place.folder, ignore_errors=True)
        raise Refused(f"the job did not arrive whole: {error}") from error


def _start(place: Place, lock: int) -> None:
    """The executor has the lock from here: it is free when the executor is gone, however that happened."""
    atomic_write(place.folder / "started", "")
    command = [sys.executable, "-m", "runproj", "execute-parcel", ".", "--pack"]
    proc.detach(command, cwd=place.parcel, env=os.environ, log=place.folder / "executor.log", keep=(lock,))


def _sweep(folder: Path) -> None:
    """Remove jobs that have been brought home and whose executor has ended since, and those that were never to start."""
    sweep_trash(folder)
    for mark in folder.glob("*/collected"):
        _forget(mark.parent)
    for lock in folder.glob("*/lock"):
        with contextlib.suppress(OSError):
            if time.time() - lock.stat().st_mtime > _ABANDONED and not (lock.parent / "started").exists():
                _forget(lock.parent)


def _forget(folder: Path) -> None:
    with contextlib.suppress(Refused, OSError):
        if not Place(folder.parent, folder.name).alive:
            remove_tree(folder)  # which another `begin` finishes, if this one is killed


# -- looking


def look(places: list[Place]) -> None:
    """Print the state of each job, and what the executor said last where it is gone without a record."""
    json.dump([_state(place) for place in places], sys.stdout)


def _state(place: Place) -> tuple[str, str]:
    try:
        alive = place.alive
    except FileNotFoundError:
        return ("absent" if place.folder.parent.is_dir() else "unseen"), ""
    if (place.record / PACKED).exists():
        return "ended", ""
    if alive:
        return ("running" if place.has("started") else "pending"), ""
    return ("dead", _last(place)) if place.has("started") else ("absent", "")


def _last(place: Place) -> str:
    with contextlib.suppress(OSError), (place.folder / "executor.log").open("rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - 2000))
        lines = file.read().decode(errors="replace").strip().splitlines()
        return lines[-1][:500] if lines else ""
    return ""


# -- while it runs, and after


def stop(place: Place) -> None:
    """Ask the executor to end; one that has not begun does not begin."""
    for folder in (place.folder, place.parcel):
        if folder.is_dir():
            (folder / "given-up").touch()  # in the parcel, for an executor that has not said yet which process it is
    with contextlib.suppress(FileNotFoundError, ProcessLookupError, ValueError):  # it is just being written
        _, _, pid = (place.record / HERE).read_text().rpartition(" ")
        if place.alive:  # its pid is its own as long as the lock is
            os.kill(int(pid), signal.SIGTERM)


def tail(place: Place, stream: str, offset: int, *, follow: bool) -> None:
    """Print a stream of the command from an offset on; if `follow`, until the executor has ended, or nobody listens any more."""
    while (path := _log(place, stream)) is None:
        if not follow or not _goes_on(place) or _nobody_listens():
            return
    with path.open("rb") as file:
        file.seek(offset)
        while True:
            more_may_come = follow and _goes_on(place)
            while data := file.read(_PIECE):
                sys.stdout.buffer.write(data)
                sys.stdout.buffer.flush()
            if not more_may_come or _nobody_listens():
                return


def _log(place: Place, stream: str) -> Path | None:
    """Where the stream is: beside the run while it runs, then among its artifacts."""
    name = f"{stream}.log"
    moved = f"artifacts/*/{place.folder.name}/artifacts/logs/{name}"
    return next((path for path in (place.record / LOGS / name, *place.record.glob(moved)) if path.exists()), None)


def _goes_on(place: Place) -> bool:
    try:
        return place.alive
    except FileNotFoundError:
        return False


def _nobody_listens() -> bool:
    """Whether standard input has been closed, which stays open as long as somebody listens; takes a moment where it is open."""
    return bool(select.select([sys.stdin], [], [], _POLL)[0])


def fetch(place: Place, name: str) -> None:
    """Print a file of the record: its size in a line, and its bytes; nothing where there is none."""
    if "/" in name:
        raise Refused(f"{name!r} is no file of a record")
    with contextlib.suppress(FileNotFoundError), (place.record / name).open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        sys.stdout.buffer.write(b"%d\n" % size)
        shutil.copyfileobj(file, sys.stdout.buffer, _PIECE)


def rest(place: Place) -> None:
    """Print as `fetch` does all that an executor left that is gone: files that were logged, too."""
    if place.record.is_dir() and not place.alive:
        pack(place.record, REST)
        fetch(place, REST)


def forget(place: Place) -> None:
    """Remove a job whose record has been brought home; one whose executor is still leaving is removed by the next `begin`."""
    with contextlib.suppress(FileNotFoundError):
        (place.folder / "collected").touch()
    deadline = time.monotonic() + _LEAVING
    while _goes_on(place) and time.monotonic() < deadline:
        time.sleep(0.05)
    _forget(place.folder)


def main(arguments: Iterator[str]) -> int:
    mark, verb, folder = next(arguments), next(arguments), Path(next(arguments)).expanduser()
    words = list(arguments)
    sys.stdout.write(mark)
    sys.stdout.flush()
    verbs: dict[str, Callable[[], None]] = {
        "begin": lambda: begin(Place(folder, words[0])),
        "look": lambda: look([Place(folder, run_id) for run_id in words]),
        "stop": lambda: stop(Place(folder, words[0])),
        "tail": lambda: tail(Place(folder, words[0]), words[1], int(words[2]), follow=words[3:] == ["follow"]),
        "fetch": lambda: fetch(Place(folder, words[0]), words[1]),
        "rest": lambda: rest(Place(folder, words[0])),
        "forget": lambda: forget(Place(folder, words[0])),
    }
    try:
        verbs[verb]()
        sys.stdout.flush()
    except (Refused, StartError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main(iter(sys.argv[1:])))
