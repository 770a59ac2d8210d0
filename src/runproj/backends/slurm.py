"""Slurm: an executor is a batch job; jobs that are submitted together are one job array.

The nodes see this home (a shared file system), or get what they need with the script and record into a tracking server.  No
accounting is needed: what a job did it records itself, and `squeue` knows the rest.  The job's own log, and what Slurm says in
it, is `HOME/slurm/RUN/`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from runproj import proc
from runproj.backends.catalogue import BackendContext
from runproj.backends.shared import follow_log, has_ended
from runproj.backends.slurm_script import (
    MOST_PARCEL,
    SQUEUE,
    Seen,
    arguments,
    array_size,
    outcome_of_exit,
    parse_accounted,
    parse_job_id,
    parse_jobs,
    parse_squeue,
    script,
    status_of,
)
from runproj.codec import DocumentError, from_json, to_json
from runproj.core.backend import Demand, Job, JobHandle, JobState, JobStatus, Option, OptionKind
from runproj.core.environment import EnvPlace
from runproj.core.values import dataclass
from runproj.errors import BackendError
from runproj.files import atomic_write, remove_tree
from runproj.packing import folded

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
_NOT_OURS = ("SBATCH_ARRAY_INX", "SBATCH_WAIT", "SBATCH_CLUSTERS")
_KEPT = 14 * 86400
"""Seconds after which the log of a job is removed."""
_PATIENCE = 120.0
"""Seconds that Slurm's programs may take: a controller that is busy makes them wait."""


@dataclass(frozen=True)
class _Ticket:
    """Written into a parcel before it is submitted: with it the job is found again by whoever knows only the run.

    group: the first run of those that are submitted together;  index: of the task, in an array;
    clusters: where it was to go, when that was said;  far: whether its node does not see this home.
    """

    group: str
    index: int | None
    clusters: str = ""
    far: bool = False


class SlurmBackend:
    """See `runproj.core.backend.Backend`."""

    elsewhere = True
    batches = True
    options = (
        Option("account", OptionKind.TEXT, "Account that is charged."),
        Option("qos", OptionKind.TEXT, "Quality of service."),
        Option("constraint", OptionKind.TEXT, "Features that the nodes must have."),
        Option("nodelist", OptionKind.TEXT, "Nodes to run on."),
        Option("exclude", OptionKind.TEXT, "Nodes not to run on."),
        Option("reservation", OptionKind.TEXT, "Reservation to use."),
        Option("clusters", OptionKind.TEXT, "Cluster to submit to, of several; with more than one, where it starts first."),
        Option("python", OptionKind.TEXT, "A Python with runproj on the nodes, where they do not see this home."),
        Option("requeue", OptionKind.FLAG, "Whether the same run begins again after preemption or the loss of a node."),
        Option("signal", OptionKind.TEXT, "A signal to the command before the time limit, and before it is preempted: USR2@120."),
        Option("setup", OptionKind.LIST, "Lines of shell before the job: `module load cuda`."),
        Option("variables", OptionKind.LIST, "Names of variables of this shell that the job gets too."),
        Option("extra", OptionKind.LIST, "Further options of sbatch."),
    )

    def __init__(self, context: BackendContext) -> None:
        self._home = context.home
        self._environ = context.environ
        self._server = context.tracking_uri.startswith(("http://", "https://"))

    # -- before

    def check(self, demand: Demand) -> None:
        if demand.place is EnvPlace.IMAGE and shutil.which("docker", path=self._environ.get("PATH")) is None:
            raise BackendError(
                "The project's environment is an image, and Docker is not here",
                fix="Nodes need Docker for it; --env-manager virtualenv does without.",
            )
        if demand.options.get("python") and not self._server:
            raise BackendError(
                "What is recorded on a node that does not see this home needs a way here",
                fix="Set RUNPROJ_TRACKING_URI to a server that nodes reach; or use a home that they see, and leave out `python`.",
            )
        words = arguments(demand, name="check", group="check", log="x", grace=10)
        options = [*_on(self._wanted(demand)), *(word for word in words if not word.startswith("--output="))]
        code, said = self._ask(["sbatch", "--test-only", *options], "#!/bin/bash\n")
        if code and not _unreachable(said):
            if self._some_are_away(demand):  # what they could take is not asked about now, and submitting tells
                return
            why = said.replace("sbatch: error: ", "").replace("allocation failure: ", "").strip()
            raise BackendError("Slurm takes no such job", why=why, fix="`sinfo -Nl` shows what there is; ask for less of it.")
        if code:
            raise _failed("sbatch", said)

    def _some_are_away(self, demand: Demand) -> bool:
        """Whether there are nodes that do not answer now, as after a restart."""
        code, states = self._ask(["sinfo", "--noheader", "--Node", "--format=%T", *_on(self._wanted(demand))])
        return code == 0 and any(state.endswith("*") or state.startswith(("down", "reboot")) for state in states.split())

    def submit(self, jobs: Sequence[Job], *, at_once: int | None = None) -> Sequence[JobHandle]:
        known = {job.run_id: handle for job in jobs if (handle := self._again(job))}
        fresh = [job for job in jobs if job.run_id not in known]
        together = len(fresh) > 1 and not fresh[0].demand.options.get("python")
        size = array_size(self._run(["scontrol", "show", "config"])) if together else 1
        for begin in range(0, len(fresh), size):
            # a limit is of one array: so that it holds for all of them, the next one waits for the one before
            after = known[fresh[begin - 1].run_id] if begin and at_once else None
            known |= self._submit(fresh[begin : begin + size], at_once, after)
        return [known[job.run_id] for job in jobs]

    def _again(self, job: Job) -> JobHandle | None:
        """The handle of a job that was submitted already."""
        ticket = self._ticket(job.run_id)
        found = self._find(job.run_id, self._seen(ticket.clusters)) if ticket else None
        return _handle(found.id, found.cluster, job) if found else None

    def _submit(self, jobs: Sequence[Job], at_once: int | None, after: JobHandle | None) -> dict[str, JobHandle]:
        first, group = jobs[0], jobs[0].run_id
        array, far = len(jobs) > 1, bool(jobs[0].demand.options.get("python"))
        for index, job in enumerate(jobs):
            ticket = _Ticket(group, index if array else None, self._wanted(first.demand), far)
            atomic_write(job.parcel.folder / "slurm.json", to_json(ticket))
        logs = self._home / "slurm" / group
        self._forget_old(logs.parent)
        logs.mkdir(parents=True, exist_ok=True)
        log = "/dev/null" if far else str(logs / ("%a.log" if array else "job.log"))
        words = arguments(first.demand, name=first.name, group=group, log=log, grace=first.grace)
        if array:
            words.append(f"--array=0-{len(jobs) - 1}" + (f"%{at_once}" if at_once else ""))
        if after:
            words.append(f"--dependency=afterany:{after.id.partition('_')[0]}")
        parcel = folded(first.parcel.complete(MOST_PARCEL)) if far else b""
        commands = [job.parcel.command for job in jobs]
        text = script(commands, first.demand, variables=self._passed(first), grace=first.grace, far=parcel)
        number, cluster = self._sbatch(words, text, first)
        return {job.run_id: _handle(f"{number}_{index}" if array else number, cluster, job) for index, job in enumerate(jobs)}

    def _sbatch(self, words: Sequence[str], text: str, first: Job) -> tuple[str, str]:
        """Number and cluster of a new job.  Raises `BackendError`."""
        code, said = self._ask(["sbatch", "--parsable", *_on(self._wanted(first.demand)), *words], text)
        if code == 0:
            return parse_job_id(said)
        if _unreachable(said):  # a busy controller may have taken it, and answered too late
            with contextlib.suppress(BackendError):
                if (handle := self._again(first)) is not None:
                    return handle.id.partition("_")[0], handle.details.get("cluster", "")
        raise _failed("sbatch", said)

    def _wanted(self, demand: Demand) -> str:
        """The clusters to choose from; empty for the one that Slurm's programs take by themselves."""
        usual = self._environ.get("SBATCH_CLUSTERS") or self._environ.get("SLURM_CLUSTERS") or ""
        return str(demand.options.get("clusters", usual))

    def _passed(self, job: Job) -> dict[str, str]:
        """Variables that the user wants to be there."""
        return {name: self._environ[name] for name in job.demand.options.get("variables", ()) if name in self._environ}

    @staticmethod
    def _forget_old(logs: Path) -> None:
        for folder in logs.iterdir() if logs.is_dir() else ():
            if time.time() - folder.stat().st_mtime > _KEPT:
                remove_tree(folder)

    # -- while it runs

    def status(self, handles: Sequence[JobHandle]) -> Sequence[JobStatus]:
        found: dict[str, JobStatus] = {}
        for clusters in {self._clusters(handle) for handle in handles}:
            mine = [handle for handle in handles if self._clusters(handle) == clusters]
            found |= self._statuses(mine, clusters)
        return [found[handle.run_id] for handle in handles]

    def _statuses(self, handles: Sequence[JobHandle], clusters: str) -> dict[str, JobStatus]:
        """Run → state of its job: one question for all, one more for those that are forgotten, or ended and could not say why."""
        seen = self._seen(clusters)
        by_id = {one.id: one for one in seen}
        known = {handle.run_id: by_id.get(handle.id) or self._find(handle.run_id, seen) for handle in handles}
        gone = [handle for handle in handles if known[handle.run_id] is None]
        found = self._accounted(gone, clusters) if gone else {}
        found |= {run_id: status_of(one.state, one.reason) for run_id, one in known.items() if one}
        open_ends = {run_id: one.id for run_id, one in known.items() if one and _lacks_reason(found[run_id])}
        return found | self._explained(open_ends, clusters)

    def _explained(self, jobs: Mapping[str, str], clusters: str) -> dict[str, JobStatus]:
        """Run → how its job ended, for those whose state does not say it."""
        far = {run_id for run_id in jobs if (ticket := self._ticket(run_id)) and ticket.far}
        recorded = {run_id: run_id in far or has_ended(self._parcel(run_id)) for run_id in jobs}
        mute = [number for run_id, number in jobs.items() if run_id in far or not recorded[run_id]]
        one = mute if len(mute) == 1 else []  # it tells of one or of all
        command = ["scontrol", *_on(clusters), "show", "job", "-o", *one]
        known = parse_jobs(self._run(command, good=(0, 1))) if mute else {}
        return {
            run_id: JobStatus(
                JobState.ENDED,
                outcome=outcome_of_exit(known.get(number, {}), self._log(run_id), recorded=recorded[run_id]),
                seen=run_id in far,
                last=f"its job ended with exit code {known.get(number, {}).get('ExitCode', '?')}" if run_id in far else "",
            )
            for run_id, number in jobs.items()
        }

    def _accounted(self, handles: Sequence[JobHandle], clusters: str) -> dict[str, JobStatus]:
        """What the accounting knows of jobs that the controller has forgotten; nothing where there is none."""
        numbers = [handle.id for handle in handles if handle.id]
        states: dict[str, str] = {}
        if numbers and shutil.which("sacct", path=_environ(self._environ)["PATH"]):
            command = ["sacct", *_on(clusters), "-X", "-P", "-n", "-j", ",".join(numbers), "-o", "JobID,State"]
            try:
                states = parse_accounted(self._run(command, good=(0, 1)))
            except BackendError:  # the accounting is away, and would know
                return {handle.run_id: JobStatus(JobState.UNKNOWN) for handle in handles}
        return {
            handle.run_id: status_of(states[handle.id], "None") if handle.id in states else JobStatus(JobState.LOST)
            for handle in handles
        }

    def cancel(self, handle: JobHandle) -> None:
        clusters, number = self._clusters(handle), handle.id
        if not number and (found := self._find(handle.run_id, self._seen(clusters))):
            clusters, number = found.cluster or clusters, found.id
        if number:
            self._run(["scancel", "--quiet", *_on(clusters), number], good=(0, 1))

    def logs(self, handle: JobHandle, *, stream: str = "stdout", follow: bool = False) -> Iterator[bytes]:
        return follow_log(self._home, handle.run_id, stream, follow=follow)

    def collect(self, handle: JobHandle, into: Path) -> None:
        """The executor wrote there itself."""

    # -- talking to Slurm

    def _seen(self, clusters: str) -> list[Seen]:
        """All jobs of this user, in one query, also those that have just ended."""
        command = ["squeue", *_on(clusters), "-h", "-r", "-t", "all", "-u", str(os.getuid()), "-o", SQUEUE]
        return parse_squeue(self._run(command))

    def _clusters(self, handle: JobHandle) -> str:
        """Where a job is, of several clusters; empty for the one that Slurm's programs ask by themselves."""
        if handle.id:
            return handle.details.get("cluster", "")
        ticket = self._ticket(handle.run_id)
        return ticket.clusters if ticket else ""

    def _find(self, run_id: str, seen: Sequence[Seen]) -> Seen | None:
        """A job whose number is not known, by the ticket in its parcel."""
        ticket = self._ticket(run_id)
        if ticket is None:
            return None
        end = "" if ticket.index is None else f"_{ticket.index}"
        return next((one for one in seen if one.group == ticket.group and one.id.endswith(end)), None)

    def _parcel(self, run_id: str) -> Path:
        return self._home / "parcels" / run_id

    def _ticket(self, run_id: str) -> _Ticket | None:
        with contextlib.suppress(OSError, DocumentError):
            return from_json(_Ticket, (self._parcel(run_id) / "slurm.json").read_bytes())
        return None

    def _log(self, run_id: str) -> str:
        """What Slurm and the executor wrote to the job's own output."""
        ticket = self._ticket(run_id)
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
        if (settings := environ.get("SLURM_CONF")) and not Path(settings).exists():  # Slurm would look for it for a minute
            raise BackendError(f"Slurm's configuration is not here: {settings}", fix="SLURM_CONF says where it is.")
        # a request that is under way is better answered than cut: whoever looks next finds its job
        done = proc.run(command, env=environ, stdin=script.encode(), timeout=_PATIENCE, tied=False)
        out, err = done.out.decode(errors="replace"), done.err.decode(errors="replace")
        if done.code and "configuration source" in err:
            why, fix = (
                err.strip().splitlines()[-1],
                "Run it where jobs are submitted, or have SLURM_CONF name the cluster's slurm.conf.",
            )
            raise BackendError("Slurm's programs do not know their cluster here", why=why, fix=fix)
        return done.code, out if done.code == 0 and out.strip() else f"{err}{out}"


def _handle(number: str, cluster: str, job: Job) -> JobHandle:
    return JobHandle("slurm", number, run_id=job.run_id, details={"cluster": cluster} if cluster else {})


def _on(clusters: str) -> list[str]:
    return [f"--clusters={clusters}"] if clusters else []


def _lacks_reason(status: JobStatus) -> bool:
    return status.state is JobState.ENDED and status.outcome is None


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
        kept |= {name: value for name, value in environ.items() if name.startswith("SBATCH_") and name not in _NOT_OURS}
    kept.setdefault("PATH", os.defpath)
    return kept


def make(context: BackendContext) -> SlurmBackend:
    """See `runproj.backends.catalogue`."""
    return SlurmBackend(context)
