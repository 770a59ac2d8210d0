"""Tracking servers as real processes, ours and MLflow's: started on an empty folder, spoken to over HTTP, their CPU time read."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import peers

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(eq=False)
class Server:
    """A running server.  `started` in seconds from its launch to its first answer."""

    name: str
    process: subprocess.Popen[bytes]
    port: int
    started: float
    connection: http.client.HTTPConnection = field(init=False)

    def __post_init__(self) -> None:
        self.connection = connect(self.port)

    def cpu(self) -> float:
        """CPU seconds of the server and of all its processes so far."""
        return sum(map(_cpu_of, tree(self.process.pid)))

    def memory(self) -> float:
        """Resident MB of all its processes."""
        return sum(map(_resident, tree(self.process.pid))) / 1e6

    def call(self, method: str, path: str, document: Mapping[str, object] | None = None) -> dict:
        """One call of the protocol over the kept connection."""
        return call(self.connection, method, path, document)

    def cost(self, operation: Callable[[], object], times: int, rounds: int = 5) -> float:
        """CPU milliseconds of the server for one operation: the median of rounds of `times` after one that is not counted."""
        taken = []
        for _ in range(rounds + 1):
            before = self.cpu()
            for _ in range(times):
                operation()
            taken.append((self.cpu() - before) / times * 1000)
        return statistics.median(taken[1:])

    def new_run(self, experiment: str = "0") -> str:
        return self.call("POST", "runs/create", {"experiment_id": experiment, "start_time": 1})["run"]["info"]["run_id"]


def connect(port: int) -> http.client.HTTPConnection:
    return http.client.HTTPConnection("127.0.0.1", port, timeout=600, blocksize=1 << 20)


def call(connection: http.client.HTTPConnection, method: str, path: str, document: Mapping[str, object] | None = None) -> dict:
    body = None if document is None else json.dumps(document).encode()
    headers = {"Content-Type": "application/json"} if body is not None else {}
    target = path if path.startswith("/") else f"/api/2.0/mlflow/{path}"
    try:
        connection.request(method, target, body, headers)
        answer = connection.getresponse()
    except ConnectionError:  # kept for longer than the server keeps it, while the other one was measured
        connection.close()
        connection.request(method, target, body, headers)
        answer = connection.getresponse()
    content = answer.read()
    if answer.status != 200:
        raise RuntimeError(f"{method} {path}: {answer.status} {content[:300]!r}")
    return json.loads(content or b"{}")


@contextlib.contextmanager
def ours(program: str, home: Path, *options: str) -> Iterator[Server]:
    """`runproj server` on the store in `home`."""
    environ = peers.plain_environment() | {"RUNPROJ_HOME": str(home)}
    port = _free_port()
    yield from _serve("runproj", [program, "server", "--port", str(port), *options], environ, home, port)


@contextlib.contextmanager
def mlflow(folder: Path) -> Iterator[Server]:
    """`mlflow server` with one worker on an SQLite file in `folder`."""
    peer, port = peers.mlflow(), _free_port()
    (folder / "tmp").mkdir(parents=True, exist_ok=True)
    command = [
        *(peer.program, "server", "--host", "127.0.0.1", "--port", port, "--workers", "1"),
        *("--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}", "--artifacts-destination", folder / "artifacts"),
    ]
    environ = peer.environ(folder)
    del environ["MLFLOW_TRACKING_URI"]
    yield from _serve("mlflow", [str(word) for word in command], environ, folder, port)


def _serve(name: str, command: list[str], environ: Mapping[str, str], folder: Path, port: int) -> Iterator[Server]:
    begin = time.monotonic()
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(command, env=dict(environ), cwd=folder, stdout=log, stderr=log, start_new_session=True)
    try:
        while not _answers(port):
            if process.poll() is not None or time.monotonic() - begin > 180:
                raise RuntimeError((folder / f"{name}.log").read_text()[-2000:])
            time.sleep(0.01)
        yield Server(name, process, port, time.monotonic() - begin)
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError, http.client.HTTPException):
        probe = http.client.HTTPConnection("127.0.0.1", port, timeout=5, blocksize=1 << 20)
        probe.request("GET", "/health")
        return probe.getresponse().status == 200
    return False


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def tree(pid: int) -> list[int]:
    """A process and everything below it."""
    found, waiting = [], [pid]
    while waiting:
        current = waiting.pop()
        found.append(current)
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{current}/task").iterdir():
                waiting += map(int, (task / "children").read_text().split())
    return found


def _cpu_of(pid: int) -> float:
    with contextlib.suppress(OSError, IndexError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:15])) / _TICKS  # user, system, and those of children that have ended
    return 0.0


def _resident(pid: int) -> int:
    with contextlib.suppress(OSError, IndexError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0
