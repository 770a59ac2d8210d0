"""Runs on a real Kubernetes: its traps, whatever is killed, and pods that do not see this home."""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from conftest import Repository
from support import placing
from support.cluster import begun, reason_of
from support.kubernetes import IMAGE, PYTHON, Kubernetes, pod_with
from support.placing import executor, heard, home, more, nothing_left, tags_of
from support.program import SYSTEM, Cli
from support.team import team_server

pytestmark = pytest.mark.slow

PROJECT = more(
    "  short: {command: [python, endless.py], resources: {time: 20s}}\n"
    "  memory: {command: [python, -c, 'x = bytearray(600_000_000)'], resources: {memory: 150MB}}\n"
    "  where: {command: [python, -c, 'import sys; print(sys.prefix)']}\n",
    before=f"environment: {{python: '{platform.python_version()}'}}\n",  # the one that pods see, too
)


class Away(Cli):
    """The program, whose home the pods see."""

    def on(self, **options: object) -> list[str]:
        config = pod_with(home(self)) | options
        return ["--backend", "kubernetes", "--backend-config", json.dumps(config)]


@pytest.fixture
def away(cli: Cli, kubernetes: Kubernetes) -> Away:
    cli.env |= kubernetes.environ
    home(cli).mkdir(exist_ok=True)
    cli.__class__ = Away
    return cli  # type: ignore[return-value]


@pytest.fixture
def project(repository: Repository) -> Repository:
    repository.commit(PROJECT)
    return repository


def detached(cli: Away, project: Repository, *arguments: str, **options: object) -> str:
    return placing.detached(cli, project, *SYSTEM, *cli.on(**options), *arguments)


def ended(cli: Cli, run_id: str) -> dict[str, Any]:
    cli("wait", run_id)
    run: dict[str, Any] = cli.json("runs", "show", run_id)["run"]
    nothing_left(cli)
    return run


def gone(kubernetes: Kubernetes, run_id: str) -> None:
    """Wait until the pod of a run is there no more."""
    deadline = time.monotonic() + 120
    while any(run_id in pod["metadata"]["name"] for pod in kubernetes.listed("pods")):
        assert time.monotonic() < deadline
        time.sleep(0.5)


def test_too_much_memory(away: Away, project: Repository) -> None:
    done = away("run", project.url, "-e", "memory", *SYSTEM, *away.on())
    assert done.returncode == 137, done.stderr
    run = away.json("runs", "list")["runs"][0]
    assert (run["status"], "out of memory" in reason_of(run)) == ("FAILED", True), reason_of(run)
    nothing_left(away)


def test_limits_of_time(away: Away, project: Repository) -> None:
    """The executor ends the command before the cluster would end the pod, and keeps what it did."""
    for arguments in (["-e", "short"], ["-e", "endless", "--timeout", "15s"]):
        done = away("run", project.url, *arguments, "--grace", "1", *SYSTEM, *away.on())
        assert done.returncode == 124, done.stderr
        assert "begun" in done.stdout
    runs = away.json("runs", "list")["runs"]
    assert [(run["status"], "timed out" in reason_of(run)) for run in runs] == [("FAILED", True)] * 2
    nothing_left(away)


def test_what_would_hang_for_ever_fails_and_says_why(away: Away, project: Repository, kubernetes: Kubernetes) -> None:
    never = {"containers": [{"name": "runproj", "imagePullPolicy": "Never"}]}
    for options, word in (
        ({"image": "Not An Image"}, "InvalidImageName"),
        ({"image": "runproj-nowhere:1", "template": never}, "ErrImageNeverPull"),
        ({"gpus": 1, "wait": "2s"}, "Insufficient nvidia.com/gpu"),
        ({"python": "/nowhere/python"}, "/nowhere/python"),
    ):
        done = away("run", project.url, *SYSTEM, *away.on(**options))
        assert done.returncode not in (0, 125), done.stderr
        assert word in done.stderr
    runs = away.json("runs", "list")["runs"]
    assert [run["status"] for run in runs] == ["FAILED"] * 4
    gone(kubernetes, runs[1]["id"])
    nothing_left(away)


def test_a_job_that_waits_says_why_and_can_be_stopped(away: Away, project: Repository, kubernetes: Kubernetes) -> None:
    nobody = detached(away, project, "-e", "endless", service_account="nobody")
    run_id = detached(away, project, "-e", "endless", gpus=1)
    deadline = time.monotonic() + 300
    while "Insufficient nvidia.com/gpu" not in tags_of(away, run_id).get("runproj.waits", ""):
        assert time.monotonic() < deadline
        time.sleep(0.5)
    while "serviceaccount" not in tags_of(away, nobody).get("runproj.waits", ""):
        assert time.monotonic() < deadline
        time.sleep(0.5)
    away("runs", "stop", run_id, nobody)
    assert {run["status"] for run in away.json("runs", "list")["runs"]} == {"KILLED"}
    gone(kubernetes, run_id)
    nothing_left(away)


def test_what_a_template_has_beside_the_executor_ends_with_it(away: Away, project: Repository, kubernetes: Kubernetes) -> None:
    template = pod_with(home(away)).get("template", {})
    beside = {"name": "beside", "image": IMAGE, "command": ["sh", "-c", "trap exit TERM; sleep 600 & wait"]}
    template = {**template, "containers": [*template.get("containers", []), beside]}
    done = away("run", project.url, *SYSTEM, *away.on(template=template))
    assert done.returncode == 0, done.stderr
    gone(kubernetes, away.json("runs", "list")["runs"][0]["id"])


def test_a_job_that_is_stopped_takes_its_pod_with_it(away: Away, project: Repository, kubernetes: Kubernetes) -> None:
    run_id = detached(away, project, "-e", "endless")
    begun(away, run_id)
    away("runs", "stop", run_id)
    assert ended(away, run_id)["status"] == "KILLED"
    assert away("runs", "logs", run_id).stdout == "begun\nasked to end\n"
    gone(kubernetes, run_id)
    assert not [job for job in kubernetes.listed("jobs", "/apis/batch/v1") if run_id in job["metadata"]["name"]]


def test_a_pod_that_is_deleted_by_somebody_else(away: Away, project: Repository, kubernetes: Kubernetes) -> None:
    """This old cluster makes another one at once, which waits, and finds that the run has ended."""
    run_id = detached(away, project, "-e", "endless")
    begun(away, run_id)
    (pod,) = (one["metadata"]["name"] for one in kubernetes.listed("pods") if run_id in one["metadata"]["name"])
    kubernetes.delete(f"/api/v1/namespaces/default/pods/{pod}")
    assert ended(away, run_id)["status"] == "KILLED"
    assert away("runs", "logs", run_id).stdout == "begun\nasked to end\n"


def test_an_executor_that_is_killed(away: Away, project: Repository) -> None:
    run_id = detached(away, project, "-e", "endless")
    heard(away, run_id)
    os.kill(executor(away, run_id), signal.SIGKILL)
    run = ended(away, run_id)
    assert (run["status"], reason_of(run).startswith("lost: its executor ended with 137")) == ("FAILED", True), reason_of(run)
    assert [metric["key"] for metric in run["metrics"]] == ["loss"]


def test_a_control_plane_and_a_node_that_are_killed_take_no_run_with_them(
    away: Away, project: Repository, kubernetes: Kubernetes
) -> None:
    run_id = detached(away, project, "-e", "endless")
    heard(away, run_id)
    inside = executor(away, run_id)
    kubernetes.stop_server()
    kubernetes.stop_node()
    try:
        assert away.json("runs", "show", run_id)["run"]["status"] == "RUNNING"
        os.kill(inside, signal.SIGTERM)
        away("wait", run_id, "--timeout", "60")
        assert away.json("runs", "show", run_id)["run"]["status"] == "KILLED"
    finally:
        kubernetes.start_server()
        kubernetes.start_node()
    assert away("runs", "logs", run_id).stdout == "begun\nasked to end\n"
    ended(away, run_id)


def test_jobs_that_begin_together_build_one_environment(away: Away, project: Repository) -> None:
    ids = [placing.detached(away, project, "-e", "where", *away.on()) for _ in range(2)]
    places = []
    for run_id in ids:
        away("wait", run_id)
        run = away.json("runs", "show", run_id)["run"]
        assert run["status"] == "FINISHED", reason_of(run)
        places.append(away("runs", "logs", run_id).stdout)
    assert places[0] == places[1] != ""
    assert len(away.json("env", "list")["environments"]) == 1
    nothing_left(away)


def test_pods_that_do_not_see_this_home(away: Away, project: Repository, kubernetes: Kubernetes, tmp_path: Path) -> None:
    """Code, plan and secrets come in Secrets that go with the job; record and files by the tracking server."""
    with team_server(home=tmp_path / "server home") as team:
        away.env["RUNPROJ_TRACKING_URI"] = team.url
        project.write({"train.py": PROJECT["train.py"] + "print('changed')\n", "large.bin": os.urandom(1_500_000)})
        template = {**pod_with(home(away)).get("template", {}), "hostNetwork": True}
        config = json.dumps({"image": IMAGE, "python": PYTHON, "template": template})
        on = ["--backend", "kubernetes", "--backend-config", config]
        done = away("run", str(project.path), "-P", "text=far away", *SYSTEM, *on)
        assert done.returncode == 0, done.stderr
        assert "text far away\n" in done.stdout and "changed\n" in done.stdout
        run = away.json("runs", "list")["runs"][0]
        assert run["status"] == "FINISHED"
        assert [(item["key"], item["step"]) for item in run["metrics"]] == [("loss", 2)]
        assert "made/model.bin" in [item["path"] for item in away.json("runs", "artifacts", run["id"])["artifacts"]]
        mine = [one for one in kubernetes.listed("secrets") if run["id"] in one["metadata"]["name"]]
        assert len(mine) == 3 and all(one["metadata"]["ownerReferences"][0]["kind"] == "Job" for one in mine)
        deadline = time.monotonic() + 300
        while list((home(away) / "parcels").iterdir()):  # the record is complete before the pod has ended
            assert time.monotonic() < deadline
            away("runs", "list")
            time.sleep(0.5)
        nothing_left(away)


def test_a_submission_that_is_killed_in_the_middle(away: Away, project: Repository, tmp_path: Path) -> None:
    """Its job is there, and the Secrets that its pod waits for will never be."""
    with team_server(home=tmp_path / "server home") as team:
        away.env["RUNPROJ_TRACKING_URI"] = team.url
        config = json.dumps({name: value for name, value in pod_with(home(away)).items() if name != "volume"})

        def patched(patch: str, *arguments: str) -> int:
            modules = "import os; from runproj.backends import kubernetes_job as job; from runproj.cli.main import main"
            command = [sys.executable, "-c", f"{modules}; {patch}; main()", *arguments]
            return subprocess.run(command, cwd=away.home, env=away.env, capture_output=True).returncode

        run = ("run", project.url, "--detach", *SYSTEM, "--backend", "kubernetes", "--backend-config", config)
        assert patched("job.secrets = lambda *_: os.kill(os.getpid(), 9)", *run) == -9
        deadline = time.monotonic() + 120
        while away.json("runs", "list")["runs"][0]["status"] == "SCHEDULED":
            assert time.monotonic() < deadline
            patched("job._SENDING = 0", "runs", "list")
        (run,) = away.json("runs", "list")["runs"]
        assert (run["status"], "was killed before" in reason_of(run)) == ("FAILED", True)
        nothing_left(away)


def test_a_large_log_is_followed_in_little_memory(away: Away, project: Repository) -> None:
    command = away.command("run", project.url, "-e", "large", *SYSTEM, *away.on())
    process = subprocess.Popen(command, cwd=away.home, env=away.env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    size, most = placing.followed(process)
    assert size == 1_000_000_000
    assert most < 200_000  # kB


def test_what_is_wrong_is_said(away: Away, project: Repository, kubernetes: Kubernetes) -> None:
    for options, word in (
        ({"image": ""}, "Which image"),
        ({"volume": {}}, "needs a way home"),
        ({"nodes": 2}, "one pod"),
        ({"context": "nowhere"}, "no context 'nowhere'"),
    ):
        refused = away("run", project.url, *SYSTEM, *away.on(**options))
        assert refused.returncode == 125, refused.stderr
        assert word in refused.stderr
    away.env["KUBECONFIG"] = str(kubernetes.folder / "nothing")
    assert "no kubeconfig" in away("run", project.url, *SYSTEM, *away.on()).stderr
    assert away.json("runs", "list")["runs"] == []
