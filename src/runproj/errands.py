"""The executor of a job that an engine started: reads its parcel, executes, and leaves a record that can be brought home.

It records into the tracking server where it reaches one; else into a store of its own beside the parcel, which nobody else
writes.  The file of an embedded store is never written from two machines.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from dataclasses import field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from runproj.backends.shared import is_alive
from runproj.core.backend import Engine
from runproj.core.outcome import Outcome, outcome_of
from runproj.core.run import NewRun, RunChanges, RunStatus, Tag, TagName
from runproj.core.values import dataclass
from runproj.errors import NotFoundError, TrackingError
from runproj.files import Lock, LockedElsewhere, remove_tree
from runproj.leases import Leases
from runproj.parcels import Received
from runproj.relay import ARTIFACTS, RECORD, SNAPSHOT
from runproj.settings import Settings, load
from runproj.supervise import WORDS
from runproj.wiring import Wiring

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runproj.core.run import Run
    from runproj.core.services import Reporter


_OF_AN_END = (TagName.EXIT_CODE, TagName.REASON, TagName.SIGNAL, TagName.INCOMPLETE)
_SILENCE = 60.0
"""Seconds after which another executor that gives no sign of life is not waited for."""


@dataclass(frozen=True)
class Errand:
    """One execution of a parcel.  `begun`: in seconds since 1970."""

    parcel: Received
    reporter: Reporter
    tee: tuple[int | None, int | None] = (None, None)
    begun: float = field(default_factory=time.time)

    def execute(self) -> int:
        """Execute the job; returns its exit code.  On return everything it recorded can be brought home."""
        with self._alone():
            return self._execute_alone()

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Wait for an executor of the same job, which its engine may start again while it still ends the first one elsewhere.

        One of which nothing is heard any more is gone with its machine, whatever became of its lock.
        """
        folder, begun = self.parcel.folder, time.monotonic()
        lock = Lock(folder / "executing")
        while True:
            if not folder.is_dir():
                raise NotFoundError("The run is over: nobody waits for its job any more")
            try:
                lock.acquire(wait=False)
                break
            except LockedElsewhere:
                if time.monotonic() - begun > _SILENCE and not is_alive(folder):
                    break
            except OSError:  # a file system without locks
                break
            time.sleep(0.5)
        try:
            yield
        finally:
            lock.release()

    def _execute_alone(self) -> int:
        parcel = self.parcel
        if parcel.given_up:
            raise NotFoundError("The run was stopped before its job began")
        if (before := parcel.ended) is not None:  # started again by an engine that did not hear that it had ended
            return before.exit_code
        remove_tree(parcel.record / "active")
        if Engine.TOLD in os.environ:  # meant for the command, which may not run yet, or no more
            for number in WORDS:
                signal.signal(number, lambda *_: None)
        with self._stores() as (wiring, run):
            try:
                outcome = self._execute(wiring, run)
            except BaseException as error:
                parcel.end(outcome_of(error))
                raise
            if self._begins_again(outcome):
                again = RunChanges(status=RunStatus.SCHEDULED, deleted_tags=_OF_AN_END)
                wiring.tracking.update(run.id, again)
                return outcome.exit_code
        parcel.end(outcome)
        return outcome.exit_code

    def prepare(self) -> None:
        """Lay the code out beside the parcel, for an executor that has no git: it runs in the project's own image."""
        wiring = self._wiring(self._settings(), dict(os.environ))
        self._take_code(wiring)
        remove_tree(self._laid_out)
        wiring.sources.checkout(self.parcel.plan.code, self._laid_out)

    @property
    def _laid_out(self) -> Path:
        return self.parcel.folder / "checkout"

    def _begins_again(self, outcome: Outcome) -> bool:
        """Whether the engine, not the user, stopped the job, and starts it again."""
        stopped = outcome.status is RunStatus.KILLED and outcome.exit_code == 128 + signal.SIGTERM
        return stopped and Engine.REQUEUED in os.environ and not self.parcel.given_up

    def _execute(self, wiring: Wiring, run: Run) -> Outcome:
        from runproj.executor import execute

        if run.status.final:
            return Outcome(run.status, 1, "the run was closed before its job began")
        inside = self._laid_out if Engine.INSIDE in os.environ else None
        if inside is None:
            self._take_code(wiring)
        token = run.tag(TagName.ATTEMPT) or run.id[:16]
        lease = wiring.leases.take(token, wiring.settings.tracking_uri)
        lease.update(run_id=run.id, folder=wiring.settings.runs / run.id)
        told, given = Engine.TOLD in os.environ, self.parcel.folder / "inputs"
        waited = 0.0 if run.tag(TagName.RESTARTS) else max(0.0, self.begun - run.start / 1000)
        use = replace(wiring.services(), told=told, until=self._until(), given=given, inside=inside, waited=waited)
        return execute(self.parcel.plan, run, use, lease, self.parcel.secrets.parameters)

    def _until(self) -> float | None:
        """When the command is to end: some time before the engine ends everything, and nothing can be recorded any more."""
        lasts = os.environ.get(Engine.LASTS)
        if not (ends := self.begun + float(lasts) if lasts else float(os.environ.get(Engine.ENDS) or 0)):
            return None
        return ends - self.parcel.plan.options.grace - min(60.0, max(0.0, ends - time.time()) / 10)

    def _take_code(self, wiring: Wiring) -> None:
        """Have the code at hand that came with the parcel."""
        if (code := self.parcel.waybill.code) is not None:
            wiring.sources.unpack(code, self.parcel.folder / "code")
            if (patch := self.parcel.folder / "code.patch").exists():
                wiring.objects.put(patch)

    @contextlib.contextmanager
    def _stores(self) -> Iterator[tuple[Wiring, Run]]:
        """What the executor works with, and the run in the store that it records in; all of it is on disk after the block."""
        parcel, base = self.parcel, self._settings()
        variables = {**os.environ, **parcel.secrets.variables}
        if parcel.waybill.tracking_uri.startswith(("http://", "https://")):
            wiring = self._wiring(replace(base, tracking_uri=parcel.waybill.tracking_uri), variables)
            run = self._reached(wiring)
            if run is not None:
                yield wiring, run
                return
        record = parcel.record / RECORD
        private = replace(base, tracking_uri=f"sqlite:///{record}", artifacts_uri=str(parcel.record / ARTIFACTS))
        wiring = self._wiring(private, variables)
        from runproj.tracking.snapshot import Snapshots

        run = self._seeded(wiring)
        snapshots = Snapshots(record, parcel.record / SNAPSHOT)
        snapshots.start()
        try:
            yield wiring, run
        finally:
            snapshots.stop()
            wiring.close()

    def _reached(self, wiring: Wiring) -> Run | None:
        """The run on its tracking server; None where that cannot be used from here."""
        try:
            return self._begun(wiring.tracking.get_run(self.parcel.waybill.run.id), wiring)
        except TrackingError as error:
            self.reporter.note(f"{error.what}: the run is recorded beside its job.")
            return None

    def _settings(self) -> Settings:
        """Those of the home that the job was made in, where it is here; else of this machine's own."""
        waybill = self.parcel.waybill
        if waybill.code is None:
            return replace(load(home=Path(waybill.home)), experiment=waybill.experiment, experiment_id=None)
        return replace(load(), experiment=waybill.experiment, experiment_id=None)

    def _wiring(self, settings: Settings, variables: dict[str, str]) -> Wiring:
        wiring = Wiring(settings, self.reporter, tee=self.tee, environ=variables)
        wiring.leases = Leases(self.parcel.record / "active")
        return wiring

    def _seeded(self, wiring: Wiring) -> Run:
        """The run in its own store; an engine that starts a job again finds what was recorded before."""
        run, tracking = self.parcel.waybill.run, wiring.tracking
        try:
            return self._begun(tracking.get_run(run.id), wiring)
        except NotFoundError:
            pass
        experiment = tracking.experiment(self.parcel.waybill.experiment)
        new = NewRun(experiment.id, run.start, run.id, run.name, run.user, RunStatus.RUNNING, run.params, run.tags)
        tracking.create_run(new)
        return self._begun(tracking.get_run(run.id), wiring)

    def _begun(self, run: Run, wiring: Wiring) -> Run:
        """Say that the run runs now; again, where it did before."""
        if run.status.final:
            return run
        tags: tuple[Tag, ...] = ()
        mark = self.parcel.record / "begun"
        if mark.exists():
            tags = (Tag(TagName.RESTARTS, str(int(run.tag(TagName.RESTARTS) or 0) + 1)),)
            remove_tree(wiring.settings.runs / run.id / "work")
        mark.touch()
        wiring.tracking.update(run.id, RunChanges(status=RunStatus.RUNNING, tags=tags))
        return wiring.tracking.get_run(run.id)
