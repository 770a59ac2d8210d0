"""Who is working on which run: a locked file per run that is not over.  The lock falls when its holder dies.

`active/<token>.json` is written and locked before the run is recorded anywhere, and removed after its final state is stored.
A lease whose lock is free therefore names a run that somebody must close, and all that is known about it.

Unless it says where its job is (`handle`): then an engine runs the job, maybe on another machine, and nobody here holds the
lock but for the moment in which it looks what has become of it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from runproj import proc
from runproj.codec import DocumentError, from_json, to_json
from runproj.core.backend import JobHandle
from runproj.core.values import dataclass
from runproj.errors import NotFoundError
from runproj.files import Lock, LockedElsewhere, atomic_write

BEAT = 10.0
"""Seconds between signs of life."""
EXPIRY = 45.0
"""Seconds without a sign of life after which a lease of another machine counts as lost (its lock may not reach us)."""

_BALLAST = 256 * 1024
_MODE = 0o600  # a tracking URI may hold a password


@dataclass(frozen=True)
class LeaseInfo:
    """What the next command needs to know to close a run.  `run_id` is empty until the run is recorded."""

    token: str
    host: str
    process: proc.ProcessId
    tracking_uri: str
    run_id: str = ""
    folder: str = ""
    handle: JobHandle | None = None


class Lease:
    """Held by the process that owns a run."""

    def __init__(self, folder: Path, info: LeaseInfo, lock: Lock) -> None:
        self._folder = folder
        self.info = info
        self._lock = lock
        self._stop = threading.Event()

    @property
    def path(self) -> Path:
        return self._folder / f"{self.info.token}.json"

    @property
    def descriptor(self) -> int:
        """The locked file; a process that inherits it holds the lease too."""
        return self._lock.descriptor

    def update(self, *, run_id: str, folder: Path) -> None:
        """Say which run it is, now that it has been recorded."""
        self.info = replace(self.info, run_id=run_id, folder=str(folder))
        atomic_write(self.path, to_json(self.info), mode=_MODE)

    def intend(self, handle: JobHandle) -> None:
        """Say to which engine the job is about to be given; from now on it is the engine that knows what becomes of it."""
        self.info = replace(self.info, handle=handle)
        atomic_write(self.path, to_json(self.info), mode=_MODE)

    def place(self, handle: JobHandle) -> None:
        """Say where the job is, and let go."""
        self.free_ballast()
        self.intend(handle)
        self.hand_over()

    def beat(self) -> None:
        """Give signs of life in the background until the lease ends."""
        threading.Thread(target=self._beat, name="heartbeat", daemon=True).start()

    def _beat(self) -> None:
        while not self._stop.wait(BEAT):
            with contextlib.suppress(OSError):
                os.utime(self.path)

    def free_ballast(self) -> None:
        """Give back the space that was set aside, so that a final state can be stored on a full disk."""
        self.path.with_suffix(".ballast").unlink(missing_ok=True)

    def end(self) -> None:
        """The run's final state is stored: nobody needs to look after it any more."""
        self._stop.set()
        self.free_ballast()
        self.path.unlink(missing_ok=True)
        self.path.with_suffix(".lock").unlink(missing_ok=True)
        self._lock.release()

    def hand_over(self) -> None:
        """A process that inherited the descriptor has taken over: let go without a gap."""
        self._stop.set()
        self._lock.release()

    def abandon(self) -> None:
        """Let go without the final state being stored; the next command will close the run."""
        self._stop.set()
        self._lock.release()


class Leases:
    """The leases of one home folder, and those that this process holds."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._mine: dict[str, Lease] = {}

    def take(self, token: str, tracking_uri: str) -> Lease:
        """Take the lease of a new run."""
        lock = Lock(self.folder / f"{token}.lock")
        lock.acquire()
        info = LeaseInfo(token, socket.gethostname(), proc.identify(os.getpid()), tracking_uri)
        lease = self._mine[token] = Lease(self.folder, info, lock)
        atomic_write(lease.path, to_json(info), mode=_MODE)
        with contextlib.suppress(OSError), lease.path.with_suffix(".ballast").open("wb") as ballast:
            os.posix_fallocate(ballast.fileno(), 0, _BALLAST)
        return lease

    @contextlib.contextmanager
    def alone(self, name: str) -> Iterator[None]:
        """Nobody else of this home does what is named so at the same time; who comes later waits."""
        lock = Lock(self.folder / f"{name}.lock")
        lock.acquire()
        try:
            yield
        finally:
            lock.path.unlink(missing_ok=True)
            lock.release()

    def inherit(self, token: str, descriptor: int) -> Lease:
        """Take over the lease whose locked `descriptor` the process that started us passed on."""
        info = replace(self.read(token), process=proc.identify(os.getpid()))
        lease = self._mine[token] = Lease(self.folder, info, Lock(self.folder / f"{token}.lock", descriptor))
        atomic_write(lease.path, to_json(info), mode=_MODE)
        return lease

    def mine(self, token: str) -> Lease:
        """A lease that this process holds.  Raises `NotFoundError`."""
        if token not in self._mine:
            raise NotFoundError(f"This process holds no lease {token}")
        return self._mine[token]

    def read(self, token: str) -> LeaseInfo:
        """What a lease says.  Raises `NotFoundError` where it has ended."""
        try:
            return from_json(LeaseInfo, (self.folder / f"{token}.json").read_bytes())
        except FileNotFoundError:
            raise NotFoundError(f"There is no lease {token}") from None

    @property
    def empty(self) -> bool:
        """True where nobody works on any run, and nobody who did left anything."""
        return not self.folder.is_dir() or not os.listdir(self.folder)

    def all(self) -> list[LeaseInfo]:
        """Every lease of this home, its holder alive or not."""
        found = []
        for path in self._paths():
            with contextlib.suppress(NotFoundError, DocumentError):
                found.append(self.read(path.stem))
        return found

    def orphans(self) -> Iterator[Lease]:
        """Leases whose holder is gone, each locked for the caller, who ends it when its run is closed."""
        for path in self._paths():
            try:
                info = self.read(path.stem)
                silence = time.time() - path.stat().st_mtime
            except (FileNotFoundError, NotFoundError):
                continue
            except DocumentError:  # written by a version we do not know: not ours to close
                continue
            if info.handle is not None or (info.host != socket.gethostname() and silence < EXPIRY):
                continue
            lock = Lock(path.with_suffix(".lock"))
            try:
                lock.acquire(wait=False)
            except LockedElsewhere:
                continue
            if path.exists():
                yield Lease(self.folder, info, lock)
            else:  # ended between our look and our lock
                lock.path.unlink(missing_ok=True)
                lock.release()
        self._sweep()

    def seize(self, token: str) -> Lease | None:
        """The lease of a job that is elsewhere, locked for the caller; None where somebody else has it, or it has ended."""
        lock = Lock(self.folder / f"{token}.lock")
        try:
            lock.acquire(wait=False)
        except LockedElsewhere:
            return None
        try:
            return Lease(self.folder, self.read(token), lock)
        except NotFoundError:
            lock.path.unlink(missing_ok=True)
            lock.release()
            return None

    def _sweep(self) -> None:
        """Remove what holders left that were killed while they took or ended a lease."""
        names = os.listdir(self.folder) if self.folder.is_dir() else []
        leases = {name.removesuffix(".json") for name in names if name.endswith(".json") and not name.startswith(".")}
        for token in {name.lstrip(".").split(".")[0] for name in names} - leases:
            lock = Lock(self.folder / f"{token}.lock")
            with contextlib.suppress(LockedElsewhere):
                lock.acquire(wait=False)
                if not (self.folder / f"{token}.json").exists():
                    for name in names:
                        if name.lstrip(".").startswith(token):
                            (self.folder / name).unlink(missing_ok=True)
                    lock.path.unlink(missing_ok=True)
                lock.release()

    def _paths(self) -> list[Path]:
        return sorted(self.folder.glob("*.json")) if self.folder.is_dir() else []
