"""The real mlflow client, newest and old, against a team's server and against `mlflow server`: both answer the same."""

from __future__ import annotations

import fnmatch
import json
import subprocess
from pathlib import Path

import pytest

from support.mlflow import FIRST, FULL, FULL_SECOND, SECOND, MakeEnvironment, mlflow_environment
from support.team import Team
from support.teamserver import answers, differences, start_client

pytestmark = [pytest.mark.slow, pytest.mark.network, pytest.mark.timeout(3000)]

CLIENTS = {"3": FULL, "2": FULL_SECOND, "2 skinny": SECOND, "1 skinny": FIRST}

WANTED = {
    "/logging/long *": "values are kept as they are; MLflow cuts them at 6,000 or 8,000 characters, and says nothing",
    "/numbers/*inf": "infinities are kept; MLflow stores the largest double instead",
    "/numbers/*minus zero": "the sign of zero is kept",
    "/numbers/sign": "the sign of zero is kept",
    "/artifacts/files": "an empty file has the size 0; MLflow says nothing of its size",
    "/artifacts/escape": "a slash at the beginning of the path of a listing is passed over; MLflow refuses it",
    "/searching/where params.lr = 0.1": "parameters are compared as numbers where a number is given",
    "/searching/where * IN (*": "IN works for all texts",
    "/searching/where * OR *": "there are OR, NOT and parentheses",
    "/searching/where (metrics.acc > 0.5)": "there are OR, NOT and parentheses",
    "/registry_search/too many": "a page of nothing would be followed by itself for ever",
    "/logged_models/one/metrics": "metrics of models keep NaN, which MLflow answers as 0",
    "/logged_models/all/tree-*/metrics": "metrics of models keep NaN, which MLflow answers as 0",
    "/logged_models/param again": "the same status, with the word for a wrong value",
    "/logged_models/of data": "the digest of a dataset may be left out, as its documentation says",
}
"""Where the answers differ, and why that is meant."""


def read_both(python: Path, script: str, prefix: str, servers: tuple[str, str], folder: Path) -> tuple[dict, dict, str]:
    """What a script reads back from `mlflow server` and from ours, at the same time, and what its client says of ours."""
    processes = [start_client(python, script, uri, prefix, folder=folder / str(number)) for number, uri in enumerate(servers)]
    try:
        first, second = (answers(process) for process in processes)
    finally:
        for process in processes:
            process.kill()
    return first.sections, second.sections, second.said


@pytest.fixture
def servers(mlflow_server: str, team: Team) -> tuple[str, str]:
    return mlflow_server, team.url


@pytest.mark.parametrize("version", CLIENTS)
def test_tracking(version: str, cached_environment: MakeEnvironment, servers: tuple[str, str], tmp_path: Path) -> None:
    theirs, ours, _ = read_both(
        cached_environment(CLIENTS[version]), "tracking.py", f"client-{version.replace(' ', '-')}", servers, tmp_path
    )
    sections = {"experiments", "logging", "numbers", "nested", "failures", "batches", "artifacts", "searching"}
    more = {"3": {"asynchronous", "media", "datasets"}, "2": {"asynchronous", "media", "datasets"}, "2 skinny": {"asynchronous"}}
    assert set(ours) == sections | more.get(version, set())
    check(theirs, ours)

    numbers = ours["numbers"]["latest"]
    assert numbers["nan"] == "nan"
    assert (numbers["inf"], numbers["minus inf"], numbers["minus zero"]) == ("inf", "-inf", "-0.0")
    assert (numbers["denormal"], numbers["third"], numbers["largest"]) == ("5e-324", repr(1 / 3), "1.7976931348623157e+308")
    assert numbers["two to 53"] == repr(float(2**53))
    assert ours["logging"]["run"]["params"]["text"] == 'it\'s \n 文字 "q"'
    assert ours["artifacts"]["equal"] is True


@pytest.mark.parametrize("version", ["3", "2"])
def test_models(version: str, cached_environment: MakeEnvironment, servers: tuple[str, str], tmp_path: Path) -> None:
    theirs, ours, said = read_both(
        cached_environment(CLIENTS[version]), "models.py", f"client-{version.replace(' ', '-')}", servers, tmp_path
    )
    sections = {"sklearn_model", "registry", "registry_search", "autologging"}
    assert set(ours) == sections | ({"logged_models", "lineage", "prompts", "traced"} if version == "3" else set())
    check(theirs, ours)
    assert set(ours["sklearn_model"]["loaded"].values()) == {True}
    if version == "3":
        assert ours["traced"]["answer"] == "42"
        assert "Failed to send trace" in said  # a warning: traces are not stored


def check(theirs: object, ours: object) -> None:
    """The answers are equal, but for what is listed."""
    found = differences(theirs, ours)
    surprises = {path: pair for path, pair in found.items() if not any(fnmatch.fnmatchcase(path, known) for known in WANTED)}
    assert not surprises, json.dumps(surprises, indent=1, ensure_ascii=False)[:6000]


COMMANDS = """
import contextlib, io, json, sys
from mlflow.cli import cli
said = []
for words in json.loads(sys.argv[1]):
    with contextlib.redirect_stdout(io.StringIO()) as out:
        cli.main(words, prog_name="mlflow", standalone_mode=False)
    said.append(out.getvalue())
print(json.dumps(said))
"""
"""MLflow's command lines, one after the other in one process: it takes seconds to begin."""


def test_the_command_line(mlflow_python: Path, team: Team, tmp_path: Path) -> None:
    """Runs, experiments and artifacts are listed, written as CSV, and moved."""
    where = team.ok("POST", "experiments/create", name="by command")["experiment_id"]
    run = team.ok("POST", "runs/create", experiment_id=where, run_name="listed", start_time=1)["run"]["info"]["run_id"]
    (tmp_path / "file.txt").write_text("hello")
    commands = [
        ["artifacts", "log-artifact", "--local-file", "file.txt", "--run-id", run, "--artifact-path", "a"],
        ["artifacts", "list", "--run-id", run, "--artifact-path", "a"],
        ["experiments", "search"],
        ["runs", "list", "--experiment-id", where],
        ["experiments", "csv", "--experiment-id", where, "--filename", "runs.csv"],
        ["artifacts", "download", "--run-id", run, "--artifact-path", "a/file.txt", "--dst-path", "back"],
    ]
    done = subprocess.run(
        [str(mlflow_python), "-c", COMMANDS, json.dumps(commands)],
        env=mlflow_environment(MLFLOW_TRACKING_URI=team.url),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    _, listed, experiments, runs, _, where_it_is = json.loads(done.stdout)
    assert '"a/file.txt"' in listed
    assert "by command" in experiments
    assert run in runs
    assert run in (tmp_path / "runs.csv").read_text()
    assert Path(tmp_path, where_it_is.strip().splitlines()[-1]).read_text() == "hello"
