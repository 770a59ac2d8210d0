"""Run a project's command: output streamed and stored byte for byte, signals, timeout, exit code, nothing left behind."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from runproj import proc
from runproj.core.values import dataclass
from runproj.errors import StartError
from runproj.logs import LogWriter

_READ = 1 << 20
_F_SETPIPE_SZ = 1031


@dataclass(frozen=True)
class Ending:
    """How a command ended.

    code:    exit code; 128+n for signal n, as a shell says it.
    signal:  the signal that ended it, if one did.
    stopped: the signal with which the user stopped the run, if they did.
    leftovers: processes that the command left running, and which were ended.
    cpu, memory: seconds and peak bytes of the command's own process and the children it waited for.
    memory_ran_out: it was killed because it used more memory than it may.
    failed:   why it never ran, or why it is not known how it ended, in the words of who was to run it.
    """

    code: int
    signal: int | None = None
    stopped: int | None = None
    timed_out: bool = False
    error: int | None = None
    leftovers: int = 0
    cpu: float = 0.0
    memory: int = 0
    memory_ran_out: bool = False
    failed: str = ""


@dataclass(frozen=True)
class CommandSpec:
    """What to run.  `timeout` and `grace` in seconds.

    guard: the script that runs it and sees to its end;  `keep`: descriptors that it inherits.
    tracer: words that come before those of the guard: a program that looks on.
    told:    who sends SIGTERM to us sends it to all processes below us too: they are not to hear it twice; WORDS come to us.
    lingers: the guard has something to clear away when all is said; who does not want to wait for that calls `settle` later.
    """

    argv: Sequence[str]
    cwd: Path
    env: Mapping[str, str]
    timeout: float | None = None
    grace: float = 10.0
    guard: str = "guard.py"
    keep: tuple[int, ...] = ()
    tracer: tuple[str, ...] = ()
    lingers: bool = False
    told: bool = False


_Handler = Callable[[int, FrameType | None], object]


WORDS = (signal.SIGUSR1, signal.SIGUSR2)
"""Signals that end nothing, but tell a command that listens to them something: an engine's, that time will be over soon."""


def _handle(handler: _Handler, more: Sequence[int] = ()) -> dict[int, _Handler | int | None]:
    """Have `handler` take what asks this process to end, but for what it was told to ignore (nohup); the handlers before."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, *more)
    return {number: signal.signal(number, handler) for number in numbers if signal.getsignal(number) is not signal.SIG_IGN}


class Deferred:
    """SIGINT, SIGTERM and SIGHUP wait until the block has ended, but for parts of it that lift this.

    Blocking them in this thread would not do: another thread would be given them, and Python runs handlers in this one.
    """

    def __enter__(self) -> Deferred:
        self._received: list[int] = []
        self._before = _handle(lambda number, _: self._received.append(number))
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        while self._received:
            signal.raise_signal(self._received.pop(0))

    @contextlib.contextmanager
    def lifted(self) -> Iterator[None]:
        """Signals interrupt this part as usual."""
        try:
            self._restore()  # may raise at once what has waited; then, too, the rest is deferred again
            yield
        finally:
            _handle(lambda number, _: self._received.append(number))


class _Signals:
    """While a command runs, SIGINT, SIGTERM and SIGHUP, and `words`, are collected here instead of interrupting the executor."""

    def __init__(self, words: Sequence[int]) -> None:
        self.words = words
        self.received: list[int] = []
        self.pipe, self._write = os.pipe()

    def __enter__(self) -> _Signals:
        os.set_blocking(self._write, False)
        self._wakeup = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)  # before the first signal is taken
        self._before = _handle(self._on_signal, self.words)
        return self

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(self._wakeup)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        os.close(self.pipe)
        os.close(self._write)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self.received.append(number)


@dataclass
class _Pipes:
    out: int
    err: int
    status: int
    control: int


def _launch(spec: CommandSpec) -> tuple[subprocess.Popen[bytes], _Pipes]:
    (out, out_w), (err, err_w), (status, status_w), (control_r, control) = (os.pipe() for _ in range(4))
    for descriptor in (out, err):
        with contextlib.suppress(OSError):  # a larger pipe means fewer wake-ups; the limit belongs to the system
            fcntl.fcntl(descriptor, _F_SETPIPE_SZ, _READ)
    guard = Path(__file__).with_name(spec.guard)
    try:
        process = proc.start(
            [*spec.tracer, sys.executable, "-I", "-S", guard, str(control_r), str(status_w), "--", *spec.argv],
            cwd=spec.cwd,
            env=spec.env,
            out=out_w,
            err=err_w,
            keep=(control_r, status_w, *spec.keep),
        )
    except (OSError, ValueError) as error:  # more arguments than the system takes, a variable with a NUL byte
        for descriptor in (out, err, status, control):
            os.close(descriptor)
        why = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise StartError(f"The command {spec.argv[0]!r} could not be started", why=why) from error
    finally:
        for descriptor in (out_w, err_w, status_w, control_r):
            os.close(descriptor)
    return process, _Pipes(out, err, status, control)


def run(
    spec: CommandSpec,
    out: LogWriter,
    err: LogWriter,
    *,
    listener: tuple[int, Callable[[], None]] | None = None,
    tick: Callable[[], None] | None = None,
) -> Ending:
    """Run the command to its end, feeding its output to the writers.

    listener: a file descriptor and what to call, once, when it first becomes readable.
    tick:     called about every second.
    Everything that was started is gone on return.  Raises `StorageError` where the output cannot be stored, after ending it.
    """
    proc.adopt_orphans()
    over = False
    with _Signals(WORDS if spec.told else ()) as signals:
        process, pipes = _launch(spec)
        try:
            loop = _Loop(spec, pipes, signals, out, err, tick)
            if listener:
                loop.on_first_use(*listener)
            ending = loop.run()
            over = True
            return ending
        finally:
            if over and spec.lingers:
                _lingering.append((process, pipes.control))
            else:
                os.close(pipes.control)  # the guard kills what is left, if anything is
                process.wait()
            for descriptor in (pipes.out, pipes.err, pipes.status):
                os.close(descriptor)


_lingering: list[tuple[subprocess.Popen[bytes], int]] = []
"""Guards that were not waited for, each with the pipe whose end tells it that nobody does any more."""


def settle() -> bool:
    """Wait for the guards that linger; whether all of them have done what they were to do."""
    done = True
    while _lingering:
        process, control = _lingering.pop()
        os.close(control)
        done = process.wait() == 0 and done
    return done


def _end_adopted() -> None:
    """Kill what a guard that is gone was guarding; we are its subreaper in turn."""
    while strays := [pid for pid in proc.descendants([os.getpid()]) if proc.environment_of(pid).get("RUNPROJ_GUARDED")]:
        proc.send(strays, signal.SIGKILL)
        proc.reap(strays)


class _Loop:
    """Moves bytes, watches the clock, and passes on what the user wants, until the command and its output have ended."""

    def __init__(
        self,
        spec: CommandSpec,
        pipes: _Pipes,
        signals: _Signals,
        out: LogWriter,
        err: LogWriter,
        tick: Callable[[], None] | None,
    ) -> None:
        self.spec = spec
        self.control = pipes.control
        self.signals = signals
        self.selector = selectors.DefaultSelector()
        self.selector.register(pipes.out, selectors.EVENT_READ, lambda: self._pump(pipes.out, out))
        self.selector.register(pipes.err, selectors.EVENT_READ, lambda: self._pump(pipes.err, err))
        self.selector.register(pipes.status, selectors.EVENT_READ, lambda: self._status(pipes.status))
        self.selector.register(signals.pipe, selectors.EVENT_READ, lambda: self._woken(signals.pipe))
        self.open = {pipes.out, pipes.err, pipes.status}
        self.report: dict[str, Any] = {}  # one line of JSON, read by its guard's words below
        self.tick = tick
        self.next_tick = time.monotonic() + 1
        self.deadline = time.monotonic() + spec.timeout if spec.timeout else None
        self.kill_at: float | None = None
        self.stopped: int | None = None
        self.tell_at: float | None = None
        self.timed_out = False
        out.hurry = err.hurry = self.hurry

    def hurry(self) -> bool:
        """Whether the command is to end: nothing may wait for a reader then."""
        late = self.deadline is not None and time.monotonic() >= self.deadline
        return late or self.timed_out or self.stopped is not None or bool(self.signals.received)

    def on_first_use(self, descriptor: int, call: Callable[[], None]) -> None:
        def first() -> None:
            self.selector.unregister(descriptor)
            call()

        self.selector.register(descriptor, selectors.EVENT_READ, first)

    def run(self) -> Ending:
        with self.selector:
            while self.open:
                for key, _ in self.selector.select(self._patience()):
                    key.data()
                self._clock()
        return self._ending()

    def _patience(self) -> float:
        now = time.monotonic()
        times = [self.next_tick, self.deadline, self.kill_at]
        return max(0.0, min(at for at in times if at is not None) - now)

    def _clock(self) -> None:
        now = time.monotonic()
        if now >= self.next_tick:
            self.next_tick = now + 1
            if self.tick:
                self.tick()
        if self.deadline is not None and now >= self.deadline:
            self.deadline = None
            self.timed_out = True
            self._stop(signal.SIGTERM)
        if self.tell_at is not None and now >= self.tell_at:
            self.tell_at = None
            self._tell(signal.SIGTERM)
        if self.kill_at is not None and now >= self.kill_at:
            self.kill_at = now + 1
            self._tell(signal.SIGKILL)

    def _woken(self, pipe: int) -> None:
        os.read(pipe, 4096)
        while self.signals.received:
            number = self.signals.received.pop(0)
            if number in WORDS:
                self._tell(number)
            elif self.stopped is None:
                self.stopped = number
                self._stop(number)
            elif number == signal.SIGINT:  # asked twice: now
                self._tell(signal.SIGKILL)

    def _stop(self, number: int) -> None:
        self.kill_at = time.monotonic() + self.spec.grace
        if self.spec.told and number == signal.SIGTERM and not self.timed_out:
            self.tell_at = time.monotonic() + self.spec.grace / 2  # whoever still runs then may not have heard it
        else:
            self._tell(number)

    def _tell(self, number: int) -> None:
        with contextlib.suppress(BrokenPipeError):
            os.write(self.control, bytes([number]))

    def _pump(self, descriptor: int, writer: LogWriter) -> None:
        if data := os.read(descriptor, _READ):
            writer.write(data)
        else:
            self._finished(descriptor)

    def _status(self, descriptor: int) -> None:
        if data := os.read(descriptor, 4096):
            for line in data.splitlines():
                self.report |= json.loads(line)
        else:
            self._finished(descriptor)
            if "code" not in self.report:  # the guard itself was killed; what it looked after has become ours
                _end_adopted()

    def _finished(self, descriptor: int) -> None:
        self.selector.unregister(descriptor)
        self.open.discard(descriptor)

    def _ending(self) -> Ending:
        code = int(self.report.get("code", -signal.SIGKILL))  # no report: the guard itself was killed, and took all with it
        error = self.report.get("error")
        return Ending(
            code=code if code >= 0 else 128 - code,
            signal=-code if code < 0 else None,
            stopped=self.stopped,
            timed_out=self.timed_out,
            error=None if error is None else int(error),
            leftovers=int(self.report.get("left", 0)),
            cpu=float(self.report.get("cpu", 0)),
            memory=int(self.report.get("memory", 0)),
            memory_ran_out=bool(self.report.get("memory_ran_out")),
            failed=str(self.report.get("failed", "")),
        )
