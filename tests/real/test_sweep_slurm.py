"""Sweeps on a real Slurm, and on a backend of another package: one array, pruned and stopped jobs, a sweep that is killed."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from conftest import Repository
from support.cluster import ON
from support.placing import nothing_left
from support.program import SYSTEM, Cli
from support.slurm import Slurm
from support.waiting import until

FILES = {
    "runproj.yaml": """
entry_points:
  main:
    command: [sh, -c, 'echo "score=$1"; exit $2', sh, "{a}", "{code}"]
    parameters: {a: {type: int, default: 1}, code: {type: int, default: 0}}
    metrics: ['(?P<name>score)=(?P<value>\\S+)']
  slow:
    command: [sh, -c, 'echo begun; sleep $1', sh, "{seconds}"]
    parameters: {seconds: float, n: {type: int, default: 0}}
  curve:
    command: [python3, curve.py, "{a}"]
    parameters: {a: int}
    metrics: ['(?P<name>score)=(?P<value>\\S+)']
""",
    "curve.py": (
        "import sys, time\n"
        "for step in range(30):\n"
        "    print(f'score={sys.argv[1]}', flush=True)\n"
        "    time.sleep(0.5 if sys.argv[1] == '1' else 0.001)\n"
        "if sys.argv[1] == '1': time.sleep(600)\n"
    ),
}


@pytest.fixture
def toy(repository: Repository) -> Repository:
    repository.commit(FILES)
    return repository


def swept(cli: Cli, *arguments: str, code: int = 0) -> dict:
    result = cli("sweep", *arguments, "--json")
    assert result.returncode == code, result.stderr
    view: dict = json.loads(result.stdout)
    return view


def statuses(view: dict) -> Counter[str]:
    return Counter(trial["status"] for trial in view["trials"])


def jobs(cli: Cli) -> list[str]:
    """Ids of the jobs of all trials, as Slurm gave them."""
    tags = [{tag["key"]: tag["value"] for tag in run["tags"]} for run in cli.json("runs", "list", "-n", "1000")["runs"]]
    return [json.loads(one["runproj.handle"])["id"] for one in tags if "runproj.trial" in one]


def test_a_grid_is_one_array_and_failures_are_told(away: Cli, toy: Repository) -> None:
    view = swept(away, toy.url, *ON, "-P", "a=1..2", "-P", "code=0,3", "--metric", "score", "--maximize")
    assert statuses(view) == {"FINISHED": 2, "FAILED": 2}
    assert sorted(trial["value"] for trial in view["trials"]) == [1, 1, 2, 2]
    assert {number.partition("_")[0] for number in jobs(away)} == {jobs(away)[0].partition("_")[0]}
    assert len(jobs(away)) == 4
    assert view["sweep"]["parallel"] == 4
    nothing_left(away)


def begun(cli: Cli, *arguments: str, ended: int) -> tuple[subprocess.Popen[str], str]:
    """A sweep in the background, when so many of its trials have ended; its id."""
    process = cli.start("sweep", *arguments)
    assert process.stderr is not None
    sweep, seen = "", 0
    for line in process.stderr:
        if line.startswith("sweep"):
            sweep = line.partition("(")[2].partition(")")[0]
        seen += " FINISHED " in line
        if seen >= ended and sweep:
            break
    return process, sweep


def each_once(cli: Cli, sweep: str, wanted: int) -> None:
    """Of each trial there is one run that counts, and nothing runs any more."""
    tags = [
        {tag["key"]: tag["value"] for tag in run["tags"]}
        for run in cli.json("runs", "list", "-n", "1000")["runs"]
        if run["status"] == "FINISHED"
    ]
    found = Counter(one["runproj.trial"] for one in tags if one.get("runproj.sweep", "").startswith(sweep))
    assert found == Counter(str(number) for number in range(1, wanted + 1))
    nothing_left(cli)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_sweep_that_is_stopped_goes_on_to_exactly_what_was_wanted(
    away: Cli, toy: Repository, slurm: Slurm, number: int
) -> None:
    process, sweep = begun(away, toy.url, *ON, "-e", "slow", "-P", "seconds=0.5", "-P", "n=1..8", "-j", "2", ended=2)
    process.send_signal(number)
    _, errors = process.communicate(timeout=600)
    if number == signal.SIGINT:
        assert process.returncode == 130
        assert f"runproj sweep resume {sweep}" in errors
        until(lambda: "rp-" not in slurm("squeue", "-h", "-o", "%j", "--states=PENDING,RUNNING"))
    view = swept(away, "resume", sweep)
    assert [one["number"] for one in view["trials"]] == list(range(1, 9))
    assert statuses(view) == {"FINISHED": 8}
    each_once(away, sweep, 8)


def test_a_hundred_trials_are_one_array_and_those_that_wait_are_taken_out(
    cli: Cli, toy: Repository, tmp_path_factory: pytest.TempPathFactory
) -> None:
    wide = Slurm(tmp_path_factory.mktemp("wide"), tasks=1001)
    try:
        wide.start()
        cli.env |= wide.environ
        process, sweep = begun(cli, toy.url, *ON, "-P", "a=1..100", "-j", "2", ended=1)
        numbers = jobs(cli)
        assert len(numbers) == 100
        assert len({number.partition("_")[0] for number in numbers}) == 1
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=600)
        assert process.returncode == 130
        view = cli.json("sweep", "show", sweep)
        assert statuses(view)["KILLED"] > 80
        nothing_left(cli)
    finally:
        wide.stop()


def test_a_hopeless_job_is_cancelled_and_says_so(away: Cli, toy: Repository) -> None:
    arguments = [
        toy.url,
        *ON,
        "-e",
        "curve",
        "-P",
        "a=9,8,7,6,1",
        "--metric",
        "score",
        "--maximize",
        "--prune",
        "median",
        "-j",
        "1",
    ]
    view = swept(away, *arguments)
    last = view["trials"][4]
    assert (last["status"], last["reason"]) == ("KILLED", f"pruned at step {last['pruned']}")
    assert (view["status"], view["best"][0]) == ("FINISHED", 1)
    nothing_left(away)


def test_time_and_failures_end_it(away: Cli, toy: Repository) -> None:
    late = swept(away, toy.url, *ON, "-e", "slow", "-P", "seconds=30", "-P", "n=1..4", "-j", "1", "--max-time", "10s")
    assert late["stopped"] == "stopped after 10 s"
    assert statuses(late) == {"FINISHED": 1, "KILLED": 3}
    bad = swept(away, toy.url, *ON, "-P", "a=1..20", "-P", "code=1", "-j", "1", "--max-failures", "1", code=1)
    assert statuses(bad)["KILLED"] >= 2
    nothing_left(away)


def tells_it(pid: int) -> bool:
    """Whether a process is cancelling a job at this moment."""
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        with contextlib.suppress(OSError):
            if Path(f"/proc/{child}/comm").read_text() == "scancel\n":
                return True
    return False


def test_an_engine_that_does_not_hear_that_jobs_are_to_stop_is_told_again(away: Cli, toy: Repository, slurm: Slurm) -> None:
    process, sweep = begun(away, toy.url, *ON, "-e", "slow", "-P", "seconds=0.1,600", "-j", "2", ended=1)
    slurm.stop_controller()
    process.send_signal(signal.SIGINT)
    try:
        for told in (True, False):  # scancel itself tries for some seconds, and gives up
            until(lambda told=told: tells_it(process.pid) is told)
    finally:
        slurm.start_controller()
    process.communicate(timeout=600)
    assert process.returncode == 130
    assert statuses(away.json("sweep", "show", sweep)) == {"FINISHED": 1, "KILLED": 1}
    nothing_left(away)


def test_a_backend_of_another_package_runs_them_to_exactly_what_was_wanted(cli: Cli, toy: Repository, background: Path) -> None:
    cli.env["PYTHONPATH"] = str(background)
    on = ("--backend", "background", *SYSTEM)
    process, sweep = begun(cli, toy.url, *on, "-e", "slow", "-P", "seconds=0.5", "-P", "n=1..6", "-j", "2", ended=2)
    process.kill()
    process.communicate(timeout=600)
    view = swept(cli, "resume", sweep)
    assert [one["number"] for one in view["trials"]] == list(range(1, 7))
    assert statuses(view) == {"FINISHED": 6}
    each_once(cli, sweep, 6)
