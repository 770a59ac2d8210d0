"""A real Slurm, where it misleads: states that are not what they seem, and whatever may be killed, lost or late in between."""

from __future__ import annotations

import itertools
import json
import os
import shutil
from pathlib import Path

import pytest

from conftest import Repository
from support.cluster import ON, begun, detached, ended, home, job_of, nothing_left, reason_of, submitted_together
from support.placing import LOGGING
from support.program import Cli
from support.slurm import Slurm
from support.waiting import until

PROJECT = {
    "MLproject": (
        "name: traps\n"
        "python_env: python_env.yaml\n"
        "entry_points:\n"
        "  main: {command: 'python train.py 3 x'}\n"
        "  endless: {command: 'python endless.py'}\n"
        "  again: {command: 'python again.py'}\n"
        "  listens: {command: 'python listens.py && echo after'}\n"
        "  brief: {command: 'python brief.py'}\n"
        "  where: {command: 'python where.py'}\n"
    ),
    "python_env.yaml": "dependencies: []\n",
    "train.py": LOGGING["train.py"],
    "endless.py": "import time\nprint('begun', flush=True)\ntime.sleep(300)\n",
    "again.py": (
        "import os, pathlib, time\n"
        "mark = pathlib.Path(os.environ['HOME'], 'begun once')\n"
        "first = not mark.exists()\n"
        "mark.touch(); print('begun' if first else 'again', flush=True); time.sleep(300 if first else 0)\n"
    ),
    "listens.py": (
        "import signal, sys\n"
        "signal.signal(signal.SIGUSR2, lambda number, _: (print('told', number, flush=True), sys.exit(0)))\n"
        "print('begun', flush=True)\n"
        "while True: signal.pause()\n"
    ),
    "brief.py": "import time\nprint('begun', flush=True)\ntime.sleep(2)\n",
    "where.py": (
        "import os, sys, time\nbegin = time.time(); time.sleep(0.4)\nprint(os.stat(sys.prefix).st_ino, begin, time.time())\n"
    ),
}
HELD = json.dumps({"extra": ["--hold"]})


@pytest.fixture
def project(repository: Repository) -> Repository:
    repository.commit(PROJECT)
    return repository


def code_of(run: dict) -> str:
    return next(tag["value"] for tag in run["tags"] if tag["key"] == "runproj.exit_code")


def program(cli: Cli, folder: Path, name: str, script: str) -> None:
    """Have one of Slurm's programs do something else as well; `$real` is the real one."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\nreal='{shutil.which(name)}'\n{script}")
    path.chmod(0o755)
    cli.env["PATH"] = f"{folder}{os.pathsep}{cli.env['PATH']}"


def test_a_node_fails(away: Cli, project: Repository, slurm: Slurm) -> None:
    run_id = detached(away, project, "-e", "endless")
    begun(away, run_id)
    slurm("scontrol", "update", f"NodeName={slurm.host}", "State=DOWN", "Reason=test")
    try:
        run = ended(away, run_id)
    finally:
        slurm("scontrol", "update", f"NodeName={slurm.host}", "State=RESUME")
        until(slurm.idle)
    assert run["status"] == "FAILED"
    assert reason_of(run).startswith("lost: the node that it ran on failed")


def test_preempted_with_and_without_a_second_try(away: Cli, project: Repository, slurm: Slurm) -> None:
    gone = detached(away, project, "-e", "endless")
    back = detached(away, project, "-e", "again", "-c", '{"requeue": true}')
    for run_id in (gone, back):
        begun(away, run_id)
    job = job_of(away, back)
    urgent = away("run", project.url, *ON, "-c", json.dumps({"partition": "urgent", "extra": ["--exclusive"]}))
    assert urgent.returncode == 0, urgent.stderr
    until(lambda: "PENDING" in slurm("squeue", "-h", "-j", job, "-o", "%T"))
    assert away.json("runs", "show", back)["run"]["status"] == "SCHEDULED"
    slurm("scontrol", "update", f"JobId={job}", "StartTime=now+2")  # in the second in which it was revoked slurmd refuses it
    away("wait", gone)
    run = away.json("runs", "show", gone)["run"]
    assert (run["status"], code_of(run)) == ("KILLED", "143")
    assert reason_of(run).startswith("preempted")
    run = ended(away, back)
    assert run["status"] == "FINISHED", reason_of(run)
    assert {tag["key"]: tag["value"] for tag in run["tags"]}["runproj.restarts"] == "1"


def test_slurm_itself_ends_a_job_whose_time_is_over(away: Cli, project: Repository, slurm: Slurm) -> None:
    """The executor knows nothing of this limit, and only hears that it has to end."""
    run_id = detached(away, project, "-e", "endless")
    begun(away, run_id)
    slurm("scontrol", "update", f"JobId={job_of(away, run_id)}", "EndTime=now")
    run = ended(away, run_id)
    assert (run["status"], code_of(run)) == ("FAILED", "124")
    assert reason_of(run).startswith("timed out: Slurm ended its job")


def test_a_job_that_slurm_cannot_start_says_why(away: Cli, project: Repository, slurm: Slurm) -> None:
    away.env |= {"LOGNAME": "somebody", "USER": "somebody"}  # whose jobs these are is not a matter of names
    run_id = detached(away, project, "-c", HELD)
    run = away.json("runs", "show", run_id)["run"]
    assert run["status"] == "SCHEDULED"
    assert "held" in next(tag["value"] for tag in run["tags"] if tag["key"] == "runproj.waits")
    logs = home(away) / "slurm" / run_id
    logs.rmdir()
    logs.write_text("no folder")
    slurm("scontrol", "release", job_of(away, run_id))
    run = ended(away, run_id)
    assert run["status"] == "FAILED"
    assert "cannot write its output" in reason_of(run)


def test_a_node_that_does_not_see_the_home_says_so(away: Cli, project: Repository, slurm: Slurm) -> None:
    run_id = detached(away, project, "-c", HELD)
    job, parcel = job_of(away, run_id), home(away) / "parcels" / run_id
    hidden = parcel.rename(parcel.with_name("hidden"))
    slurm("scontrol", "release", job)
    until(lambda: "FAILED" in slurm("squeue", "-h", "-t", "all", "-j", job, "-o", "%T"))
    hidden.rename(parcel)
    run = ended(away, run_id)
    assert (run["status"], code_of(run)) == ("FAILED", "97")
    assert "does not see" in reason_of(run)
    assert "file system that all nodes share" in reason_of(run)


def forgotten(cli: Cli, run_id: str) -> None:
    """Have a job be one that Slurm does not know, as after MinJobAge."""
    (lease,) = (home(cli) / "active").glob("*.json")
    lease.write_text(lease.read_text().replace(f'"id":"{job_of(cli, run_id)}"', '"id":"999999"'))
    assert '"id":"999999"' in lease.read_text()
    (home(cli) / "parcels" / run_id / "slurm.json").unlink()


def test_of_a_job_that_slurm_has_forgotten_the_record_decides(away: Cli, project: Repository, slurm: Slurm) -> None:
    run_id = detached(away, project, "-c", HELD)
    job = job_of(away, run_id)
    forgotten(away, run_id)
    slurm("scontrol", "release", job)
    until((home(away) / "parcels" / run_id / "record" / "ended.json").exists)
    assert ended(away, run_id)["status"] == "FINISHED"
    lost = detached(away, project, "-e", "endless")
    begun(away, lost)
    job = job_of(away, lost)
    forgotten(away, lost)
    slurm("scancel", "--signal=KILL", "--batch", job)
    run = ended(away, lost)
    assert run["status"] == "FAILED"
    assert "nothing says how" in reason_of(run)


def test_a_submitter_that_is_killed_when_sbatch_has_answered(
    away: Cli, project: Repository, slurm: Slurm, tmp_path: Path
) -> None:
    program(away, tmp_path / "bin", "sbatch", '"$real" "$@" || exit\ncase " $* " in *" --parsable "*) kill -9 $PPID;; esac\n')
    killed = away("run", project.url, *ON, "--detach")
    assert killed.returncode == -9
    (run,) = away.json("runs", "list")["runs"]
    run = ended(away, run["id"])
    assert run["status"] == "FINISHED", reason_of(run)


def test_sbatch_reports_a_time_out_and_the_job_is_there(away: Cli, project: Repository, slurm: Slurm, tmp_path: Path) -> None:
    late = 'echo "Socket timed out on send/recv operation" >&2; exit 1'
    program(away, tmp_path / "bin", "sbatch", f'"$real" "$@" || exit\ncase " $* " in *" --parsable "*) {late};; esac\n')
    done = away("run", project.url, *ON)
    assert done.returncode == 0, done.stderr
    run_id = away.json("runs", "list")["runs"][0]["id"]
    assert slurm("squeue", "-h", "-t", "all", "-o", "%k").count(run_id) == 1


def test_variables_of_the_shell_that_would_make_another_job_of_it(away: Cli, project: Repository, slurm: Slurm) -> None:
    away.env |= {"SBATCH_ARRAY_INX": "0-3", "SBATCH_WAIT": "1", "SBATCH_EXPORT": "NONE", "SQUEUE_STATES": "PENDING"}
    run_id = detached(away, project, "-e", "listens")
    begun(away, run_id)
    assert slurm("squeue", "-h", "-r", "-t", "all", "-o", "%k").count(run_id) == 1
    slurm("scancel", "--signal=USR2", "--batch", job_of(away, run_id))  # as Slurm itself with --signal=B:USR2@120
    run = ended(away, run_id)
    assert run["status"] == "FINISHED", reason_of(run)
    assert away("runs", "logs", run_id).stdout == "begun\ntold 12\nafter\n"


def test_a_controller_that_is_killed(away: Cli, project: Repository, slurm: Slurm) -> None:
    run_id = detached(away, project, "-e", "brief")
    begun(away, run_id)
    until(lambda: run_id.encode() in (slurm.folder / "state" / "job_state").read_bytes())
    slurm.stop_controller(kill=True)
    try:
        until((home(away) / "parcels" / run_id / "record" / "ended.json").exists)
        assert ended(away, run_id)["status"] == "FINISHED"
    finally:
        slurm.start_controller()
        until(lambda: slurm.host in slurm("sinfo", "-h", "-N"))
        slurm("scancel", "-u", "root")  # what it saved last may be that the job was pending, and it would start it again
        until(slurm.idle)


def test_jobs_that_are_submitted_together_are_arrays(away: Cli, project: Repository, slurm: Slurm) -> None:
    """Of at most four tasks on this cluster; each has its own parcel, one runs at a time, and one of them is stopped alone."""
    handles = submitted_together(away, project, 6, "where", at_once=1)
    first, second = (handles[index].id.partition("_")[0] for index in (0, 4))
    assert first != second
    assert [handle.id for handle in handles] == [*(f"{first}_{index}" for index in range(4)), f"{second}_0", f"{second}_1"]
    stopped = handles[5].run_id
    away("runs", "stop", stopped)
    printed = []
    for handle in handles:
        away("wait", handle.run_id)
        run = away.json("runs", "show", handle.run_id)["run"]
        assert run["status"] == ("KILLED" if handle.run_id == stopped else "FINISHED"), reason_of(run)
        printed += [away("runs", "logs", handle.run_id).stdout.split()] if handle.run_id != stopped else []
    nothing_left(away)
    assert len({place for place, _, _ in printed}) == 1
    times = sorted((float(begin), float(end)) for _, begin, end in printed)
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(times))


def test_two_tasks_with_one_cold_environment_build_it_once(away: Cli, project: Repository) -> None:
    handles = submitted_together(away, project, 2, "where")
    for handle in handles:
        away("wait", handle.run_id)
    places = [away("runs", "logs", handle.run_id).stdout.split()[0] for handle in handles]
    assert places[0] == places[1]
    nothing_left(away)
