"""What Slurm is told and what it says, as far as it is text."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from runproj.backends import slurm_script as slurm
from runproj.core.backend import Demand, JobState
from runproj.core.project import Resources
from runproj.core.run import RunStatus


def test_resources_and_options_become_arguments() -> None:
    needs = Resources(cpus=1.5, memory="1GB", gpus=2, time="90m", nodes=1, partition="gpu")
    demand = Demand(resources=needs, options={"account": "ml", "requeue": True, "extra": ["--licenses=x"]})
    found = slurm.arguments(demand, name="a b\n$(x)", group="g", log="/a%b/job.log", grace=10)
    assert {"--cpus-per-task=2", "--mem=954M", "--gpus=2", "--nodes=1", "--time=1:30:00", "--partition=gpu"} <= {*found}
    assert {"--account=ml", "--requeue", "--licenses=x", "--job-name=rp-a-b-x", "--comment=runproj:g"} <= {*found}
    assert "--output=/a%%b/job.log" in found


def test_a_timeout_alone_gives_a_time_limit_that_comes_later() -> None:
    assert slurm.seconds_of(Demand(timeout=60), 10) == 190
    assert slurm.seconds_of(Demand(), 10) is None


def test_the_script_of_an_array_gives_each_task_its_own_parcel(tmp_path: Path) -> None:
    parcels = [tmp_path / 'it\'s "$(touch hacked)" 1', tmp_path / "two\nlines"]
    for parcel in parcels:
        parcel.mkdir()
    text = slurm.script([("printf", "%s", str(parcel)) for parcel in parcels], Demand(), variables={"A": "b'c"}, grace=10)
    for index, parcel in enumerate(parcels):
        environ = {"PATH": "/usr/bin:/bin", "SLURM_ARRAY_TASK_ID": str(index)}
        done = subprocess.run(["bash"], input=text, capture_output=True, text=True, env=environ, cwd=tmp_path)
        assert done.stdout == str(parcel), done.stderr
    assert not list(tmp_path.rglob("hacked"))
    parcels[0].rmdir()
    done = subprocess.run(["bash"], input=text, capture_output=True, text=True, env={"PATH": "/usr/bin:/bin"}, cwd=tmp_path)
    assert done.returncode == slurm.NO_FOLDER


@pytest.mark.parametrize(
    ("state", "meaning", "status"),
    [
        ("PENDING", JobState.PENDING, None),
        ("REQUEUED", JobState.PENDING, None),
        ("RUNNING", JobState.RUNNING, None),
        ("COMPLETING", JobState.RUNNING, None),
        ("COMPLETED", JobState.ENDED, None),
        ("FAILED", JobState.ENDED, None),
        ("CANCELLED by 0", JobState.ENDED, RunStatus.KILLED),
        ("CANCELLED+", JobState.ENDED, RunStatus.KILLED),
        ("TIMEOUT", JobState.ENDED, RunStatus.FAILED),
        ("OUT_OF_MEMORY", JobState.ENDED, RunStatus.FAILED),
        ("NODE_FAIL", JobState.ENDED, RunStatus.FAILED),
        ("PREEMPTED", JobState.ENDED, RunStatus.KILLED),
        ("SOMETHING_NEW", JobState.UNKNOWN, None),
    ],
)
def test_states(state: str, meaning: JobState, status: RunStatus | None) -> None:
    found = slurm.status_of(state, "None")
    assert found.state is meaning
    assert (found.outcome.status if found.outcome else None) is status


def test_why_a_job_ended_that_did_not_record_it() -> None:
    def why(code: str, log: str = "", *, recorded: bool = False) -> tuple[int, str] | None:
        found = slurm.outcome_of_exit({"ExitCode": code}, log, recorded=recorded)
        return (found.exit_code, found.reason) if found else None

    limit = "slurmstepd-x: error: StepId=2.batch exceeded memory limit (5 > 1), being killed"
    assert why("0:9", limit) == (137, "killed because it used more memory than its Slurm job may"
        " (StepId=2.batch exceeded memory limit (5 > 1), being killed)")  # fmt: skip
    assert why("0:9", limit, recorded=True) is not None
    assert why("3:0", recorded=True) is None
    assert why("0:0") is None
    assert "cannot write its output" in (why("0:53") or (0, ""))[1]
    assert "file system that all nodes share" in (why("97:0", "The node n1 does not see /x") or (0, ""))[1]
    assert (why("1:0", "Traceback\nBoom") or (0, ""))[1].endswith("Traceback / Boom")


def test_answers() -> None:
    assert slurm.parse_job_id("12;cluster\n") == "12"
    with pytest.raises(ValueError, match="answered"):
        slurm.parse_job_id("sbatch: oops")
    (seen,) = slurm.parse_squeue("7_3|RUNNING|runproj:abc|None\nnoise\n")
    assert (seen.id, seen.state, seen.group, seen.reason) == ("7_3", "RUNNING", "abc", "None")
    assert slurm.parse_job("JobId=1 JobName=a b ExitCode=0:9 StdOut=/x y/z Power=")["ExitCode"] == "0:9"
