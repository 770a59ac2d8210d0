"""The queue of one machine, with real workers: who runs when and on which GPU, and that no run is lost or runs twice."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conftest import Repository
from runproj.proc import running
from runproj.settings import load
from runproj.wiring import Wiring
from support.cluster import Quiet
from support.placing import home, nothing_left
from support.program import SYSTEM, Cli
from support.waiting import until

PROJECT = {
    "MLproject": (
        "name: queued\n"
        "entry_points:\n"
        "  main: {parameters: {name: {type: string, default: x}}, command: 'python main.py {name}'}\n"
        "  fail: {command: 'python -c \"import sys; sys.exit(3)\"'}\n"
        "  endless: {command: python endless.py}\n"
        "  twice: {command: python twice.py}\n"
    ),
    "main.py": (
        "import os, pathlib, sys\n"
        "print(sys.argv[1], *(os.environ.get(name) for name in ('CUDA_VISIBLE_DEVICES', 'CUDA_DEVICE_ORDER', 'ASKED_FOR')))\n"
        "with open(pathlib.Path(os.environ['HOME'], 'order'), 'a') as file: print(sys.argv[1], file=file)\n"
    ),
    "endless.py": (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('asked to end', flush=True), sys.exit(0)))\n"
        "print('begun', flush=True)\n"
        "time.sleep(300)\n"
    ),
    # goes on until it is let go, and notices another that runs at the same time
    "twice.py": (
        "import fcntl, os, pathlib, time\n"
        "folder = pathlib.Path(os.environ['HOME'])\n"
        "lock = open(folder / 'alone', 'w'); fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)\n"
        "with open(folder / 'order', 'a') as file: print('begun', file=file, flush=True)\n"
        "while not (folder / 'go').exists(): time.sleep(0.05)\n"
    ),
}

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def project(repository: Repository) -> Repository:
    repository.commit(PROJECT)
    return repository


@pytest.fixture
def work(cli: Cli) -> Iterator[Start]:
    """Starts workers, which end with the test, and the executors that they leave."""
    workers: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        worker = cli.start("worker", *arguments)
        workers.append(worker)
        return worker

    yield start
    for worker in workers:
        worker.kill()
        worker.communicate()
    for entry in (home(cli) / "parcels").glob("*"):
        for pid in running("execute-parcel", str(entry)):
            os.kill(pid, signal.SIGKILL)


def queued(cli: Cli, project: Repository, *arguments: str) -> str:
    done = cli("run", project.url, *SYSTEM, "--queue", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def drained(worker: subprocess.Popen[str]) -> str:
    out, err = worker.communicate(timeout=300)
    assert worker.returncode == 0, err
    return out


def heard(worker: subprocess.Popen[str], word: str) -> str:
    """The next line of a worker, which has that word in it."""
    assert worker.stdout is not None
    line = worker.stdout.readline()
    assert word in line
    return line


def order(cli: Cli) -> list[str]:
    path = cli.home / "order"
    return path.read_text().split() if path.exists() else []


def run_of(cli: Cli, run_id: str) -> dict:
    return cli.json("runs", "show", run_id)["run"]


def tags_of(cli: Cli, run_id: str) -> dict[str, str]:
    return {tag["key"]: tag["value"] for tag in run_of(cli, run_id)["tags"]}


def test_priorities_gpus_and_what_is_said_without_a_worker(cli: Cli, project: Repository, work: Start) -> None:
    first = cli("run", project.url, *SYSTEM, "--queue", "-P", "name=low")
    assert "position 1" in first.stderr
    assert "runproj worker" in first.stderr
    cli.env["ASKED_FOR"] = "yes"
    asking = queued(cli, project, "-P", "name=asking", "-c", '{"variables": ["ASKED_FOR"], "gpus": 2}')
    del cli.env["ASKED_FOR"]
    none = queued(cli, project, "-P", "name=none", "-c", '{"gpus": 0}', "--priority", "-1")
    gone, high, many = (
        queued(cli, project, "-P", f"name={name}", *more)
        for name, more in (("gone", []), ("high", ["--priority", "7"]), ("many", ["-c", '{"gpus": 3}']))
    )
    assert [run["status"] for run in cli.json("runs", "list")["runs"]] == ["SCHEDULED"] * 6
    assert cli("queue", "remove", gone).returncode == 0
    assert run_of(cli, gone)["status"] == "KILLED"
    listed = cli.json("queue", "move", asking, "--first")
    assert listed["workers"] == []
    assert [(item["run"], item["position"]) for item in listed["entries"]] == [
        (run, number) for number, run in enumerate([asking, high, first.stdout.strip(), many, none], 1)
    ]
    assert all("no worker" in item["waits"] for item in listed["entries"])
    assert tags_of(cli, many)["runproj.waits"].startswith("no worker runs")
    completing = {"_RUNPROJ_COMPLETE": "complete_bash", "COMP_WORDS": "runproj queue move ", "COMP_CWORD": "3"}
    offered = subprocess.run(cli.command(), env=cli.env | completing, capture_output=True, text=True)
    assert {many[:8], high[:8]} <= {*offered.stdout.split()}

    said = drained(work("--gpus", "5,GPU-7", "--parallel", "1", "--drain"))
    assert "it needs 3 GPUs, and the worker has 2" in said
    assert order(cli) == ["asking", "high", "low", "none"]
    for run, line in (
        (asking, "asking 5,GPU-7 PCI_BUS_ID yes"),
        (high, "high 5 PCI_BUS_ID None"),
        (none, "none  PCI_BUS_ID None"),
    ):
        assert cli("runs", "logs", run).stdout == f"{line}\n"
    assert cli("queue", "remove", high).returncode == 2
    assert cli("runs", "stop", many).returncode == 0
    assert cli.json("queue", "list")["entries"] == []
    nothing_left(cli)


def test_what_no_worker_can_take_is_refused_and_a_gpu_has_one_worker(cli: Cli, project: Repository, work: Start) -> None:
    worker = work("--gpus", "0,1")
    until(lambda: cli.json("queue", "list")["workers"])
    refused = cli("run", project.url, *SYSTEM, "--queue", "-c", '{"gpus": 3}')
    assert refused.returncode == 125
    assert "3 GPUs, and the worker has 2" in refused.stderr
    refused = cli("run", project.url, *SYSTEM, "--queue", "-c", '{"slots": 5}')
    assert "5 slots, and the worker has 2" in refused.stderr
    other = work("--gpus", "1,2")
    other.wait(200)
    assert other.returncode == 2
    assert other.stderr is not None
    assert f"process {worker.pid}" in other.stderr.read()
    assert cli("run", project.url, "--queue", "--backend", "local").returncode == 2
    assert cli("run", project.url, "--priority", "1").returncode == 2
    assert cli.json("runs", "list")["runs"] == []


def test_who_waits_for_a_run_without_a_worker_is_told_so_and_may_give_up(cli: Cli, project: Repository) -> None:
    waiting = cli.start("run", project.url, *SYSTEM, "--queue", "--wait")
    assert waiting.stderr is not None
    until(lambda: "no worker runs" in waiting.stderr.readline())
    (check,) = [item for item in cli.json("doctor")["checks"] if item["name"] == "queue"]
    assert (check["state"], check["found"]) == ("warning", "1 waiting, 0 running, 0 workers")
    waiting.send_signal(signal.SIGINT)
    assert "KILLED" in waiting.communicate(timeout=200)[1]
    assert waiting.returncode == 128 + signal.SIGTERM
    assert cli.json("queue", "list")["entries"] == []
    nothing_left(cli)


def test_a_run_that_was_told_to_stop_is_looked_after_at_once(cli: Cli, project: Repository) -> None:
    """However long the queue has not been asked about for want of news."""
    run_id = cli("run", project.url, *SYSTEM, "--queue").stdout.strip()
    wiring = Wiring(load(cli.env), Quiet(), environ=cli.env)
    wiring.recover()
    wiring.cancel(wiring.services().tracking.get_run(run_id))
    wiring.recover()
    assert wiring.services().tracking.get_run(run_id).status.name == "KILLED"
    nothing_left(cli)


def test_a_killed_worker_leaves_its_runs_to_the_next(cli: Cli, project: Repository, work: Start) -> None:
    run = queued(cli, project, "-e", "twice")
    queued(cli, project, "-P", "name=second")
    worker = work("--gpus", "0")
    heard(worker, "begins")
    until(lambda: order(cli))
    worker.kill()
    worker.wait()
    assert run_of(cli, run)["status"] == "RUNNING"
    again = work("--gpus", "0", "--drain")
    assert "GPU 0" in heard(again, "goes on")
    (cli.home / "go").touch()
    drained(again)
    assert order(cli) == ["begun", "second"]
    assert run_of(cli, run)["status"] == "FINISHED"
    assert "runproj.restarts" not in tags_of(cli, run)
    nothing_left(cli)


def test_a_run_whose_executor_went_with_its_worker_begins_again(cli: Cli, project: Repository, work: Start) -> None:
    """As after a power cut; the guard of the command is stopped meanwhile, so that the command would outlive its executor."""
    run = queued(cli, project, "-e", "twice")
    worker = work()
    heard(worker, "begins")
    until(lambda: order(cli))
    (executor,) = running("execute-parcel", str(home(cli) / "parcels" / run))
    children = Path(f"/proc/{executor}/task/{executor}/children").read_text().split()
    for child in children:
        os.kill(int(child), signal.SIGSTOP)
    worker.kill()
    worker.wait()
    os.kill(executor, signal.SIGKILL)
    again = work("--drain")
    heard(again, "begins")
    until(lambda: len(order(cli)) == 2)
    (cli.home / "go").touch()
    drained(again)
    assert order(cli) == ["begun", "begun"]
    assert run_of(cli, run)["status"] == "FINISHED", tags_of(cli, run)
    assert tags_of(cli, run)["runproj.restarts"] == "1"
    nothing_left(cli)


def test_a_run_again_in_the_queue_and_one_that_is_not_to_begin_again(cli: Cli, project: Repository, work: Start) -> None:
    (cli.home / "go").touch()
    drained_first = queued(cli, project, "-e", "twice")
    drained(work("--drain"))
    (cli.home / "go").unlink()
    again = cli("rerun", drained_first, "--queue", "-q", "--priority", "1", "-c", '{"requeue": false}').stdout.strip()
    worker = work()
    heard(worker, "begins")
    until(lambda: len(order(cli)) == 2)
    waiting = cli.start("wait", again)
    (executor,) = running("execute-parcel", str(home(cli) / "parcels" / again))
    worker.kill()
    worker.wait()
    os.kill(executor, signal.SIGKILL)
    assert "FAILED" in drained(work("--drain"))
    assert order(cli) == ["begun", "begun"]
    assert "its worker were killed" in waiting.communicate()[1] + tags_of(cli, again)["runproj.reason"]
    assert (waiting.returncode, run_of(cli, again)["status"]) == (1, "FAILED")
    nothing_left(cli)


def test_trials_of_a_sweep_and_steps_of_a_pipeline(cli: Cli, repository: Repository, work: Start) -> None:
    """At most as many trials run at a time as the sweep says, whatever the worker could take."""
    descriptor = (
        "name: both\n"
        "entry_points:\n"
        "  trial: {params: {lr: float}, command: [python, trial.py, '{lr}'], metrics: [{file: m.json}]}\n"
        "  make: {command: [python, -c, \"open('x', 'w').write('made')\"], outputs: [x], backend: queue}\n"
        "  read: {command: [python, -c, \"print(open('x').read())\"], inputs: {x: {from: make, path: x}}}\n"
    )
    trial = (
        "import fcntl, json, os, pathlib, sys\n"
        "lock = open(pathlib.Path(os.environ['HOME'], 'alone'), 'w'); fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)\n"
        "json.dump({'loss': float(sys.argv[1])}, open('m.json', 'w'))\n"
    )
    repository.commit({"runproj.yaml": descriptor, "trial.py": trial})
    worker = work("--parallel", "3")
    swept = cli(
        *("sweep", repository.url, "-e", "trial", *SYSTEM, "-P", "lr=0.1,0.2", "--metric", "loss", "--minimize"),
        *("--parallel", "1", "--backend", "queue"),
    )
    assert swept.returncode == 0, swept.stdout + swept.stderr
    done = cli("run", repository.url, "-e", "read", *SYSTEM)
    assert done.returncode == 0, done.stderr
    worker.terminate()
    said = drained(worker)
    assert said.count("begins") == said.count("FINISHED") == 3
    nothing_left(cli)


def test_a_killed_executor_is_told_of(cli: Cli, project: Repository, work: Start) -> None:
    run = queued(cli, project, "-e", "endless")
    worker = work("--drain")
    heard(worker, "begins")
    until(lambda: cli("runs", "logs", run).stdout)
    for pid in running("execute-parcel", str(home(cli) / "parcels" / run)):
        os.kill(pid, signal.SIGKILL)
    assert "FAILED" in drained(worker)
    assert run_of(cli, run)["status"] == "FAILED"
    assert tags_of(cli, run)["runproj.reason"] == "its executor was ended by SIGKILL"
    nothing_left(cli)


def test_a_worker_that_is_asked_once_waits_and_twice_puts_back(cli: Cli, project: Repository, work: Start) -> None:
    runs = [queued(cli, project, "-e", "endless"), queued(cli, project)]
    worker = work()
    heard(worker, "begins")
    until(lambda: cli("runs", "logs", runs[0]).stdout)
    worker.send_signal(signal.SIGTERM)
    assert worker.stderr is not None
    until(lambda: "waits for what runs" in worker.stderr.readline())
    worker.send_signal(signal.SIGTERM)
    assert "put back" in drained(worker)
    listed = cli.json("queue", "list")["entries"]
    assert [(item["run"], item["state"]) for item in listed] == [(run, "waiting") for run in runs]
    assert [run_of(cli, run)["status"] for run in runs] == ["SCHEDULED", "SCHEDULED"]
    again = work("--drain")
    heard(again, "begins")
    until(lambda: run_of(cli, runs[0])["status"] == "RUNNING")
    assert cli("runs", "stop", runs[0]).returncode == 0
    assert "KILLED" in drained(again)
    assert [run_of(cli, run)["status"] for run in runs] == ["KILLED", "FINISHED"]
    nothing_left(cli)


def test_a_worker_that_is_killed_while_it_takes_a_run(cli: Cli, project: Repository, work: Start) -> None:
    """Before and after it notes that it has taken it, and while it starts the executor."""
    runs = []
    for call, number in (("rename", 2), ("rename", 3), ("vfork", 1)):
        runs.append(queued(cli, project, "-P", f"name={call}{number}"))
        strace = ["strace", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={call}:signal=SIGKILL:when={number}"]
        killed = subprocess.run([*strace, *cli.command("worker", "--drain")], env=cli.env, capture_output=True)
        assert killed.returncode == -signal.SIGKILL
    drained(work("--drain"))
    assert order(cli) == ["rename2", "rename3", "vfork1"]
    recorded = cli.json("runs", "list")["runs"]
    assert [run["status"] for run in recorded] == ["FINISHED"] * 3
    assert sorted(path.name for path in (home(cli) / "queue").iterdir()) == [".lock", "workers"]
    nothing_left(cli)


@pytest.mark.slow
def test_workers_that_are_killed_again_and_again_lose_nothing(cli: Cli, project: Repository, work: Start) -> None:
    names = [f"r{number}" for number in range(5)]
    runs = [queued(cli, project, "-P", f"name={name}") for name in names]
    moments = random.Random(7)
    for _ in range(4):
        worker = work("--parallel", "2")
        time.sleep(0.25 + moments.random())
        worker.kill()
        worker.wait()
    workers = [work("--drain") for _ in range(2)]
    for worker in workers:
        drained(worker)
    assert cli("wait", *runs).returncode == 0
    assert sorted(order(cli)) == names
    recorded = cli.json("runs", "list")["runs"]
    assert {run["status"] for run in recorded} == {"FINISHED"}
    assert {tag["key"] for run in recorded for tag in run["tags"]} & {"runproj.restarts", "runproj.lost"} == set()
    nothing_left(cli)


def test_gpus_are_those_that_there_are(cli: Cli) -> None:
    cli.env["PATH"] = str(cli.home)
    refused = cli("worker", "--gpus", "all")
    assert "nvidia-smi is not here" in refused.stderr
    assert cli("worker", "--gpus", "0,0").returncode == 2
