"""Pipelines whose steps run elsewhere: on a Slurm cluster, in containers, and in containers on the cluster."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from conftest import Repository
from support.cluster import ON
from support.docker import Docker
from support.placing import nothing_left
from support.program import SYSTEM, Cli

PIPELINE = r"""
ENVIRONMENT
entry_points:
  prepare:
    parameters: {rows: {type: int, default: 5}}
    command: "seq {rows} > table.csv"
    outputs: table.csv
  train:
    parameters: {lr: {type: float, default: 0.1}}
    backend: slurm
    inputs: {table: {from: prepare, path: table.csv}}
    command: [sh, -c, 'echo "$1 $(wc -l < "$RUNPROJ_INPUT_TABLE") ${SLURM_JOB_ID:+job}" > model.txt', sh, "{lr}"]
    outputs: model.txt
  evaluate:
    inputs: {model: {from: train, path: model.txt}}
    command: [sh, -c, 'cat model.txt; cut -d " " -f 2 model.txt | sed s/^/score=/; [ ! -d /made-for-it ] || echo inside=1']
    metrics: ['(?P<name>score|inside)=(?P<value>\S+)']
"""


def piped(cli: Cli, project: Repository, *arguments: str) -> dict:
    result = cli("run", project.url, "-e", "evaluate", "--json", *arguments)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def states(view: dict) -> list[str]:
    return [step["state"] for step in view["steps"]]


def metrics(cli: Cli, view: dict) -> dict[str, float]:
    return {metric["key"]: metric["value"] for metric in cli.json("runs", "show", view["run"])["run"]["metrics"]}


def test_a_step_on_a_cluster_between_two_here(away: Cli, repository: Repository) -> None:
    repository.commit({"runproj.yaml": PIPELINE.replace("ENVIRONMENT", "")})
    first = piped(away, repository, *SYSTEM)
    assert [(step["step"], step["backend"], step["state"]) for step in first["steps"]] == [
        ("prepare", "local", "finished"),
        ("train", "slurm", "finished"),
        ("evaluate", "local", "finished"),
    ]
    assert metrics(away, first) == {"score": 5}
    last = first["steps"][2]["run"]
    assert away("runs", "logs", last).stdout == "0.1 5 job\nscore=5\n"
    again = piped(away, repository, *SYSTEM)
    assert again["run"] is None and states(again) == ["reused"] * 3
    changed = piped(away, repository, *SYSTEM, "-P", "lr=0.2")
    assert states(changed) == ["reused", "finished", "finished"]
    shown = away("runs", "show", changed["run"]).stdout
    assert "train     finished" in shown and "lr: 0.1 → 0.2" in shown
    assert "names them" in away("rerun", changed["run"]).stderr
    nothing_left(away)


def test_steps_in_containers_here_and_on_a_cluster(engine: Docker, away: Cli, repository: Repository) -> None:
    image = engine.image("RUN mkdir /made-for-it")
    settings = Path(away.env["RUNPROJ_HOME"]) / "config.toml"
    settings.parent.mkdir(exist_ok=True)
    settings.write_text('[backends.slurm]\nvariables = ["DOCKER_HOST"]\n')  # the engine of the nodes
    repository.commit({"runproj.yaml": PIPELINE.replace("ENVIRONMENT", f"environment: {{docker: {{image: '{image}'}}}}")})
    first = piped(away, repository)
    assert metrics(away, first) == {"score": 5, "inside": 1}
    assert states(piped(away, repository)) == ["reused"] * 3
    assert states(piped(away, repository, "-P", "rows=7")) == ["finished"] * 3
    nothing_left(away)
    engine.gone(away, 120)


OLD = {
    "MLproject": (
        "entry_points:\n"
        "  load: {parameters: {rows: {type: int, default: 3}}, command: '\"PYTHON\" load.py {rows}'}\n"
        "  train: {parameters: {table: string}, command: '\"PYTHON\" train.py {table}'}\n"
        "  main: {parameters: {rows: {type: int, default: 4}}, command: '\"PYTHON\" main.py {rows}'}\n"
    ),
    "load.py": "import mlflow, sys\nmlflow.log_text('1\\n' * int(sys.argv[1]), 'table.csv')\n",
    "train.py": (
        "import mlflow, pathlib, sys\n"
        "rows = pathlib.Path(mlflow.artifacts.download_artifacts(sys.argv[1])).read_text().count('1')\n"
        "mlflow.log_metric('score', rows)\n"
    ),
    "main.py": (
        "import mlflow, sys\n"
        "with mlflow.start_run() as own:\n"
        "    first = mlflow.run('.', 'load', parameters={'rows': int(sys.argv[1])}, env_manager='local')\n"
        ""
        "    table = f'runs:/{first.run_id}/table.csv'\n"
        "    last = mlflow.run('.', 'train', parameters={'table': table}, env_manager='local')\n"
        "    score = mlflow.MlflowClient().get_run(last.run_id).data.metrics['score']\n"
        "    mlflow.log_metric('best', score)\n"
    ),
}


@pytest.mark.slow
@pytest.mark.network
def test_a_program_that_runs_its_steps_with_mlflow_does_so_on_a_cluster(
    away: Cli, repository: Repository, mlflow_python: Path
) -> None:
    """Its steps are runs of the job's own store, and come home below the run of the program."""
    repository.commit({name: text.replace("PYTHON", str(mlflow_python)) for name, text in OLD.items()})
    done = away("run", repository.url, *ON)
    assert done.returncode == 0, done.stderr
    runs = away.json("runs", "list")["runs"]
    point = {tag["value"]: run for run in runs for tag in run["tags"] if tag["key"] == "mlflow.project.entryPoint"}
    assert {run["status"] for run in runs} == {"FINISHED"} and len(runs) == len(point) == 3
    assert [(item["key"], item["value"]) for item in point["main"]["metrics"]] == [("best", 4)]
    assert [(item["key"], item["value"]) for item in point["train"]["metrics"]] == [("score", 4)]
    for step in ("load", "train"):
        parents = [tag["value"] for tag in point[step]["tags"] if tag["key"] == "mlflow.parentRunId"]
        assert parents == [point["main"]["id"]]
    assert away("runs", "artifacts", point["load"]["id"]).stdout.count("table.csv") == 1
    nothing_left(away)
