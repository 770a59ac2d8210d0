"""Jobs of Ray on nodes that do not see this home: what goes there, and how the record comes back.

Ray has no way for files back but its logs: any file below the folder of its logs, on any node, can be read through the
dashboard.  So the record is written there, and packed into one file when it is complete.
"""

from __future__ import annotations

import contextlib
import filecmp
import queue
import shlex
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from runproj.backends.ray_api import RayApi, RayJob
from runproj.backends.shared import has_ended
from runproj.errors import BackendError
from runproj.files import sha256_file
from runproj.packing import HERE, LOGS, PACKED, fold, unpack

_KEPT = 14
"""Days after which what nobody fetched is removed, by the next job on that node."""
_POLL = 2.0
_SETTLE = 30.0
"""Seconds that a record may take beside the grace of its run, where Ray has killed the job's own process."""


def package(folder: Path, api: RayApi) -> str:
    """Upload a complete parcel; returns the URI of the package."""
    path = folder.with_name(f"{folder.name}.zip")
    try:
        fold(folder, path)
        return api.upload(f"runproj-{sha256_file(path)}.zip", path)
    finally:
        path.unlink(missing_ok=True)


def command(python: str) -> tuple[str, ...]:
    """What executes the parcel that is the job's folder."""
    return (python, "-m", "runproj", "execute-parcel", ".", "--apart", "--pack")


def preparation(name: str) -> str:
    """Shell before the command: the record is a folder among Ray's logs."""
    old = f"find \"$logs\" -maxdepth 1 -type d -name 'runproj-*' -mtime +{_KEPT} -exec rm -rf {{}} +"
    place = f'"$logs"/{shlex.quote(name)}'
    made = f"mkdir -p -m 700 {place} && rm -rf record && ln -s {place} record || exit 97"
    return f"logs=${{PWD%/runtime_resources/*}}/logs; {old}; {made}; "


def is_packed(api: RayApi, job: RayJob) -> bool:
    """Whether the record is complete."""
    return bool(job.node) and api.has_file(job.node, f"{job.id}/{PACKED}")


def may_go_on(api: RayApi, job: RayJob, grace: float) -> bool:
    """Whether the executor may still live, though Ray has killed the job's own process."""
    stopped = job.status == "STOPPED" and job.code is None and bool(job.node)
    return stopped and time.time() - job.ended < grace + _SETTLE and api.has_file(job.node, f"{job.id}/{HERE}")


def collect(api: RayApi, job: RayJob, into: Path, grace: float) -> None:
    """Bring what there is of a record: all of it, or a picture while it goes on, or what a killed executor left."""
    if not job.node or has_ended(into.parent):
        return
    fresh = into / f".{PACKED}"
    if api.file(job.node, f"{job.id}/{PACKED}", fresh):
        unpack(fresh, into)
    elif job.status == "RUNNING" or may_go_on(api, job, grace):
        picture = into / "snapshot.db"
        if api.file(job.node, f"{job.id}/snapshot.db", fresh) and not (
            picture.exists() and filecmp.cmp(fresh, picture, shallow=False)
        ):
            fresh.replace(picture)
    else:
        for name in ("runproj.db-wal", "runproj.db"):
            if api.file(job.node, f"{job.id}/{name}", fresh):
                fresh.replace(into / name)
    fresh.unlink(missing_ok=True)


def follow(api: RayApi, name: str, stream: str, going_on: Callable[[], bool], grace: float) -> Iterator[bytes]:
    """What the command of a job writes to a stream, until it ends; what it has written where nothing more is wanted."""
    while (job := api.job(name)) is not None and not job.node and going_on():
        time.sleep(_POLL)
    if job is None or not job.node:
        return
    if job.status == "RUNNING" and going_on():
        yield from _live(api, job, stream, grace)
    else:
        yield from api.read(job.node, _log(job, stream))


def _log(job: RayJob, stream: str) -> str:
    return f"{job.id}/{LOGS}/{stream}.log"


def _live(api: RayApi, job: RayJob, stream: str, grace: float) -> Iterator[bytes]:
    """What is written while a job runs.  Ray never ends such an answer: this does, when the job has and nothing more comes."""
    found: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    stopped = threading.Event()

    def read() -> None:
        with contextlib.suppress(BackendError, OSError, ValueError):
            begun = False
            while not begun and not stopped.wait(0.3):  # until there is a log
                for data in api.read(job.node, _log(job, stream), live=True):
                    begun = True
                    found.put(data)
                    if stopped.is_set():
                        return

    threading.Thread(target=read, name="ray log", daemon=True).start()
    ended = False
    try:
        while True:
            try:
                yield found.get(timeout=_POLL)
            except queue.Empty:
                if ended:
                    return
                now = api.job(job.id)
                goes_on = now is not None and (now.status in ("PENDING", "RUNNING") or may_go_on(api, now, grace))
                ended = now is None or not goes_on or is_packed(api, now)
    finally:
        stopped.set()
