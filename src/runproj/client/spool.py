"""A folder that keeps what one process logged until it was sent.  Its owner holds a lock on it, which falls when the owner dies.

about.json       where it is to be sent, and whose it is
events-N.jsonl   what was logged; `sent` says up to where it was sent
runs/            the runs it speaks of: N.json as declared, N.id as the server knows it, N.ended
files/           copies of what was logged as artifacts
refused.jsonl    what the server refused
"""

import fcntl
import json
import os
import sys
import time
from typing import Any, Dict, List, NamedTuple, Optional

from runproj.client.journal import Journal

REFUSED = "refused-"
"""Beginning of the name of a spool of which only what was refused is left."""
_PATIENCE = 3600.0
"""Seconds after which a spool that is still being made is no longer."""


class About(NamedTuple):
    """What a spool says of itself.

    uri:      where its owner sends it; home_uri: where that leads in the end, inside a run whose server is gone with it.
    family:   the spool of the process that this one's owner was forked from, or its own name.
    run:      the run of runproj that its owner belonged to; how that ends is not for it to say.
    """

    uri: str
    home_uri: str
    family: str
    run: str = ""


class Spool:
    """Use `Spool.make` or `Spool.take`."""

    def __init__(self, folder: str, about: About, lock: Optional[int], problem: Optional[OSError] = None) -> None:
        self.folder = folder
        self.about = about
        self.journal = Journal(folder, problem)
        self.undeclared: Dict[int, Any] = {}
        self.making: Dict[str, str] = {}  # experiments of runs that the server was asked to make; a full disk may not know them
        self._lock = lock
        self._scratch = ""

    @classmethod
    def make(cls, root: str, about: About) -> "Spool":
        """A new one, held by this process.  Without a folder where none can be made."""
        name = f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{os.getpid()}-{os.urandom(4).hex()}"
        about = about._replace(family=about.family or name)
        fresh = os.path.join(root, ".new-" + name)
        try:
            for _ in range(2):  # somebody may remove the empty root right now
                os.makedirs(root, 0o700, exist_ok=True)
                try:
                    os.mkdir(fresh, 0o700)
                    break
                except FileNotFoundError:
                    continue
            os.mkdir(os.path.join(fresh, "runs"), 0o700)
            os.mkdir(os.path.join(fresh, "files"), 0o700)
            lock = _locked(fresh)
            host, python = os.uname().nodename, sys.version.split()[0]
            write_json(os.path.join(fresh, "about.json"), dict(about._asdict(), pid=os.getpid(), host=host, python=python))
            os.rename(fresh, os.path.join(root, name))
        except OSError as error:
            _remove(fresh)
            return cls("", about, None, error)
        return cls(os.path.join(root, name), about, lock)

    @classmethod
    def take(cls, folder: str) -> "Optional[Spool]":
        """One that was left behind, held by this process from now on; None where its owner lives, or it is gone."""
        lock = _locked(folder)
        if lock is None:
            time.sleep(0.02)  # somebody may just be looking whether it is held
            lock = _locked(folder)
        if lock is None:
            return None
        about = read_json(os.path.join(folder, "about.json"))
        if about is None:
            os.close(lock)
            return None
        return cls(folder, About(*(str(about.get(field, "")) for field in About._fields)), lock)

    # the runs that its events speak of

    def declare(self, number: int, run: Dict[str, Any]) -> bool:
        """Say what the run that events call `number` is; whether that could be written."""
        written = self._noted(f"{number}.json", run)
        if not written:
            self.undeclared[number] = run
        return written

    def declared(self) -> List[int]:
        try:
            names = os.listdir(os.path.join(self.folder, "runs"))
        except OSError:
            return []
        return sorted(int(name[:-5]) for name in names if name.endswith(".json"))

    def note(self, number: int, what: str, value: object) -> None:
        """Remember something of a run: `id`, `creating`, `ended`."""
        self._noted(f"{number}.{what}", value)

    def noted(self, number: int, what: str) -> Any:
        return read_json(os.path.join(self.folder, "runs", f"{number}.{what}")) if self.folder else None

    def _noted(self, name: str, value: object) -> bool:
        if not self.folder:
            return False
        try:
            write_json(os.path.join(self.folder, "runs", name), value)
        except OSError as error:
            self.journal.problem = error
            return False
        return True

    def scratch(self) -> str:
        """A folder for files that are being made ready."""
        if not self.folder and not self._scratch:
            import tempfile

            self._scratch = tempfile.mkdtemp(prefix="runproj-")
        return os.path.join(self.folder, "files") if self.folder else self._scratch

    def shared(self, but: str = "") -> bool:
        """Whether a process of the same family, besides the owner of the spool `but`, may still log into its runs."""
        for folder in waiting(os.path.dirname(self.folder)):
            about = read_json(os.path.join(folder, "about.json")) or {}
            if folder not in (self.folder, but) and about.get("family") == self.about.family and held(folder):
                return True
        return False

    # what the server refused

    def refuse(self, line: bytes, why: str) -> None:
        """Set an event aside."""
        if not self.folder:
            return
        try:
            with open(os.path.join(self.folder, "refused.jsonl"), "ab") as file:
                file.write(json.dumps({"event": line.decode(errors="replace"), "why": why}).encode() + b"\n")
        except OSError as error:
            self.journal.problem = error

    @property
    def has_refused(self) -> bool:
        return bool(self.folder) and os.path.exists(os.path.join(self.folder, "refused.jsonl"))

    def finish(self) -> None:
        """Everything was sent: remove it.  What was refused is kept, as a folder that nothing is sent from any more."""
        if self.folder and self.has_refused:
            parent, name = os.path.split(self.folder)
            try:
                os.rename(self.folder, os.path.join(parent, REFUSED + name))
            except OSError:
                pass
        elif self.folder:
            _remove(_hidden(self.folder))
        elif self._scratch:
            _remove(self._scratch)
        self.release()

    def release(self) -> None:
        """Let go of it, and leave it to `runproj sync`."""
        self.journal.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def forget(self) -> None:
        """In a child of a fork: it is the parent's.  Closing the copies of its files leaves its lock alone."""
        self.release()


def put_back(root: str) -> None:
    """Make events of what was refused once more, in all spools of a folder, so that they are sent again."""
    for name in _names(root):
        path = os.path.join(root, name)
        if name.startswith("run-"):
            put_back(path)
        lock = _locked(path) if name.startswith(REFUSED) else None
        if lock is None:
            continue
        try:
            with open(os.path.join(path, "refused.jsonl")) as file:
                events = [json.loads(entry)["event"] for entry in file]
            Journal(path).add_file("".join(event + "\n" for event in events).encode())
            os.unlink(os.path.join(path, "refused.jsonl"))
            os.rename(path, os.path.join(root, name[len(REFUSED) :]))
        except (OSError, ValueError, KeyError):
            pass  # somebody has looked after it already
        os.close(lock)


def waiting(root: str) -> List[str]:
    """The spools in a folder, oldest first, and those of runs in its `run-…` folders, whether their owners live or not."""
    found = []
    for name in _names(root):
        if name.startswith("run-"):
            found += [os.path.join(root, name, inner) for inner in _names(os.path.join(root, name)) if _is_spool(inner)]
        elif _is_spool(name):
            found.append(os.path.join(root, name))
    return sorted(found, key=os.path.basename)


def held(folder: str) -> bool:
    """Whether a living process owns the spool."""
    lock = _locked(folder)
    if lock is not None:
        os.close(lock)
    return lock is None and os.path.isdir(folder)


def sweep(root: str) -> None:
    """Remove spools whose making or removal was cut short, and folders of runs that hold nothing any more."""
    for name in _names(root):
        path = os.path.join(root, name)
        if name.startswith((".new-", ".gone-")) and _age(path) > _PATIENCE:
            _remove(path)
        elif name.startswith("run-"):
            sweep(path)
            try:
                os.rmdir(path)
            except OSError:
                pass


def _hidden(folder: str) -> str:
    """Take a spool out of sight: whoever looks whether it is held makes a lock in it, and it could not be removed."""
    parent, name = os.path.split(folder)
    hidden = os.path.join(parent, ".gone-" + name)
    try:
        os.rename(folder, hidden)
    except OSError:
        return folder
    return hidden


def _remove(folder: str) -> None:
    import shutil

    shutil.rmtree(folder, ignore_errors=True)


def _age(path: str) -> float:
    try:
        return time.time() - os.stat(path).st_mtime
    except OSError:
        return 0.0


def _is_spool(name: str) -> bool:
    return not name.startswith((".", REFUSED, "run-"))


def _names(folder: str) -> List[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _locked(folder: str) -> Optional[int]:
    """The locked file of a spool; None where somebody else holds it, or it is gone."""
    path = os.path.join(folder, "lock")
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(descriptor), os.stat(path)):
            return descriptor
    except OSError:
        pass
    os.close(descriptor)
    return None


def write_json(path: str, value: object) -> None:
    """Replace a small file; a reader sees the old or the new."""
    fresh = f"{path}.{os.getpid()}.tmp"
    with open(fresh, "w") as file:
        os.chmod(fresh, 0o600)
        json.dump(value, file)
    os.rename(fresh, path)


def read_json(path: str) -> Any:
    """What a small file says; None where there is none, or none that makes sense."""
    try:
        with open(path) as file:
            return json.load(file)
    except (OSError, ValueError):
        return None
