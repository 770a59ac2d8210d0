"""A `runproj server` in a process of its own, as a team runs it, and requests to it."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode, urlsplit


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    content: bytes

    @property
    def message(self) -> dict:
        return json.loads(self.content)


@dataclass
class Team:
    process: subprocess.Popen[str]
    url: str

    @property
    def port(self) -> int:
        return urlsplit(self.url).port or 0

    def ask(self, method: str, path: str, body: bytes | str | None = None, **headers: str) -> Answer:
        """A request; `_` in names of headers stands for `-`."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        found = Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
        connection.close()
        return found

    def call(self, method: str, call: str, headers: dict[str, str] | None = None, **fields: object) -> Answer:
        """An API call with `fields`."""
        path = f"/api/2.0/mlflow/{call}"
        if method == "GET":
            return self.ask(method, f"{path}?{urlencode(fields, doseq=True)}", **(headers or {}))
        return self.ask(method, path, json.dumps(fields), Content_Type="application/json", **(headers or {}))

    def ok(self, method: str, call: str, **fields: object) -> dict:
        answer = self.call(method, call, **fields)
        assert answer.status == 200, answer.content
        return answer.message

    def stop(self) -> tuple[int, str]:
        """SIGTERM; returns the exit code and what was said on standard error."""
        self.process.terminate()
        _, said = self.process.communicate(timeout=300)
        return self.process.returncode, said


@contextmanager
def team_server(*options: str, home: Path | None = None) -> Iterator[Team]:
    """`runproj server` on a free port of the loopback address, with the environment of the test."""
    environ = dict(os.environ) | ({"RUNPROJ_HOME": str(home)} if home else {})
    command = [sys.executable, "-m", "runproj.cli.main", "server", "--port", "0", *options]
    process = subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        url = process.stdout.readline().strip()
        if not url:
            raise AssertionError(process.communicate(timeout=300)[1])
        yield Team(process, url)
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.communicate(timeout=300)
            except subprocess.TimeoutExpired as late:
                process.kill()
                raise AssertionError(f"the server did not stop: {process.communicate()}") from late
