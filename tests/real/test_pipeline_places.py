"""Pipelines whose steps run elsewhere: on a Slurm cluster, in containers, and in containers on the cluster."""

from __future__ import annotations

import json

from conftest import Repository
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
    repository.commit({"runproj.yaml": PIPELINE.replace("ENVIRONMENT", f"environment: {{docker: {{image: '{image}'}}}}")})
    first = piped(away, repository)
    assert metrics(away, first) == {"score": 5, "inside": 1}
    assert states(piped(away, repository)) == ["reused"] * 3
    assert states(piped(away, repository, "-P", "rows=7")) == ["finished"] * 3
    nothing_left(away)
    engine.gone(away, 5)
