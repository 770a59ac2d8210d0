"""Real git servers on loopback for tests: the git daemon, and git's own HTTP backend behind a password."""

from __future__ import annotations

import base64
import contextlib
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

from support.ports import free_port


@contextlib.contextmanager
def git_daemon(folder: Path) -> Iterator[str]:
    """Serves the repositories below `folder`; gives the URL of that folder."""
    port = free_port()
    process = subprocess.Popen(
        ["git", "daemon", "--export-all", "--listen=127.0.0.1", f"--port={port}", f"--base-path={folder}", str(folder)],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        for _ in range(3000):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            time.sleep(0.02)
        yield f"git://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, 9)
        process.wait()


class GitHttp:
    """Git's HTTP backend over the repositories in `folder`, or plain files, behind a password if there is one.

    requests:  (method, path, authorization) of all that came;  `failures`: how many of the next requests are broken off.
    """

    def __init__(self, folder: Path, password: str | None = None) -> None:
        self.folder = folder
        self.password = password
        self.requests: list[tuple[str, str, str | None]] = []
        self.failures = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.answer(self)

            do_POST = do_GET  # noqa: N815 - named by http.server

            def log_message(self, *_: object) -> None:
                """Quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self._server.server_address[1]}"
        self.url = f"http://{self.host}"

    def __enter__(self) -> GitHttp:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        given = request.headers.get("Authorization")
        self.requests.append((request.command, request.path, given))
        if self.failures > 0:
            self.failures -= 1
            request.send_error(503)
            return
        if self.password is not None:
            expected = "Basic " + base64.b64encode(f"user:{self.password}".encode()).decode()
            if given != expected:
                request.send_response(401)
                request.send_header("WWW-Authenticate", 'Basic realm="git"')
                request.send_header("Content-Length", "0")
                request.end_headers()
                return
        parts = urlsplit(request.path)
        plain = self.folder / unquote(parts.path).lstrip("/")
        if plain.is_file() and plain.suffix == ".zip":
            self._send_file(request, plain)
        else:
            self._run_backend(request, parts.path, parts.query)

    def _send_file(self, request: BaseHTTPRequestHandler, path: Path) -> None:
        tag = f'"{path.stat().st_mtime_ns}"'
        same = request.headers.get("If-None-Match") == tag
        request.send_response(304 if same else 200)
        request.send_header("ETag", tag)
        request.send_header("Content-Length", "0" if same else str(path.stat().st_size))
        request.end_headers()
        if not same:
            request.wfile.write(path.read_bytes())

    def _run_backend(self, request: BaseHTTPRequestHandler, path: str, query: str) -> None:
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        env = {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": str(self.folder),
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": "safe.directory",
            "GIT_CONFIG_VALUE_0": "*",
            "REQUEST_METHOD": request.command,
            "PATH_INFO": unquote(path),
            "QUERY_STRING": query,
            "CONTENT_TYPE": request.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": request.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": request.headers.get("Git-Protocol", ""),
            "REMOTE_ADDR": "127.0.0.1",
        }
        result = subprocess.run(["git", "http-backend"], input=body, env=env, capture_output=True, check=False)
        head, _, content = result.stdout.partition(b"\r\n\r\n")
        fields = [line.decode().partition(": ")[::2] for line in head.split(b"\r\n") if line]
        status = next((value for key, value in fields if key.lower() == "status"), "200 OK")
        request.send_response(int(status.split()[0]))
        for key, value in fields:
            if key.lower() != "status":
                request.send_header(key, value)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(content)
