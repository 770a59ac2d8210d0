"""Runs on a real Ray: its traps, whatever is killed, and nodes that do not see this home."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conftest import Repository
from runproj.backends.catalogue import BackendContext
from runproj.backends.ray import RayBackend, entrypoint
from runproj.backends.ray_api import PACKAGE_LIMIT, RayApi
from runproj.core.backend import Demand, JobHandle, JobState
from runproj.core.project import Resources
from runproj.errors import BackendError
from support import placing
from support.cluster import begun, reason_of
from support.placing import executor, heard, home, more, nothing_left, tags_of
from support.program import SYSTEM, Cli
from support.ray import Ray
from support.team import team_server

pytestmark = pytest.mark.slow

ON = ("--backend", "ray", *SYSTEM)
PROJECT = more(
    "  fail: {command: [python, -c, 'import sys; sys.exit(3)']}\n"
    "  stubborn: {command: [python, stubborn.py]}\n"
    "  threads: {command: 'echo ${OMP_NUM_THREADS:-all}'}\n"
    "  slow: {parameters: {n: int}, command: 'date +%s.%N; sleep 1; date +%s.%N'}\n"
) | {
    "stubborn.py": (
        "import signal, sys, time\n"
        "def told(number, _):\n"
        "    print('told', number, flush=True)\n"
        "    time.sleep(5)\n"
        "    print('saved', flush=True)\n"
        "    sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, told)\n"
        "print('begun', flush=True)\n"
        "time.sleep(60)\n"
    ),
}
WHERE = (
    "environment: {python: '3'}\n"
    "entry_points: {main: {command: [python, -c, 'import os, sys; print(sys.prefix, os.stat(sys.prefix).st_ino)']}}\n"
)


@pytest.fixture
def away(cli: Cli, ray: Ray) -> Cli:
    """The program, with the cluster."""
    cli.env |= ray.environ
    return cli


@pytest.fixture
def project(repository: Repository) -> Repository:
    repository.commit(PROJECT)
    return repository


def detached(cli: Cli, project: Repository, *arguments: str) -> str:
    return placing.detached(cli, project, *ON, *arguments)


def ended(cli: Cli, run_id: str) -> dict:
    cli("wait", run_id)
    run: dict = cli.json("runs", "show", run_id)["run"]
    nothing_left(cli)
    return run


def test_threads_are_those_that_were_asked_for(away: Cli, project: Repository) -> None:
    """Ray sets OMP_NUM_THREADS to 1 where nobody asks for CPUs."""
    assert away("run", project.url, "-e", "threads", *ON).stdout == "all\n"
    two = away("run", project.url, "-e", "threads", *ON, "--backend-config", '{"cpus": 2}')
    assert two.stdout == "2\n", two.stderr
    own = away("run", project.url, "-e", "threads", *ON, "--backend-config", '{"variables": {"OMP_NUM_THREADS": 5}}')
    assert own.stdout == "5\n", own.stderr
    nothing_left(away)


def test_a_job_that_waits_for_ever_says_why_and_can_be_stopped(away: Cli, project: Repository) -> None:
    """Ray answers that it stopped it, and does not; it would start it as soon as it could."""
    run_id = detached(away, project, "-e", "endless", "--backend-config", '{"gpus": 1}')
    deadline = time.monotonic() + 300
    while "runproj.waits" not in (tags := tags_of(away, run_id)):
        assert time.monotonic() < deadline
        time.sleep(0.5)
    assert "resources" in tags["runproj.waits"]
    assert away("runs", "stop", run_id).returncode == 0
    run = ended(away, run_id)
    assert (run["status"], reason_of(run)) == ("KILLED", "stopped before it began")


def test_a_command_has_the_grace_of_its_run_not_rays(away: Cli, project: Repository) -> None:
    """Ray kills what it stops after 3 seconds."""
    run_id = detached(away, project, "-e", "stubborn", "--grace", "20")
    begun(away, run_id)
    away("runs", "stop", run_id)
    run = ended(away, run_id)
    assert run["status"] == "KILLED"
    assert away("runs", "logs", run_id).stdout == "begun\ntold 15\nsaved\n"


def test_a_timeout_ends_it(away: Cli, project: Repository) -> None:
    done = away("run", project.url, "-e", "endless", "--timeout", "2s", *ON)
    assert done.returncode == 124
    run = away.json("runs", "list")["runs"][0]
    assert (run["status"], "timed out" in reason_of(run)) == ("FAILED", True)
    nothing_left(away)


def test_an_executor_that_is_killed(away: Cli, project: Repository) -> None:
    run_id = detached(away, project, "-e", "endless")
    heard(away, run_id)
    pid = executor(away, run_id)
    os.kill(pid, signal.SIGKILL)
    run = ended(away, run_id)
    assert (run["status"], reason_of(run)) == ("FAILED", "lost: its executor was ended by SIGKILL")
    assert [metric["key"] for metric in run["metrics"]] == ["loss"]


def test_status_of_many_is_one_question(ray: Ray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    call = RayApi._call

    def counted(api: RayApi, method: str, target: str, *rest: object, **more: object) -> object:
        asked.append(target)
        return call(api, method, target, *rest, **more)

    monkeypatch.setattr(RayApi, "_call", counted)
    backend = RayBackend(BackendContext(tmp_path, ray.environ))
    states = backend.status([JobHandle("ray", "", run_id=f"{number:032x}") for number in range(50)])
    assert [status.state for status in states] == [JobState.LOST] * 50
    assert asked == ["/api/jobs/"]


def test_a_job_that_is_submitted_twice_is_one(ray: Ray) -> None:
    for _ in range(2):
        ray.api.submit("runproj-twice", {"entrypoint": "sleep 0.1"})
    assert [job.id for job in ray.api.jobs()].count("runproj-twice") == 1


def test_what_is_wrong_is_said(away: Cli, project: Repository, ray: Ray, tmp_path: Path) -> None:
    token = away.env.pop("RAY_AUTH_TOKEN")
    refused = away("run", project.url, *ON)
    assert refused.returncode == 125 and "RAY_AUTH_TOKEN" in refused.stderr
    path = tmp_path / "token"
    path.write_text(f"{token}\n")
    away.env["RAY_AUTH_TOKEN_PATH"] = str(path)
    assert away("run", project.url, "-e", "threads", *ON).returncode == 0
    for config, word in (
        ({"address": "http://127.0.0.1:1"}, "There is no Ray"),
        ({"address": "ray://127.0.0.1:10001"}, "not the address of a Ray dashboard"),
        ({"partition": "gpu"}, "no partitions"),
        ({"nodes": 2}, "begins on one node"),
        ({"cpu": 1}, "Did you mean 'cpus'"),
    ):
        refused = away("run", project.url, *ON, "--backend-config", json.dumps(config))
        assert refused.returncode in (2, 125), refused.stderr
        assert word in refused.stderr
    assert len(away.json("runs", "list")["runs"]) == 1
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(PACKAGE_LIMIT + 1)
    with pytest.raises(BackendError, match="100 MiB"):
        ray.api.upload("large.zip", large)


def test_a_node_that_does_not_see_this_home(away: Cli, project: Repository, ray: Ray, tmp_path: Path) -> None:
    """The code goes there as a package; record and files come back through the tracking server."""
    with team_server(home=tmp_path / "server home") as team:
        away.env["RUNPROJ_TRACKING_URI"] = team.url
        config = json.dumps({"python": sys.executable})
        project.write({"untracked.txt": "changed\n", "train.py": PROJECT["train.py"] + "print(open('untracked.txt').read())\n"})
        done = away("run", str(project.path), "-P", "text=far away", *ON, "--backend-config", config)
        assert done.returncode == 0, done.stderr
        assert done.stdout == "text far away\nchanged\n\n"
        run = away.json("runs", "list")["runs"][0]
        assert run["status"] == "FINISHED"
        assert [(item["key"], item["step"]) for item in run["metrics"]] == [("loss", 2)]
        assert "made/model.bin" in [item["path"] for item in away.json("runs", "artifacts", run["id"])["artifacts"]]
        assert away("runs", "logs", run["id"]).stdout.startswith("text far away\n")
        deadline = time.monotonic() + 300
        while list((home(away) / "parcels").iterdir()):  # the record is complete before Ray says that the job is over
            assert time.monotonic() < deadline
            away("runs", "list")
            time.sleep(0.5)
        nothing_left(away)
        assert not list(ray.home.rglob("train.py"))


FAR = json.dumps({"python": sys.executable})


def test_a_record_is_fetched_from_a_node_that_sees_nothing(away: Cli, project: Repository, ray: Ray) -> None:
    done = away("run", project.url, "-P", "text=é far", *ON, "--backend-config", FAR)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "text é far\n" and "to stderr\n" in done.stderr
    (run,) = away.json("runs", "list")["runs"]
    assert (run["status"], [(item["key"], item["step"]) for item in run["metrics"]]) == ("FINISHED", [("loss", 2)])
    assert "made/model.bin" in [item["path"] for item in away.json("runs", "artifacts", run["id"])["artifacts"]]
    assert away("runs", "logs", run["id"]).stdout == "text é far\n"
    assert away("runs", "logs", "--stderr", run["id"]).stdout == "to stderr\n"
    nothing_left(away)
    failed = away("run", project.url, "-e", "fail", *ON, "--backend-config", FAR)
    assert failed.returncode == 3, failed.stderr
    assert reason_of(away.json("runs", "list")["runs"][0]) == "exit code 3"


def test_a_far_executor_that_is_killed(away: Cli, project: Repository, ray: Ray) -> None:
    """What it had recorded by then is fetched."""
    run_id = detached(away, project, "-e", "endless", "--backend-config", FAR)
    heard(away, run_id)
    os.kill(ray.executor(run_id), signal.SIGKILL)
    run = ended(away, run_id)
    assert (run["status"], reason_of(run)) == ("FAILED", "lost: its executor was ended by SIGKILL")
    assert [metric["key"] for metric in run["metrics"]] == ["loss"]


def test_a_far_job_is_seen_stopped_and_never_begins_when_it_was_stopped_before(away: Cli, project: Repository) -> None:
    """Each of them takes all that there is."""
    config = json.dumps({"python": sys.executable, "cpus": 2})
    first = detached(away, project, "-e", "stubborn", "--grace", "20", "--backend-config", config)
    second = detached(away, project, "-e", "endless", "--backend-config", config)
    following = away.start("runs", "logs", "-f", first)
    assert following.stdout is not None
    assert following.stdout.readline() == "begun\n"
    stopping = away.start("runs", "stop", second)
    away("runs", "stop", first)
    out, _ = following.communicate(timeout=60)
    assert out == "told 15\nsaved\n"
    assert ended_there(away, first)["status"] == "KILLED"
    assert away("runs", "logs", first).stdout == "begun\ntold 15\nsaved\n"
    stopping.communicate(timeout=100)
    run = ended(away, second)
    assert run["status"] == "KILLED"
    assert run["metrics"] == []


def test_jobs_with_one_cold_environment_build_it_once(away: Cli, project: Repository) -> None:
    project.commit({"runproj.yaml": WHERE})
    runs = [placing.detached(away, project, "--backend", "ray") for _ in range(2)]
    for run_id in runs:
        assert ended(away, run_id)["status"] == "FINISHED"
    places = {away("runs", "logs", run_id).stdout for run_id in runs}
    assert len(places) == 1 and str(home(away)) in places.pop()


def test_the_same_run_here_and_there_differs_in_where_it_ran_only(away: Cli, project: Repository) -> None:
    path = json.dumps({"variables": {"PATH": away.env["PATH"]}})  # the cluster's begins with Ray's programs
    for where in (("--backend", "ray", "--backend-config", path), ("--backend", "local")):
        done = away("run", project.url, *where, *SYSTEM)
        assert done.returncode == 0, done.stderr
    here, there = (run["id"] for run in away.json("runs", "list")["runs"])
    told = away("diff", there, here).stdout
    assert "backend  ray → local" in told
    assert {line.split()[0] for line in told.splitlines()[1:] if line.startswith("  ")} <= {"backend", "name"}, told


def test_a_sweep_keeps_to_what_may_run_at_a_time(away: Cli, project: Repository) -> None:
    done = away("sweep", project.url, *ON, "-e", "slow", "-P", "n=1..4", "-j", "1", "--json")
    assert done.returncode == 0, done.stderr
    trials = json.loads(done.stdout)["trials"]
    times = sorted(tuple(map(float, away("runs", "logs", trial["run"]).stdout.split())) for trial in trials)
    assert len(times) == 4
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(times))
    nothing_left(away)


def test_a_large_log_is_followed_in_little_memory(away: Cli, project: Repository) -> None:
    command = away.command("run", project.url, "-e", "large", *ON)
    process = subprocess.Popen(command, cwd=away.home, env=away.env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    size, most = placing.followed(process)
    assert size == 1_000_000_000
    assert most < 150_000  # kB


def test_a_head_that_is_killed_takes_no_run_with_it(away: Cli, project: Repository, ray: Ray) -> None:
    """The last test here: a Ray that is started again knows nothing of what was before."""
    short = detached(away, project, "-P", "n=300")
    endless = detached(away, project, "-e", "endless")
    heard(away, endless)
    ray.kill()
    try:
        shown = away.json("runs", "show", endless)["run"]
        assert shown["status"] == "RUNNING"
        assert ended_there(away, short)["status"] == "FINISHED"
    finally:
        ray.start()
    assert away.json("runs", "show", endless)["run"]["status"] == "RUNNING"
    pid = executor(away, endless)
    os.kill(pid, signal.SIGTERM)
    assert ended(away, endless)["status"] == "KILLED"


def ended_there(cli: Cli, run_id: str) -> dict:
    """A run whose engine does not answer any more, and whose executor goes on."""
    cli("wait", run_id, "--timeout", "60")
    run: dict = cli.json("runs", "show", run_id)["run"]
    return run


def test_the_line_that_ray_runs() -> None:
    command = ["/py thon", "-m", "runproj", "execute-parcel", "it's"]
    line = entrypoint(command, Demand(), {})
    assert line.startswith("unset OMP_NUM_THREADS; unset PYTHONBREAKPOINT; ")
    assert line.endswith("; exec '/py thon' -m runproj execute-parcel 'it'\"'\"'s'")
    assert "; export OMP_NUM_THREADS=2; exec" in entrypoint(command, Demand(resources=Resources(cpus=2.5)), {})
    assert "OMP_NUM_THREADS" not in entrypoint(command, Demand(), {"OMP_NUM_THREADS": "1"})
    assert '; export RUNPROJ_JOB_GPUS="${CUDA_VISIBLE_DEVICES:-}"; exec' in entrypoint(
        command, Demand(resources=Resources(gpus=1)), {}
    )
