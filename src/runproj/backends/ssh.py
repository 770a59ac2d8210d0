"""ssh: another machine, by the system's ssh, which sees nothing of this home: the parcel goes there, the record comes back.

Hosts, users, ports, keys and proxies are those of the user's ssh configuration.  Nothing is asked for: a host that wants a
password, or whose key is not known, is refused with what ssh says.  What happens there is in `ssh_there`.
"""

from __future__ import annotations

import filecmp
import io
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from runproj.backends import ssh_setup
from runproj.backends.catalogue import BackendContext
from runproj.backends.shared import details_of, has_ended
from runproj.backends.ssh_line import Line, new_mark
from runproj.codec import DocumentError, from_json, to_json
from runproj.core.backend import Demand, Job, JobHandle, JobState, JobStatus, Option, OptionKind
from runproj.core.environment import EnvPlace
from runproj.errors import BackendError
from runproj.files import atomic_write, explained
from runproj.packing import PACKED, REST, unpack

_TICKET = "ssh.json"
_FOLDER = "~/.cache/runproj-jobs"
_POLL = 2.0
"""Seconds until a machine that did not answer is asked for a log again."""
_COMPLETE = "complete"
"""What `ssh_there` knows a whole archive by."""
_THERE = """
python=$1
case $python in "~/"*) python=$HOME/${python#"~/"} ;; esac
shift
cd / && exec "$python" -m runproj.backends.ssh_there "$@"
"""


class SshBackend:
    """See `runproj.core.backend.Backend`."""

    elsewhere = True
    batches = False
    options = (
        Option("host", OptionKind.TEXT, "The machine, as ssh knows it: me@box, or a Host of ~/.ssh/config."),
        Option("folder", OptionKind.TEXT, f"Where jobs are put there; {_FOLDER} by default."),
        Option("python", OptionKind.TEXT, "A Python there that has this version of runproj, which is brought there otherwise."),
        Option("ssh", OptionKind.LIST, 'Further options of ssh: ["-p", "2222"].'),
    )

    def __init__(self, context: BackendContext) -> None:
        self._home, self._environ, self._tell = context.home, context.environ, context.tell

    # -- before

    def check(self, demand: Demand) -> None:
        place = _place(demand.options)
        if not place["host"]:
            raise BackendError("It is not said which machine", fix='--backend-config \'{"host": "me@box"}\'')
        if place["host"].startswith("-"):
            raise BackendError(f"{place['host']!r} is no name of a machine")
        for name in ("folder", "python"):
            if not _is_anywhere(place[name], name):
                what = f"`{name}` is {place[name]!r}, and it is not said below which folder"
                raise BackendError(what, fix='Begin it with "/" or "~/".')
        if demand.place is EnvPlace.IMAGE:
            raise BackendError("An image is not used on machines that are reached by ssh", fix="--env-manager virtualenv")
        needs = demand.resources
        if needs.partition or needs.time or (needs.nodes or 1) > 1:
            raise BackendError("A machine has no partitions, nodes and time limits", fix="Use --timeout, which runproj keeps.")
        if place["python"]:
            ssh_setup.check_given(self._line(place), place["python"])
        else:
            ssh_setup.is_there(self._line(place), place["folder"])

    def submit(self, jobs: Sequence[Job], *, at_once: int | None = None) -> Sequence[JobHandle]:
        del at_once  # nobody who looks at `batches` asks for it
        return [self._submit(job) for job in jobs]

    def _submit(self, job: Job) -> JobHandle:
        place = _place(job.demand.options)
        line = self._line(place)
        if not place["python"]:
            place["python"] = ssh_setup.install(line, place["folder"], self._tell)
        atomic_write(job.parcel.folder / _TICKET, to_json(place))
        folder = job.parcel.complete()
        with explained(folder), tempfile.TemporaryFile(dir=folder.parent) as file:
            _pack(folder, file)
            file.seek(0)
            line.send(file, _THERE, place["python"], new_mark(), "begin", place["folder"], job.run_id)
        return JobHandle("ssh", job.run_id, place["host"], job.run_id, place)

    # -- while it runs

    def status(self, handles: Sequence[JobHandle]) -> Sequence[JobStatus]:
        """One question to each machine; one that does not answer says nothing of the others."""
        mine: dict[str, list[JobHandle]] = {}
        for handle in handles:
            if details := self._details(handle):
                mine.setdefault(to_json(dict(details)), []).append(handle)
        found = {handle.run_id: JobStatus(JobState.LOST) for handle in handles}  # those that nobody lived to submit
        for there in mine.values():
            try:
                found |= self._look(there)
            except BackendError as error:
                found |= {handle.run_id: JobStatus(JobState.UNKNOWN, note=f"{error.what}. {error.why}") for handle in there}
        return [found[handle.run_id] for handle in handles]

    def _look(self, handles: Sequence[JobHandle]) -> dict[str, JobStatus]:
        """Run → state of its job, for all on one machine."""
        answer = self._ask(handles[0], "look", *(handle.run_id for handle in handles))
        try:
            said = from_json(list[tuple[str, str]], answer)
        except DocumentError as error:
            python = self._details(handles[0])["python"]
            raise BackendError(f"{handles[0].host}: {python} does not answer as runproj does", why=str(error)) from error
        return {handle.run_id: self._status(handle, *state) for handle, state in zip(handles, said, strict=True)}

    def _status(self, handle: JobHandle, state: str, last: str) -> JobStatus:
        if has_ended(self._parcel(handle)):
            return JobStatus(JobState.ENDED)
        if state == "dead":  # nothing will come that is not there now
            words = f", and said last: {last}" if last else ""
            return JobStatus(JobState.ENDED, seen=True, last=f"its executor is gone{words}")
        if state == "unseen" and handle.id:  # a file system that is not mounted, for example
            return JobStatus(JobState.UNKNOWN, note=f"{self._details(handle)['folder']} is not there")
        known = {"pending": JobState.PENDING, "running": JobState.RUNNING, "ended": JobState.ENDED}
        return JobStatus(known.get(state, JobState.LOST))

    def cancel(self, handle: JobHandle) -> None:
        if self._details(handle):
            self._ask(handle, "stop", handle.run_id)

    def logs(self, handle: JobHandle, *, stream: str = "stdout", follow: bool = False) -> Iterator[bytes]:
        """Whoever follows goes on where a lost connection left off."""
        parcel, seen = self._parcel(handle), 0
        while self._details(handle):
            more_may_come = follow and parcel.exists() and not has_ended(parcel)
            try:
                for data in self._pieces(handle, "tail", handle.run_id, stream, str(seen), *(["follow"] if follow else [])):
                    seen += len(data)
                    yield data
                return
            except BackendError:
                if not more_may_come:
                    return
            time.sleep(_POLL)

    # -- its record

    def collect(self, handle: JobHandle, into: Path) -> None:
        """Bring what there is of the record: all of it, and then remove it there; or a picture while the job goes on."""
        if not self._details(handle):
            return
        if not has_ended(into.parent):
            fresh = into / f".{PACKED}"
            try:
                if not self._bring(handle, into, fresh):
                    return
            finally:
                fresh.unlink(missing_ok=True)
        self._ask(handle, "forget", handle.run_id)

    def _bring(self, handle: JobHandle, into: Path, fresh: Path) -> bool:
        """Whether there will be no more."""
        if self._fetched(handle, PACKED, fresh):
            unpack(fresh, into)
            return True
        if self._look([handle])[handle.run_id].seen:  # all that a killed executor left
            if self._fetched(handle, REST, fresh, "rest"):
                unpack(fresh, into)
            return True
        picture = into / "snapshot.db"
        if self._fetched(handle, "snapshot.db", fresh) and not (picture.exists() and filecmp.cmp(fresh, picture, shallow=False)):
            fresh.replace(picture)
        return False

    def _fetched(self, handle: JobHandle, name: str, into: Path, verb: str = "fetch") -> bool:
        """Whether there is such a file in the record there, which is here now.  Raises `StorageError`."""
        pieces, head = self._pieces(handle, verb, handle.run_id, name), b""
        while b"\n" not in head and (data := next(pieces, b"")):
            head += data
        size, found, rest = head.partition(b"\n")
        if not found:
            return False
        with explained(into), into.open("wb") as file:
            file.write(rest)
            for data in pieces:
                file.write(data)
            file.flush()
            if file.tell() != int(size):
                raise BackendError(f"{name} did not come whole from {handle.host}", fix="It is fetched again.")
        return True

    # -- the machine

    def _parcel(self, handle: JobHandle) -> Path:
        return self._home / "parcels" / handle.run_id

    def _details(self, handle: JobHandle) -> Mapping[str, str]:
        return details_of(handle, self._parcel(handle) / _TICKET)

    def _line(self, place: Mapping[str, str]) -> Line:
        return Line(place["host"], from_json(list[str], place["ssh"]), self._environ)

    def _ask(self, handle: JobHandle, verb: str, *words: str) -> bytes:
        place, mark = self._details(handle), new_mark()
        return self._line(place).ask(_THERE, place["python"], mark, verb, place["folder"], *words, mark=mark)

    def _pieces(self, handle: JobHandle, verb: str, *words: str) -> Iterator[bytes]:
        place, mark = self._details(handle), new_mark()
        return self._line(place).pieces(_THERE, place["python"], mark, verb, place["folder"], *words, mark=mark)


def _place(options: Mapping[str, Any]) -> dict[str, str]:
    """Machine, Python, folder and options of ssh, as text."""
    return {
        "host": str(options.get("host", "")),
        "python": str(options.get("python", "")),
        "folder": str(options.get("folder", _FOLDER)),
        "ssh": to_json([str(word) for word in options.get("ssh", ())]),
    }


def _is_anywhere(path: str, name: str) -> bool:
    """Whether it is the same wherever a shell stands there; a Python may be one that is found by its name."""
    return path.startswith(("/", "~/")) or (name == "python" and "/" not in path)


def _pack(folder: Path, file: IO[bytes]) -> None:
    """Everything in a folder, and last what says that it is everything."""
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.add(folder, ".")
        archive.addfile(tarfile.TarInfo(_COMPLETE), io.BytesIO())


def make(context: BackendContext) -> SshBackend:
    """See `runproj.backends.catalogue`."""
    return SshBackend(context)
