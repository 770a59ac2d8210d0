"""Stands between the executor and a project's command, so that nothing outlives the run, whatever dies first.

Run as a script by `supervise.py` with `python -I -S`: it starts in about 10 ms and holds no lock, thread or import of ours.

    guard.py CONTROL STATUS -- ARGV…

It is the subreaper of everything below it: a process that detaches itself, or loses its parent, becomes its child and stays
in reach.  CONTROL is a pipe from the executor: a byte N means "send signal N to everything below" (SIGUSR1 and SIGUSR2 only to
what listens to them: they would end all else); its end means that the executor is gone, and everything below is killed.
STATUS takes one JSON line: how the command ended and what it used.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    import resource

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
LEFTOVER_GRACE = 2.0  # seconds that processes left behind by a finished command get to end


def below(root: int) -> list[int]:
    """Every living process below `root`, parents first."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat", errors="replace") as file:  # noqa: PTH123 - pathlib is not worth its import
                    state, parent = file.read().rpartition(")")[2].split()[:2]
            except OSError:
                continue
            if state != "Z":
                children.setdefault(int(parent), []).append(int(entry))
    found, queue = [], [root]
    while queue:
        more = children.get(queue.pop(0), [])
        found += more
        queue += more
    return found


def send(number: int) -> list[int]:
    """Signal everything below; returns whom."""
    pids = below(os.getpid())
    if number in (signal.SIGUSR1, signal.SIGUSR2):
        pids = [pid for pid in pids if listens(pid, number)]
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
    return pids


def listens(pid: int, number: int) -> bool:
    """Whether a process has a handler for a signal."""
    try:
        with open(f"/proc/{pid}/status", errors="replace") as file:  # noqa: PTH123 - as above
            caught = next((line.split()[1] for line in file if line.startswith("SigCgt:")), "0")
    except OSError:
        return False
    return bool(int(caught, 16) >> (number - 1) & 1)


def reap(main: int) -> tuple[int, resource.struct_rusage] | None:
    """Collect what has ended; returns wait status and resource usage of the command once it is among them."""
    ended = None
    while True:
        try:
            pid, status, usage = os.wait4(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if pid == 0:
            return ended
        if pid == main:
            ended = status, usage


def start(argv: list[str], report: int) -> int:
    """Fork and exec the command in a session of its own; it dies with the guard.  An exec failure goes to `report`."""
    guard = os.getpid()
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setsid()
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != guard:
            os._exit(127)
        for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.execvp(argv[0], argv)
    except OSError as error:
        os.write(report, json.dumps({"error": error.errno}).encode() + b"\n")
        os._exit(126 if isinstance(error, PermissionError) else 127)  # as a shell says it


def end_leftovers() -> int:
    """End what the command left running; returns how many there were."""
    left = send(signal.SIGTERM)
    deadline = time.monotonic() + LEFTOVER_GRACE
    while left and below(os.getpid()):
        reap(0)
        if time.monotonic() > deadline:
            send(signal.SIGKILL)
        time.sleep(0.01)
    return len(left)


def kill_everything() -> None:
    while send(signal.SIGKILL):
        reap(0)
        time.sleep(0.01)


def main() -> int:
    control, status = int(sys.argv[1]), int(sys.argv[2])
    os.set_inheritable(control, False)
    os.set_inheritable(status, False)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the executor decides; its word comes through CONTROL
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    child = start(sys.argv[4:], status)
    for descriptor in (0, 1, 2):  # only the command and its children may keep the output pipes open
        os.close(descriptor)
    while True:
        ready, _, _ = select.select([control, wake_read], [], [])
        if wake_read in ready:
            os.read(wake_read, 4096)
        if (ended := reap(child)) is not None:
            code, usage = ended
            left = end_leftovers()
            report = {
                "code": os.waitstatus_to_exitcode(code),
                "left": left,
                "cpu": usage.ru_utime + usage.ru_stime,
                "memory": usage.ru_maxrss * 1024,
            }
            os.write(status, json.dumps(report).encode() + b"\n")
            return 0
        if control in ready:
            word = os.read(control, 1)
            if not word:
                kill_everything()
                return 1
            send(word[0])


if __name__ == "__main__":
    sys.exit(main())
