"""What Slurm is told and what it says, as pure functions: the script and arguments of a job, and the answers of its programs."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from runproj.core.backend import Demand, Engine, JobState, JobStatus
from runproj.core.outcome import Outcome
from runproj.core.run import RunStatus
from runproj.errors import UsageError
from runproj.settings import parse_duration, parse_size

NO_FOLDER = 97
"""Exit code of a job whose node does not see the home."""
_MARGIN = 120
"""Seconds that a job may take beside its command, where its time limit follows from a timeout."""

SQUEUE = "%i|%T|%k|%r"
"""Job (`7`, `7_3`), state, comment, reason."""


@dataclass(frozen=True)
class Seen:
    """A line of `squeue`."""

    id: str
    state: str
    comment: str
    reason: str

    @property
    def group(self) -> str:
        """The first run of those that were submitted together; empty for jobs that are not ours."""
        return self.comment.removeprefix("runproj:") if self.comment.startswith("runproj:") else ""


def parse_squeue(text: str) -> list[Seen]:
    """The jobs in the answer of `squeue -h -r -o SQUEUE`."""
    return [Seen(*line.split("|", 3)) for line in text.splitlines() if line.count("|") >= 3]


def parse_job_id(text: str) -> str:
    """The job's number in the answer of `sbatch --parsable`: `7` or `7;cluster`.  Raises `ValueError`."""
    number = text.strip().splitlines()[-1].partition(";")[0] if text.strip() else ""
    if not number.isdigit():
        raise ValueError(f"sbatch answered {text[:200]!r}")
    return number


def parse_job(text: str) -> dict[str, str]:
    """`Name=value` pairs of `scontrol show job -o`.  Values with blanks end at the next name."""
    return {name: value.strip() for name, value in re.findall(r"(\S+?)=(.*?)(?=\s+\S+?=|\s*$)", text, re.DOTALL)}


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
    for option in ("account", "qos", "constraint", "nodelist", "exclude", "reservation", "signal"):
        if value := options.get(option):
            found.append(f"--{option}={value}")
    extra = [str(word) for word in options.get("extra", ())]
    for word in extra:
        if not word.startswith("-"):
            raise UsageError(f"{word!r} is not an option of sbatch", fix='Write extra = ["--licenses=matlab", …].')
        if word.startswith(("--parsable", "--wrap", "--array", "-a", "--comment", "--export", "--output", "-o")):
            raise UsageError(f"The option {word!r} of sbatch is runproj's to give")
    return [*found, *extra]


def job_name(name: str) -> str:
    """A run's name as a job's: `squeue` and its friends are read by people and scripts."""
    return "rp-" + (re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-")[:60] or "run")


def pattern(path: str) -> str:
    """A path in which Slurm is to replace nothing but `%a`, which stands at its end."""
    folder, _, name = path.rpartition("/")
    return f"{folder.replace('%', '%%')}/{name}"


def script(commands: Sequence[Sequence[str]], demand: Demand, *, variables: Mapping[str, str], grace: float) -> str:
    """The batch script.  commands: what to execute, one for each task of an array; the last word of each is its parcel."""
    given = {Engine.TOLD: "1", **variables}
    if (limit := seconds_of(demand, grace)) is not None:
        given[Engine.LIMIT] = str(limit)
    if demand.options.get("requeue"):
        given[Engine.REQUEUED] = "1"
    lines = ["#!/bin/bash"]
    lines += [f"export {name}={shlex.quote(value)}" for name, value in sorted(given.items())]
    lines += [f"parcels=({' '.join(shlex.quote(command[-1]) for command in commands)})"]
    lines += ["parcel=${parcels[${SLURM_ARRAY_TASK_ID:-0}]}"]
    lines += [f'cd -- "$parcel" || {{ echo "The node $(hostname) does not see $parcel" >&2; exit {NO_FOLDER}; }}']
    lines += [str(line) for line in demand.options.get("setup", ())]
    lines += [f'exec {shlex.join(commands[0][:-1])} "$parcel"', ""]
    return "\n".join(lines)


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
