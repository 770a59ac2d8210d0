"""The one module that starts processes, and that knows how to find and end them again (Linux: `/proc`, `prctl`)."""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import IO

from runproj.core.values import dataclass
from runproj.errors import StartError

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_PIECE = 1 << 20


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def die_with_parent() -> None:
    """In a fresh child: be killed when the thread that started it ends, however that happens."""
    _libc().prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def tied_to_parent() -> Callable[[], None]:
    """`die_with_parent`, made ready so that nothing is loaded between fork and exec."""
    _libc()
    return die_with_parent


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent ends, so that none gets out of sight."""
    _libc().prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


@dataclass(frozen=True)
class Completed:
    """How a program ended.  `code` is negative for a signal, as in `subprocess`."""

    code: int
    out: bytes
    err: bytes

    @property
    def text(self) -> str:
        """Standard output and error together, for a message."""
        return (self.out + self.err).decode(errors="replace").strip()


def run(
    argv: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: bytes = b"",
    timeout: float | None = None,
    tied: bool = True,
) -> Completed:
    """Run a program to its end and collect what it says.  If `tied`, it dies with this process; else it starts faster.

    `env` replaces the environment.  Raises `StartError` where the program is missing or takes longer than `timeout` seconds.
    """
    return stream(argv, _ignore, cwd=cwd, env=env, stdin=stdin, timeout=timeout, tied=tied)


def _ignore(_: str) -> None:
    """Takes a line of progress that nobody wants."""


def stream(
    argv: Sequence[str | Path],
    on_line: Callable[[str], None],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: bytes = b"",
    timeout: float | None = None,
    tied: bool = True,
) -> Completed:
    """As `run`, telling `on_line` each line of standard error as it comes (progress of installers goes there)."""
    _libc()  # loaded before the fork: nothing may be imported between fork and exec
    try:
        process = subprocess.Popen(
            [os.fspath(part) for part in argv],
            cwd=cwd,
            env=None if env is None else dict(env),
            stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            preexec_fn=die_with_parent if tied else None,  # noqa: PLW1509 - one system call, nothing that could hold a lock
        )
    except (FileNotFoundError, PermissionError) as error:
        raise StartError(f"Cannot start {argv[0]}", why=os.strerror(error.errno or 0)) from error
    out: list[bytes] = []
    err: list[bytes] = []
    try:
        with _collecting(process, out, err, on_line):
            if process.stdin:
                with contextlib.suppress(BrokenPipeError):  # it may have refused its arguments before it read anything
                    process.stdin.write(stdin)
                with contextlib.suppress(BrokenPipeError):
                    process.stdin.close()
            code = _wait(process, timeout)
    except subprocess.TimeoutExpired as error:
        what = f"{Path(argv[0]).name} took longer than {timeout or 0:g} seconds"
        raise StartError(what, why=" ".join(map(str, argv))) from error
    return Completed(code, b"".join(out), b"".join(err))


class Flow:
    """A program whose output is read while it runs."""

    def __init__(self, process: subprocess.Popen[bytes], err: list[bytes]) -> None:
        self._process, self._err = process, err

    def __iter__(self) -> Iterator[bytes]:
        """Its output, piece by piece, to its end."""
        assert self._process.stdout is not None
        while data := os.read(self._process.stdout.fileno(), _PIECE):
            yield data

    def ended(self) -> Completed:
        """How it ended, once its output has been read; without that output."""
        code = self._process.wait()
        return Completed(code, b"", b"".join(self._err))


@contextlib.contextmanager
def flowing(argv: Sequence[str | Path], *, env: Mapping[str, str], source: IO[bytes] | None = None) -> Iterator[Flow]:
    """A program that runs as long as it takes, and reads a file, or else an input that stays open until the block ends.

    What is left of it then is ended.  Raises `StartError` where the program is missing.
    """
    try:
        process = subprocess.Popen(
            [os.fspath(part) for part in argv],
            env=dict(env),
            stdin=source or subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
    except (FileNotFoundError, PermissionError) as error:
        raise StartError(f"Cannot start {argv[0]}", why=os.strerror(error.errno or 0)) from error
    err: list[bytes] = []
    try:
        with _collecting(process, None, err, _ignore):
            yield Flow(process, err)
            if process.poll() is None:
                end_tree([process.pid], grace=1)
                process.wait()
    finally:
        for pipe in (process.stdin, process.stdout):
            if pipe:
                pipe.close()


def _wait(process: subprocess.Popen[bytes], timeout: float | None) -> int:
    """The exit code of a process.  Raises `TimeoutExpired`.  Popen would look for its end now and then only, up to 50 ms late."""
    if timeout is None:
        return process.wait()
    end = time.monotonic() + timeout
    with contextlib.suppress(OSError):  # an old kernel
        descriptor = os.pidfd_open(process.pid)
        try:
            waiting = select.poll()
            waiting.register(descriptor, select.POLLIN)
            waiting.poll(timeout * 1000)
        finally:
            os.close(descriptor)
    return process.wait(max(0.0, end - time.monotonic()))


@contextlib.contextmanager
def _collecting(
    process: subprocess.Popen[bytes], out: list[bytes] | None, err: list[bytes], on_line: Callable[[str], None]
) -> Iterator[None]:
    """Read both streams in the background, or errors only; whatever stops us meanwhile ends the process with all it started."""

    def read_out(stream: IO[bytes]) -> None:
        while data := os.read(stream.fileno(), _PIECE):
            assert out is not None
            out.append(data)

    def read_err(stream: IO[bytes]) -> None:
        tell = on_line
        for line in stream:
            err.append(line)
            try:
                tell(line.decode(errors="replace").rstrip())
            except OSError:  # nobody listens any more; the program must not wait for that
                tell = _ignore

    both = ((None if out is None else process.stdout, read_out), (process.stderr, read_err))
    pipes = [(pipe, read) for pipe, read in both if pipe]
    readers = [threading.Thread(target=read, args=(pipe,), daemon=True) for pipe, read in pipes]
    for reader in readers:
        reader.start()
    try:
        yield
    except BaseException:
        end_tree([process.pid], grace=1)
        process.wait()
        raise
    finally:
        deadline = time.monotonic() + 5
        for reader, (pipe, _) in zip(readers, pipes, strict=True):
            reader.join(max(0.0, deadline - time.monotonic()))
            if not reader.is_alive():  # else a process that was left running holds the other end, and closing would wait for it
                pipe.close()


@dataclass(frozen=True)
class ProcessId:
    """A process, told apart from a later one with the same pid.  `started` is in clock ticks since boot."""

    pid: int
    started: int
    boot: str

    @property
    def alive(self) -> bool:
        return self.boot == boot_id() and start_time(self.pid) == self.started


@cache
def boot_id() -> str:
    """Changes at each boot: pids of another boot mean nothing."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return "unknown"


def start_time(pid: int) -> int | None:
    """Clock ticks since boot when the process started; None where there is none (a zombie counts as none)."""
    fields = _stat(pid)
    return None if fields is None or fields[0] == "Z" else int(fields[19])


def _stat(pid: int) -> list[str] | None:
    """Fields of /proc/PID/stat from the third (state) on: the second may hold blanks and parentheses."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    return text.rpartition(")")[2].split()


def identify(pid: int) -> ProcessId:
    """The identity of a process that exists now."""
    return ProcessId(pid, start_time(pid) or 0, boot_id())


def descendants(roots: Iterable[int]) -> list[int]:
    """Every process below `roots`, the roots not included, parents before children."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (fields := _stat(int(entry))) is not None and fields[0] != "Z":
            children.setdefault(int(fields[1]), []).append(int(entry))
    found: list[int] = []
    queue = list(roots)
    while queue:
        below = children.get(queue.pop(0), [])
        found += below
        queue += below
    return found


def marked(variable: str, value: str) -> Iterator[int]:
    """Processes that carry `variable=value` in the environment they were started with."""
    needle = f"{variable}={value}".encode()
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            if needle in Path(f"/proc/{entry}/environ").read_bytes().split(b"\0"):
                yield int(entry)


def running(*words: str) -> Iterator[int]:
    """Processes that have all of `words` among the arguments they were started with."""
    wanted = {os.fsencode(word) for word in words}
    for entry in os.listdir("/proc"):
        with contextlib.suppress(OSError):
            if entry.isdigit() and wanted <= set(Path(f"/proc/{entry}/cmdline").read_bytes().split(b"\0")):
                yield int(entry)


def send(pids: Iterable[int], number: int) -> None:
    """Signal processes; those that are gone already are passed over."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def reap(pids: Iterable[int]) -> None:
    """Collect children of this process that have been killed, so that they do not stay as zombies."""
    for pid in pids:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)


def end_tree(roots: Sequence[int], grace: float) -> None:
    """Ask `roots` and everything below them to end, then kill what is left after `grace` seconds."""
    first = [*roots, *descendants(roots)]
    send(reversed(first), signal.SIGTERM)
    deadline = time.monotonic() + grace
    while time.monotonic() < deadline and any(start_time(pid) is not None for pid in first):
        time.sleep(0.02)
    send([*roots, *first, *descendants(roots)], signal.SIGKILL)


def start(
    argv: Sequence[str | Path], *, cwd: Path, env: Mapping[str, str], out: int, err: int, keep: tuple[int, ...]
) -> subprocess.Popen[bytes]:
    """Start a program with its output going to descriptors `out` and `err`, no input, and the descriptors in `keep` open."""
    return subprocess.Popen(
        [os.fspath(part) for part in argv],
        cwd=cwd,
        env=dict(env),
        stdin=subprocess.DEVNULL,
        stdout=out,
        stderr=err,
        pass_fds=keep,
    )


def converse(argv: Sequence[str | Path], *, cwd: Path, env: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
    """Start a program to speak with over its input and output, in a session of its own: a Ctrl-C is for us to pass on."""
    with log.open("ab") as output:
        return subprocess.Popen(
            [os.fspath(part) for part in argv],
            cwd=cwd,
            env=dict(env),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=output,
            start_new_session=True,
        )


def environment_of(pid: int) -> dict[str, str]:
    """The environment a process was started with; empty where it is gone or not ours to read."""
    try:
        content = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return {}
    pairs = (entry.decode(errors="surrogateescape").partition("=") for entry in content.split(b"\0") if entry)
    return {name: value for name, _, value in pairs}


def detach(argv: Sequence[str | Path], *, cwd: Path, env: Mapping[str, str], log: Path, keep: tuple[int, ...] = ()) -> int:
    """Start a program that outlives this process, in a session of its own, its output in `log`.  Returns its pid."""
    return depart(argv, cwd=cwd, env=env, log=log, keep=keep).pid


def depart(
    argv: Sequence[str | Path],
    *,
    cwd: Path,
    env: Mapping[str, str],
    log: Path,
    keep: tuple[int, ...] = (),
    stdout: int | None = None,
) -> subprocess.Popen[bytes]:
    """As `detach`, for who wants to know how it ends, or what it says on standard output.  Raises `StartError`."""
    with log.open("ab") as output:
        try:
            return subprocess.Popen(
                [os.fspath(part) for part in argv],
                cwd=cwd,
                env=dict(env),
                stdin=subprocess.DEVNULL,
                stdout=output if stdout is None else stdout,
                stderr=output,
                start_new_session=True,
                pass_fds=keep,
            )
        except OSError as error:
            raise StartError(f"Cannot start {argv[0]}", why=os.strerror(error.errno or 0)) from error
