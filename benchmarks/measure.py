"""Measure whole processes: wall time, CPU seconds of the tree that was waited for, and peak memory."""

from __future__ import annotations

import contextlib
import os
import resource
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Sample:
    """One execution.  Seconds; `memory` is the largest resident set of any single process of the tree, in bytes."""

    wall: float
    cpu: float
    memory: int


@dataclass(frozen=True)
class Result:
    """Several executions of one command."""

    samples: tuple[Sample, ...]

    @property
    def cpu(self) -> float:
        return statistics.median(sample.cpu for sample in self.samples)

    @property
    def wall(self) -> float:
        return statistics.median(sample.wall for sample in self.samples)

    @property
    def memory(self) -> int:
        return max(sample.memory for sample in self.samples)

    def shown(self) -> str:
        values = sorted(sample.cpu for sample in self.samples)
        return f"{values[0]:.3f} / {self.cpu:.3f} / {values[-1]:.3f}"


class CommandFailed(Exception):
    """A command that should have worked did not."""


def once(argv: Sequence[str | Path], env: Mapping[str, str], cwd: Path, stdout: int = subprocess.DEVNULL) -> Sample:
    """Run a command to its end.  Raises `CommandFailed` with the end of what it said."""
    log = cwd / ".benchmark-stderr"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begin = time.monotonic()
    with log.open("wb") as errors:
        words = [os.fspath(word) for word in argv]
        process = subprocess.Popen(words, env=dict(env), cwd=cwd, stdin=subprocess.DEVNULL, stdout=stdout, stderr=errors)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    wall = time.monotonic() - begin
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if process.returncode != 0:
        said = log.read_text(errors="replace")[-1500:]
        raise CommandFailed(f"{' '.join(words[:6])} … ended with {process.returncode}\n{said}")
    cpu = (after.ru_utime - before.ru_utime) + (after.ru_stime - before.ru_stime)
    return Sample(wall, cpu, usage.ru_maxrss * 1024)


def several(
    argv: Sequence[str | Path],
    env: Mapping[str, str],
    cwd: Path,
    times: int,
    *,
    before_each: Callable[[], None] | None = None,
    warm_up: bool = True,
) -> Result:
    """Run a command `times` times; a first run that is not counted fills caches unless `warm_up` is off."""
    if warm_up:
        once(argv, env, cwd)
    samples = []
    for _ in range(times):
        if before_each:
            before_each()
        samples.append(once(argv, env, cwd))
    return Result(tuple(samples))


def peak_beside_command(argv: Sequence[str | Path], env: Mapping[str, str], cwd: Path) -> int:
    """Peak of the resident memory of a runner and its guard together, in bytes, without the project's command."""
    process = subprocess.Popen(
        [os.fspath(word) for word in argv], env=dict(env), cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    peak = 0
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.01):
            guards = [pid for pid in _children(process.pid) if "guard.py" in _command_line(pid)]
            peak = max(peak, sum(map(_resident, [process.pid, *guards])))

    watcher = threading.Thread(target=watch)
    watcher.start()
    code = process.wait()
    done.set()
    watcher.join()
    if code != 0:
        raise CommandFailed(f"the run ended with {code}")
    return peak


def _children(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def _command_line(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return ""


def _resident(pid: int) -> int:
    with contextlib.suppress(OSError, IndexError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0
