"""The program, imported once and forked for each command: a start costs 0.02 s instead of 0.15 s, of which tests make thousands.

A fork differs from a fresh start in nothing but what has been imported.  Where the interpreter itself would start otherwise
(`PYTHONPATH`, `LC_ALL`, …) there is no fork, and `Cli` starts the program as anybody would; so it does in the background.
"""

from __future__ import annotations

import array
import atexit
import gc
import importlib
import json
import os
import pkgutil
import select
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path

OF_THE_INTERPRETER = ("PYTHON", "LC_", "LANG", "LD_", "GIT_PYTHON", "TYPER", "MALLOC")
"""Beginnings of names of variables that are read when a process or a module begins."""
OF_ITS_OWN = ("__main__", "client", "conda_worker", "contained", "guard", "schemas", "testing")
"""Modules that run in other processes.  All others are loaded, and of other packages what most commands load."""
OTHERS = (
    *("typer.main", "typer.core", "typer._click.decorators", "encodings.utf_8_sig", "git", "yaml", "sqlite3", "tomllib", "uuid"),
    *("zipfile", "tarfile", "urllib.request", "http.client", "multiprocessing.util", "concurrent.futures.thread", "secrets"),
)


def _of_interpreter(environ: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environ.items() if name.startswith(OF_THE_INTERPRETER)}


USUAL = {name: value for name, value in _of_interpreter(os.environ).items() if name != "PYTHONDONTWRITEBYTECODE"}
"""Those of the tests themselves, when they begin; without the one that `isolated` removes."""


class Warm:
    """A process that waits to be forked.  It ends with the one that made it."""

    def __init__(self) -> None:
        environ = {
            name: value for name, value in os.environ.items() if not name.startswith((*OF_THE_INTERPRETER, "RUNPROJ_"))
        } | USUAL
        self._lock = threading.Lock()
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        places = os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, [environ.get("PYTHONPATH")])])
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-c", "from support import warm; warm.serve()", str(theirs.fileno())],
                env={**environ, "PYTHONPATH": places},
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
            )

    def run(self, arguments: list[str], environ: Mapping[str, str], cwd: Path) -> subprocess.CompletedProcess[str]:
        """Run one command line in a fork, without input, and capture what it prints."""
        (out, theirs_out), (err, theirs_err), (mine, theirs) = os.pipe(), os.pipe(), socket.socketpair()
        order = os.memfd_create("order")
        os.write(order, json.dumps([arguments, dict(environ), str(cwd)]).encode())
        handed = [theirs.detach(), order, theirs_out, theirs_err]
        try:
            with self._lock:
                self._control.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", handed))])
        finally:
            _close(handed)
        with mine:
            printed = _read_all(out, err)
            told = mine.recv(16)
        _close([out, err])
        if not told:
            raise RuntimeError("the process that is forked for each command has ended")
        texts = [data.decode().replace("\r\n", "\n").replace("\r", "\n") for data in printed]  # as pipes of text are read
        return subprocess.CompletedProcess(["runproj", *arguments], int(told), *texts)


_running: dict[int, Warm] = {}


def find(environ: Mapping[str, str]) -> Warm | None:
    """The process to fork, of this process of tests, if a program with these variables may be a fork."""
    if _of_interpreter(environ) != USUAL:
        return None
    pid = os.getpid()
    if pid not in _running:
        _running[pid] = Warm()
    return _running[pid]


def _close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def _read_all(*sources: int) -> list[bytes]:
    """All that comes from several pipes until they end."""
    found: dict[int, list[bytes]] = {source: [] for source in sources}
    going_on = set(sources)
    while going_on:
        for source in select.select(going_on, (), ())[0]:
            if data := os.read(source, 1 << 16):
                found[source].append(data)
            else:
                going_on.remove(source)
    return [b"".join(found[source]) for source in sources]


def serve() -> None:
    """Fork for each order; each fork runs the program as if it had been started for that."""
    sys.path.remove(os.environ.pop("PYTHONPATH").partition(os.pathsep)[0])
    _load()
    control = socket.socket(fileno=int(sys.argv[1]))
    os.set_inheritable(control.fileno(), False)
    waiting: dict[int, tuple[int, socket.socket]] = {}  # descriptor of a process → its number, and whom to tell of its end
    while True:
        for ready in select.select([control, *waiting], (), ())[0]:
            if ready is not control:
                _tell(ready, *waiting.pop(ready))
                continue
            handed = socket.recv_fds(control, 1, 4, socket.MSG_CMSG_CLOEXEC)[1]
            if not handed:  # the tests have ended
                return
            if (pid := os.fork()) == 0:
                _close([control.detach(), handed[0], *waiting, *(teller.detach() for _, teller in waiting.values())])
                _become(*handed[1:])
            _close(handed[1:])
            waiting[os.pidfd_open(pid)] = (pid, socket.socket(fileno=handed[0]))


def _load() -> None:
    """Import what the program consists of."""
    import runproj

    for name in OTHERS:
        importlib.import_module(name)
    for module in pkgutil.walk_packages(runproj.__path__, "runproj."):
        if not set(OF_ITS_OWN) & set(module.name.split(".")):
            importlib.import_module(module.name)
    gc.collect()
    gc.freeze()


def _tell(descriptor: int, pid: int, teller: socket.socket) -> None:
    os.close(descriptor)
    status = os.waitpid(pid, 0)[1]
    with teller:
        teller.send(str(os.waitstatus_to_exitcode(status)).encode())


def _become(order: int, out: int, err: int) -> None:
    from runproj.cli import main

    os.dup2(out, 1)
    os.dup2(err, 2)
    text = os.pread(order, os.fstat(order).st_size, 0)
    _close([order, out, err])
    arguments, environ, cwd = json.loads(text)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environ)
    time.tzset()
    tempfile.tempdir = None
    sys.path[0] = cwd
    sys.argv = [str(main.__file__), *arguments]
    code = main.run(arguments)
    # as an interpreter ends, but for the time that it takes to forget what was loaded
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
