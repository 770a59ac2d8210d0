"""Settings → Services: the one place that knows every concrete class.  Each part is made when it is first asked for."""

from __future__ import annotations

import contextlib
import os
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from runproj.core.run import RunQuery
from runproj.core.services import ProjectReader, Reporter, Services
from runproj.errors import TrackingError, UsageError
from runproj.files import Objects, sweep_trash
from runproj.leases import Leases
from runproj.settings import Settings

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from runproj.artifacts.direct import DirectArtifacts
    from runproj.backends.catalogue import Catalogue
    from runproj.core.backend import Backend, Job
    from runproj.core.call import Call
    from runproj.core.environment import LockOptions
    from runproj.core.finding import RunSearch
    from runproj.core.project import Project
    from runproj.core.run import Run
    from runproj.core.services import Endpoint
    from runproj.core.tracking import ArtifactStore, TrackingStore
    from runproj.core.transfer import TransferReport
    from runproj.core.views import Check, LockReport, RunView, SyncedSpool
    from runproj.environments import EnvironmentCache
    from runproj.placed import Placed
    from runproj.recovery import Stores
    from runproj.source import SourceStore
    from runproj.tracking.full import FullStore
    from runproj.tracking.users import Users
    from runproj.transfer.engine import Wishes


class Wiring:
    """Everything of one home folder, connected."""

    def __init__(
        self,
        settings: Settings,
        reporter: Reporter,
        *,
        offline: bool = False,
        require_clean: bool = False,
        tee: tuple[int | None, int | None] = (None, None),
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self.settings = settings
        self.reporter = reporter
        self.offline = offline or settings.offline
        self.require_clean = require_clean
        self.tee = tee
        self.environ = environ
        self.leases = Leases(settings.home / "active")

    @property
    def remote(self) -> bool:
        """Whether runs are recorded on a server."""
        return self.settings.tracking_uri.startswith("http")

    @cached_property
    def objects(self) -> Objects:
        return Objects(self.settings.objects)

    @cached_property
    def tracking(self) -> TrackingStore:
        from runproj.tracking import open_store

        settings = self.settings
        return open_store(settings.tracking_uri, home=settings.home, environ=self.environ, note=self.reporter.note)

    @cached_property
    def artifacts(self) -> ArtifactStore:
        from runproj.artifacts import open_artifacts

        settings = self.settings
        return open_artifacts(settings.tracking_uri, home=settings.home, environ=self.environ, place=settings.artifacts_uri)

    @cached_property
    def sources(self) -> SourceStore:
        from runproj.source import SourceStore

        return SourceStore(
            self.settings.cache / "git",
            self.settings.home / "checkouts",
            self.objects,
            offline=self.offline,
            capture_limit=self.settings.capture_limit,
            require_clean=self.require_clean,
            progress=self.reporter.progress,
        )

    @cached_property
    def environments(self) -> EnvironmentCache:
        from runproj.environments import EnvironmentCache

        settings = self.settings
        return EnvironmentCache(
            settings.home,
            offline=self.offline,
            progress=self.reporter.progress,
            conda_places=settings.conda_channels,
            conda_alias=settings.conda_alias,
            docker_base=settings.docker_base,
        )

    def services(self) -> Services:
        """What the runner and the executor work with."""
        remote = self.remote
        return Services(
            home=self.settings.home,
            cwd=_here(),
            objects=self.objects,
            sources=self.sources,
            projects=ProjectReader(_read_project, _resolve_paths),
            environments=self.environments,
            backends=self.backends,
            tracking=self.tracking,
            artifacts=self.artifacts,
            tracking_uri=self.settings.tracking_uri,
            reporter=self.reporter,
            endpoint=None if remote else self._endpoint,
            child_env={name: self.environ[name] for name in _REMOTE_VARIABLES if name in self.environ} if remote else {},
            tee=self.tee,
            look=self.recover,
            cancel=self.cancel,
            experiment=self.settings.experiment,
            experiment_id=self.settings.experiment_id,
            place=self.settings.place,
        )

    @cached_property
    def backends(self) -> Catalogue:
        from runproj.backends.catalogue import BackendContext, Catalogue

        return Catalogue(
            BackendContext(self.settings.home, self.environ, self.settings.tracking_uri, self.reporter.progress),
            {"local": self._local_backend},
        )

    def _local_backend(self) -> Backend:
        from runproj.backends.local import LocalBackend

        return LocalBackend(self.leases, self.settings.runs, self._execute)

    def _execute(self, job: Job) -> None:
        from runproj.executor import execute
        from runproj.runner import load_plan

        use = self.services()
        run = self.tracking.get_run(job.run_id)
        execute(load_plan(run, use), run, use, self.leases.mine(job.token), job.secrets)

    def take_over(self, token: str, descriptor: int) -> int:
        """Be the executor of a run whose lease was handed to this process; returns its exit code."""
        from runproj.codec import from_json
        from runproj.executor import execute
        from runproj.runner import load_plan

        lease = self.leases.inherit(token, descriptor)
        secrets = Path(lease.info.folder) / "secrets.json"
        values: dict[str, str] = from_json(dict[str, str], secrets.read_bytes()) if secrets.exists() else {}
        secrets.unlink(missing_ok=True)
        run = self.tracking.get_run(lease.info.run_id)
        use = self.services()
        return execute(load_plan(run, use), run, use, lease, values).exit_code

    def _endpoint(self, listener: socket.socket, token: str, run_id: str, experiment_id: str) -> Endpoint:
        from runproj.server.endpoint import Endpoint

        return Endpoint(listener, token, self.tracking, self.artifacts, run_id, experiment_id)

    @contextlib.contextmanager
    def served(self, store: str | None, artifacts: str | None) -> Iterator[tuple[FullStore, DirectArtifacts]]:
        """What a server serves: the store at a URL, and the artifacts at another; by default the configured ones.

        The database is opened, and brought up to date, before the block begins.
        """
        from runproj.artifacts import open_direct
        from runproj.tracking import open_full_store

        uri, home = self.database_uri(store), self.settings.home
        if artifacts and ":" not in artifacts:
            artifacts = str(_here() / artifacts)
        files = open_direct(uri, home=home, environ=self.environ, place=artifacts or self.settings.artifacts_uri)
        opened = open_full_store(uri, home=home, note=self.reporter.note)
        with contextlib.closing(opened):
            opened.experiments.get("0")
            yield opened, files

    def users(self, store: str | None) -> Users:
        """The users that the server of a store knows; by default of the configured one."""
        from runproj.tracking import open_database
        from runproj.tracking.users import Users

        return Users(open_database(self.database_uri(store), home=self.settings.home, note=self.reporter.note))

    def database_uri(self, store: str | None) -> str:
        """The database of a server of this machine: at a URL, or the configured one.

        Where what is configured is a server, which may be the very one that is meant, it is the default database of this home.
        """
        if store is None:
            configured = self.settings.tracking_uri
            return configured if not configured.startswith("http") else f"sqlite:///{self.settings.home / 'runproj.db'}"
        if store.startswith(("http://", "https://")):
            raise UsageError(
                f"A server cannot keep its runs at {store}", fix="Use --store sqlite:///PATH or postgresql://HOST/NAME."
            )
        return store

    def close(self) -> None:
        """Let go of the store; what it holds is then in one file where it is an SQLite database."""
        from runproj.tracking.store import SqlStore

        if "tracking" in self.__dict__ and isinstance(self.tracking, SqlStore):
            self.tracking.close()

    def stores(self, tracking_uri: str) -> Stores:
        """The stores of a tracking URI, ours or one that an earlier command used."""
        from runproj.artifacts import open_artifacts
        from runproj.recovery import Stores
        from runproj.tracking import open_store

        if tracking_uri == self.settings.tracking_uri:
            return Stores(self.tracking, self.artifacts)
        return Stores(
            open_store(tracking_uri, home=self.settings.home, environ=self.environ),
            open_artifacts(tracking_uri, home=self.settings.home, environ=self.environ, place=self.settings.artifacts_uri),
        )

    def recover(self, *, everywhere: bool = False) -> list[str]:
        """Close the runs whose executor vanished, so that what is shown is true.

        Those on a server that this command does not use wait for one that does (or for `everywhere`): it might not answer.
        """
        sweep_trash(self.settings.home / "parcels")  # of a command that was killed while it removed one
        if self.leases.empty:
            return []
        from runproj.recovery import recover

        def stores(tracking_uri: str) -> Stores:
            if everywhere or tracking_uri == self.settings.tracking_uri or not tracking_uri.startswith("http"):
                return self.stores(tracking_uri)
            raise TrackingError(f"{tracking_uri} is not the store of this command")  # the lease stays

        closed = recover(self.leases, self.settings.runs, stores)
        if any(info.handle for info in self.leases.all()):
            closed += self.placed.look()
        for run_id in closed:
            self.reporter.note(f"Run {run_id[:8]} was left open by an executor that is gone; it is closed now.")
        return closed

    @cached_property
    def placed(self) -> Placed:
        """What looks after jobs that are elsewhere."""
        from runproj.placed import Placed
        from runproj.relay import Relay
        from runproj.transfer import Surroundings, open_target

        def relay(tracking_uri: str) -> Relay:
            use = Surroundings(self.settings.home, self.settings.home, self.environ, (), self.settings.artifacts_uri)
            tracking = self.stores(tracking_uri).tracking
            return Relay(tracking, lambda: open_target(tracking_uri, use, into_ours=True), self.settings.cache)

        return Placed(self.settings.home, self.leases, self.backends, self.stores, relay, self.reporter)

    def cancel(self, run: Run) -> None:
        """Have the job of a run stopped, wherever it is."""
        from runproj.runner import handle_of

        self.placed.cancel(run, handle_of(run))

    def unsent(self) -> int:
        """How many processes that are gone have left something to send."""
        found = [folder for folder in self.settings.spools if folder.is_dir() and os.listdir(folder)]
        if not found:
            return 0
        from runproj.client.sync import waiting

        return sum(len(waiting(str(folder))) for folder in found)

    def sync(self, progress: Callable[[str, int], None], *, refused: bool = False) -> Iterator[SyncedSpool]:
        """Send what processes logged that ended without sending it; `progress` is told a spool and how much was sent so far.

        refused: also what a server has refused before.
        """
        from runproj.client.places import connect
        from runproj.client.sync import send_all
        from runproj.core.views import SyncedSpool

        for folder in self.settings.spools:
            for spool in send_all(str(folder), connect, progress, refused) if folder.is_dir() else ():
                yield SyncedSpool(**spool._asdict())

    def lock(self, folder: Path, entry_point: str | None, options: LockOptions, *, upgrade: bool, check: bool) -> LockReport:
        """Write the lock of a project's environment into its folder (see `locking`)."""
        from runproj.locking import lock_project

        project = _read_project(folder, entry_point)
        return lock_project(folder, project, self.sources, self.environments, options, upgrade=upgrade, check=check)

    def find_run(self, reference: str) -> Run:
        """The run that a reference (id, beginning of an id, name, @last) means."""
        from runproj.references import find_run

        return find_run(reference, self.tracking)

    def find_runs(self, search: RunSearch) -> Sequence[Run]:
        """The runs that a filter of the search language finds.  Raises `UsageError` for one that has no meaning."""
        from runproj.tracking.finder import open_finder

        return open_finder(self.settings.tracking_uri, home=self.settings.home, environ=self.environ).find_runs(search)

    def view(self, run: Run) -> RunView:
        """A run with what is stored beside it, as `--json` prints it."""
        from runproj.references import view

        return view(run, self.artifacts, self.settings.cache / "views")

    def checkup(self) -> Iterator[Check]:
        """What `doctor` finds."""
        from runproj.checkup import examine

        return examine(self.settings, self._store_state, self.environments.interpreters, self.unsent)

    def _store_state(self) -> str:
        if self.remote:
            from runproj.remote import scrubbed

            self.tracking.search(RunQuery(limit=1))
            return scrubbed(self.settings.tracking_uri)
        from runproj.tracking import check_store

        return check_store(self.settings.tracking_uri, home=self.settings.home)

    def transfer(
        self, source: str | None, target: str | None, artifacts: Sequence[Path], wishes: Wishes, *, into_ours: bool
    ) -> TransferReport:
        """Move a record from one place to another; None stands for the configured store.

        into_ours: a database that does not exist yet is made, as one of ours.
        """
        from runproj.transfer import Surroundings, check_places, open_source, open_target
        from runproj.transfer.engine import Transfer
        from runproj.transfer.journal import Journal

        use = Surroundings(self.settings.home, _here(), self.environ, artifacts, self.settings.artifacts_uri)
        configured = self.settings.tracking_uri
        source, target = (configured if where is None else where for where in (source, target))
        check_places(source, target, use)
        reading = open_source(source, use)
        writing = open_target(target, use, into_ours=into_ours)
        with Journal(self.settings.home / "transfers", reading.name, writing.name) as known:
            return Transfer(reading, writing, known, self.reporter, wishes).move()

    def direct_artifacts(self) -> DirectArtifacts:
        """The artifacts of a store that is not a server's."""
        from runproj.artifacts import open_direct

        settings = self.settings
        return open_direct(settings.tracking_uri, home=settings.home, environ=self.environ, place=settings.artifacts_uri)


_REMOTE_VARIABLES = (
    "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
    "MLFLOW_TRACKING_INSECURE_TLS",
    "MLFLOW_TRACKING_SERVER_CERT_PATH",
    "MLFLOW_TRACKING_CLIENT_CERT_PATH",
)


def _here() -> Path:
    try:
        return Path.cwd()
    except FileNotFoundError:
        raise UsageError("The folder you are in does not exist any more", fix="Change to one that does.") from None


def _read_project(folder: Path, entry_point: str | None) -> Project:
    from runproj.descriptor import read_project

    return read_project(folder, entry_point=entry_point)


def _resolve_paths(call: Call, project: Path, cwd: Path) -> Call:
    from runproj.descriptor import resolve_paths

    return resolve_paths(call, project, cwd)
