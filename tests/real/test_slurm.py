"""A real Slurm: the same plan, executor and record; and each way in which Slurm ends a job is told apart."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from conftest import Repository
from support.cluster import ON, begun, detached, ended, home, job_of, nothing_left, reason_of
from support.placing import LOGGING, followed, more, tags_of
from support.program import SYSTEM, Cli
from support.slurm import Slurm
from support.waiting import until

PROJECT = more(
    "  stubborn: {command: [python, stubborn.py]}\n"
    "  memory: {command: [python, memory.py], resources: {memory: 150MB}}\n"
    "  short: {command: [python, stubborn.py], resources: {time: 3s}}\n"
    "  again: {command: [python, again.py]}\n"
) | {
    "stubborn.py": (
        "import signal, sys, time\n"
        "def told(number, _):\n"
        "    print('told', number, flush=True)\n"
        "    time.sleep(1)\n"
        "    sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, told)\n"
        "print('begun', flush=True)\n"
        "time.sleep(600)\n"
    ),
    "memory.py": "print('begun', flush=True)\nblock = b'1' * 600_000_000\nimport time; time.sleep(30)\n",
    "again.py": (
        "import os, pathlib, runproj, sys, time\n"
        "mark = pathlib.Path(os.environ['HOME'], 'begun once')\n"
        "runproj.log_metric('attempt', 1 if not mark.exists() else 2, step=1 if not mark.exists() else 2)\n"
        "if mark.exists(): print('second'); sys.exit(0)\n"
        "mark.touch(); print('first', flush=True); time.sleep(600)\n"
    ),
}


@pytest.fixture
def project(repository: Repository) -> Repository:
    repository.commit(PROJECT)
    return repository


def test_success_with_hostile_names(away: Cli, project: Repository) -> None:
    hostile = 'it\'s "$(x)"\n`y` %j %%a'
    done = away("run", project.url, "-P", f"text={hostile}", "--run-name", hostile, *ON)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"text {hostile}\n"
    run = away.json("runs", "list")["runs"][0]
    assert (run["status"], run["name"]) == ("FINISHED", hostile)
    assert [(item["key"], item["step"]) for item in run["metrics"]] == [("loss", 2)]
    assert "made/model.bin" in [item["path"] for item in away.json("runs", "artifacts", run["id"])["artifacts"]]
    nothing_left(away)


def test_a_command_that_fails_gives_its_exit_code(away: Cli, repository: Repository) -> None:
    repository.commit(LOGGING)
    for entry_point, code, reason in (("fail", 3, "exit code 3"), ("die", 137, "ended by SIGKILL")):
        done = away("run", repository.url, "-e", entry_point, *ON)
        assert done.returncode == code, done.stderr
        assert reason in done.stderr
    nothing_left(away)


def test_cancelled_while_it_runs_the_command_hears_it_once(away: Cli, project: Repository) -> None:
    run_id = detached(away, project, "-e", "stubborn")
    begun(away, run_id)
    stopped = away("runs", "stop", run_id)
    assert "KILLED" in stopped.stderr
    assert away("runs", "logs", run_id).stdout == "begun\ntold 15\n"
    assert ended(away, run_id)["status"] == "KILLED"


def test_cancelled_while_it_waits_nothing_runs(away: Cli, project: Repository, slurm: Slurm) -> None:
    blocking = detached(away, project, "-e", "endless", "-c", json.dumps({"cpus": slurm.cpus}))
    begun(away, blocking)
    waiting = detached(away, project, "-c", json.dumps({"cpus": slurm.cpus}))
    run = away.json("runs", "show", waiting)["run"]
    assert run["status"] == "SCHEDULED"
    until(lambda: "Slurm: " in tags_of(away, waiting).get("runproj.waits", ""))
    away("runs", "stop", waiting)
    run = away.json("runs", "show", waiting)["run"]
    assert run["status"] == "KILLED"
    assert away("runs", "logs", waiting).returncode != 0
    away("runs", "stop", blocking)
    assert ended(away, blocking)["status"] == "KILLED"


def test_somebody_else_cancels_the_job(away: Cli, project: Repository, slurm: Slurm) -> None:
    run_id = detached(away, project, "-e", "stubborn")
    begun(away, run_id)
    slurm("scancel", job_of(away, run_id))
    run = ended(away, run_id)
    assert run["status"] == "KILLED"
    assert reason_of(run).startswith("cancelled in Slurm")


def test_time_limit(away: Cli, project: Repository) -> None:
    """The executor ends its command before Slurm would, and so records everything."""
    run_id = detached(away, project, "-e", "short", "--grace", "1")
    run = ended(away, run_id)
    assert run["status"] == "FAILED"
    assert reason_of(run).startswith("timed out")


def test_more_memory_than_the_job_may_use(away: Cli, project: Repository) -> None:
    run_id = detached(away, project, "-e", "memory")
    run = ended(away, run_id)
    assert run["status"] == "FAILED"
    assert "killed because it used more memory than its Slurm job may" in reason_of(run)


def test_a_job_that_is_requeued_is_the_same_run(away: Cli, project: Repository, slurm: Slurm) -> None:
    run_id = detached(away, project, "-e", "again", "-c", '{"requeue": true}')
    begun(away, run_id, "first")
    job = job_of(away, run_id)
    slurm("scontrol", "requeue", job)
    until(lambda: "PENDING" in slurm("squeue", "-h", "-j", job, "-o", "%T"))
    assert away.json("runs", "show", run_id)["run"]["status"] in ("RUNNING", "SCHEDULED")
    slurm("scontrol", "update", f"JobId={job}", "StartTime=now+2")  # in the second in which it was revoked slurmd refuses it
    run = ended(away, run_id)
    assert run["status"] == "FINISHED", reason_of(run)
    tags = {tag["key"]: tag["value"] for tag in run["tags"]}
    assert (tags["runproj.restarts"], tags["runproj.exit_code"]) == ("1", "0")
    assert "runproj.signal" not in tags and not tags.get("runproj.reason")
    assert [(item["key"], item["value"]) for item in run["metrics"]] == [("attempt", 2.0)]
    assert away("runs", "logs", run_id).stdout == "second\n"


def test_a_controller_that_is_away(away: Cli, project: Repository, slurm: Slurm) -> None:
    run_id = detached(away, project, "-e", "stubborn")
    begun(away, run_id)
    slurm.stop_controller()
    try:
        refused = away("run", project.url, *ON)
        assert refused.returncode == 125
        assert "slurmctld" in refused.stderr
        assert away("runs", "list").returncode == 0
    finally:
        slurm.start_controller()
    assert away.json("runs", "show", run_id)["run"]["status"] == "RUNNING"
    away("runs", "stop", run_id)
    assert ended(away, run_id)["status"] == "KILLED"


def test_the_follower_is_killed(away: Cli, project: Repository) -> None:
    process = away.start("run", project.url, "-P", "n=300", *ON)
    assert process.stdout is not None
    process.stdout.readline()
    process.kill()
    process.communicate()
    run_id = away.json("runs", "list")["runs"][0]["id"]
    run = ended(away, run_id)
    assert (run["status"], [item["step"] for item in run["metrics"]]) == ("FINISHED", [299])


def test_the_executor_is_killed(away: Cli, project: Repository, slurm: Slurm) -> None:
    run_id = detached(away, project, "-e", "endless")
    begun(away, run_id)
    slurm("scancel", "--signal=KILL", "--batch", job_of(away, run_id))
    run = ended(away, run_id)
    assert run["status"] == "FAILED"
    assert "signal 9" in reason_of(run)


def test_a_submitter_that_was_killed_before_it_wrote_the_number_of_the_job(away: Cli, project: Repository) -> None:
    run_id = detached(away, project, "-e", "endless")
    begun(away, run_id)
    (lease,) = (home(away) / "active").glob("*.json")
    lease.write_text(lease.read_text().replace(f'"id":"{job_of(away, run_id)}"', '"id":""'))
    assert '"id":""' in lease.read_text()
    assert away.json("runs", "show", run_id)["run"]["status"] == "RUNNING"
    away("runs", "stop", run_id)
    assert ended(away, run_id)["status"] == "KILLED"


def test_what_can_never_run_is_refused_while_it_is_planned(away: Cli, project: Repository) -> None:
    for config, code, word in (
        ({"cpus": 999}, 125, "not available"),
        ({"gpus": 1}, 125, "generic resource"),
        ({"partition": "nope"}, 125, "partition"),
        ({"acount": "x"}, 2, "Did you mean 'account'?"),
        ({"extra": ["--wrap=rm"]}, 2, "runproj's to give"),
    ):
        refused = away("plan", project.url, *ON, "-c", json.dumps(config))
        assert refused.returncode == code, refused.stderr
        assert word in refused.stderr
    assert not (home(away) / "runproj.db").exists() or away.json("runs", "list")["runs"] == []


def test_a_job_that_is_submitted_from_inside_of_a_job(away: Cli, project: Repository) -> None:
    away.env |= {"SLURM_JOB_ID": "1", "SLURM_CPUS_PER_TASK": "77", "SBATCH_PARTITION": "nope"}
    done = away("run", project.url, *ON)
    assert done.returncode == 0, done.stderr


def test_nothing_of_the_users_shell_reaches_the_job_or_slurm(away: Cli, repository: Repository) -> None:
    repository.commit({"show.py": "import os; print(os.environ.get('MY_SECRET'), os.environ.get('MY_CHOICE'))"})
    away.env |= {"MY_SECRET": "hunter2", "MY_CHOICE": "yes"}
    done = away("run", repository.url, "-e", "show.py", *ON, "-c", '{"variables": ["MY_CHOICE"]}')
    assert done.stdout == "None yes\n", done.stderr


def test_a_large_log_is_followed_in_little_memory(away: Cli, project: Repository) -> None:
    process = subprocess.Popen(
        away.command("run", project.url, "-e", "large", *ON),
        cwd=away.home,
        env=away.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    size, most = followed(process)
    assert size == 1_000_000_000
    assert most < 150_000  # kB


def test_status_of_many_is_one_query(away: Cli, project: Repository, slurm: Slurm, tmp_path: Path) -> None:
    ids = [detached(away, project, "-e", "endless", "-c", '{"memory": "100MB"}') for _ in range(3)]
    programs = tmp_path / "programs"
    programs.mkdir()
    counting = programs / "squeue"
    real = subprocess.run(["which", "squeue"], capture_output=True, text=True, check=True).stdout.strip()
    counting.write_text(f'#!/bin/sh\necho x >> "{tmp_path}/count"\nexec {real} "$@"\n')
    counting.chmod(0o755)
    away.env["PATH"] = f"{programs}{os.pathsep}{away.env['PATH']}"
    assert len(away.json("runs", "list")["runs"]) == 3
    assert (tmp_path / "count").read_text() == "x\n"
    for run_id in ids:
        away("runs", "stop", run_id)
    assert {run["status"] for run in away.json("runs", "list")["runs"]} == {"KILLED"}
    nothing_left(away)


def test_ctrl_c(away: Cli, project: Repository) -> None:
    process = away.start("run", project.url, "-e", "stubborn", *ON)
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, err
    assert out == "told 15\n"
    nothing_left(away)


def test_the_same_run_here_and_there_differs_in_where_it_ran_only(away: Cli, project: Repository) -> None:
    for where in (("--backend", "slurm"), ("--backend", "local")):
        done = away("run", project.url, *where, "--clean-env", *SYSTEM)
        assert done.returncode == 0, done.stderr
    here, there = (run["id"] for run in away.json("runs", "list")["runs"])
    told = away("diff", there, here).stdout
    assert "backend  slurm → local" in told
    assert {line.split()[0] for line in told.splitlines()[1:] if line.startswith("  ")} <= {"backend", "name"}, told
