"""`runproj sweep` as its users see it: real processes, killed and resumed; pruning; what is refused before anything starts."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
from collections import Counter
from pathlib import Path

import jsonschema
import pytest

from conftest import Repository
from runproj import proc
from runproj.core.pruning import hopeless
from runproj.core.space import Choices, Range, Space, Values
from runproj.core.sweep import Goal, Method, Pruning, Sweep
from runproj.sweeps.samplers import sampler_of
from support.program import SYSTEM, Cli

SCHEMA = Path(__file__).parents[2] / "schemas" / "sweep.schema.json"
FILES = {
    "runproj.yaml": """
entry_points:
  main:
    command: [sh, -c, 'echo "score=$1.$2"; exit $3', sh, "{a}", "{b}", "{code}"]
    parameters: {a: {type: int, default: 1}, b: {type: int, default: 5}, code: {type: int, default: 0}}
    metrics: ['(?P<name>score)=(?P<value>\\S+)']
    sweep: {metric: score, goal: maximize, space: {a: 1..3, b: [5, 7]}}
  slow:
    command: [sh, -c, 'echo begun; sleep $1', sh, "{seconds}"]
    parameters: {seconds: float, n: {type: int, default: 0}, key: {type: secret, required: false}}
  odd:
    command: [sh, -c, 'echo "score=$1"', sh, "{value}"]
    parameters: {value: string}
    metrics: ['(?P<name>score)=(?P<value>\\S+)']
  curve:
    command:
      - python3
      - -c
      - |
        import sys, time
        for step in range(30):
            print("score=%s" % sys.argv[1], flush=True)
            time.sleep(2 if int(sys.argv[1]) == 1 else 0.001)
      - "{a}"
    parameters: {a: int}
    metrics: ['(?P<name>score)=(?P<value>\\S+)']
""",
}


@pytest.fixture
def toy(repository: Repository) -> Repository:
    repository.commit(FILES)
    return repository


def runs_of(cli: Cli, sweep: str) -> list[dict]:
    found = cli.json("runs", "list", "-n", "1000")["runs"]
    return [run for run in found if {"key": "runproj.sweep", "value": sweep} in run["tags"]]


def test_the_table_that_moves_takes_the_place_of_what_is_said_of_the_environment(cli: Cli, toy: Repository) -> None:
    ours, theirs = os.openpty()
    environ = {**{name: value for name, value in cli.env.items() if name != "CI"}, "TERM": "xterm"}
    command = cli.command("sweep", toy.url, *SYSTEM)
    with subprocess.Popen(command, cwd=cli.home, env=environ, stdout=subprocess.DEVNULL, stderr=theirs) as process:
        os.close(theirs)
        said = b""
        with contextlib.suppress(OSError):  # a terminal that nobody writes to any more
            while data := os.read(ours, 65536):
                said += data
    os.close(ours)
    assert process.returncode == 0, said
    assert b"of 6 done" in said
    assert not re.search(rb"[^\nKJ]\d of 6 done", said), said


def test_the_grid_of_a_descriptor_is_run_and_told(cli: Cli, toy: Repository) -> None:
    result = cli("sweep", toy.url, *SYSTEM, "-j", "2", "--json")
    assert result.returncode == 0, result.stderr
    view = json.loads(result.stdout)
    jsonschema.validate(view, json.loads(SCHEMA.read_text()))
    assert view["status"] == "FINISHED"
    assert {tuple(map(tuple, one["params"])) for one in view["trials"]} == {
        (("a", str(a)), ("b", str(b))) for a in (1, 2, 3) for b in (5, 7)
    }
    best = view["trials"][view["best"][0] - 1]
    assert (best["value"], view["rerun"]) == (3.7, f"runproj rerun {best['run'][:8]}")
    assert view["importance"]["numeric"][0]["name"] == "a"
    runs = runs_of(cli, view["run"])
    assert len(runs) == 6
    tags = [{tag["key"]: tag["value"] for tag in run["tags"]} for run in runs]
    assert {tag["mlflow.parentRunId"] for tag in tags} == {view["run"]}
    assert len({tag["runproj.lock"] for tag in tags}) == 1
    parent = cli.json("runs", "show", view["run"])["run"]
    assert [(metric["key"], metric["value"]) for metric in parent["metrics"]] == [("score", 3.7)]
    shown = cli("sweep", "show", view["name"])
    assert "6 finished of 6" in shown.stdout and view["rerun"] in shown.stdout
    again = cli("rerun", best["run"], "--json")
    assert [m["value"] for m in json.loads(again.stdout)["run"]["metrics"]] == [3.7]


def test_rows_failures_and_the_end_by_failures(cli: Cli, toy: Repository) -> None:
    table = cli.home / "tr ials.csv"
    table.write_text("a,code\n1,0\n2,3\n,0\n4,3\n5,0\n")
    result = cli("sweep", toy.url, *SYSTEM, "-P", f"@{table}", "-P", "b=9", "--max-failures", "2")
    assert result.returncode == 1
    assert "FAILED (2 trials failed): 2 finished, 2 failed of 5" in result.stdout
    assert "exit code 3" in result.stderr
    result = cli("sweep", toy.url, *SYSTEM, "-P", "a=1,2", "-P", "b=9", "--metric", "scores", "--minimize")
    assert "2 of 2 trials that finished have no metric 'scores'; metrics: score." in result.stderr
    result = cli("sweep", toy.url, *SYSTEM, "-e", "odd", "-P", "value=nan,1", "--metric", "score", "--minimize")
    assert "1 of 2 trials that finished ended with a 'score' that is no number (NaN): they are not ranked." in result.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-P", "a=1..3.5"], ["'a'", "3.5", "int"]),
        (["-P", "a=1", "-P", "b=2"], ["nothing to search", "-P a=1..8"]),
        (["-P", "c=1,2"], ["'c'", "not declared"]),
        (["-e", "slow", "-P", "seconds=0..1"], ["--trials"]),
        (["-e", "slow", "-P", "seconds=0..1", "--method", "grid"], ["seconds", "LOW..HIGH:STEP"]),
        (["-e", "slow", "-P", "n=1,2"], ["missing", "seconds"]),
        (["-e", "slow", "-P", "seconds=0", "-P", "n=1,2", "--prune", "median"], ["metric"]),
        (["-e", "slow", "-P", "seconds=0", "-P", "n=1,2", "--metric", "x"], ["--maximize or --minimize"]),
        (["--method", "gird"], ["gird", "grid, random"]),
        (["extra-word"], ["extra-word", "resume"]),
        (["-P", "@nowhere.csv"], ["'@nowhere.csv' cannot be read", "No such file"]),
    ],
)
def test_what_cannot_be_searched_is_told_before_anything_starts(
    cli: Cli, toy: Repository, arguments: list[str], words: list[str]
) -> None:
    result = cli("sweep", toy.url, *SYSTEM, *arguments)
    assert result.returncode == 2, result.stderr
    assert all(word in result.stderr for word in words), result.stderr
    assert "Traceback" not in result.stderr


def started(cli: Cli, *arguments: str, lines: int) -> tuple[object, str]:
    """A sweep in the background, when so many of its trials have ended; its id."""
    process = cli.start(*arguments)
    assert process.stderr is not None
    sweep, seen = "", 0
    for line in process.stderr:
        if line.startswith("sweep"):
            sweep = line.partition("(")[2].partition(")")[0]
        seen += " FINISHED " in line
        if seen >= lines:
            break
    return process, sweep


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_sweep_that_is_stopped_goes_on_to_exactly_what_was_wanted(cli: Cli, toy: Repository, number: int) -> None:
    arguments = ["sweep", toy.url, *SYSTEM, "-e", "slow", "-P", "seconds=1.5", "-P", "n=1..7", "-P", "key=hush-hush", "-j", "2"]
    process, sweep = started(cli, *arguments, lines=2)
    process.send_signal(number)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == (-9 if number == signal.SIGKILL else 130)
    if number == signal.SIGINT:
        assert f"runproj sweep resume {sweep}" in errors
        parent = cli.json("runs", "show", sweep)
        assert (parent["run"]["status"], parent["reason"]) == ("KILLED", "stopped by SIGINT")
        assert {run["status"] for run in runs_of(cli, parent["run"]["id"])} <= {
            "FINISHED",
            "KILLED",
            "FAILED",
        }  # a worker that the signal met first
    both = [cli.start("sweep", "resume", sweep, "-P", "key=hush-hush", "--json") for _ in range(2)]
    ends = [(process.communicate(timeout=300), process.returncode) for process in both]
    assert all(code == 0 or (code == 2 and "is running" in errors) for (_, errors), code in ends), ends
    out = next(out for (out, _), code in ends if code == 0)
    view = json.loads(out)
    assert [one["number"] for one in view["trials"]] == list(range(1, 8))
    assert {one["status"] for one in view["trials"]} == {"FINISHED"}
    finished = Counter(
        next(tag["value"] for tag in run["tags"] if tag["key"] == "runproj.trial")
        for run in runs_of(cli, view["run"])
        if run["status"] == "FINISHED"
    )
    assert finished == Counter(map(str, range(1, 8)))
    assert "hush-hush" not in out
    home = cli.env["RUNPROJ_HOME"]
    assert not [pid for pid in proc.marked("RUNPROJ_HOME", home) if pid != os.getpid()]
    assert not list((Path(home) / "active").iterdir())
    again = cli("sweep", "resume", sweep, "-P", "key=hush-hush", "--json")
    assert len(json.loads(again.stdout)["trials"]) == 7


def test_a_hopeless_trial_is_stopped_and_says_so(cli: Cli, toy: Repository) -> None:
    result = cli(
        "sweep",
        toy.url,
        *SYSTEM,
        "-e",
        "curve",
        "-P",
        "a=9,8,7,6,1",
        "--metric",
        "score",
        "--maximize",
        "--prune",
        "median",
        "--json",
    )
    view = json.loads(result.stdout)
    last = view["trials"][4]
    assert last["status"] == "KILLED" and last["pruned"] is not None, result.stderr
    assert last["reason"] == f"pruned at step {last['pruned']}"
    assert (view["status"], view["best"][0]) == ("FINISHED", 1)
    run = cli.json("runs", "show", last["run"])
    assert run["reason"] == last["reason"]


def test_a_model_chooses_and_time_ends_it(cli: Cli, toy: Repository) -> None:
    arguments = ["sweep", toy.url, *SYSTEM, "-P", "a=1..50", "--method", "tpe", "--trials", "5"]
    view = json.loads(cli(*arguments, "--json").stdout)
    assert [one["status"] for one in view["trials"]] == ["FINISHED"] * 5
    assert all(dict(map(tuple, one["params"]))["b"] in ("5", "7") for one in view["trials"])
    result = cli(*arguments, "--max-time", "0.0001s")
    assert result.returncode == 1
    assert "FAILED (stopped after 0.0001 s)" in result.stdout


@pytest.mark.parametrize("method", [Method.TPE, Method.CMAES])
def test_a_model_is_told_again_what_is_recorded(method: Method) -> None:
    space = Space((Choices("kind", ("x", "y")),), (Range("a", 0, 10), Range("n", 1, 64, log=True, whole=True)))
    sweep = Sweep(space, method, 40, metric="m", goal=Goal.MINIMIZE)

    def loss(values: Values) -> float:
        given = dict(values)
        return (float(given["a"]) - 7) ** 2 + (given["kind"] == "x")

    first = sampler_of(sweep)
    tried = {number: first.ask(number) for number in range(1, 31)}
    for number, values in tried.items():
        first.tell(number, values, loss(values))
    after = sampler_of(sweep)  # of another process, which knows the record alone
    for number, values in tried.items():
        after.tell(number, values, loss(values))
    after.tell(31, tried[1], None)
    found = []
    for number in range(32, 72):
        values = after.ask(number)
        found.append(loss(values))
        after.tell(number, values, found[-1])
        assert 1 <= int(dict(values)["n"]) <= 64
    assert sum(found[20:]) / 20 < sum(map(loss, tried.values())) / 30


@pytest.mark.parametrize("method", [Method.TPE, Method.CMAES])
def test_a_model_does_not_choose_again_what_it_chose_before_a_crash(method: Method) -> None:
    space = Space((), (Range("a", 0, 10), Range("b", 0, 1)))
    sweep = Sweep(space, method, 12, metric="m", goal=Goal.MINIMIZE)
    tried: dict[int, Values] = {}
    for begin in (1, 4, 7, 10):  # each three by a process that knows the record alone
        sampler = sampler_of(sweep)
        for number, values in tried.items():
            sampler.tell(number, values, float(dict(values)["a"]))
        tried |= {number: sampler.ask(number) for number in range(begin, begin + 3)}
    assert len(set(tried.values())) == 12


def test_rules_of_pruning() -> None:
    def curve(value: float, length: int) -> list[tuple[int, float]]:
        return [(step, value + step) for step in range(length)]

    curves = {number: curve(number, 10) for number in range(6)}
    for rule in (Pruning.MEDIAN, Pruning.ASHA):
        assert hopeless(rule, Goal.MAXIMIZE, 0, curves) is not None
        assert hopeless(rule, Goal.MAXIMIZE, 5, curves) is None
        assert hopeless(rule, Goal.MINIMIZE, 5, curves) is not None
        assert hopeless(rule, Goal.MINIMIZE, 0, curves) is None
        assert hopeless(rule, Goal.MAXIMIZE, 0, {0: curves[0], 1: curves[1]}) is None
        assert hopeless(rule, Goal.MAXIMIZE, 0, {}) is None
    late = {**curves, 6: [(step, 0.0 if step < 5 else 99.0) for step in range(10)]}
    assert hopeless(Pruning.ASHA, Goal.MAXIMIZE, 6, late) is None  # its ninth value is the best of all, its third the worst
    assert hopeless(Pruning.ASHA, Goal.MAXIMIZE, 0, late) == 8
    assert hopeless(Pruning.ASHA, Goal.MAXIMIZE, 6, {**curves, 6: late[6][:4]}) == 2
    assert hopeless(Pruning.NONE, Goal.MAXIMIZE, 0, curves) is None
