"""The one door to git: fixed argument lists through GitPython's launcher, nothing of a repository is ever executed."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, cast

from runproj import proc
from runproj.core.values import dataclass
from runproj.errors import SourceError

_FIXED = {
    "core.hooksPath": "/dev/null",
    "core.fsmonitor": "false",
    "core.untrackedCache": "false",
    "core.attributesFile": "/dev/null",
    "core.symlinks": "true",
    "core.quotePath": "true",
    "protocol.ext.allow": "never",
    "protocol.fd.allow": "never",
    "protocol.version": "2",
    "submodule.recurse": "false",
    "fetch.recurseSubmodules": "false",
    "fetch.unpackLimit": "1",  # a fetch adds one pack or nothing: no half of it is ever visible
    "fetch.writeCommitGraph": "false",
    "gc.auto": "0",
    "maintenance.auto": "false",
}
_OPTIONS = tuple(word for key, value in _FIXED.items() for word in ("-c", f"{key}={value}"))

# Set by git around hooks, `git rebase --exec` and the like: they would turn our commands on somebody else's repository.
_STRAY = frozenset(
    f"GIT_{name}"
    for name in (
        *("DIR", "WORK_TREE", "INDEX_FILE", "OBJECT_DIRECTORY", "ALTERNATE_OBJECT_DIRECTORIES", "COMMON_DIR", "NAMESPACE"),
        *("PREFIX", "QUARANTINE_PATH", "SHALLOW_FILE", "GRAFT_FILE", "REPLACE_REF_BASE", "EXTERNAL_DIFF", "DIFF_OPTS"),
        *("TEMPLATE_DIR", "LITERAL_PATHSPECS", "GLOB_PATHSPECS", "NOGLOB_PATHSPECS", "ICASE_PATHSPECS", "CONFIG"),
        *("DEFAULT_HASH", "DEFAULT_REF_FORMAT", "INDEX_VERSION", "TRACE", "TRACE_CURL", "TRACE_PACKET", "CURL_VERBOSE"),
    )
)

_QUIET = {
    "LC_ALL": "C",
    "LANGUAGE": "C",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_LFS_SKIP_SMUDGE": "1",
}
# What our own repositories are handled with: no configuration but ours, so that filters, hooks and line endings of the
# machine change nothing.
_ALONE = {
    **_QUIET,
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_SYSTEM": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_COUNT": "0",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_TERMINAL_PROMPT": "0",
}

LOCAL_TIMEOUT = 3600.0


@dataclass(frozen=True)
class Ran:
    """How a git command ended.  `code` is negative for a signal."""

    code: int
    out: bytes
    err: str


class GitFailed(Exception):
    """A git command failed; `words` is what git said, not yet scrubbed."""

    def __init__(self, argv: Sequence[str], ran: Ran) -> None:
        super().__init__(f"git {argv[0]} ended with {ran.code}: {ran.err}")
        self.words = ran.err.strip() or f"git {argv[0]} ended with exit code {ran.code}"
        self.code = ran.code


@dataclass(frozen=True)
class Git:
    """A repository to work on.

    git_dir:   the repository; None outside one.
    work_tree: where its files are.
    users_config: take the user's own configuration (credentials, proxies, certificates, URL rewriting) into account.
    env:       further variables.
    cwd:       where the command runs, if not at the top of the files; finds the repository there if none is given.
    """

    git_dir: Path | None = None
    work_tree: Path | None = None
    users_config: bool = False
    env: Mapping[str, str] | None = None
    cwd: Path | None = None

    def run(
        self,
        *arguments: str,
        stdin: bytes | None = None,
        timeout: float = LOCAL_TIMEOUT,
        progress: Callable[[str], None] | None = None,
        at_most: int | None = None,
    ) -> Ran:
        """Run a git command to its end, whatever it says, or until it has printed more than `at_most` bytes.

        Raises `SourceError` where git is missing.
        """
        argv = ["git", *_OPTIONS]
        if self.git_dir:
            argv.append(f"--git-dir={self.git_dir}")
        if self.work_tree:
            argv.append(f"--work-tree={self.work_tree}")
        if stray := sorted(_STRAY & os.environ.keys()):
            argv = ["env", *(word for name in stray for word in ("-u", name)), *argv]
        env = {**self._variables(), **(self.env or {})}
        with contextlib.ExitStack() as stack:
            source = stack.enter_context(_as_file(stdin)) if stdin is not None else None
            process = _start([*argv, *arguments], self.cwd or self.work_tree or self.git_dir, env, source)
            if at_most is not None:
                return _bounded(process, at_most)
            return _finish(process, arguments, timeout, progress)

    def out(self, *arguments: str, stdin: bytes | None = None) -> bytes:
        """What the command prints.  Raises `GitFailed` where it fails."""
        ran = self.run(*arguments, stdin=stdin)
        if ran.code:
            raise GitFailed(arguments, ran)
        return ran.out

    def line(self, *arguments: str, stdin: bytes | None = None) -> str:
        """The one line that the command prints."""
        return self.out(*arguments, stdin=stdin).decode(errors="surrogateescape").removesuffix("\n")

    def _variables(self) -> dict[str, str]:
        if not self.users_config:
            return _ALONE
        asks = sys.stderr is not None and sys.stderr.isatty()
        return _QUIET if asks else {**_QUIET, "GIT_TERMINAL_PROMPT": "0"}


def _as_file(content: bytes) -> BinaryIO:
    """Input for a command: a file in memory, so that the temporary folder stays out of it."""
    file = os.fdopen(os.memfd_create("runproj"), "w+b")
    file.write(content)
    file.flush()
    file.seek(0)
    return file


def _start(argv: list[str], cwd: Path | None, env: Mapping[str, str], source: BinaryIO | None) -> subprocess.Popen[bytes]:
    try:
        import git
    except ImportError as error:
        raise _no_git(str(error)) from error
    try:
        started = git.Git(cwd or Path("/")).execute(
            argv, istream=source, env=env, as_process=True, preexec_fn=proc.tied_to_parent()
        )
    except git.GitCommandNotFound as error:
        raise _no_git(str(error)) from error
    process = cast("subprocess.Popen[bytes]", started.proc)
    started.proc = None  # GitPython would end the process together with its wrapper
    return process


def _no_git(why: str) -> SourceError:
    return SourceError("git cannot be started", why=why.partition("\n")[0], fix="Install git and have it in PATH.")


def _finish(
    process: subprocess.Popen[bytes], arguments: Sequence[str], timeout: float, progress: Callable[[str], None] | None
) -> Ran:
    reader = _Progress(process, progress) if progress else None
    try:
        if reader:
            out, err = reader.collect(timeout)
        else:
            out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        _end(process)
        return Ran(-9, b"", f"timed out: git {arguments[0]} took longer than {timeout:g} seconds")
    except BaseException:
        _end(process)
        raise
    return Ran(process.returncode, out, err.decode(errors="replace"))


def _bounded(process: subprocess.Popen[bytes], at_most: int) -> Ran:
    """For commands that say little on standard error, and on standard output as much as a stranger likes."""
    assert process.stdout
    assert process.stderr
    try:
        out = process.stdout.read(at_most + 1)
        if len(out) > at_most:
            return Ran(-9, b"", f"more than {at_most:,} bytes of output")
        err = process.stderr.read()
        process.wait()
        return Ran(process.returncode, out, err.decode(errors="replace"))
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        proc.end_tree([process.pid], grace=0.5)
        process.wait()
    for pipe in (process.stdout, process.stderr):
        if pipe:
            pipe.close()


class _Progress:
    """Reads a command's standard error while it runs, and passes on the latest counter a few times a second."""

    _EVERY = 0.2

    def __init__(self, process: subprocess.Popen[bytes], tell: Callable[[str], None]) -> None:
        self._process = process
        self._tell = tell
        self._kept: list[bytes] = []
        self._last = 0.0
        self._thread = threading.Thread(target=self._read, daemon=True)

    def collect(self, timeout: float) -> tuple[bytes, bytes]:
        assert self._process.stdout
        self._thread.start()
        self._process.wait(timeout)  # used with commands that print next to nothing on standard output
        out = self._process.stdout.read()
        self._thread.join(timeout=5)
        self._process.stdout.close()
        return out, b"\n".join(self._kept[-200:])

    def _read(self) -> None:
        assert self._process.stderr
        rest = b""
        with self._process.stderr as pipe:
            while chunk := os.read(pipe.fileno(), 65536):
                *lines, rest = (rest + chunk).replace(b"\r", b"\n").split(b"\n")
                for line in lines:
                    self._take(line)
        self._take(rest)

    def _take(self, line: bytes) -> None:
        if b"%" not in line:
            self._kept.append(line)
        elif (now := time.monotonic()) - self._last > self._EVERY:
            self._last = now
            self._tell(line.decode(errors="replace").strip())
