"""Ray: an executor is a job of the Jobs API.

Where the nodes see this home, it writes there.  Else (option `python`) the parcel goes along as a package, and the record goes
to the tracking server.  Ray kills what it stops, and everything below it, after 3 seconds: the executor runs apart from the
job, and takes the grace of its run.
"""

from __future__ import annotations

import contextlib
import math
import shlex
import signal
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from runproj.backends.catalogue import BackendContext
from runproj.backends.ray_api import RayApi, RayJob
from runproj.backends.shared import follow_log, has_ended, is_alive, is_given_up
from runproj.codec import DocumentError, from_json, to_json
from runproj.core.backend import Demand, Engine, Job, JobHandle, JobState, JobStatus, Option, OptionKind
from runproj.core.environment import EnvPlace
from runproj.core.outcome import Outcome
from runproj.core.run import RunStatus
from runproj.errors import BackendError
from runproj.files import atomic_write, sha256_file
from runproj.settings import parse_size

_USUAL = "http://127.0.0.1:8265"
_POLL = 2.0
_TICKET = "ray.json"
_USUAL_WAIT = 5.0
"""Seconds that every job waits: there is nothing to say about them."""
_THREADS = "OMP_NUM_THREADS"
_OF_RAY = (_THREADS, "PYTHONBREAKPOINT", "SPT_NOENV")
"""Variables that Ray sets for its own processes."""


class RayBackend:
    """See `runproj.core.backend.Backend`."""

    elsewhere = True
    batches = False
    options = (
        Option("address", OptionKind.TEXT, "The cluster's dashboard: http://HOST:8265."),
        Option("python", OptionKind.TEXT, "A Python with runproj, on nodes that do not see this home."),
        Option("variables", OptionKind.TABLE, "Variables that the job gets."),
        Option("entrypoint_resources", OptionKind.TABLE, "Ray's own resources that it takes: {special: 1}."),
    )

    def __init__(self, context: BackendContext) -> None:
        self._home, self._environ = context.home, context.environ
        self._server = context.tracking_uri.startswith(("http://", "https://"))

    # -- before

    def check(self, demand: Demand) -> None:
        self._api(demand.options).version()
        if demand.options.get("python") and not self._server:
            raise BackendError(
                "What is recorded on a node that does not see this home needs a tracking server",
                why="Ray brings no files back.",
                fix="Set RUNPROJ_TRACKING_URI to one that the nodes reach (`runproj server`), or leave out `python`.",
            )
        if demand.place is EnvPlace.IMAGE and demand.options.get("python"):
            raise BackendError("On Ray an image is used where the nodes see this home", fix="Leave out `python`.")
        if demand.resources.nodes and demand.resources.nodes > 1:
            raise BackendError("A job of Ray begins on one node", fix="Ask for one node; the program itself uses the others.")
        if demand.resources.partition or demand.resources.time:
            raise BackendError("Ray has no partitions and no time limits", fix="Use --timeout, which runproj itself keeps.")

    def submit(self, jobs: Sequence[Job], *, at_once: int | None = None) -> Sequence[JobHandle]:
        del at_once  # nobody who looks at `batches` asks for it
        return [self._submit(job) for job in jobs]

    def _submit(self, job: Job) -> JobHandle:
        api, options = self._api(job.demand.options), job.demand.options
        body: dict[str, Any] = {"metadata": {"runproj": job.run_id, "name": job.name}}
        environment: dict[str, Any] = {"env_vars": {name: str(value) for name, value in options.get("variables", {}).items()}}
        if python := options.get("python"):
            environment["working_dir"] = self._package(job, api)
            words: Sequence[str] = (str(python), "-m", "runproj", "execute-parcel", ".", "--tee", "--apart")
        else:
            words = (*job.parcel.command, "--apart")
        body |= {"entrypoint": entrypoint(words, job.demand, environment["env_vars"]), "runtime_env": environment}
        body |= asked(job.demand)
        details = {"address": api.address} | ({"far": "1"} if python else {})
        atomic_write(job.parcel.folder / _TICKET, to_json(details))
        api.submit(_name(job.run_id), body)
        return JobHandle("ray", _name(job.run_id), run_id=job.run_id, details=details)

    @staticmethod
    def _package(job: Job, api: RayApi) -> str:
        """Upload the parcel; returns the URI of the package."""
        folder = job.parcel.complete()
        path = folder.with_name(f"{folder.name}.zip")
        try:
            with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
                for file in sorted(folder.rglob("*")):
                    archive.write(file, file.relative_to(folder))
            return api.upload(f"runproj-{sha256_file(path)}.zip", path)
        finally:
            path.unlink(missing_ok=True)

    # -- while it runs

    def status(self, handles: Sequence[JobHandle]) -> Sequence[JobStatus]:
        known: dict[str, dict[str, RayJob]] = {}
        for handle in handles:
            api = self._api_of(handle)
            if api.address not in known:
                known[api.address] = {job.id: job for job in self._jobs(api, handles)}
        return [self._status(handle, known[self._api_of(handle).address].get(_name(handle.run_id))) for handle in handles]

    @staticmethod
    def _jobs(api: RayApi, handles: Sequence[JobHandle]) -> list[RayJob]:
        if len(handles) > 1:
            return api.jobs()
        found = api.job(_name(handles[0].run_id))
        return [found] if found else []

    def _status(self, handle: JobHandle, job: RayJob | None) -> JobStatus:
        parcel = self._parcel(handle)
        if job is not None and job.status == "RUNNING":
            return JobStatus(JobState.RUNNING)
        if job is not None and job.status == "PENDING":
            if is_given_up(parcel):  # Ray says yes to stopping such a job, and starts it all the same; the executor then refuses
                return JobStatus(JobState.ENDED, outcome=_stopped("stopped before it began"))
            late = time.time() - job.submitted > _USUAL_WAIT
            return JobStatus(JobState.PENDING, note=job.message if late else "")
        ended = job is not None and job.code is not None  # its wrapper waited for the executor
        if not ended and not has_ended(parcel) and is_alive(parcel):
            return JobStatus(JobState.RUNNING)
        if job is None:
            return JobStatus(JobState.LOST)
        return JobStatus(JobState.ENDED, outcome=None if has_ended(parcel) else outcome_of_job(job))

    def cancel(self, handle: JobHandle) -> None:
        self._api_of(handle).stop(_name(handle.run_id))

    def logs(self, handle: JobHandle, *, stream: str = "stdout", follow: bool = False) -> Iterator[bytes]:
        if self._details(handle).get("far"):
            return self._told(handle, follow=follow) if stream == "stdout" else iter(())
        return follow_log(self._home, handle.run_id, stream, follow=follow)

    def _told(self, handle: JobHandle, *, follow: bool) -> Iterator[bytes]:
        """What Ray has of the job's output, both streams in one.  It gives all of it each time: it is asked ever more rarely."""
        api, parcel, seen, pause = self._api_of(handle), self._parcel(handle), 0, _POLL
        while True:
            job = api.job(_name(handle.run_id)) if follow and parcel.exists() else None
            more_may_come = job is not None and job.status in ("PENDING", "RUNNING")
            text = api.log(_name(handle.run_id))
            if new := text[seen:]:
                yield new.encode()
            seen = len(text)
            if not more_may_come:
                return
            time.sleep(pause)
            pause = min(15.0, pause * 1.2)

    def collect(self, handle: JobHandle, into: Path) -> None:
        """The executor wrote there itself, or to the tracking server."""

    # -- finding the cluster

    def _api_of(self, handle: JobHandle) -> RayApi:
        return self._api(self._details(handle))

    def _details(self, handle: JobHandle) -> Mapping[str, str]:
        """Where a job is; what was noted before it was submitted, where nobody lived to tell more."""
        if not handle.details:
            with contextlib.suppress(OSError, DocumentError):
                return from_json(dict[str, str], (self._parcel(handle) / _TICKET).read_bytes())
        return handle.details

    def _api(self, said: Mapping[str, Any]) -> RayApi:
        """The cluster that was named, or that Ray's own variable names."""
        usual = self._environ.get("RAY_API_SERVER_ADDRESS") or self._environ.get("RAY_ADDRESS") or _USUAL
        return RayApi(str(said.get("address") or usual), self._token())

    def _token(self) -> str:
        """As Ray's own client finds it: a variable, a file that another names, the file in the home folder."""
        if token := self._environ.get("RAY_AUTH_TOKEN"):
            return token.strip()
        path = self._environ.get("RAY_AUTH_TOKEN_PATH")
        usual = Path(self._environ.get("HOME", "/nonexistent"), ".ray", "auth_token")
        with contextlib.suppress(OSError):
            return (Path(path) if path else usual).read_text().strip()
        return ""

    def _parcel(self, handle: JobHandle) -> Path:
        return self._home / "parcels" / handle.run_id


def _name(run_id: str) -> str:
    return f"runproj-{run_id}"


def entrypoint(command: Sequence[str], demand: Demand, variables: Mapping[str, str]) -> str:
    """The shell line of a job.

    Ray sets OMP_NUM_THREADS=1 where no CPUs are asked for, which makes numerical programs slow and says nothing; and a debugger
    that only its own Python has.  The GPUs that it gave away are told to containers too.
    """
    cpus = demand.resources.cpus
    lines = [f"unset {name}" for name in _OF_RAY if name not in variables and not (cpus and name == _THREADS)]
    if cpus and _THREADS not in variables:
        lines.append(f"export {_THREADS}={max(1, math.floor(cpus))}")
    if demand.resources.gpus:
        lines.append(f'export {Engine.GPUS}="${{CUDA_VISIBLE_DEVICES:-}}"')
    return "; ".join([*lines, f"exec {shlex.join(command)}"])


def asked(demand: Demand) -> dict[str, Any]:
    """What a job asks of the cluster, as fields of a submission.  Without CPUs it would begin on the head, for nothing."""
    needs = demand.resources
    found: dict[str, Any] = {"entrypoint_num_cpus": needs.cpus or 1}
    if needs.gpus:
        found["entrypoint_num_gpus"] = needs.gpus
    if needs.memory:
        found["entrypoint_memory"] = parse_size(needs.memory)
    if own := demand.options.get("entrypoint_resources"):
        found["entrypoint_resources"] = dict(own)
    return found


def _stopped(reason: str) -> Outcome:
    return Outcome(RunStatus.KILLED, 128 + signal.SIGTERM, reason)


def outcome_of_job(job: RayJob) -> Outcome | None:
    """How a job ended whose executor recorded no end; None where Ray does not know."""
    if job.status == "STOPPED":
        return _stopped("stopped")
    last = (job.message.strip().splitlines() or [""])[-1][:500]
    if job.code is None:
        return Outcome(RunStatus.FAILED, 1, f"Ray could not start it: {last}")
    if job.code > 128:
        name = signal.Signals(job.code - 128).name if job.code - 128 in set(signal.Signals) else str(job.code - 128)
        return Outcome(RunStatus.FAILED, job.code, f"lost: its executor was ended by {name}")
    return Outcome(RunStatus.FAILED, job.code or 1, f"lost: its executor ended with {job.code}, unrecorded: {last}")


def make(context: BackendContext) -> RayBackend:
    """See `runproj.backends.catalogue`."""
    return RayBackend(context)
