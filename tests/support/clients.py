"""Processes that log with the Python client, and a server that comes and goes."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from runproj.core.run import Run, RunQuery
from runproj.tracking.full import FullStore
from support.ports import free_port

NOBODY = "http://127.0.0.1:9"
"""Where no server is."""


class Flaky:
    """A `runproj server` on one port, which can be killed and started again."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        command = [sys.executable, "-m", "runproj.cli.main", "server", "--port", str(self.port)]
        log = (self.home.parent / "server.log").open("ab")
        with log:
            environ = {**os.environ, "RUNPROJ_HOME": str(self.home)}
            self._process = subprocess.Popen(command, env=environ, stdout=log, stderr=log)
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(f"{self.url}/health", timeout=5):
                    return
            except OSError:
                assert self._process.poll() is None, (self.home.parent / "server.log").read_text()
                time.sleep(0.02)
        raise AssertionError("the server does not start")

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def __enter__(self) -> Flaky:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


class Unreliable:
    """In front of a server: every other request goes wrong, before or after the server has heard it."""

    def __init__(self, behind: str) -> None:
        self.behind = behind
        self.asked = self.outages = 0
        handler = type("Handler", (_Handler,), {"proxy": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Unreliable:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def pass_on(self, method: str, path: str, body: bytes) -> tuple[int, bytes] | None:
        """The answer; None for none."""
        self.asked += 1
        way = self.asked % 8
        if way in (1, 3, 5, 7):
            self.outages += 1
        if way == 1:
            return None
        heard = self.ask(method, path, body)
        return {3: (503, b"busy"), 5: (500, b"<html>"), 7: None}.get(way, heard)

    def ask(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        """What the server answers."""
        request = urllib.request.Request(self.behind + path, body or None, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()


class Speechless(Unreliable):
    """In front of a server: it hears everything, but how it answers the first `runs/create` is lost."""

    def pass_on(self, method: str, path: str, body: bytes) -> tuple[int, bytes] | None:
        heard = self.ask(method, path, body)
        lost = path.endswith("runs/create") and not self.outages
        self.outages += lost
        return None if lost else heard


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: Unreliable

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        answer = self.proxy.pass_on(self.command, self.path, body)
        if answer is None:
            self.close_connection = True
            return
        self.send_response(answer[0])
        self.send_header("Content-Length", str(len(answer[1])))
        self.end_headers()
        self.wfile.write(answer[1])

    def do_POST(self) -> None:
        self.do_GET()

    def do_PUT(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None: ...


def environment(**variables: str) -> dict[str, str]:
    """The environment of a process that logs, without anything of the test's own that would lead it elsewhere."""
    base = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    return {"RUNPROJ_FLUSH_SECONDS": "120", **base, **variables}


def python(code: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """A process that logs, run to its end."""
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=environment(**variables), cwd=cwd, capture_output=True, text=True, timeout=600)


def start(code: str, cwd: Path, **variables: str) -> subprocess.Popen[str]:
    """A process that logs, which is left to itself."""
    command, pipe = [sys.executable, "-c", code], subprocess.PIPE
    return subprocess.Popen(command, env=environment(**variables), cwd=cwd, stdout=pipe, stderr=pipe, text=True)


def spools(root: Path) -> list[Path]:
    """The spools that are in a folder."""
    return sorted(path for path in root.glob("*") if not path.name.startswith(".")) if root.is_dir() else []


def runs(store: FullStore) -> list[Run]:
    """Every run, the oldest first."""
    return list(reversed(store.search(RunQuery(limit=1000))))
