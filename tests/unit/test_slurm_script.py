"""What Slurm is told and what it says, as far as it is text."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from runproj.backends import slurm_script as slurm
from runproj.core.backend import Demand, Engine, JobState
from runproj.core.project import Resources
from runproj.core.run import RunStatus
from runproj.errors import BackendError, UsageError


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
    assert slurm.parse_job_id("12;cluster\n") == ("12", "cluster")
    assert slurm.parse_job_id("sbatch: a note of the site\n12\n") == ("12", "")
    for text in ("sbatch: oops", "", "\n"):
        with pytest.raises(BackendError, match="which job"):
            slurm.parse_job_id(text)
    (seen,) = slurm.parse_squeue("CLUSTER: far\n7|PENDING|a|b|c\n")
    assert (seen.cluster, seen.group, seen.reason) == ("far", "", "b|c")
    (seen,) = slurm.parse_squeue("7_3|RUNNING|runproj:abc|None\nnoise\n")
    assert (seen.id, seen.state, seen.group, seen.reason) == ("7_3", "RUNNING", "abc", "None")
    hostile = "JobId=1 JobName=a b ExitCode=0:9 StdOut=/x ExitCode=0:0 y/z Power="
    assert slurm.parse_job(hostile)["ExitCode"] == "0:9"
    jobs = slurm.parse_jobs(f"{hostile}\nJobId=9 ArrayJobId=7 ArrayTaskId=3 ExitCode=3:0 StdOut=/two\nlines\n")
    assert {number: job["ExitCode"] for number, job in jobs.items()} == {"1": "0:9", "7_3": "3:0"}
    assert slurm.parse_jobs("slurm_load_jobs error: Invalid job id specified\n") == {}
    assert slurm.parse_accounted("7_3|CANCELLED by 0\n8|COMPLETED\n") == {"7_3": "CANCELLED by 0", "8": "COMPLETED"}
    assert slurm.parse_accounted("Slurm accounting storage is disabled\n") == {}
    assert slurm.array_size("MaxArraySize            = 11\nMaxDBDMsgs = 24008\n") == 11
    assert slurm.array_size("MaxArraySize = 100001\n") == slurm.array_size("") == 1000


def test_signals_go_to_the_executor() -> None:
    def given(value: str) -> str:
        words = slurm.arguments(Demand(options={"signal": value}), name="", group="g", log="/x", grace=1)
        return next(word for word in words if word.startswith("--signal"))

    assert given("USR2@120") == given("B:USR2@120") == "--signal=B:USR2@120"
    assert given("R:10@60") == "--signal=RB:10@60"
    with pytest.raises(UsageError, match="would end the job"):
        given("ALRM@60")


@pytest.mark.parametrize(
    "word", ["--wrap=rm", "--wra=rm", "--array=0-5", "-a0-5", "-o", "--output", "--test-only", "-W", "--wait", "x"]
)
def test_options_that_are_not_the_users_to_give(word: str) -> None:
    with pytest.raises(UsageError):
        slurm.arguments(Demand(options={"extra": [word]}), name="", group="g", log="/x", grace=1)


def test_options_that_have_a_name_here_say_so() -> None:
    for word, name in (("--requeue", "requeue"), ("--no-requeue", "requeue"), ("-Mfar", "clusters"), ("--signal=USR1", "signal")):
        with pytest.raises(UsageError) as raised:
            slurm.arguments(Demand(options={"extra": [word]}), name="", group="g", log="/x", grace=1)
        assert f"'{name}'" in raised.value.fix
    kept = ["--wait-all-nodes=1", "--time-min=5", "--exclusive", "--licenses=x", "-Jname", "--hold"]
    assert slurm.arguments(Demand(options={"extra": kept}), name="", group="g", log="/x", grace=1)[-6:] == kept


def test_the_script_says_when_the_job_ends() -> None:
    def told(demand: Demand, **environ: str) -> str:
        command = ("sh", "-c", f"printenv {Engine.ENDS}", "/")
        text = slurm.script([command], demand, variables={}, grace=1)
        return subprocess.run(
            ["bash"], input=text, capture_output=True, text=True, env={"PATH": "/usr/bin:/bin"} | environ
        ).stdout

    before = time.time()
    assert before + 89 <= float(told(Demand(resources=Resources(time="90s")))) <= time.time() + 90
    assert told(Demand(), SLURM_JOB_END_TIME="1795702540") == "1795702540\n"
    assert told(Demand()) == "\n"
