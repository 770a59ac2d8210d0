"""One environment on disk: `DIGEST/env`, its manifest, which is written last, and the files that lock it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from runproj import codec
from runproj.core.environment import EnvLock
from runproj.core.values import dataclass
from runproj.environments.editable import Root
from runproj.files import Lock, LockedElsewhere, atomic_write, explained, remove_tree


@dataclass(frozen=True)
class Manifest:
    """What was built.  Its presence says that the environment is complete.

    entries: a digest over the names in site-packages: packages that come or go later are noticed by it.
    roots:   source folders of editable packages, which commands read from the run's own checkout.
    damaged: a thorough check has found files that are not as they were installed.
    """

    digest: str
    lock: EnvLock
    built_at: str
    seconds: float
    entries: str
    roots: tuple[Root, ...] = ()
    damaged: bool = False


class EnvironmentFolder:
    """The places of one environment.  `gate` is held by who builds it, `used` is shared by who runs in it."""

    def __init__(self, envs: Path, digest: str) -> None:
        self.name = digest[:32]  # 128 bits tell environments apart; the path goes into `#!` lines, which are short
        self.root = envs / self.name
        self.environment = self.root / "env"
        self.gate = envs / f"{self.name}.lock"
        self.used = envs / f"{self.name}.used"

    def manifest(self) -> Manifest | None:
        """The manifest, or None where there is no complete environment."""
        try:
            return codec.from_json(Manifest, (self.root / "manifest.json").read_bytes())
        except (OSError, codec.DocumentError):
            return None

    def record(self, manifest: Manifest) -> None:
        """Declare the environment complete."""
        atomic_write(self.root / "manifest.json", codec.to_json(manifest))

    def list_image(self, lock: EnvLock, now: str) -> None:
        """Have an image listed with the environments, and say that it is in use.  There is nothing of it here."""
        if self.manifest() is None:
            with explained(self.root):
                self.root.mkdir(parents=True, exist_ok=True)
                self.record(Manifest(lock.digest, lock, now, 0.0, self.entries()))
        with contextlib.suppress(OSError):
            os.utime(self.used)

    def condemn(self, manifest: Manifest) -> None:
        """Have the next use rebuild it, without pulling it from under those who run in it now."""
        self.record(replace(manifest, damaged=True))

    def stamp(self) -> str:
        """What changes whenever anything is written to a file of the environment: nobody can set back the kernel's `ctime`.

        Python's own caches are left out.
        """
        found = hashlib.sha256()
        for here, folders, names in os.walk(self.environment):
            folders[:] = sorted(name for name in folders if name != "__pycache__")
            for name in sorted(names):
                state = os.lstat(f"{here}/{name}")
                found.update(
                    f"{here}/{name}\0{state.st_ctime_ns} {state.st_size} {state.st_ino}\n".encode(errors="surrogateescape")
                )
        return found.hexdigest()

    def checked(self) -> str:
        """The stamp that the environment had when every file of it was found to be as installed; empty where none was."""
        try:
            return (self.root / "checked").read_text()
        except OSError:
            return ""

    def remember_checked(self, stamp: str) -> None:
        """Files need not be read again while the stamp is the same."""
        if stamp != self.checked():
            atomic_write(self.root / "checked", stamp)

    def clear(self) -> None:
        """Remove the environment.  It stops being one at once: the manifest goes first."""
        with contextlib.suppress(FileNotFoundError):
            (self.root / "manifest.json").unlink()
        remove_tree(self.root)

    def announce(self, descriptor: int) -> None:
        """Write into the gate who builds."""
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)

    def builder(self) -> str:
        """Who builds it."""
        try:
            return self.gate.read_text()
        except OSError:
            return ""

    @contextlib.contextmanager
    def alone(self) -> Iterator[bool]:
        """Whether nobody uses the environment; nobody will while this lasts."""
        before = self.used_time()
        lease = Lock(self.used)
        try:
            lease.acquire(wait=False)
        except LockedElsewhere:
            yield False
            return
        try:
            os.utime(self.used, (before, before))
            yield True
        finally:
            lease.release()

    @contextlib.contextmanager
    def building(self) -> Iterator[None]:
        """Keep builders out.  Raises `LockedElsewhere` where one is at work."""
        lock = Lock(self.gate)
        lock.acquire(wait=False)
        try:
            yield
        finally:
            lock.release()

    def used_time(self) -> float:
        """When it was last used, in seconds since 1970; 0 where it never was."""
        try:
            return self.used.stat().st_mtime
        except OSError:
            return 0.0

    def packages_folder(self) -> Path | None:
        """site-packages."""
        return next(iter(self.environment.glob("lib/python3*/site-packages")), None)

    def entries(self) -> str:
        """A digest over the names in site-packages, caches left out."""
        folder = self.packages_folder()
        names = sorted(name for name in os.listdir(folder) if name != "__pycache__") if folder else []
        return hashlib.sha256("\n".join(names).encode(errors="surrogateescape")).hexdigest()

    def packages(self) -> int:
        """How many distributions are installed."""
        folder = self.packages_folder()
        return len(list(folder.glob("*.dist-info"))) if folder else 0

    def size(self) -> int:
        """Bytes of all files."""
        return sum(_sizes(self.root))


def _sizes(root: Path) -> Iterator[int]:
    for folder, _, files in os.walk(root):
        for name in files:
            with contextlib.suppress(OSError):
                yield Path(folder, name).lstat().st_size
