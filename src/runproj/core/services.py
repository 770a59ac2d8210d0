"""What the program is given to work with: one value per door, chosen by `wiring`, known here by protocol only."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import Any, Protocol

from runproj.core.backend import Backend
from runproj.core.call import Call
from runproj.core.environment import Environments
from runproj.core.project import Project
from runproj.core.run import Run, RunStatus
from runproj.core.source import Sources
from runproj.core.tracking import ArtifactStore, TrackingStore
from runproj.core.values import dataclass


class Objects(Protocol):
    """The content-addressed store, by sha256."""

    def path(self, digest: str) -> Path:
        """Where the object is, or would be."""

    def put(self, source: Path | bytes) -> str:
        """Store a file or bytes; returns the digest."""

    def get(self, digest: str) -> bytes | None:
        """The content, or None where it is missing or damaged."""


class Endpoint(Protocol):
    """The executor's loopback server for one run, speaking MLflow's protocol.  Costs nothing until `start`."""

    def start(self) -> None:
        """Serve from now on, in the background."""

    def close(self) -> None:
        """Finish the requests in flight and stop."""

    def open_runs(self) -> set[str]:
        """Ids of the runs made through it that have not been ended."""

    @property
    def reported_status(self) -> RunStatus | None:
        """How the project itself said that its run ended (`mlflow.end_run("FAILED")`); None where it said nothing."""


OpenEndpoint = Callable[[socket.socket, str, str, str], Endpoint]
"""(listening socket, token, run id, experiment id) → the endpoint on it."""


class Backends(Protocol):
    """The places where runs can be executed."""

    def names(self) -> Sequence[str]:
        """What can be asked for, sorted; profiles of the user too."""

    def open(self, name: str) -> Backend:
        """The backend of that name, made when it is first asked for.  Raises `UsageError`."""


class Reporter(Protocol):
    """Told what happens, in words for people.  Never writes to standard output, which belongs to the project."""

    def phase(self, name: str, text: str) -> None:
        """A phase begins ("source", "environment", "run")."""

    def progress(self, text: str) -> None:
        """What the phase is doing right now; the next one replaces it."""

    def done(self, text: str) -> None:
        """The phase has ended well."""

    def note(self, text: str) -> None:
        """Something the user should know; shown once and recorded."""


@dataclass(frozen=True)
class ProjectReader:
    """The descriptor's two doors: read the project of a folder, and make a call's paths real there."""

    read: Callable[[Path, str | None], Project]
    resolve_paths: Callable[[Call, Path, Path], Call]


@dataclass(frozen=True)
class Services:
    """Everything the runner and the executor may use.

    home:      where runproj keeps its things;  `cwd` is where the user is.
    endpoint:  None where the child talks to a remote server itself.
    child_env: variables that lead the child to the tracking server, where there is no endpoint.
    look:      finds out what has become of jobs that are elsewhere, and records it;
    cancel:    stops the job of a run, wherever it is;
    tee:       descriptors that the command's output is copied to while it runs (stdout, stderr); None for none.
    told:      who sends SIGTERM to the executor sends it to every process below it too;
    until:     when the command has to be asked to end at the latest, in seconds since 1970;
    experiment: of runs whose plan names none; `experiment_id` comes before it.
    given:     files that came with the job, named by their sha256;
    waited:    seconds that the job has waited for its engine to begin it;
    inside:    code that is laid out already, for an executor that runs in the environment of its plan;
    place:     the backend that a name stands for, which may be a profile's, and its options.
    """

    home: Path
    cwd: Path
    objects: Objects
    sources: Sources
    projects: ProjectReader
    environments: Environments
    backends: Backends
    tracking: TrackingStore
    artifacts: ArtifactStore
    tracking_uri: str
    reporter: Reporter
    endpoint: OpenEndpoint | None = None
    child_env: Mapping[str, str] = field(default_factory=dict)
    tee: tuple[int | None, int | None] = (None, None)
    look: Callable[[], object] = lambda: None
    cancel: Callable[[Run], None] = lambda _: None
    told: bool = False
    until: float | None = None
    experiment: str = "Default"
    experiment_id: str | None = None
    given: Path | None = None
    waited: float = 0.0
    inside: Path | None = None
    place: Callable[[str], tuple[str, Mapping[str, Any]]] = lambda name: (name, {})

    @property
    def runs(self) -> Path:
        return self.home / "runs"
