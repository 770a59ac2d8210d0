"""A store with a run and an endpoint in front of it, as the executor makes them."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

from runproj.artifacts import open_artifacts
from runproj.artifacts.direct import DirectArtifacts
from runproj.artifacts.folder import Folder
from runproj.core.run import NewRun, Run
from runproj.server.endpoint import Endpoint
from runproj.tracking import open_full_store
from runproj.tracking.full import FullStore

TOKEN = "a-secret-token"


@dataclass
class Served:
    store: FullStore
    artifacts: DirectArtifacts
    run: Run
    endpoint: Endpoint
    port: int

    def folder(self, run: Run) -> Path:
        """Where a run's artifacts are."""
        return self.root / self.artifacts.place(run.artifact_uri)[1]

    @property
    def root(self) -> Path:
        assert isinstance(self.artifacts.files, Folder)
        return self.artifacts.files.root

    @property
    def environment(self) -> dict[str, str]:
        """What the executor tells the project's process."""
        return {
            "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{self.port}",
            "MLFLOW_TRACKING_TOKEN": TOKEN,
            "MLFLOW_RUN_ID": self.run.id,
            "MLFLOW_EXPERIMENT_ID": self.run.experiment_id,
        }

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
        """A request with the token, unless `headers` say otherwise; `_` in their names stands for `-`."""
        connection = self.connect()
        given = {"Authorization": f"Bearer {TOKEN}", **{name.replace("_", "-"): value for name, value in headers.items()}}
        connection.request(method, path, body, {name: value for name, value in given.items() if value})
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return answer.status, content

    def call(self, method: str, call: str, **fields: object) -> tuple[int, dict[str, object]]:
        """An API call; returns status and message."""
        path = f"/api/2.0/mlflow/{call}"
        if method == "GET":
            status, content = self.ask(method, f"{path}?{urlencode(fields, doseq=True)}")
        else:
            status, content = self.ask(method, path, json.dumps(fields).encode(), Content_Type="application/json")
        return status, json.loads(content) if content[:1] == b"{" else {"text": content.decode()}

    def ok(self, method: str, call: str, **fields: object) -> dict[str, object]:
        status, message = self.call(method, call, **fields)
        assert status == 200, message
        return message


@contextmanager
def served(home: Path, uri: str = "") -> Iterator[Served]:
    """A run's endpoint over a new store in `home`, or over the database at `uri`."""
    uri = uri or f"sqlite:///{home / 'runproj.db'}"
    store = open_full_store(uri, home=home)
    artifacts = open_artifacts(uri, home=home, environ={})
    assert isinstance(artifacts, DirectArtifacts)
    run = store.create_run(NewRun("0", 1))
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        endpoint = Endpoint(listener, TOKEN, store, artifacts, run.id, "0")
        endpoint.start()
        try:
            yield Served(store, artifacts, run, endpoint, listener.getsockname()[1])
        finally:
            endpoint.close()
            store.close()
