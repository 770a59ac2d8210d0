"""Several processes on one listening socket: started, started again when they die, and stopped together."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Protocol

from runproj.errors import StartError

_QUICK = 5.0  # seconds: a process that dies sooner has not been of any use
_PATIENCE = 5  # of those in a row
_STOP_SECONDS = 40


class Process(Protocol):
    """A process that was started."""

    pid: int

    def poll(self) -> int | None: ...

    def wait(self, timeout: float | None = None) -> int: ...

    def kill(self) -> None: ...


class Workers:
    """`count` processes, each made by `start`."""

    def __init__(self, count: int, start: Callable[[], Process], note: Callable[[str], None]) -> None:
        self._start = start
        self._note = note
        self._count = count
        self._running: dict[Process, float] = {}
        self._deaths = 0

    def run(self) -> None:
        """Keep them running until this process is told to stop.  Raises `StartError` where they do not stay alive."""
        try:
            while True:
                while len(self._running) < self._count:
                    self._running[self._start()] = time.monotonic()
                time.sleep(0.2)
                self._look()
        finally:
            self.stop()

    def _look(self) -> None:
        for process, since in list(self._running.items()):
            code = process.poll()
            if code is None:
                continue
            del self._running[process]
            self._note(f"The worker {process.pid} ended with {code}; another is started.")
            self._deaths = self._deaths + 1 if time.monotonic() - since < _QUICK else 0
            if self._deaths >= _PATIENCE:
                raise StartError("The workers of the server end as soon as they are started", fix="Look at what they said above.")

    def stop(self) -> None:
        """Tell them to answer what has arrived and end; those that do not are killed."""
        for process in self._running:
            if process.poll() is None:
                os.kill(process.pid, signal.SIGTERM)
        deadline = time.monotonic() + _STOP_SECONDS
        for process in self._running:
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except Exception:
                process.kill()
                process.wait()
        self._running.clear()
