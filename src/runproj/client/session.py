"""What this process logs to one tracking URI: a spool, a thread that sends it, and an orderly end."""

import atexit
import os
import sys
import threading
import time
from typing import Any, Callable, Dict, List, Optional

from runproj.client import places, spool
from runproj.client.delivery import Delivery, warn
from runproj.client.spool import About, Spool
from runproj.client.values import line
from runproj.client.wire import Away, Server, scrubbed
from runproj.client.worker import Worker

FLUSH_SECONDS = 10.0


class Session:
    """Made by `session_for`; belongs to the process that made it."""

    def __init__(self, uri: str, family: str = "") -> None:
        self.uri = uri
        self.pid = os.getpid()
        self.closed = False
        self.at_end: List[Callable[[], None]] = []
        self._numbers = 0
        self._files = 0
        self._lock = threading.RLock()
        self._warned = False
        inside = places.inside() if uri == places.inside_uri() else ""
        home_uri = os.environ.get("RUNPROJ_TRACKING_URI", "") if inside else ""
        self._root = places.spool_root()
        self.spool = Spool.make(self._root, About(uri, home_uri, family, inside))
        self.worker = Worker(self._connect, lambda server: Delivery(self.spool, server), scrubbed(uri))

    def _connect(self) -> Server:
        return places.connect(self.uri)

    @property
    def family(self) -> str:
        return self.spool.about.family

    def write(self, data: bytes) -> None:
        """Log an event.  Never raises for what a disk or a network can do."""
        journal = self.spool.journal
        journal.append(data)
        if journal.problem is not None and not self._warned:
            self._warned = True
            where = self.spool.folder or self._root
            reason = journal.problem.strerror or str(journal.problem)
            warn(f"{where} cannot be written ({reason}); what is logged is kept in memory until it was sent. See RUNPROJ_SPOOL.")
        self.worker.wake()

    def declare(self, run: Dict[str, Any]) -> int:
        """Introduce a run; returns the number by which events call it."""
        with self._lock:
            self._numbers += 1
            number = self._numbers
        self.spool.declare(number, run)
        self.write(line(["r", number]))
        return number

    def place_for_file(self) -> "tuple[str, str]":
        """A name for a file in the spool, as events call it, and its full path."""
        with self._lock:
            self._files += 1
            name = f"files/{self._files}"
        if not self.spool.folder:
            full = os.path.join(self.spool.scratch(), str(self._files))
            return full, full
        return name, os.path.join(self.spool.folder, name)

    def left(self) -> int:
        """How many events were not sent."""
        journal, delivery = self.spool.journal, self.worker.delivery
        return journal.appended - journal.lost - (delivery.sent if delivery else 0)

    def flush(self, seconds: float, give_up: bool = False) -> bool:
        """Send what was logged so far; whether that could be done in time."""
        target, journal = self.spool.journal.appended, self.spool.journal
        self.worker.wake()

        def sent() -> bool:
            delivery = self.worker.delivery
            return journal.appended == 0 or (delivery is not None and delivery.sent + journal.lost >= target)

        return self.worker.wait(sent, seconds, give_up)

    def id_of(self, number: int, seconds: float) -> str:
        """The server's id of a run; empty where it does not tell in time."""

        self.worker.wait(lambda: bool(self.known_id(number) or self.worker.problem), seconds)
        return self.known_id(number)

    def known_id(self, number: int) -> str:
        """The server's id of a run; empty where it has not told it yet."""
        delivery = self.worker.delivery
        return delivery.id_of(number) if delivery else ""

    def close(self, deadline: float) -> None:
        """End what was begun, send what was logged, for as long as there is time; say what is left."""
        for end in self.at_end:
            end()
        try:
            done = self.flush(max(0.0, deadline - time.monotonic()), give_up=True)
        except KeyboardInterrupt:  # whoever cannot wait need not
            done = False
        self.closed = True
        self.worker.stop()
        left = self.left()
        if done and left <= 0:
            self._send_of_children(deadline)
            self.spool.finish()
            return
        journal = self.spool.journal
        why = f" ({self.worker.problem})" if self.worker.problem else ""
        if journal.in_memory or journal.lost:
            warn(f"{journal.in_memory + journal.lost} events are lost: neither {scrubbed(self.uri)}{why} nor the disk took them")
        if left > journal.in_memory:
            events = "1 event was" if left == 1 else f"{left} events were"
            warn(
                f"{events} not sent to {scrubbed(self.uri)}{why}; they are kept in {self.spool.folder},"
                " and `runproj sync` sends them"
            )
        self.spool.release()

    def _send_of_children(self, deadline: float) -> None:
        """Forks that ended without a chance to send leave it to us."""
        delivery = self.worker.delivery
        if delivery is None:
            return
        for folder in spool.waiting(self._root):
            about = spool.read_json(os.path.join(folder, "about.json")) or {}
            if about.get("family") != self.family or folder == self.spool.folder:
                continue
            left = Spool.take(folder)
            if left is None:
                continue
            try:
                child = Delivery(left, delivery.server)
                while time.monotonic() < deadline and child.step():
                    pass
                if left.journal.unsent() or left.shared(but=self.spool.folder):
                    left.release()
                else:
                    child.close_lost_runs()
                    left.finish()
            except Away:
                left.release()


class _Sessions:
    """Those of this process.  A child of a fork starts anew, and remembers whose child it is."""

    def __init__(self, families: Optional[Dict[str, str]] = None) -> None:
        self.pid = os.getpid()
        self.lock = threading.RLock()
        self.by_uri: Dict[str, Session] = {}
        self.families = families or {}
        self.registered = False
        self.ending = False


_state = _Sessions()


def _current() -> _Sessions:
    global _state
    if _state.pid != os.getpid():
        families = dict(_state.families, **{uri: session.family for uri, session in _state.by_uri.items()})
        for session in _state.by_uri.values():
            session.spool.forget()
        _state = _Sessions(families)
    return _state


def session_for(uri: str) -> Session:
    """This process's session with a tracking URI."""
    state = _current()
    with state.lock:
        if uri not in state.by_uri:
            state.by_uri[uri] = Session(uri, state.families.get(uri, ""))
        if not state.registered:
            state.registered = True
            _at_end()
        return state.by_uri[uri]


def process_lock() -> "threading.RLock":
    """Held while something is begun of which a process has one."""
    return _current().lock


def ending() -> bool:
    """Whether this process has closed its sessions: what is begun now would never be ended."""
    return _current().ending


def sessions() -> List[Session]:
    return list(_current().by_uri.values())


def _at_end() -> None:
    atexit.register(close_all, os.getpid())
    processes = sys.modules.get("multiprocessing.process")
    if processes is not None and getattr(processes.current_process(), "_parent_pid", None) is not None:
        from multiprocessing.util import Finalize

        Finalize(None, close_all, args=(os.getpid(),), exitpriority=1)  # these processes end without atexit


def close_all(pid: int) -> None:
    """Close every session of this process."""
    if pid != os.getpid():
        return
    try:
        seconds = float(os.environ.get("RUNPROJ_FLUSH_SECONDS", FLUSH_SECONDS))
    except ValueError:
        seconds = FLUSH_SECONDS
    deadline = time.monotonic() + seconds
    state = _current()
    state.ending = True
    while state.by_uri:
        _, session = state.by_uri.popitem()
        session.close(deadline)
