"""The example projects, run from a git URL with real packages, and what each of them must have recorded."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from conftest import Repository
from runproj.core.plan import Plan
from support.program import Cli

pytestmark = [pytest.mark.slow, pytest.mark.network, pytest.mark.timeout(3000)]

EXAMPLES = Path(__file__).resolve().parents[2] / "example_projects"


class Example:
    """A repository that holds the example projects, as ours does, and the program."""

    def __init__(self, repository: Repository, elsewhere: Path) -> None:
        self.elsewhere = elsewhere
        shutil.copytree(EXAMPLES, repository.path / "example_projects", ignore=shutil.ignore_patterns("__pycache__"))
        self.url = repository.url
        self.commit = repository.commit({"README.md": "examples\n"})

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return Cli(self.elsewhere)(*arguments)

    def run(self, name: str, *arguments: str) -> dict:
        """Run a project; returns the document that `--json` prints."""
        result = self("run", f"{self.url}#example_projects/{name}", "-v", self.commit, "--json", *arguments)
        assert result.returncode == 0, result.stderr
        view = json.loads(result.stdout)
        tags = {tag["key"]: tag["value"] for tag in view["run"]["tags"]}
        assert view["run"]["status"] == "FINISHED"
        assert tags["mlflow.source.git.commit"] == self.commit
        assert view["plan"]["code"]["commit"] == self.commit
        assert view["plan"]["lock"]["python"]
        return view

    def json(self, *arguments: str) -> dict:
        result = self(*arguments, "--json")
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout)


@pytest.fixture
def example(repository: Repository, tmp_path: Path, common_wheels: Path) -> Example:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    return Example(repository, elsewhere)


def params(view: dict) -> dict[str, str]:
    return {item["key"]: item["value"] for item in view["run"]["params"]}


def metrics(view: dict) -> dict[str, float]:
    return {item["key"]: item["value"] for item in view["run"]["metrics"]}


def artifacts(view: dict) -> set[str]:
    return {item["path"] for item in view["artifacts"]}


def test_elastic_net_logs_through_the_unmodified_client(example: Example) -> None:
    view = example.run("sklearn_elasticnet", "-P", "alpha=0.4")
    assert params(view) == {"alpha": "0.4", "l1_ratio": "0.1"}
    assert metrics(view) == pytest.approx({"rmse": 63.2085, "mae": 51.1127, "r2": 0.39591}, rel=1e-3)
    shown = example("runs", "show", "@last").stdout
    for word in ("alpha", "l1_ratio", "rmse", "mae", "r2", example.commit):
        assert word in shown
    stored = Path(os.environ["RUNPROJ_HOME"], "artifacts")
    assert [path.parent for path in stored.rglob("MLmodel") if (path.parent / "requirements.txt").exists()], "no model was stored"

    again = example.json("rerun", "@last", "-P", "alpha=0.8")
    assert params(again) == {"alpha": "0.8", "l1_ratio": "0.1"}
    assert metrics(again)["rmse"] != metrics(view)["rmse"]
    assert again["plan"]["lock"]["digest"] == view["plan"]["lock"]["digest"]
    assert again["plan"]["rerun_of"] == view["run"]["id"]


def test_xgboost_has_its_metrics_read_and_its_outputs_kept(example: Example) -> None:
    refused = example("run", f"{example.url}#example_projects/xgboost_classifier", "-P", "colsample_bytree=1.5")
    assert refused.returncode == 2
    assert "colsample_bytree" in refused.stderr
    assert example.json("runs", "list")["runs"] == []

    view = example.run("xgboost_classifier", "-P", "colsample_bytree=0.6")
    assert params(view)["colsample_bytree"] == "0.6"
    assert metrics(view)["accuracy"] == pytest.approx(0.95, abs=0.03)
    assert 0 < metrics(view)["mlogloss"] < 0.4
    assert {"model.json", "confusion.csv"} <= artifacts(view)


def test_plain_script_is_run_by_its_name(example: Example) -> None:
    view = example.run("plain_script", "-e", "train.py", "-P", "lr=0.2", "-P", "steps=60")
    assert params(view) == {"lr": "0.2", "steps": "60"}
    assert view["plan"]["descriptor"] is None
    assert "numpy" in view["plan"]["lock"]["pylock"]
    assert "slope 2.98" in example("runs", "logs", view["run"]["id"]).stdout


def test_two_steps_are_children_of_the_run(example: Example) -> None:
    view = example.run("two_step", "-P", "ridge=0.5")
    assert 0.1 < metrics(view)["rmse"] < 0.4
    runs = {item["name"]: item for item in example.json("runs", "list")["runs"]}
    for step in ("prepare", "fit"):
        tags = {tag["key"]: tag["value"] for tag in runs[step]["tags"]}
        assert runs[step]["status"] == "FINISHED"
        assert tags["mlflow.parentRunId"] == view["run"]["id"]
    prepared = example.json("runs", "show", runs["prepare"]["id"])
    assert "data.csv" in artifacts(prepared)


@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.iterdir() if path.is_dir()))
def test_each_example_explains_itself(name: str) -> None:
    readme = (EXAMPLES / name / "README.md").read_text()
    assert readme.startswith(f"# {name}\n")
    assert f"#example_projects/{name}" in readme


@pytest.mark.parametrize("name", ["sklearn_elasticnet", "xgboost_classifier", "two_step"])
def test_each_descriptor_is_valid(example: Example, name: str) -> None:
    result = example("validate", str(EXAMPLES / name))
    assert result.returncode == 0, result.stdout + result.stderr


def test_a_plan_can_be_read_back(example: Example) -> None:
    from runproj.codec import from_json

    result = example("plan", f"{example.url}#example_projects/plain_script", "-e", "train.py", "--as-of", "2026-06-01", "--json")
    assert result.returncode == 0, result.stderr
    plan = from_json(Plan, result.stdout.encode())
    assert plan.code.commit == example.commit
    assert plan.lock.as_of == "2026-06-02T00:00:00Z"
