"""What Slurm is told and what it says, as pure functions: the script and arguments of a job, and the answers of its programs."""

from __future__ import annotations

import base64
import math
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence

from runproj.core.backend import Demand, Engine, JobState, JobStatus
from runproj.core.outcome import Outcome
from runproj.core.run import RunStatus
from runproj.core.values import dataclass
from runproj.errors import BackendError, UsageError
from runproj.settings import parse_duration, parse_size

NO_FOLDER = 97
"""Exit code of a job whose node does not see the home."""
_ARRAY = 1000
"""Tasks of an array at most: where Slurm does not say how many it takes, and so that scripts stay small."""
MOST_SCRIPT = 3 << 20
"""Bytes of a parcel in a script; Slurm takes 4 MiB unless its administrator says otherwise."""
MOST_PARCEL = MOST_SCRIPT * 3 // 4 * 76 // 77
"""The same before it is written in base64."""
_MARGIN = 120
"""Seconds that a job may take beside its command, where its time limit follows from a timeout."""

SQUEUE = "%i|%T|%k|%r"
"""Job (`7`, `7_3`), state, comment, reason."""


@dataclass(frozen=True)
class Seen:
    """A line of `squeue`.  cluster: where that was asked of several."""

    id: str
    state: str
    comment: str
    reason: str
    cluster: str = ""

    @property
    def group(self) -> str:
        """The first run of those that were submitted together; empty for jobs that are not ours."""
        return self.comment.removeprefix("runproj:") if self.comment.startswith("runproj:") else ""


def parse_squeue(text: str) -> list[Seen]:
    """The jobs in the answer of `squeue -h -r -o SQUEUE`."""
    found, cluster = [], ""
    for line in text.splitlines():
        if line.startswith("CLUSTER: "):
            cluster = line.removeprefix("CLUSTER: ").strip()
        elif line.count("|") >= 3:
            number, state, comment, reason = line.split("|", 3)
            found.append(Seen(number, state, comment, reason, cluster))
    return found


def parse_job_id(text: str) -> tuple[str, str]:
    """The job's number, and its cluster where that is said, of the answer of `sbatch --parsable`: `7` or `7;cluster`.

    Raises `BackendError`.
    """
    number, _, cluster = (text.strip().splitlines() or [""])[-1].strip().partition(";")
    if not number.isdigit():
        raise BackendError("sbatch did not say which job it made", why=f"It answered {text[:200]!r}.")
    return number, cluster


def parse_job(text: str) -> dict[str, str]:
    """`Name=value` pairs of `scontrol show job -o`.  Values with blanks end at the next name; the first of a name counts."""
    pairs = re.findall(r"(\S+?)=(.*?)(?=\s+\S+?=|\s*$)", text, re.DOTALL)
    return {name: value.strip() for name, value in reversed(pairs)}


def parse_jobs(text: str) -> dict[str, dict[str, str]]:
    """The same of many jobs, by what `squeue` calls each."""
    jobs = [parse_job(part) for part in re.split(r"^(?=JobId=)", text, flags=re.MULTILINE) if part.startswith("JobId=")]
    return {f"{job['ArrayJobId']}_{job['ArrayTaskId']}" if "ArrayTaskId" in job else job["JobId"]: job for job in jobs}


def parse_accounted(text: str) -> dict[str, str]:
    """Job → state in the answer of `sacct -X -P -n -o JobID,State`; nothing where there is no accounting."""
    pairs = (line.partition("|") for line in text.splitlines())
    return {number: state for number, bar, state in pairs if bar and number[:1].isdigit()}


def seconds_of(demand: Demand, grace: float) -> int | None:
    """The time limit of a job: what was asked for, or what its timeout and ends take."""
    if demand.resources.time:
        return math.ceil(parse_duration(demand.resources.time))
    return math.ceil(demand.timeout + grace + _MARGIN) if demand.timeout else None


def arguments(demand: Demand, *, name: str, group: str, log: str, grace: float) -> list[str]:
    """The options of `sbatch` for jobs of one demand.  On the command line no value is ever parsed as a directive."""
    needs, options = demand.resources, demand.options
    found = [f"--job-name={job_name(name)}", f"--comment=runproj:{group}", f"--output={pattern(log)}", "--open-mode=append"]
    found += ["--export=ALL", "--requeue" if options.get("requeue") else "--no-requeue"]
    if needs.cpus:
        found.append(f"--cpus-per-task={math.ceil(needs.cpus)}")
    if needs.memory:
        found.append(f"--mem={math.ceil(parse_size(needs.memory) / (1 << 20))}M")
    if needs.gpus:
        found.append(f"--gpus={needs.gpus}")
    if needs.nodes:
        found.append(f"--nodes={needs.nodes}")
    if needs.partition:
        found.append(f"--partition={needs.partition}")
    if (limit := seconds_of(demand, grace)) is not None:
        found.append(f"--time={limit // 3600}:{limit // 60 % 60:02d}:{limit % 60:02d}")
    for option in ("account", "qos", "constraint", "nodelist", "exclude", "reservation"):
        if value := options.get(option):
            found.append(f"--{option}={value}")
    if value := options.get("signal"):
        found.append(f"--signal={_to_the_executor(str(value))}")
    return [*found, *(_further(str(word)) for word in options.get("extra", ()))]


def _to_the_executor(value: str) -> str:
    """Slurm would signal the steps of a job, of which there are none: its script, which became the executor, passes it on."""
    where, _, signal = value.rpartition(":")
    if signal.partition("@")[0].upper().removeprefix("SIG") not in ("USR1", "USR2", "10", "12"):
        raise UsageError(f"The signal {value!r} would end the job", fix="Use USR1 or USR2, with seconds: USR2@120.")
    return f"{where.replace('B', '')}B:{signal}"


_OURS = ("--parsable", "--wrap", "--array", "--comment", "--export", "--export-file", "--output", "--wait", "--test-only")
_SHORT = {"-a": "--array", "-o": "--output", "-W": "--wait", "-M": "--clusters", "-t": "--time"}
_NAMED = {"--clusters": "clusters", "--requeue": "requeue", "--no-requeue": "requeue", "--signal": "signal", "--time": "time"}
"""Options of sbatch that have a name of their own here, since more follows from them."""


def _further(word: str) -> str:
    """An option of sbatch that the user gives as it is.  Raises `UsageError`."""
    if not word.startswith("-"):
        raise UsageError(f"{word!r} is not an option of sbatch", fix='Write extra = ["--licenses=matlab", …].')
    name = word.partition("=")[0] if word.startswith("--") else _SHORT.get(word[:2], word)
    for one in (*_NAMED, *_OURS):
        if one.startswith(name):  # sbatch takes the beginning of a name for all of it
            fix = f"Use the option {_NAMED[one]!r} of the backend." if one in _NAMED else ""
            raise UsageError(f"The option {word!r} of sbatch is runproj's to give", fix=fix)
    return word


def array_size(config: str) -> int:
    """How many tasks an array may have, from the answer of `scontrol show config`."""
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", config, re.MULTILINE)
    return max(1, min(_ARRAY, int(found[1]))) if found else _ARRAY


def job_name(name: str) -> str:
    """A run's name as a job's: `squeue` and its friends are read by people and scripts."""
    return "rp-" + (re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-")[:60] or "run")


def pattern(path: str) -> str:
    """A path in which Slurm is to replace nothing but `%a`, which stands at its end."""
    folder, _, name = path.rpartition("/")
    return f"{folder.replace('%', '%%')}/{name}"


def script(
    commands: Sequence[Sequence[str]], demand: Demand, *, variables: Mapping[str, str], grace: float, far: bytes = b""
) -> str:
    """The batch script.  commands: what to execute, one for each task of an array; the last word of each is its parcel.

    far: the parcel itself, folded, for a node that does not see this home.
    """
    given = {Engine.TOLD: "1", **variables}
    if demand.options.get("requeue"):
        given[Engine.REQUEUED] = "1"
    lines = ["#!/bin/bash"]
    lines += [f"export {name}={shlex.quote(value)}" for name, value in sorted(given.items())]
    limit = seconds_of(demand, grace)
    ends = f"$(( $(date +%s) + {limit} ))" if limit is not None else "${SLURM_JOB_END_TIME:-}"  # newer versions of Slurm tell
    lines += [f"export {Engine.ENDS}={ends}"]
    if far:
        return "\n".join([*lines, *_unfolding(demand, far)])
    lines += [f"parcels=({' '.join(shlex.quote(command[-1]) for command in commands)})"]
    lines += ["parcel=${parcels[${SLURM_ARRAY_TASK_ID:-0}]}"]
    lines += [f'cd -- "$parcel" || {{ echo "The node $(hostname) does not see $parcel" >&2; exit {NO_FOLDER}; }}']
    lines += [str(line) for line in demand.options.get("setup", ())]
    lines += [f'exec {shlex.join(commands[0][:-1])} "$parcel"', ""]
    return "\n".join(lines)


def _unfolding(demand: Demand, parcel: bytes) -> list[str]:
    """The end of a script that brings its parcel along, and takes it away again."""
    python = shlex.quote(str(demand.options["python"]))
    if len(text := base64.encodebytes(parcel).decode()) > MOST_SCRIPT:
        raise BackendError(
            f"What the job needs has {len(text) >> 20} MiB, and Slurm takes scripts of {MOST_SCRIPT >> 20} MiB",
            fix="Leave large files out of the repository, or use a home that the nodes see.",
        )
    return [
        f'folder=$(mktemp -d) && cd -- "$folder" || exit {NO_FOLDER}',
        "base64 -d >parcel.zip <<'END'",
        f"{text}END",
        f'{python} -m zipfile -e parcel.zip parcel && rm parcel.zip || {{ cd / && rm -rf "$folder"; exit {NO_FOLDER}; }}',
        *(str(line) for line in demand.options.get("setup", ())),
        f'exec {python} -m runproj execute-parcel "$folder/parcel" --fleeting',
        "",
    ]


_WAITS = {
    "BadConstraints": "no node has all that is asked for",
    "PartitionConfig": "no node of the partition has as much as is asked for",
    "PartitionNodeLimit": "more nodes are asked for than the partition gives",
    "PartitionTimeLimit": "more time is asked for than the partition gives",
    "PartitionDown": "the partition is down",
    "PartitionInactive": "the partition takes no jobs now",
    "DependencyNeverSatisfied": "what it depends on can never come true",
    "ReqNodeNotAvail": "a node that it needs is not available",
    "Resources": "for resources",
    "Priority": "others come first",
    "BeginTime": "its time has not come; Slurm waits two minutes before it starts a job again",
    "JobArrayTaskLimit": "as many of its siblings run as may",
    "JobHeldUser": "it is held: scontrol release",
    "JobHeldAdmin": "it is held by an administrator",
    "None": "",
}

_PENDING = {"PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT", "RESV_DEL_HOLD", "CONFIGURING"}
_RUNNING = {"RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING"}
_ENDS: Mapping[str, tuple[RunStatus, int, str]] = {
    "TIMEOUT": (RunStatus.FAILED, 124, "timed out: Slurm ended its job at the time limit"),
    "DEADLINE": (RunStatus.FAILED, 124, "timed out: Slurm ended its job at its deadline"),
    "OUT_OF_MEMORY": (RunStatus.FAILED, 137, "killed because it used more memory than its Slurm job may"),
    "NODE_FAIL": (RunStatus.FAILED, 1, "lost: the node that it ran on failed"),
    "BOOT_FAIL": (RunStatus.FAILED, 1, "lost: its node could not be started"),
    "PREEMPTED": (RunStatus.KILLED, 143, "preempted: Slurm gave its node to a job of higher priority"),
    "CANCELLED": (RunStatus.KILLED, 143, "cancelled in Slurm"),
    "REVOKED": (RunStatus.KILLED, 143, "cancelled: another cluster of the federation has it"),
}


def status_of(state: str, reason: str) -> JobStatus:
    """What a state of Slurm means.  A state that a newer Slurm may have is no reason to call a job dead."""
    word = state.split()[0].rstrip("+") if state else ""
    if word in _PENDING:
        words = _WAITS.get(reason, "")
        return JobStatus(JobState.PENDING, f"Slurm: {reason}{f' ({words})' if words else ''}" if reason != "None" else "")
    if word in _RUNNING:
        return JobStatus(JobState.RUNNING)
    if word in _ENDS:
        return JobStatus(JobState.ENDED, outcome=Outcome(*_ENDS[word]))
    return JobStatus(JobState.ENDED if word in ("COMPLETED", "FAILED") else JobState.UNKNOWN)


def outcome_of_exit(job: Mapping[str, str], log: str, *, recorded: bool) -> Outcome | None:
    """Why a job ended, from `scontrol show job` and what Slurm wrote to its output.

    recorded: its executor recorded how it ended, and lacks at most the reason for that.

    Where Slurm itself watches memory (OverMemoryKill) the job is FAILED with signal 9.  One whose output could not be opened is
    FAILED with signal 53, and never began.
    """
    code, _, number = job.get("ExitCode", "0:0").partition(":")
    if "memory limit" in log and "xceeded" in log:
        said = next(line for line in log.splitlines() if "memory limit" in line)
        return Outcome(RunStatus.FAILED, 137, f"killed because it used more memory than its Slurm job may ({_words(said)})")
    if recorded:
        return None
    if number == "53":
        why = f"Slurm could not start it: the node cannot write its output {job.get('StdOut', '')}"
        return Outcome(RunStatus.FAILED, 1, why)
    if code == str(NO_FOLDER):
        why = f"{_last(log)}: runproj's home has to be on a file system that all nodes share"
        return Outcome(RunStatus.FAILED, NO_FOLDER, why)
    if code != "0":
        number = code if code.isdigit() else "1"
        return Outcome(RunStatus.FAILED, int(number), f"its executor could not run: {_last(log)}".rstrip(": "))
    if number not in ("", "0"):
        return Outcome(RunStatus.FAILED, 128 + int(number), f"its executor was ended by signal {number} {_last(log)}".rstrip())
    return None


def _words(line: str) -> str:
    return line.partition("error: ")[2].strip() or line.strip()


def _last(log: str) -> str:
    """The end of what was written."""
    lines: Iterable[str] = [line.strip() for line in log.splitlines() if line.strip()]
    return " / ".join(list(lines)[-3:])[:500]
