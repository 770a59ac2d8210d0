"""Slurm: an executor is a batch job; jobs that are submitted together are one job array.

The nodes see this home (a shared file system).  No accounting is needed: what a job did it records itself, and `squeue` knows
the rest.  The job's own log, and what Slurm says in it, is `HOME/slurm/RUN/`.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from runproj import proc
from runproj.backends.catalogue import BackendContext
from runproj.backends.shared import follow_file
from runproj.backends.slurm_script import (
    SQUEUE,
    Seen,
    arguments,
    outcome_of_exit,
    parse_job,
    parse_job_id,
    parse_squeue,
    script,
    status_of,
)
from runproj.codec import DocumentError, from_json, to_json
from runproj.core.backend import Demand, Job, JobHandle, JobState, JobStatus, Option, OptionKind
from runproj.core.environment import EnvPlace
from runproj.errors import BackendError
from runproj.files import atomic_write, remove_tree

_PASSED_ON = (
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "TZ",
    "TMPDIR",
    "SLURM_CONF",
    "SSL_CERT_FILE",
)
_KEPT = 14 * 86400
"""Seconds after which the log of a job is removed."""
_PATIENCE = 120.0
"""Seconds that Slurm's programs may take: a controller that is busy makes them wait."""
_ARRAY = 1000
"""Tasks of an array where Slurm does not say how many it takes."""


@dataclass(frozen=True)
class _Ticket:
    """Written into a parcel before it is submitted: with it the job is found again by whoever knows only the run."""

    group: str
    index: int | None


class SlurmBackend:
    """See `runproj.core.backend.Backend`."""

    elsewhere = True
    options = (
        Option("account", OptionKind.TEXT, "Account that is charged."),
        Option("qos", OptionKind.TEXT, "Quality of service."),
        Option("constraint", OptionKind.TEXT, "Features that the nodes must have."),
        Option("nodelist", OptionKind.TEXT, "Nodes to run on."),
        Option("exclude", OptionKind.TEXT, "Nodes not to run on."),
        Option("reservation", OptionKind.TEXT, "Reservation to use."),
        Option("requeue", OptionKind.FLAG, "Whether the same run begins again after preemption or the loss of a node."),
        Option("signal", OptionKind.TEXT, "A signal before the time limit, as `sbatch --signal` has it: USR2@120."),
        Option("setup", OptionKind.LIST, "Lines of shell before the job: `module load cuda`."),
        Option("variables", OptionKind.LIST, "Names of variables of this shell that the job gets too."),
        Option("extra", OptionKind.LIST, "Further options of sbatch."),
    )

    def __init__(self, context: BackendContext) -> None:
        self._home = context.home
        self._environ = context.environ

    # -- before

    def check(self, demand: Demand) -> None:
        if demand.place is EnvPlace.IMAGE and shutil.which("docker", path=self._environ.get("PATH")) is None:
            raise BackendError(
                "The project's environment is an image, and Docker is not here",
                fix="Nodes need Docker for it; --env-manager virtualenv does without.",
            )
        words = arguments(demand, name="check", group="check", log="x", grace=10)
        options = [word for word in words if not word.startswith("--output=")]
        code, said = self._ask(["sbatch", "--test-only", *options], "#!/bin/bash\n")
        if code and not _unreachable(said):
            why = said.replace("sbatch: error: ", "").replace("allocation failure: ", "").strip()
            raise BackendError("Slurm takes no such job", why=why, fix="`sinfo -Nl` shows what there is; ask for less of it.")
        if code:
            raise _failed("sbatch", said)

    def submit(self, jobs: Sequence[Job], *, at_once: int | None = None) -> Sequence[JobHandle]:
        known = {job.run_id: handle for job in jobs if (handle := self._again(job))}
        fresh = [job for job in jobs if job.run_id not in known]
        size = self._array_size() if len(fresh) > 1 else 1
        for begin in range(0, len(fresh), size):
            known |= self._submit(fresh[begin : begin + size], at_once)
        return [known[job.run_id] for job in jobs]

    def _again(self, job: Job) -> JobHandle | None:
        """The handle of a job that was submitted already."""
        if self._ticket(job.run_id) is None:
            return None
        seen = self._seen()
        found = self._find(JobHandle("slurm", "", run_id=job.run_id), seen)
        return JobHandle("slurm", found.id, run_id=job.run_id) if found else None

    def _submit(self, jobs: Sequence[Job], at_once: int | None) -> dict[str, JobHandle]:
        first, group = jobs[0], jobs[0].run_id
        array = len(jobs) > 1
        for index, job in enumerate(jobs):
            ticket = _Ticket(group, index if array else None)
            atomic_write(job.parcel.folder / "slurm.json", to_json(ticket))
        logs = self._home / "slurm" / group
        self._forget_old(logs.parent)
        logs.mkdir(parents=True, exist_ok=True)
        log = str(logs / ("%a.log" if array else "job.log"))
        words = arguments(first.demand, name=first.name, group=group, log=log, grace=first.grace)
        if array:
            words.append(f"--array=0-{len(jobs) - 1}" + (f"%{at_once}" if at_once else ""))
        text = script([job.parcel.command for job in jobs], first.demand, variables=self._passed(first), grace=first.grace)
        number = parse_job_id(self._run(["sbatch", "--parsable", *words], text))
        return {
            job.run_id: JobHandle("slurm", f"{number}_{index}" if array else number, run_id=job.run_id)
            for index, job in enumerate(jobs)
        }

    def _passed(self, job: Job) -> dict[str, str]:
        """Variables that the user wants to be there."""
        return {name: self._environ[name] for name in job.demand.options.get("variables", ()) if name in self._environ}

    def _array_size(self) -> int:
        said = parse_job(self._run(["scontrol", "show", "config"]).replace(" = ", "="))
        return min(_ARRAY, int(said["MaxArraySize"])) if said.get("MaxArraySize", "").isdigit() else _ARRAY

    @staticmethod
    def _forget_old(logs: Path) -> None:
        for folder in logs.iterdir() if logs.is_dir() else ():
            if time.time() - folder.stat().st_mtime > _KEPT:
                remove_tree(folder)

    # -- while it runs

    def status(self, handles: Sequence[JobHandle]) -> Sequence[JobStatus]:
        seen = self._seen() if handles else []
        found = {one.id: one for one in seen}
        return [self._status(handle, found.get(handle.id) or self._find(handle, seen)) for handle in handles]

    def _status(self, handle: JobHandle, seen: Seen | None) -> JobStatus:
        if seen is None:
            return self._accounted(handle)
        status = status_of(seen.state, seen.reason)
        if status.state is JobState.ENDED and status.outcome is None:
            recorded = (self._home / "parcels" / handle.run_id / "record" / "ended.json").exists()
            job = parse_job(self._run(["scontrol", "show", "job", "-o", seen.id], good=(0, 1)))
            return JobStatus(JobState.ENDED, outcome=outcome_of_exit(job, self._log(handle), recorded=recorded))
        return status

    def _accounted(self, handle: JobHandle) -> JobStatus:
        """What the accounting knows of a job that the controller has forgotten; nothing where there is none."""
        if not handle.id:
            return JobStatus(JobState.LOST)
        said = self._run(["sacct", "-X", "-P", "-n", "-j", handle.id, "-o", "State"], good=(0, 1))
        state = said.strip().splitlines()[0] if said.strip() and "disabled" not in said else ""
        status = status_of(state, "None")
        return JobStatus(JobState.LOST) if not state or status.state is JobState.UNKNOWN else status

    def cancel(self, handle: JobHandle) -> None:
        number = handle.id or getattr(self._find(handle, self._seen()), "id", "")
        if number:
            self._run(["scancel", "--quiet", number], good=(0, 1))

    def logs(self, handle: JobHandle, *, stream: str = "stdout", follow: bool = False) -> Iterator[bytes]:
        path = self._home / "runs" / handle.run_id / "logs" / f"{stream}.log"
        ended = self._home / "parcels" / handle.run_id

        def going_on() -> bool:  # asks nobody: the parcel goes when the run has been closed
            return follow and ended.exists() and not (ended / "record" / "ended.json").exists()

        return follow_file(path, going_on)

    def collect(self, handle: JobHandle, into: Path) -> None:
        """The executor wrote there itself."""

    # -- talking to Slurm

    def _seen(self) -> list[Seen]:
        """All jobs of this user, in one query, also those that have just ended."""
        return parse_squeue(self._run(["squeue", "-h", "-r", "-t", "all", "-u", getpass.getuser(), "-o", SQUEUE]))

    def _find(self, handle: JobHandle, seen: Sequence[Seen]) -> Seen | None:
        """A job whose number is not known, by the ticket in its parcel."""
        ticket = self._ticket(handle.run_id)
        if ticket is None:
            return None
        end = "" if ticket.index is None else f"_{ticket.index}"
        return next((one for one in seen if one.group == ticket.group and one.id.endswith(end)), None)

    def _ticket(self, run_id: str) -> _Ticket | None:
        with contextlib.suppress(OSError, DocumentError):
            return from_json(_Ticket, (self._home / "parcels" / run_id / "slurm.json").read_bytes())
        return None

    def _log(self, handle: JobHandle) -> str:
        """What Slurm and the executor wrote to the job's own output."""
        ticket = self._ticket(handle.run_id)
        if ticket is None:
            return ""
        name = "job.log" if ticket.index is None else f"{ticket.index}.log"
        with contextlib.suppress(OSError):
            return (self._home / "slurm" / ticket.group / name).read_text(errors="replace")[-20_000:]
        return ""

    def _run(self, command: Sequence[str], script: str = "", good: tuple[int, ...] = (0,)) -> str:
        """What one of Slurm's programs answers.  Raises `BackendError` where it fails."""
        code, said = self._ask(command, script)
        if code not in good or (code and _unreachable(said)):
            raise _failed(command[0], said)
        return said

    def _ask(self, command: Sequence[str], script: str = "") -> tuple[int, str]:
        """Exit code and answer of one of Slurm's programs."""
        environ = _environ(self._environ)
        if shutil.which(command[0], path=environ["PATH"]) is None:
            fix = "Run it on a machine that submits to the cluster, with Slurm's programs on PATH."
            raise BackendError(f"Slurm's {command[0]} is not here", fix=fix)
        done = proc.run(command, env=environ, stdin=script.encode(), timeout=_PATIENCE)
        out, err = done.out.decode(errors="replace"), done.err.decode(errors="replace")
        return done.code, out if done.code == 0 and out.strip() else f"{err}{out}"


def _unreachable(said: str) -> bool:
    return "nable to contact" in said or "onnection refused" in said or "ocket timed out" in said


def _failed(program: str, said: str) -> BackendError:
    fix = "`scontrol ping` tells whether slurmctld is up; try again when it is." if _unreachable(said) else ""
    return BackendError(f"{program} failed", why=said.strip()[-1000:], fix=fix)


def _environ(environ: Mapping[str, str]) -> dict[str, str]:
    """For Slurm's programs, and so for the job: what leads to the cluster, the user's defaults, nothing secret.

    Inside of a job its own variables would be taken for options of the new one.
    """
    inside = "SLURM_JOB_ID" in environ
    kept = {name: environ[name] for name in _PASSED_ON if name in environ}
    if not inside:
        kept |= {name: value for name, value in environ.items() if name.startswith(("SBATCH_", "SQUEUE_", "SLURM_CLUSTERS"))}
    kept.setdefault("PATH", os.defpath)
    return kept


def make(context: BackendContext) -> SlurmBackend:
    """See `runproj.backends.catalogue`."""
    return SlurmBackend(context)
