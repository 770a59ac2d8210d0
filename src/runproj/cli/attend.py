"""Waiting for a job that is elsewhere as if it were here: its output comes to the terminal, and Ctrl-C stops it."""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from runproj.cli import output
from runproj.errors import Interrupted, RunprojError

if TYPE_CHECKING:
    from runproj.core.backend import Backend, JobHandle
    from runproj.core.run import Run
    from runproj.wiring import Wiring

_LAST_WORDS = 10.0
"""Seconds that the end of the output is waited for once the run has ended."""


def attend(run: Run, wiring: Wiring) -> Run:
    """Return the run when it has ended.  A first Ctrl-C stops it; a second one leaves it alone."""
    from runproj.runner import handle_of

    use = wiring.services()
    handle = handle_of(run)
    backend = wiring.backends.open(handle.backend)
    wanted = [(stream, target) for stream, target in zip(("stdout", "stderr"), use.tee, strict=True) if target is not None]
    readers = [_Reader(backend, handle, stream, target) for stream, target in wanted]
    told: set[str] = set()
    asked = False
    while not run.over:
        try:
            run = _step(run, wiring, told)
        except (Interrupted, KeyboardInterrupt):
            if asked:
                output.say(f"It is left to itself: runproj runs show {run.id[:8]}")
                raise
            asked = True
            output.say(f"Stopping {output.clean(run.name)} ({run.id[:8]}) …  (Ctrl-C again to leave it alone)")
            wiring.cancel(run)
    for reader in readers:
        reader.join(_LAST_WORDS)
        reader.rest(run, wiring)
    return run


def _step(run: Run, wiring: Wiring, told: set[str]) -> Run:
    """Look once, and say what a job waits for."""
    from runproj.core.run import TagName
    from runproj.runner import follow

    run = follow(run, wiring.services(), time.monotonic() + 1)
    waits = run.tag(TagName.WAITS)
    if waits and waits not in told:
        told.add(waits)
        wiring.reporter.note(f"It waits: {waits}")
    return run


class _Reader(threading.Thread):
    """Copies a stream of the job to a descriptor of ours."""

    def __init__(self, backend: Backend, handle: JobHandle, stream: str, target: int) -> None:
        super().__init__(name=f"follow {stream}", daemon=True)
        self._backend, self._handle, self._stream, self._target = backend, handle, stream, target
        self._size = 0
        self._turn, self._done = threading.Lock(), False
        self.start()

    def run(self) -> None:
        with contextlib.suppress(RunprojError, OSError):
            for data in self._backend.logs(self._handle, stream=self._stream, follow=True):
                with self._turn:
                    if self._done:
                        return
                    self._write(data)

    def rest(self, run: Run, wiring: Wiring) -> None:
        """What was not seen while the job ran: a short one has ended before anybody could look."""
        with self._turn:  # a reader that lags goes no further
            self._done = True
        with tempfile.TemporaryDirectory() as folder, contextlib.suppress(RunprojError, OSError):
            path = Path(folder) / "log"
            wiring.artifacts.get(run, f"logs/{self._stream}.log", path)
            with path.open("rb") as file:
                file.seek(self._size)
                while data := file.read(1 << 20):
                    self._write(data)

    def _write(self, data: bytes) -> None:
        self._size += len(data)
        while data:
            data = data[os.write(self._target, data) :]
