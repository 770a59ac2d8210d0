"""Where trials run; and the processes that run them on this machine: each takes one trial at a time, and is started once."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from runproj import proc
from runproj.codec import from_json, to_json
from runproj.core.backend import JobHandle
from runproj.core.services import Services
from runproj.errors import NotFoundError
from runproj.supervise import Deferred
from runproj.sweeps.worker import Answer, Order

_STALLED = 120.0
"""Seconds that a process that was told to end is waited for before it is killed; its trial's own grace is shorter."""


@dataclass
class _Worker:
    process: subprocess.Popen[bytes]
    number: int | None = None
    buffer: bytes = b""


class Pool(Protocol):
    """Runs trials, many at a time."""

    @property
    def free(self) -> int:
        """How many trials it takes now."""

    @property
    def running(self) -> Sequence[int]:
        """Numbers of trials that were begun and have not ended."""

    @property
    def waiting(self) -> Sequence[int]:
        """Those of them that have not started yet."""

    def start(self, orders: Sequence[Order]) -> None:
        """Begin trials."""

    def wait(self, patience: float) -> None:
        """Return when there may be answers, or after so many seconds.  An interruption here loses nothing."""

    def answers(self) -> Iterator[Answer]:
        """What has become of trials since the last time."""

    def cancel(self, run_id: str) -> None:
        """Have one trial stopped, which is answered when it has ended."""

    def stop(self, deferred: Deferred) -> Iterator[Answer]:
        """Stop every trial and tell what became of it; a Ctrl-C meanwhile does not wait for their grace."""

    def close(self) -> None:
        """Let go of everything, when nothing runs any more."""


class Workers:
    """Up to `size` processes of this machine.  `folder` holds the plan that all trials share."""

    def __init__(self, folder: Path, use: Services, size: int) -> None:
        self._folder, self._use, self._size = folder, use, size
        self._workers: list[_Worker] = []
        self._selector = selectors.DefaultSelector()

    @property
    def free(self) -> int:
        return self._size - len(self.running)

    @property
    def running(self) -> list[int]:
        return [worker.number for worker in self._workers if worker.number is not None]

    @property
    def waiting(self) -> tuple[int, ...]:
        return ()

    def start(self, orders: Sequence[Order]) -> None:
        for order in orders:
            self._start(order)

    def _start(self, order: Order) -> None:
        """Have a process that is free run a trial."""
        worker = next((one for one in self._workers if one.number is None), None) or self._hire()
        worker.number = order.number
        assert worker.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it is gone, which its output will tell
            worker.process.stdin.write(to_json(order).encode() + b"\n")
            worker.process.stdin.flush()

    def _hire(self) -> _Worker:
        command = [sys.executable, "-m", "runproj.cli.main", "sweep-worker", str(self._folder / "plan.json")]
        environment = {**os.environ, "RUNPROJ_HOME": str(self._use.home)}
        process = proc.converse(command, cwd=self._folder, env=environment, log=self._folder / "workers.log")
        worker = _Worker(process)
        assert process.stdout is not None
        os.set_blocking(process.stdout.fileno(), False)
        self._selector.register(process.stdout, selectors.EVENT_READ, worker)
        self._workers.append(worker)
        return worker

    def wait(self, patience: float) -> None:
        self._selector.select(patience)

    def answers(self) -> Iterator[Answer]:
        """What the processes have said.  One that vanished has ended its trial, with an error."""
        for key, _ in self._selector.select(0):
            worker: _Worker = key.data
            assert worker.process.stdout is not None
            data = worker.process.stdout.read()
            if data == b"":
                self._selector.unregister(worker.process.stdout)
                self._workers.remove(worker)
                worker.process.wait()
                if worker.number is not None:
                    yield Answer(worker.number, ended=True, error="its process vanished")
                continue
            *lines, worker.buffer = (worker.buffer + (data or b"")).split(b"\n")
            for line in lines:
                answer = from_json(Answer, line)
                if answer.ended:
                    worker.number = None
                yield answer

    def cancel(self, run_id: str) -> None:
        with contextlib.suppress(NotFoundError):
            self._use.backends.open("local").cancel(JobHandle("local", run_id, run_id=run_id))

    def _hurry(self) -> None:
        """Have every trial that is being stopped be killed."""
        proc.send([one.process.pid for one in self._workers if one.number is not None], signal.SIGINT)

    def stop(self, deferred: Deferred) -> Iterator[Answer]:
        for worker in self._workers:  # the end of its orders is what stops a worker, with its trial or before it
            assert worker.process.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                worker.process.stdin.close()
        deadline = time.monotonic() + _STALLED
        while self.running:
            try:
                with deferred.lifted():
                    self.wait(0.5)
            except KeyboardInterrupt:
                self._hurry()
                deadline = min(deadline, time.monotonic() + 10)
            yield from self.answers()
            if time.monotonic() > deadline:
                proc.send([worker.process.pid for worker in self._workers], signal.SIGKILL)

    def close(self) -> None:
        for worker in self._workers:
            for pipe in (worker.process.stdin, worker.process.stdout):
                assert pipe is not None
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        for worker in self._workers:
            try:
                worker.process.wait(10)
            except subprocess.TimeoutExpired:
                worker.process.kill()
                worker.process.wait()
        self._workers.clear()
        self._selector.close()
