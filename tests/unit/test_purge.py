"""What is deleted goes for good when it is told to, with its files; nothing else goes."""

from __future__ import annotations

from pathlib import Path

import pytest

from runproj.core.condition import And
from runproj.core.models import Dataset, DatasetInput, Lineage
from runproj.core.run import Lifecycle, Metric, NewRun, Param, RunChanges
from runproj.tracking import open_full_store
from runproj.tracking.full import FullStore
from runproj.tracking.purge import Kind, find_deleted, purge
from support.program import Cli

TABLES = ("runs", "params", "tags", "points", "latest_metrics", "datasets", "run_datasets", "models", "experiments")


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, isolated: Path) -> FullStore:
    uri = request.getfixturevalue("postgres") if request.param == "postgresql" else "sqlite:///runs.db"
    return open_full_store(uri, home=isolated)


def rows(store: FullStore) -> dict[str, int]:
    with store.database.reading() as connection:
        return {table: connection.execute(f"SELECT count(*) FROM {table}").fetchall()[0][0] for table in TABLES}


def filled(store: FullStore, experiment: str) -> str:
    run = store.create_run(NewRun(experiment, 1, params=(Param("p", "1"),))).id
    store.update(run, RunChanges(metrics=(Metric("m", 1.0, 1),)))
    store.lineages.add(run, Lineage((DatasetInput(Dataset(f"data of {run}", "1")),)))
    store.models.create(experiment, "model", "", run, [], [])
    return run


def test_only_what_is_deleted_goes(store):
    kept = filled(store, "0")
    before = rows(store)
    gone = filled(store, "0")
    experiment = store.experiments.create("old").id
    filled(store, experiment)
    store.update(gone, RunChanges(lifecycle=Lifecycle.DELETED))
    for experiment_id in ("0", experiment):
        for model in store.models.search([experiment_id], And(()), (), 10, 0):
            if model.source_run != kept:
                store.models.delete(model.id)
    store.experiments.set_lifecycle(experiment, Lifecycle.DELETED)
    found = find_deleted(store.database)
    assert [item.kind for item in found] == [Kind.RUN, Kind.RUN, Kind.MODEL, Kind.MODEL, Kind.EXPERIMENT]
    for item in found:
        purge(store.database, item)
    assert rows(store) == before
    assert store.get_run(kept).lifecycle is Lifecycle.ACTIVE
    assert find_deleted(store.database) == []


def test_an_experiment_with_something_in_it_stays(store):
    experiment = store.experiments.create("old").id
    run = store.create_run(NewRun(experiment, 1)).id
    store.experiments.set_lifecycle(experiment, Lifecycle.DELETED)
    store.update(run, RunChanges(lifecycle=Lifecycle.ACTIVE))
    assert find_deleted(store.database) == []


def test_gc_removes_no_folder_of_somebody_else(cli: Cli, project, tmp_path) -> None:
    assert cli("run", project.url, "--env-manager", "system").returncode == 0
    home = Path(cli.env["RUNPROJ_HOME"])
    store = open_full_store(f"sqlite:///{home / 'runproj.db'}", home=home)
    own, precious = tmp_path / "shared", tmp_path / "precious"
    experiment = store.experiments.create("shared", own.as_uri()).id
    runs = [store.create_run(NewRun(experiment, 1)).id for _ in range(5)]
    with store.database.writing() as connection:
        places = (precious.as_uri(), str(precious / "artifacts"), "mlflow-artifacts:/0/artifacts", "s3://elsewhere/x/artifacts")
        for run, uri in zip(runs[1:], places, strict=True):
            connection.execute("UPDATE runs SET artifact_uri = ? WHERE id = ?", (uri, run))
    for folder in (own / runs[0] / "artifacts", own / "other", precious / "artifacts"):
        folder.mkdir(parents=True)
        (folder / "file").write_text("x")
    for run in runs:
        store.update(run, RunChanges(lifecycle=Lifecycle.DELETED))
    store.close()
    said = cli("gc", "--deleted").stdout
    assert said.count("without its files") == 4, said
    assert sorted(path.name for path in own.iterdir()) == ["other"]
    assert (precious / "artifacts" / "file").exists()
    assert (home / "artifacts" / "0").exists()


def test_gc_removes_the_files_too(cli: Cli, project) -> None:
    assert cli("run", project.url, "--env-manager", "system").returncode == 0
    run = cli.json("runs", "show", "@last")["run"]["id"]
    files = Path(cli.env["RUNPROJ_HOME"]) / "artifacts" / "0" / run
    assert files.exists()
    cli("runs", "delete", run)
    assert f"run {run[:8]}" in cli("gc", "--deleted", "--dry-run").stdout
    assert files.exists()
    assert f"run {run[:8]}" in cli("gc", "--deleted").stdout
    assert not files.exists()
    assert cli("runs", "show", run).returncode == 1
