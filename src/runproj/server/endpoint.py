"""The executor's loopback server for one run: the project's MLflow client logs here, and what it logs lands in that run.

Importing this module and making an `Endpoint` costs nothing; everything heavy is loaded by `start`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from runproj.core.run import RunStatus
from runproj.errors import TrackingError
from runproj.server.owned import Owned

if TYPE_CHECKING:
    import socket

    from runproj.core.tracking import ArtifactStore, TrackingStore
    from runproj.server.http import Server


class Endpoint:
    """Serves MLflow's protocol on `listener`, a listening socket on 127.0.0.1, to whoever holds `token`.

    The run's own state belongs to the executor: a client that ends the run `run_id` is answered as usual, and what it said is
    kept in `reported_status`.  Runs that it creates become children of that run, and new experiments keep their artifacts in
    the store's own root.  For the rest the token is worth what the store's owner is, whose process the project is.
    """

    def __init__(
        self,
        listener: socket.socket,
        token: str,
        store: TrackingStore,
        artifacts: ArtifactStore,
        run_id: str,
        experiment_id: str,
    ) -> None:
        self._listener = listener
        self._token = token
        self._store = store
        self._artifacts = artifacts
        self._owned = Owned(run_id, experiment_id)
        self._server: Server | None = None

    def start(self) -> None:
        """Serve from now on, in the background.  Raises `TrackingError` for stores that cannot be served."""
        from runproj.artifacts.direct import DirectArtifacts
        from runproj.server.gate import Gate, holder_of
        from runproj.server.http import Server
        from runproj.server.ownedstore import OwnedRunStore
        from runproj.server.rest import Api, Context
        from runproj.tracking.store import SqlStore

        if not isinstance(self._store, SqlStore) or not isinstance(self._artifacts, DirectArtifacts):
            raise TrackingError("Only the embedded store can be served to the project")
        if self._server is not None:
            return
        api = Api(Context(OwnedRunStore(self._store, self._owned), self._artifacts, roots=()))
        host, port = self._listener.getsockname()[:2]
        gate = Gate(frozenset({f"{host}:{port}", f"localhost:{port}"}), holder_of(self._token), api)
        self._server = Server(self._listener, gate.handle)
        self._server.start()

    def close(self) -> None:
        """Answer the requests that have arrived, then stop serving."""
        if self._server is not None:
            self._server.close()
            self._server = None

    def open_runs(self) -> set[str]:
        """Ids of the runs made through it that have not been ended."""
        return self._owned.open_runs()

    @property
    def reported_status(self) -> RunStatus | None:
        """What the client last said of the run itself (`mlflow.end_run("FAILED")`); None where it said nothing."""
        return self._owned.reported_status
