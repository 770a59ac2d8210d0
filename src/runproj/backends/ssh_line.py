"""The system's ssh: what is said to a program on another machine, and what it answers."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shlex
import stat
import string
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

from runproj import proc
from runproj.core.values import dataclass
from runproj.errors import BackendError, StartError

_PATIENCE = 120.0
"""Seconds that an answer may take that is only a few words."""
_UNREACHED = 255
"""ssh's own exit code, where it could not reach the host, or lost it."""
_PLAIN = frozenset(string.ascii_letters + string.digits + " _-./:,=")
_LONGEST_SOCKET = 80
"""Bytes of the folder's name: ssh adds 17 to a socket's, of which a system takes 107."""


@dataclass(frozen=True)
class Line:
    """A machine, as ssh knows it, with further options for ssh.

    All of it raises `BackendError` where the machine does not answer, or a script ends badly, with what it said.
    """

    host: str
    options: Sequence[str]
    environ: Mapping[str, str]

    def ask(self, script: str, *words: str, mark: str = "") -> bytes:
        """What a shell prints that gets a script with words, from the mark on, where there is one."""
        try:
            done = proc.run(self._command(script, words), env=self.environ, timeout=_PATIENCE, tied=False)
        except StartError as error:
            raise self._missing(error) from error
        self._check(done)
        return done.out.partition(mark.encode())[2] if mark else done.out

    def pieces(self, script: str, *words: str, mark: str = "", source: IO[bytes] | None = None) -> Iterator[bytes]:
        """The same piece by piece, of one that may run as long as it likes, and reads a file.

        Without one its input stays open until nobody wants more.
        """
        try:
            with proc.flowing(self._command(script, words), env=self.environ, source=source) as flow:
                yield from _after(mark.encode(), flow)
                done = flow.ended()
        except StartError as error:
            raise self._missing(error) from error
        self._check(done)

    def send(self, source: IO[bytes], script: str, *words: str) -> bytes:
        """What a script prints that reads a file of this machine."""
        return b"".join(self.pieces(script, *words, source=source))

    def _missing(self, error: StartError) -> BackendError:
        return BackendError(f"{self.host} cannot be reached", why=f"{error.what}. {error.why}", fix=error.fix)

    def _check(self, done: proc.Completed) -> None:
        if done.code == 0:
            return
        said = done.err.decode(errors="replace").strip()[-1000:]
        if done.code == _UNREACHED:
            fix = f"See that `ssh {self.host} true` works without a question: accept its key once, add yours to the agent."
            raise BackendError(f"{self.host} cannot be reached by ssh", why=said, fix=fix)
        raise BackendError(f"{self.host} cannot do this", why=said or f"It ended with exit code {done.code}.")

    def _command(self, script: str, words: Sequence[str]) -> list[str]:
        """One connection serves many: a master stays for a minute."""
        whole = _plain(f"set -- {shlex.join(words)}\n{script}")
        said = f"exec sh -c 'eval \"$(printf %b \"$0\")\"' '{whole}'"  # the user's shell there may be any
        usual = ["BatchMode=yes", "ConnectTimeout=15", "ServerAliveInterval=15", "RemoteCommand=none", "LogLevel=ERROR"]
        options = [word for option in usual + self._shared() for word in ("-o", option)]
        return ["ssh", "-T", *options, *self.options, "--", self.host, said]

    def _shared(self) -> list[str]:
        folder = _sockets(self.environ)
        if folder is None:
            return []
        key = hashlib.sha256("\0".join([self.host, *self.options]).encode()).hexdigest()[:16]
        return ["ControlMaster=auto", f"ControlPath={folder}/{key}", "ControlPersist=60"]


def _plain(script: str) -> str:
    """Text for `printf %b`, of characters that every shell takes as they are in quotes: csh takes no ends of lines and no `!`."""
    return "".join(chr(byte) if chr(byte) in _PLAIN else f"\\0{byte:03o}" for byte in os.fsencode(script))


def _sockets(environ: Mapping[str, str]) -> Path | None:
    """A folder that nobody else can write to, with a short name; None where there is none: then nothing is shared."""
    base = Path(environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir())
    folder = base / f"runproj-ssh-{os.getuid()}"
    with contextlib.suppress(OSError):
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        found = folder.lstat()
        private = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077
        if private and len(os.fsencode(folder)) <= _LONGEST_SOCKET and set(str(folder)) <= _PLAIN - {" "}:
            return folder
    return None


def _after(mark: bytes, pieces: proc.Flow) -> Iterator[bytes]:
    """What comes after the mark."""
    before: bytes | None = b"" if mark else None
    for piece in pieces:
        if before is None:
            yield piece
            continue
        before += piece
        _, found, rest = before.partition(mark)
        if found:
            before = None
            if rest:
                yield rest
        else:
            before = before[-len(mark) :]


def new_mark() -> str:
    """Something that no greeting of a shell has in it."""
    return f"runproj-{secrets.token_hex(8)}\n"
