"""The thread that sends what is logged, while the training goes on."""

import os
import threading
import time
from typing import Callable, List, Optional

from runproj.client.delivery import Delivery, warn
from runproj.client.wire import Away, Server

_GATHER = 0.2
"""Seconds in which events gather, so that they share a request."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 30.0
_SILENCE = 30.0
"""Seconds without an answer after which the user is told."""


_loading = threading.RLock()
"""Held while modules are loaded: a child that was forked in the middle of that could never load them."""
_held: List[bool] = []


def _before_fork() -> None:
    _held.append(_loading.acquire(timeout=10))


def _after_fork() -> None:
    if _held.pop():
        _loading.release()


if hasattr(os, "register_at_fork"):  # Python 3.7
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)


class Worker:
    """Started by the first event.  The server is made in the thread: what it needs is loaded there."""

    def __init__(self, connect: Callable[[], Server], delivery: Callable[[Server], Delivery], where: str) -> None:
        self._connect = connect
        self._make = delivery
        self._where = where
        self.delivery: Optional[Delivery] = None
        self.problem = ""
        self._reached = False
        self._heard = time.monotonic()
        self._attempts = 0
        self._something = threading.Event()
        self._hurry = threading.Event()
        self._changed = threading.Condition()
        self._stopped = False
        self._thread: Optional[threading.Thread] = None
        self._starting = threading.Lock()

    def wake(self) -> None:
        """There is something to send."""
        if not self._something.is_set():
            self._something.set()
        if self._thread is None:
            self._start()

    def _start(self) -> None:
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="runproj-sender", daemon=True)
                try:
                    self._thread.start()
                except RuntimeError:  # the interpreter is ending: `stop` sends what there is
                    pass

    def _work(self) -> None:
        pause, told = _FIRST_PAUSE, False
        while not self._stopped:
            self._something.wait()
            self._hurry.wait(_GATHER)
            self._something.clear()
            hurried, before = self._hurry.is_set(), self._heard
            if self.attempt():
                pause, told = _FIRST_PAUSE, False
                if hurried:
                    self._hurry.clear()
                continue
            self._something.set()
            if self._heard > before:
                pause = _FIRST_PAUSE
            if time.monotonic() - self._heard > _SILENCE and not told:
                told = True
                warn(f"{self._where} cannot be reached ({self.problem}); what is logged is kept, and sent when it can be")
            time.sleep(min(pause, 0.05))
            self._hurry.clear()
            self._hurry.wait(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    def attempt(self) -> bool:
        """Send everything there is; whether that could be done."""
        try:
            if self.delivery is None:
                with _loading:
                    import urllib.request  # noqa: F401

                    server = self._connect()
                self.delivery = self._make(server)
            while not self._stopped and self.delivery.step():
                self._reached, self._heard = True, time.monotonic()
                self._tell()
            self.problem = ""
            return True
        except Away as error:
            self.problem = str(error)
        except Exception as bug:
            self.problem = f"{type(bug).__name__}: {bug}"
            warn(f"sending failed ({self.problem}); what is logged is kept")
        finally:
            self._attempts += 1
            self._tell()
        return False

    def _tell(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def wait(self, until: Callable[[], bool], seconds: float, give_up: bool = False) -> bool:
        """Wait until something is so, while events are sent at once.

        give_up: not for a server that has never been reached, and is not reached now.
        """
        deadline = time.monotonic() + seconds
        attempts = self._attempts
        while not until():
            self._hurry.set()
            if self._thread is None or not self._thread.is_alive():
                self.attempt()
            left = deadline - time.monotonic()
            if left <= 0 or (give_up and not self._reached and self._attempts > attempts + 1 and self.problem):
                return until()
            with self._changed:
                self._changed.wait(min(left, 0.05))
        return True

    def stop(self) -> None:
        """No further attempts."""
        self._stopped = True
        self._something.set()
        self._hurry.set()
