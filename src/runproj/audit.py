"""What a command reads and whom it calls beyond what its project declares: strace writes it down, this reads it.

strace stands in front of the guard (see `guard.py`) and follows everything below it.  A filter in the kernel (seccomp) stops
a process only where it opens a file, starts a program or connects, so that the rest runs as fast as ever.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import field, replace
from pathlib import Path

from runproj import proc
from runproj.core.environment import EnvPlace
from runproj.core.record import Audit, Connection, ReadFile
from runproj.core.values import dataclass
from runproj.errors import BackendError, UsageError
from runproj.files import sha256_file
from runproj.supervise import CommandSpec

_CALLS = "?open,?creat,openat,?openat2,execve,?execveat,connect"
_OPTIONS = ("-f", "-qqq", "-y", "--seccomp-bpf", "-e", f"trace={_CALLS}", "-e", "signal=none")
_MOST = 1000
"""Files and connections that are recorded each; the rest is counted."""
_SYSTEM = (
    *("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"),
    *("/etc", "/proc", "/sys", "/dev", "/run", "/var/cache/fontconfig"),
)
_CALL = re.compile(r"^(?P<pid>\d+) +(?P<name>open|creat|openat|openat2|execve|execveat|connect)\((?P<rest>.*)$", re.DOTALL)
_RESUMED = re.compile(r"^(?P<pid>\d+) +<\.\.\. (?P<name>\w+) resumed>(?P<rest>.*)$", re.DOTALL)
_UNFINISHED = " <unfinished ...>"
_OPENED = re.compile(r" = \d+<(/.*)>(\(deleted\))?$", re.DOTALL)
_PROGRAM = re.compile(r'^"(/(?:[^"\\]|\\.)*)", .* = 0$', re.DOTALL)
_ADDRESS = re.compile(
    r"sa_family=AF_INET6?, .*?sin6?_port=htons\((?P<port>\d+)\), .*?"
    r'(?:sin_addr=inet_addr\("(?P<v4>[^"]*)"\)|inet_pton\(AF_INET6, "(?P<v6>[^"]*)"|sin6_addr="(?P<raw>[^"]*)")'
)
_ESCAPE = re.compile(r"\\([0-7]{1,3}|x[0-9a-f]{2}|.)")
_LETTERS = {"n": "\n", "t": "\t", "r": "\r", "v": "\v", "f": "\f", "a": "\a", "b": "\b"}
_DNS = 53


def require(place: EnvPlace) -> None:
    """Raise `UsageError` or `BackendError` where commands cannot be watched."""
    if place is not EnvPlace.HOST:
        raise UsageError("--audit cannot look into a container", fix="Leave out --audit, or use --env-manager virtualenv.")
    strace()


def strace() -> str:
    """The program, which works here.  Raises `BackendError`."""
    found = shutil.which("strace")
    if found is None:
        raise BackendError(
            "--audit needs strace, which is not installed",
            fix="Install it (for example `apt install strace`), or leave out --audit.",
        )
    done = proc.run([found, *_OPTIONS, "-o", os.devnull, "--", "true"])
    if done.code != 0:
        fix = "Allow processes to be traced (ptrace), or leave out --audit."
        raise BackendError("strace does not work here", why=done.text, fix=fix)
    return found


@dataclass(frozen=True)
class Scope:
    """What a command may read without saying so.

    folders: the checkout, the environment, the interpreter, declared inputs;  `started`: what was written since is its own work.
    hosts:   (address, port) of the server or endpoint that the run is recorded by.
    """

    folders: tuple[Path, ...]
    started: float
    hosts: frozenset[tuple[str, int]] = frozenset()

    def covers(self, path: str) -> bool:
        return path.startswith(tuple(f"{folder}/" for folder in (*_SYSTEM, *self._names))) or path in self._names

    @property
    def _names(self) -> tuple[str, ...]:
        return tuple(name for folder in self.folders for name in dict.fromkeys((str(folder), os.path.realpath(folder))))


@dataclass(frozen=True)
class Watch:
    """Looks on while a command runs: `spec` is what to run for that, `found` tells what it saw once that has ended."""

    spec: CommandSpec
    scope: Scope
    log: Path
    strict: bool

    def found(self) -> Audit:
        try:
            return findings(self.log, self.scope)
        finally:
            self.log.unlink(missing_ok=True)


def watch(spec: CommandSpec, scope: Scope, log: Path, *, strict: bool) -> Watch:
    """A watch on the command of a spec.  One that cannot be started is left to the guard, which knows how to say so."""
    tracer = (strace(), *_OPTIONS, "-o", str(log), "--")
    return Watch(replace(spec, tracer=tracer), scope, log, strict)


@dataclass
class _Seen:
    files: dict[str, None] = field(default_factory=dict)
    calls: dict[tuple[str, int], None] = field(default_factory=dict)


def findings(log: Path, scope: Scope) -> Audit:
    """What the log says that is not in scope."""
    seen = _Seen()
    try:
        with log.open(encoding="utf-8", errors="surrogateescape") as lines:
            for line in _whole(lines):
                _take(line, seen)
    except FileNotFoundError:  # the command could not be started
        return Audit()
    paths = [path for path in sorted(seen.files) if not scope.covers(path)]
    files = [file for path in _sources(paths) if (file := _file(path, scope.started)) is not None]
    calls = [call for call in sorted(seen.calls) if call not in scope.hosts and call[1] not in (0, _DNS)]
    return Audit(
        files=tuple(files[:_MOST]),
        connections=tuple(Connection(host, port) for host, port in calls[:_MOST]),
        more=max(0, len(files) - _MOST) + max(0, len(calls) - _MOST),
    )


def _whole(lines: Iterable[str]) -> Iterator[str]:
    """Calls in one line each, also those that others came between; what the guard itself does is left out."""
    begun: dict[str, str] = {}
    guard = ""
    for line in lines:
        line = line.rstrip("\n")
        pid = line.partition(" ")[0]
        guard = guard or pid
        if pid == guard:
            continue
        if match := _RESUMED.match(line):
            yield begun.pop(pid, f"{pid} {match['name']}(") + match["rest"]
        elif line.endswith(_UNFINISHED):
            begun[pid] = line.removesuffix(_UNFINISHED)
        else:
            yield line


def _take(line: str, seen: _Seen) -> None:
    match = _CALL.match(line)
    if match is None:
        return
    name, rest = match["name"], match["rest"]
    if name == "connect":
        if address := _ADDRESS.search(rest):
            host = address["v4"] or address["v6"] or address["raw"]
            seen.calls[host, int(address["port"])] = None
        return
    if name in ("execve", "execveat"):
        found = _PROGRAM.match(rest)
    else:
        found = None if "O_WRONLY" in rest or "O_DIRECTORY" in rest or "O_PATH" in rest else _OPENED.search(rest)
    if found:
        seen.files[_unescaped(found[1])] = None


def _unescaped(text: str) -> str:
    def plain(found: re.Match[str]) -> str:
        code = found[1]
        if code[0].isdigit() or (code[0] == "x" and len(code) == 3):
            return chr(int(code, 8) if code[0].isdigit() else int(code[1:], 16))
        return _LETTERS.get(code, code)

    if "\\" not in text:
        return text
    return os.fsdecode(_ESCAPE.sub(plain, text).encode("latin-1", "surrogateescape"))


def _sources(paths: Sequence[str]) -> list[str]:
    """Without compiled modules whose source was looked at too."""
    known = set(paths)
    cached = re.compile(r"^(.*/)__pycache__/([^/]+?)\.[^/]+\.pyc$")
    return [path for path in paths if not ((match := cached.match(path)) and f"{match[1]}{match[2]}.py" in known)]


def _file(path: str, started: float) -> ReadFile | None:
    """What is recorded of a file; None for one that the command has written itself, or removed, or that is none."""
    try:
        status = Path(path).stat()
        if status.st_mtime >= started or not Path(path).is_file():
            return None
        return ReadFile(path, status.st_size, sha256_file(Path(path)))
    except OSError:
        return None


def addresses(host: str, port: int) -> frozenset[tuple[str, int]]:
    """All addresses of a server."""
    try:
        return frozenset((str(item[4][0]), port) for item in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
    except OSError:
        return frozenset()


def words(audit: Audit) -> str:
    """What there is to say of it, in a few lines; empty where everything was declared."""
    parts = []
    if audit.files:
        names = ", ".join(file.path for file in audit.files[:5])
        parts.append(f"Read without being declared: {names}{' …' if len(audit.files) > 5 else ''}.")
    if audit.connections:
        names = ", ".join(f"{call.host}:{call.port}" for call in audit.connections[:5])
        parts.append(f"Connected without being declared: {names}{' …' if len(audit.connections) > 5 else ''}.")
    return " ".join(parts)
