"""Ray: an executor is a job of the Jobs API.

Where the nodes see this home, it writes there.  Else (option `python`) the parcel goes along as a package, and the record goes
to the tracking server, or is fetched (`ray_far.py`).  Ray kills what it stops, and everything below it, after 3 seconds: the
executor runs apart from the job, and takes the grace of its run.
"""

from __future__ import annotations

import contextlib
import math
import shlex
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from runproj.backends import ray_far
from runproj.backends.catalogue import BackendContext
from runproj.backends.ray_api import PACKAGE_LIMIT, RayApi, RayJob
from runproj.backends.shared import details_of, follow_log, has_ended, is_alive, is_given_up
from runproj.codec import to_json
from runproj.core.backend import Demand, Engine, Job, JobHandle, JobState, JobStatus, Option, OptionKind
from runproj.core.environment import EnvPlace
from runproj.core.outcome import Outcome
from runproj.core.run import RunStatus
from runproj.errors import BackendError
from runproj.files import atomic_write
from runproj.settings import parse_size

_USUAL = "http://127.0.0.1:8265"
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
        details, before, words = {"address": api.address}, "", (*job.parcel.command, "--apart")
        if python := options.get("python"):
            environment["working_dir"] = ray_far.package(job.parcel.complete(PACKAGE_LIMIT), api)
            before, words = ray_far.preparation(_name(job.run_id)), ray_far.command(str(python))
            details |= {"far": "1", "grace": str(job.grace)}
        line = before + entrypoint(words, job.demand, environment["env_vars"])
        body |= {"entrypoint": line, "runtime_env": environment, **asked(job.demand)}
        atomic_write(job.parcel.folder / _TICKET, to_json(details))
        api.submit(_name(job.run_id), body)
        return JobHandle("ray", _name(job.run_id), run_id=job.run_id, details=details)

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
        if job is not None and job.status == "RUNNING":
            return JobStatus(JobState.RUNNING)
        if job is not None and job.status == "PENDING":
            return self._waits(handle, job)
        if self._is_far(handle):
            return self._ended_far(handle, job)
        parcel = self._parcel(handle)
        ended = job is not None and job.code is not None  # its wrapper waited for the executor
        if not ended and not has_ended(parcel) and is_alive(parcel):
            return JobStatus(JobState.RUNNING)
        if job is None:
            return JobStatus(JobState.LOST)
        return JobStatus(JobState.ENDED, outcome=None if has_ended(parcel) else outcome_of_job(job))

    def _waits(self, handle: JobHandle, job: RayJob) -> JobStatus:
        """Ray says yes to stopping such a job, and starts it all the same.  Its executor sees that it is not wanted any more.

        Where it can see neither this home nor a tracking server, the job is looked after until Ray has stopped it.
        """
        if is_given_up(self._parcel(handle)):
            if self._server or not self._is_far(handle):
                return JobStatus(JobState.ENDED, outcome=_stopped("stopped before it began"))
            return JobStatus(JobState.PENDING, note="Ray stops no job that waits: it is stopped when it begins")
        late = time.time() - job.submitted > _USUAL_WAIT
        return JobStatus(JobState.PENDING, note=job.message if late else "")

    def _ended_far(self, handle: JobHandle, job: RayJob | None) -> JobStatus:
        if job is None:
            return JobStatus(JobState.LOST)
        if has_ended(self._parcel(handle)) or ray_far.is_packed(self._api_of(handle), job):
            return JobStatus(JobState.ENDED)
        if ray_far.may_go_on(self._api_of(handle), job, self._grace(handle)):
            return JobStatus(JobState.RUNNING)
        return JobStatus(JobState.ENDED, outcome=outcome_of_job(job))

    def cancel(self, handle: JobHandle) -> None:
        self._api_of(handle).stop(_name(handle.run_id))

    def logs(self, handle: JobHandle, *, stream: str = "stdout", follow: bool = False) -> Iterator[bytes]:
        if not self._is_far(handle):
            return follow_log(self._home, handle.run_id, stream, follow=follow)
        parcel = self._parcel(handle)
        return ray_far.follow(
            self._api_of(handle), _name(handle.run_id), stream, lambda: follow and parcel.exists(), self._grace(handle)
        )

    def collect(self, handle: JobHandle, into: Path) -> None:
        if self._is_far(handle) and (job := self._api_of(handle).job(_name(handle.run_id))) is not None:
            ray_far.collect(self._api_of(handle), job, into, self._grace(handle))

    def _is_far(self, handle: JobHandle) -> bool:
        """Whether the job's node does not see this home."""
        return "far" in self._details(handle)

    def _grace(self, handle: JobHandle) -> float:
        return float(self._details(handle).get("grace", 10))

    # -- finding the cluster

    def _api_of(self, handle: JobHandle) -> RayApi:
        return self._api(self._details(handle))

    def _details(self, handle: JobHandle) -> Mapping[str, str]:
        return details_of(handle, self._parcel(handle) / _TICKET)

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
        return Outcome(RunStatus.FAILED, 1, f"{'lost' if job.node else 'Ray could not start it'}: {last}")
    if job.code > 128:
        name = signal.Signals(job.code - 128).name if job.code - 128 in set(signal.Signals) else str(job.code - 128)
        return Outcome(RunStatus.FAILED, job.code, f"lost: its executor was ended by {name}")
    return Outcome(RunStatus.FAILED, job.code or 1, f"lost: its executor ended with {job.code}, unrecorded: {last}")


def make(context: BackendContext) -> RayBackend:
    """See `runproj.backends.catalogue`."""
    return RayBackend(context)
