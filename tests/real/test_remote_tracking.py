"""Runs recorded on a real MLflow server: from the same commands, read back by the same commands and by MLflow itself."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import Repository
from support.program import SYSTEM, Cli

pytestmark = [pytest.mark.slow, pytest.mark.network]


@pytest.fixture
def remote(cli: Cli, mlflow_server: str) -> Cli:
    cli.env["MLFLOW_TRACKING_URI"] = mlflow_server
    return cli


def test_a_run_is_recorded_and_read_back(remote: Cli, project: Repository) -> None:
    result = remote("run", project.url, "-P", "lr=0.5", *SYSTEM)
    assert result.returncode == 0, result.stderr
    view = remote.json("runs", "show", "@last")
    assert view["run"]["status"] == "FINISHED"
    assert {p["key"]: p["value"] for p in view["run"]["params"]}["lr"] == "0.5"
    assert view["plan"]["code"]["commit"] == project.head
    assert remote("runs", "logs", "@last").stdout == result.stdout
    assert remote("rerun", "@last", "-P", "lr=0.7").returncode == 0
    assert [run["status"] for run in remote.json("runs", "list", "-n", "2")["runs"]] == ["FINISHED", "FINISHED"]


def test_failures_signals_and_kills_are_recorded_there_too(remote: Cli, project: Repository) -> None:
    assert remote("run", project.url, "-e", "fail", *SYSTEM).returncode == 3
    assert remote.json("runs", "show", "@last")["run"]["status"] == "FAILED"
    process = remote.start("run", project.url, "-e", "wait", *SYSTEM)
    assert process.stdout and process.stdout.readline() == "waiting\n"
    process.send_signal(signal.SIGINT)
    process.communicate()
    assert remote.json("runs", "show", "@last")["run"]["status"] == "KILLED"
    process = remote.start("run", project.url, "-e", "wait", *SYSTEM)
    assert process.stdout and process.stdout.readline() == "waiting\n"
    process.kill()
    process.communicate()
    assert remote.json("runs", "show", "@last")["run"]["status"] == "FAILED"


def test_the_projects_own_mlflow_calls_go_to_the_same_run(remote: Cli, repository: Repository, mlflow_python: Path) -> None:
    code = "import mlflow\nmlflow.log_metric('acc', 0.75)\nmlflow.log_text('hello', 'note.txt')\n"
    text = "entry_points:\n  main:\n    command: " + json.dumps(f'"{mlflow_python}" train.py') + "\n"
    repository.commit({"MLproject": text, "train.py": code})
    result = remote("run", repository.url, *SYSTEM)
    assert result.returncode == 0, result.stderr
    view = remote.json("runs", "show", "@last")
    assert {m["key"]: m["value"] for m in view["run"]["metrics"]} == {"acc": 0.75}
    assert "note.txt" in {artifact["path"] for artifact in view["artifacts"]}


def test_a_server_that_is_away_is_explained_before_anything_runs(cli: Cli, project: Repository) -> None:
    cli.env["RUNPROJ_TRACKING_URI"] = "http://127.0.0.1:9"
    result = cli("run", project.url, *SYSTEM)
    assert result.returncode == 125
    assert "127.0.0.1:9" in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


def test_nested_runs_become_children(cli: Cli, repository: Repository, mlflow_python: Path) -> None:
    outer = (
        "import mlflow\n"
        "with mlflow.start_run():\n"
        "    mlflow.log_param('outer', 1)\n"
        "    with mlflow.start_run(nested=True): mlflow.log_param('inner', 1)\n"
        "    mlflow.projects.run('.', entry_point='step', env_manager='local', synchronous=True)\n"
    )
    command = json.dumps(f'"{mlflow_python}" outer.py')
    text = (
        "entry_points:\n"
        f"  main: {{command: {command}}}\n"
        "  step: {parameters: {depth: {type: int, default: 2}}, command: 'echo step {depth}'}\n"
    )
    repository.commit({"MLproject": text, "outer.py": outer})
    result = cli("run", repository.url, *SYSTEM)
    assert result.returncode == 0, result.stderr
    runs = cli.json("runs", "list")["runs"]
    main = next(run for run in runs if {t["key"]: t["value"] for t in run["tags"]}.get("mlflow.project.entryPoint") == "main")
    parents = [{t["key"]: t["value"] for t in run["tags"]}.get("mlflow.parentRunId") for run in runs if run["id"] != main["id"]]
    assert parents == [main["id"], main["id"]]
    assert {run["status"] for run in runs} == {"FINISHED"}


def test_a_runproj_inside_a_run_records_beside_it(cli: Cli, project: Repository) -> None:
    inner = [sys.executable, "-m", "runproj.cli.main", "run", project.url, *SYSTEM]
    project.commit({"nest.py": f"import subprocess\nsubprocess.run({inner!r}, check=True)\n"})
    result = cli("run", project.url, "-e", "nest.py", *SYSTEM)
    assert result.returncode == 0, result.stderr
    child, parent = cli.json("runs", "list")["runs"]
    assert {t["key"]: t["value"] for t in child["tags"]}["mlflow.parentRunId"] == parent["id"]
    assert subprocess.run(cli.command("runs", "list"), env=cli.env).returncode == 0


def test_a_run_that_the_project_ends_as_failed_is_failed(cli: Cli, repository: Repository, mlflow_python: Path) -> None:
    text = "entry_points:\n  main:\n    command: " + json.dumps(f'"{mlflow_python}" train.py') + "\n"
    repository.commit({"MLproject": text, "train.py": "import mlflow\nmlflow.start_run()\nmlflow.end_run('FAILED')\n"})
    result = cli("run", repository.url, *SYSTEM)
    view = cli.json("runs", "show", "@last")
    assert (result.returncode, view["run"]["status"], view["exit_code"]) == (0, "FAILED", 0), result.stderr
    assert "the project itself" in view["reason"]


def test_the_whole_search_language_works_on_a_server_that_knows_less(remote: Cli, project: Repository) -> None:
    for rate in ("0.5", "0.05", "1e-3"):
        assert (
            remote("run", project.url, "-P", f"lr={rate}", "--experiment-name", "searched", "--tag", "kind=a", *SYSTEM).returncode
            == 0
        )

    def rates(*arguments: str) -> list[str]:
        document = remote.json("runs", "search", "--experiment-name", "searched", *arguments)
        return [next(item["value"] for item in run["params"] if item["key"] == "lr") for run in document["runs"]]

    assert rates("tags.kind = 'a'") == ["1e-3", "0.05", "0.5"]
    assert rates("params.lr < 0.1 or params.lr = '0.5'", "--sort", "start_time:asc") == ["0.5", "0.05", "1e-3"]
    assert rates("params.lr < 0.1 and not params.lr < 0.01") == ["0.05"]
