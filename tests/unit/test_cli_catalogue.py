"""Experiments and registered models on the command line, in a database and through a server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest

from runproj.artifacts import open_direct
from runproj.core.models import ModelStatus, ModelVersion
from runproj.core.run import NewRun, RunChanges, RunStatus, Tag
from runproj.tracking import open_full_store
from runproj.tracking.full import FullStore
from support.program import Cli
from support.team import team_server

SCHEMAS = Path(__file__).parents[2] / "schemas"
VERSION = ModelVersion("churn", 0, "models:/x", "models:/x", 0, 0)


@pytest.fixture(params=["a database", "a server"])
def store(request: pytest.FixtureRequest, cli: Cli) -> Iterator[FullStore]:
    """The store that the program uses, itself or through a server."""
    home = Path(cli.env["RUNPROJ_HOME"])
    found = open_full_store(f"sqlite:///{home / 'runproj.db'}", home=home)
    found.experiments.get("0")
    if request.param == "a database":
        yield found
    else:
        with team_server(home=home) as team:
            cli.env |= {"MLFLOW_TRACKING_URI": team.url, "RUNPROJ_HOME": f"{home} of another"}
            yield found
    found.close()


def checked(cli: Cli, schema: str, *arguments: str) -> dict:
    document = cli.json(*arguments)
    jsonschema.validate(document, json.loads((SCHEMAS / f"{schema}.schema.json").read_text()))
    return document


def test_experiments_are_made_renamed_deleted_and_restored(cli: Cli, store: FullStore) -> None:
    assert checked(cli, "experiments-list", "experiments", "create", "first try")["experiments"][0]["use"]["runs"] == 0
    again = cli("experiments", "create", "first try")
    assert (again.returncode, again.stderr.splitlines()[0]) == (1, "error: There is an experiment 'first try' already")
    assert cli("experiments", "create", "").returncode == 2
    store.create_run(NewRun("1", 1_700_000_000_000))
    store.create_run(NewRun("1", 1_710_000_000_000))
    shown = checked(cli, "experiment", "experiments", "show", "first try")
    assert shown["use"] == {"runs": 2, "more": False, "used": 1_710_000_000_000}
    assert checked(cli, "experiment", "experiments", "show", "1") == shown
    assert cli("experiments", "rename", "first try", "better").returncode == 0
    assert [line.split()[-1] for line in cli("experiments", "list").stdout.splitlines()] == ["NAME", "Default", "better"]
    running = cli("experiments", "delete", "better")
    assert (running.returncode, "runs stop" in running.stderr) == (2, True)
    assert cli("experiments", "show", "nothing").returncode == 1


def test_a_deleted_experiment_is_told_apart_and_comes_back(cli: Cli, store: FullStore) -> None:
    made = store.experiments.create("gone")
    store.update(store.create_run(NewRun(made.id, 1)).id, RunChanges(status=RunStatus.FINISHED))
    assert "Experiment gone (id 1) deleted." in cli("experiments", "delete", "gone").stderr
    assert "gone" not in cli("experiments", "list").stdout
    assert "gone (deleted)" in cli("experiments", "list", "--all").stdout
    assert checked(cli, "experiments-list", "experiments", "list", "--deleted")["experiments"][0]["use"]["runs"] == 1
    assert cli("experiments", "delete", "gone").returncode == 2, "it is already"
    assert "experiments restore gone" in cli("experiments", "rename", "Default", "gone").stderr
    refused = cli("runs", "list", "--experiment", "gone")
    assert (refused.returncode, "runproj experiments restore 'gone'" in refused.stderr) == (1, True), refused.stderr
    assert cli("experiments", "restore", "gone").returncode == 0
    assert len(cli.json("runs", "list", "--experiment", "gone")["runs"]) == 1


def test_models_are_shown_with_the_runs_they_come_from(cli: Cli, store: FullStore) -> None:
    assert "No registered models yet" in cli("models", "list").stderr
    run = store.create_run(NewRun("0", 1, name="the-run", tags=(Tag("team", "red"), Tag("mlflow.user", "ada")))).id
    model = store.models.create("0", "forest", "", run, [], [])
    store.models.finalize(model.id, ModelStatus.READY)
    store.registry.create("churn", "who leaves", [])
    store.versions.create(replace(VERSION, source=f"models:/{model.id}", run_id=run, model_id=model.id))
    store.versions.create(replace(VERSION, source=f"runs:/{run}/older", run_id=run))
    store.registry.set_alias("churn", "champion", 1)
    (listed,) = checked(cli, "models-list", "models", "list")["models"]
    assert [version["version"] for version in listed["versions"]] == [2, 1]
    assert "champion→1" in cli("models", "list").stdout
    assert checked(cli, "model", "models", "show", "churn") == listed
    lines = cli("models", "show", "churn").stdout.splitlines()
    assert (lines[0], lines[-1].split()[0], run[:8] in lines[-1], "champion" in lines[-1]) == ("churn", "1", True, True)
    assert cli("models", "show", "none").returncode == 1
    view = checked(cli, "run", "runs", "show", run)
    assert view["experiment"] == "Default"
    older = {"id": "", "name": f"runs:/{run}/older", "status": "", "versions": ["churn/2"]}
    assert view["models"] == [{"id": model.id, "name": "forest", "status": "ready", "versions": ["churn/1"]}, older]
    shown = cli("runs", "show", run).stdout
    assert "forest" in shown and "churn/1" in shown and "Default" in shown
    assert "team" in shown and "mlflow.user" not in shown
    assert "commit" not in shown, "it was made elsewhere"


def test_the_files_of_a_model_are_listed_and_fetched(cli: Cli, store: FullStore, tmp_path: Path) -> None:
    run = store.create_run(NewRun("0", 1))
    model = store.models.create("0", "forest", "", run.id, [], [])
    store.registry.create("churn", "", [])
    store.versions.create(replace(VERSION, source=f"models:/{model.id}", run_id=run.id, model_id=model.id))
    store.versions.create(replace(VERSION, source=f"runs:/{run.id}/old er", run_id=run.id))
    store.versions.create(replace(VERSION, source="s3://elsewhere/x"))
    store.registry.set_alias("churn", "champion", 1)
    home = Path(store.database.path).parent
    files = open_direct("sqlite:///runproj.db", home=home, environ={})
    content = tmp_path / "content"
    content.write_text("weights")
    for place, path in ((replace(run, artifact_uri=model.artifact_uri), "data/größe"), (run, "old er/data/weights")):
        files.put(place, content, path)
    for reference in ("churn/1", "churn@champion", model.id):
        assert [line.split()[-1] for line in cli("models", "artifacts", reference).stdout.splitlines()] == ["PATH", "data/größe"]
    fetched = checked(cli, "runs-artifacts", "models", "artifacts", "churn@champion", "-d", str(tmp_path / "new"))
    assert (fetched["run"], fetched["fetched"], (tmp_path / "new/data/größe").read_text()) == (model.id, 1, "weights")
    assert cli("models", "artifacts", "churn/2", "--download", str(tmp_path / "old")).returncode == 0
    assert (tmp_path / "old/data/weights").read_text() == "weights", "as the folder of the model has it"
    assert cli("models", "artifacts", "churn/2", "data/weights", "--download", str(tmp_path / "one")).returncode == 0
    assert (tmp_path / "one/weights").exists()
    for wrong in ("churn", "churn/9", "churn@nobody", "nothing", f"m-{'0' * 32}"):
        assert cli("models", "artifacts", wrong).returncode == 1, wrong


def test_a_list_of_several_experiments_says_which(cli: Cli, store: FullStore) -> None:
    store.create_run(NewRun("0", 1))
    assert "EXPERIMENT" not in cli("runs", "list").stdout
    store.create_run(NewRun(store.experiments.create("another").id, 2))
    lines = cli("runs", "list").stdout.splitlines()
    assert [line.split()[1] for line in lines] == ["EXPERIMENT", "another", "Default"]
