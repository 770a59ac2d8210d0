"""Jobs that an engine runs, as seen from here: what has become of them, and their record brought into the store, once."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from runproj.core.backend import Backend, JobHandle, JobState, JobStatus
from runproj.core.outcome import Outcome
from runproj.core.run import Run, RunChanges, RunStatus, Tag, TagName
from runproj.core.services import Backends, Reporter
from runproj.errors import BackendError, NotFoundError, RunprojError
from runproj.files import explained, remove_tree
from runproj.leases import Lease, LeaseInfo, Leases
from runproj.parcels import Received, folder_of, unstored
from runproj.recovery import Stores, keep_what_is_left
from runproj.relay import SNAPSHOT, Relay
from runproj.remote import UnreachableError

SHORTEST, LONGEST, GROWTH = 2.0, 30.0, 1.5
"""Seconds between two questions to an engine: at first, at last, and how they grow while nothing changes."""
_LEAVING = 60.0
"""Seconds that a job may take to leave after it has closed its run itself, on a tracking server."""
_LATENCY = 5.0
"""Seconds that a record may take to be seen after its job has ended: shared file systems are slow to tell."""
_TELLING = 30.0
"""Seconds that an engine may take to see the end of a job that its executor has recorded as failed: it may know why."""


@dataclass
class _Pace:
    """When an engine may be asked again.  hurry: and when about one job that ended badly, before it is its turn."""

    wait: float = SHORTEST
    next: float = 0.0
    hurry: float = 0.0
    before: Sequence[JobStatus] = ()


@dataclass
class Placed:
    """What looks after the jobs of one home folder.

    stores: opens those of a tracking URI;  relay: merges a record;
    brought: ids of the runs whose record came here whole;  failed: why that of others could not.
    """

    home: Path
    leases: Leases
    backends: Backends
    stores: Callable[[str], Stores]
    relay: Callable[[str], Relay]
    reporter: Reporter
    brought: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    _hurried: set[str] = field(default_factory=set)
    _silent: set[str] = field(default_factory=set)
    _away: dict[str, str] = field(default_factory=dict)
    _paces: dict[str, _Pace] = field(default_factory=dict)

    def look(self) -> list[str]:
        """Find out what has become of every job; returns the ids of runs that ended in a way that they did not record."""
        self._away.clear()
        waiting = [info for info in self.leases.all() if info.handle is not None and info.run_id]
        closed = []
        for name in {info.handle.backend for info in waiting if info.handle}:
            mine = [info for info in waiting if info.handle and info.handle.backend == name]
            for info, status in self._asked(name, mine):
                if self._settle(info, status):
                    closed.append(info.run_id)
        return closed

    def cancel(self, run: Run, handle: JobHandle) -> None:
        """Have a job stopped, and its engine asked at the next look.  One that waits does nothing if it begins after all, and
        none begins again."""
        folder = folder_of(run.id, self.home)
        if folder.is_dir():
            Received(folder).give_up()
        self.backends.open(handle.backend).cancel(handle)
        pace = self._paces.setdefault(handle.backend, _Pace())
        pace.wait, pace.next, pace.before = SHORTEST, 0.0, ()

    def abandon(self, run: Run) -> None:
        """Close a run without waiting for its engine: what is here of its record is stored, and it is KILLED unless that says
        otherwise.

        Its job is told to stop if that is possible; if not, and if it exists, it may go on unseen where this home is not.
        Raises `NotFoundError` where no job of the run is looked after from this home, `BackendError` where another command does.
        """
        info = self._job_of(run)
        if info is None or info.handle is None:
            if run.over:
                return
            fix = "What runs on this machine is stopped without --abandon; for others, use the home that they were started from."
            raise NotFoundError(f"This home looks after no job of run {run.id[:8]}", fix=fix)
        lease = self.leases.seize(info.token)
        if lease is None:
            raise BackendError(f"Another command looks after the job of run {run.id[:8]}", fix="Try again, or end that command.")
        try:
            try:
                self.cancel(run, info.handle)
            except RunprojError as error:
                self.reporter.note(f"The job of run {run.id[:8]} may go on, it could not be stopped: {_said(error)}")
            why = f"abandoned: its job on {info.handle.backend} was not waited for"
            status = JobStatus(JobState.LOST, outcome=Outcome(RunStatus.KILLED, 128 + signal.SIGTERM, why))
            parcel = Received(folder_of(run.id, self.home))
            self._completed(lease, run, parcel, status, self.stores(info.tracking_uri))
        except BaseException:
            lease.abandon()
            raise

    def looks_after(self, run: Run) -> bool:
        """Whether the run has a job elsewhere that was submitted from this home, and is not settled."""
        return self._job_of(run) is not None

    def _job_of(self, run: Run) -> LeaseInfo | None:
        return next((info for info in self.leases.all() if info.run_id == run.id and info.handle is not None), None)

    def _asked(self, name: str, infos: Sequence[LeaseInfo]) -> Iterator[tuple[LeaseInfo, JobStatus]]:
        """Each job with what its engine says; nothing new where it is not to be asked yet, or does not answer."""
        pace = self._paces.setdefault(name, _Pace())
        statuses: Sequence[JobStatus] = [JobStatus(JobState.UNKNOWN)] * len(infos)
        if time.monotonic() >= pace.next:
            try:
                statuses = self.backends.open(name).status([info.handle for info in infos if info.handle])
                self._silent.discard(name)
            except RunprojError as error:
                if name not in self._silent:
                    self._silent.add(name)
                    self.reporter.note(f"Of jobs on {name} nothing new is known: {_said(error)}")
            pace.wait = min(LONGEST, pace.wait * GROWTH) if statuses == pace.before else SHORTEST
            pace.next, pace.before = time.monotonic() + pace.wait, statuses
        yield from zip(infos, statuses, strict=True)

    def _settle(self, info: LeaseInfo, status: JobStatus) -> bool:
        """Bring the news of a job into the store; whether it was closed here because nobody else could."""
        parcel = Received(folder_of(info.run_id, self.home))
        over = status.state in (JobState.ENDED, JobState.LOST)
        if status.state is JobState.UNKNOWN and status.note:
            self.reporter.note(f"Of run {info.run_id[:8]} nothing new is known: {status.note}")
        if status.state is JobState.UNKNOWN and parcel.ended is None and not self._fresh(parcel):
            return False
        if why := self._away.get(info.tracking_uri):  # one question is enough: each takes its time to fail
            self.failed[info.run_id] = why
            return False
        lease = self.leases.seize(info.token)
        if lease is None:  # another command does it right now
            return False
        try:
            return self._brought(lease, parcel, status, over=over)
        except RunprojError as error:
            why = _said(error)
            self.reporter.note(f"The record of run {info.run_id[:8]} could not be brought here: {why}")
            self.failed[info.run_id] = why
            if isinstance(error, UnreachableError):
                self._away[info.tracking_uri] = why
            lease.abandon()
            return False
        except BaseException:
            lease.abandon()
            raise

    @staticmethod
    def _fresh(parcel: Received) -> bool:
        """Whether there is a newer picture of the record than the one that was taken over."""
        try:
            return (parcel.record / SNAPSHOT).stat().st_mtime_ns != _stamp(parcel.folder / "taken")
        except OSError:
            return False

    def _brought(self, lease: Lease, parcel: Received, status: JobStatus, *, over: bool) -> bool:
        info = lease.info
        assert info.handle is not None
        backend = self.backends.open(info.handle.backend)
        stores = self.stores(info.tracking_uri)
        try:
            run = stores.tracking.get_run(info.run_id)
        except NotFoundError:  # removed for good
            backend.cancel(info.handle)
            self._end(lease, parcel)
            return False
        if run.status.final and not parcel.folder.exists():  # whoever brought everything was killed before the lease had ended
            self._end(lease, parcel)
            return False
        if status.state is not JobState.UNKNOWN or parcel.ended is not None:
            backend.collect(info.handle, parcel.record)
        ended = parcel.ended
        if ended is not None and not over and _tells_images(backend) and not (status.image or run.tag(TagName.JOB_IMAGE)):
            status = self._asked_once(info.handle)
            over = status.state in (JobState.ENDED, JobState.LOST)
            if not status.image and not over and not self._late(parcel):  # the engine is slow to tell
                lease.hand_over()
                return False
        if status.image and run.tag(TagName.JOB_IMAGE) != status.image:
            stores.tracking.update(run.id, RunChanges(tags=(Tag(TagName.JOB_IMAGE, status.image),)))
        if ended is None and over and not (status.seen or self._late(parcel)):
            lease.hand_over()
            return False
        if ended is None and not over:
            self._news(run, parcel, status, stores, info)
            closed = run.over or run.status is RunStatus.KILLED
            if closed and time.time() - (run.end or 0) / 1000 > _LEAVING:  # somebody closed it while its job goes on
                backend.cancel(info.handle)
            lease.hand_over()
            return False
        if ended is not None and ended.status is not RunStatus.FINISHED and not over:  # the engine may know why
            status = self._asked_once(info.handle)
            if status.state not in (JobState.ENDED, JobState.LOST) and not self._late(parcel, _TELLING):
                lease.hand_over()
                return False
        return self._completed(lease, run, parcel, status, stores)

    def _completed(self, lease: Lease, run: Run, parcel: Received, status: JobStatus, stores: Stores) -> bool:
        """Bring all of a record, close the run, and remove what its job had."""
        info, ended = lease.info, parcel.ended
        problems = self.relay(info.tracking_uri).bring(run, parcel)
        run = stores.tracking.get_run(run.id)
        if info.folder and (ended is None or not run.over):  # its executor could not store its end
            keep_what_is_left(run, stores, Path(info.folder))
        lost = f"lost: {status.last or 'its job ended, or is gone, and nothing says how'}"
        closed = self._close(run, (ended, _told(status, parcel), lost), problems, stores)
        if problems:
            self._keep(run, parcel, problems)
        self._end(lease, parcel)
        self.brought.append(run.id)
        return closed

    def _asked_once(self, handle: JobHandle) -> JobStatus:
        """What the engine says of a job that ended badly: at once, and then at its pace; of many, with the rest."""
        pace, now = self._paces.setdefault(handle.backend, _Pace()), time.monotonic()
        if now < pace.next and (handle.run_id in self._hurried or now < pace.hurry):
            return JobStatus(JobState.UNKNOWN)
        self._hurried.add(handle.run_id)
        pace.next = pace.hurry = now + SHORTEST
        with contextlib.suppress(RunprojError):  # what is recorded counts without its engine's word
            return self.backends.open(handle.backend).status([handle])[0]
        return JobStatus(JobState.UNKNOWN)

    @staticmethod
    def _late(parcel: Received, patience: float = _LATENCY) -> bool:
        """Whether its record, or its engine's word, would be here by now; whoever sees first that the job is over notes when."""
        seen = parcel.folder / "over"
        try:
            return not 0 <= time.time() - seen.stat().st_mtime < patience
        except FileNotFoundError:
            parcel.folder.mkdir(parents=True, exist_ok=True)
            seen.touch()
            return False

    def _news(self, run: Run, parcel: Received, status: JobStatus, stores: Stores, info: LeaseInfo) -> None:
        """Take over what a job has logged by now."""
        tags = [Tag(TagName.WAITS, status.note)] if status.note and run.tag(TagName.WAITS) != status.note else []
        begun = status.state is JobState.RUNNING and run.status is RunStatus.SCHEDULED
        again = status.state is JobState.PENDING and run.status is RunStatus.RUNNING  # what stopped it starts it again
        if self._fresh(parcel):
            stamp = (parcel.record / SNAPSHOT).stat().st_mtime_ns
            self.relay(info.tracking_uri).news(run, parcel)
            (parcel.folder / "taken").write_text(str(stamp))
            begun = begun or run.status is RunStatus.SCHEDULED
        if tags or begun or again:
            state = RunStatus.RUNNING if begun else RunStatus.SCHEDULED if again else None
            gone = (TagName.WAITS,) if begun and run.tag(TagName.WAITS) else ()
            stores.tracking.update(run.id, RunChanges(status=state, tags=() if gone else tuple(tags), deleted_tags=gone))

    @staticmethod
    def _close(run: Run, how: tuple[Outcome | None, Outcome | None, str], problems: str, stores: Stores) -> bool:
        """Store the final state where the executor did not; the engine's reason where it knows one.

        how: as the executor recorded it, as the engine tells it, and what to say where neither does.
        """
        ended, told, lost = how
        gone = (TagName.WAITS,) if run.tag(TagName.WAITS) else ()
        changes = RunChanges(tags=(Tag(TagName.INCOMPLETE, problems[:500]),) if problems else (), deleted_tags=gone)
        if run.over:
            stopped = told is not None and told.status is RunStatus.KILLED
            if told and told.reason and run.status is not RunStatus.FINISHED and not (stopped and run.status is RunStatus.FAILED):
                reason = "\n".join(dict.fromkeys([told.reason, run.tag(TagName.REASON) or ""])).strip()
                changes = replace(changes, tags=(*changes.tags, Tag(TagName.REASON, reason[:2000])))
                if run.status is RunStatus.KILLED and told.status is RunStatus.FAILED:  # told to end, not by a user
                    code = Tag(TagName.EXIT_CODE, str(told.exit_code))
                    changes = replace(changes, status=told.status, tags=(*changes.tags, code))
            stores.tracking.update(run.id, changes)
            return False
        outcome = ended or told or Outcome(RunStatus.FAILED, 1, lost)
        tags = [Tag(TagName.EXIT_CODE, str(outcome.exit_code)), Tag(TagName.REASON, outcome.reason[:2000])]
        tags += [Tag(TagName.LOST, "1")] if not ended and not told else []
        changes = replace(changes, status=outcome.status, end=int(time.time() * 1000), tags=(*changes.tags, *tags))
        stores.tracking.update(run.id, changes)
        return not ended and not told

    def _keep(self, run: Run, parcel: Received, problems: str) -> None:
        """Set the record aside, of which not everything could be stored: it is the only one."""
        kept = unstored(self.home) / run.id
        with explained(kept), contextlib.suppress(FileNotFoundError):  # a disk that is full now may have room later
            kept.parent.mkdir(parents=True, exist_ok=True)
            remove_tree(kept)
            parcel.record.rename(kept)
        self.reporter.note(f"Not everything of run {run.id[:8]} could be stored ({problems[:200]}); its record is kept in {kept}")

    def _end(self, lease: Lease, parcel: Received) -> None:
        for folder in filter(None, (lease.info.folder, str(parcel.folder))):
            with contextlib.suppress(OSError):
                remove_tree(Path(folder))
        lease.end()


def _said(error: RunprojError) -> str:
    return f"{error.what}. {error.why}".strip()


def _tells_images(backend: Backend) -> bool:
    return bool(getattr(backend, "images", False))


def _told(status: JobStatus, parcel: Received) -> Outcome | None:
    """How the job ended, as those know who are not its executor: whoever stopped it, or the engine.  What an engine says of a
    job that was stopped is how it did so."""
    if parcel.given_up and (status.outcome is None or status.outcome.status is not RunStatus.KILLED):
        return Outcome(RunStatus.KILLED, 128 + signal.SIGTERM, "stopped")
    return status.outcome


def _stamp(path: Path) -> int:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return 0
