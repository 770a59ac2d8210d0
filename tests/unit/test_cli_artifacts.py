"""Files of a run, listed and fetched: whole, checked, only what is missing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import pytest

from conftest import HOSTILE, Repository
from runproj.artifacts import open_direct
from runproj.core.run import Run, RunStatus
from runproj.core.tracking import ArtifactInfo
from runproj.errors import RefusedError
from runproj.fetching import Fetch
from support.program import SYSTEM, Cli
from support.team import team_server

SCHEMA = Path(__file__).parents[2] / "schemas" / "runs-artifacts.schema.json"
PROJECT = {
    "runproj.yaml": "entry_points: {main: {command: [python, make.py], outputs: ['model/**', '*.txt']}}\n",
    "make.py": (
        "from pathlib import Path\n"
        "Path('model/deep er').mkdir(parents=True); Path('model/deep er/größe').write_bytes(b'x' * 3_000_000)\n"
        "Path('model/small').write_text('s'); Path('note.txt').write_text('note')\n"
    ),
}


@pytest.fixture(params=["a database", "a server"])
def recorded(request: pytest.FixtureRequest, cli: Cli, repository: Repository) -> Iterator[Cli]:
    """A run with outputs, looked at directly or through a server."""
    repository.commit(PROJECT)
    result = cli("run", repository.url, *SYSTEM)
    assert result.returncode == 0, result.stderr
    home = Path(cli.env["RUNPROJ_HOME"])
    if request.param == "a database":
        yield cli
    else:
        with team_server(home=home) as team:
            cli.env |= {"MLFLOW_TRACKING_URI": team.url, "RUNPROJ_HOME": f"{home} of another"}
            yield cli


def tree(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_size for path in folder.rglob("*") if path.is_file()}


def test_files_are_listed_and_fetched(recorded: Cli, tmp_path: Path) -> None:
    into = tmp_path / HOSTILE / "here"
    model = {"model/deep er/größe": 3_000_000, "model/small": 1}
    listed = recorded("runs", "artifacts", "@last").stdout
    assert ("3.0 MB  model/deep er/größe" in listed, "logs/stdout.log" in listed) == (True, True), listed
    document = recorded.json("runs", "artifacts", "@last", "model/")
    jsonschema.validate(document, json.loads(SCHEMA.read_text()))
    assert {item["path"]: item["size"] for item in document["artifacts"]} == model
    first = recorded("runs", "artifacts", "@last", "model", "--download", str(into))
    assert (first.returncode, "2 files, 3.0 MB, fetched" in first.stderr) == (0, True), first.stderr
    assert tree(into) == model
    one = tmp_path / "one"
    assert recorded("runs", "artifacts", "@last", "model/deep er/größe", "-d", str(one)).returncode == 0
    assert tree(one) == {"größe": 3_000_000}, "cp would do the same"
    missing = recorded("runs", "artifacts", "@last", "modell")
    assert (missing.returncode, "no artifact 'modell'" in missing.stderr) == (1, True)


def test_what_is_there_is_kept_and_what_is_something_else_is_not_overwritten(recorded: Cli, tmp_path: Path) -> None:
    into = tmp_path / "here"
    fetch = ("runs", "artifacts", "@last", "model", "--download", str(into))
    assert recorded(*fetch).returncode == 0
    (into / "model/small").unlink()
    again = recorded.json(*fetch)
    assert (again["fetched"], len(again["artifacts"])) == (1, 2)
    assert "0 files, 0 B, fetched" in recorded(*fetch).stderr
    (into / "model/small").write_text("S")
    refused = recorded(*fetch)
    assert (refused.returncode, "--force" in refused.stderr) == (1, True), refused.stderr
    assert (into / "model/small").read_text() == "S"
    assert recorded(*fetch, "--force").returncode == 0
    assert (into / "model/small").read_text() == "s"
    assert recorded("runs", "artifacts", "@last", "--force").returncode == 2


def test_a_file_that_has_changed_in_the_store_does_not_arrive(cli: Cli, repository: Repository, tmp_path: Path) -> None:
    repository.commit(PROJECT)
    cli("run", repository.url, *SYSTEM)
    (stored,) = Path(cli.env["RUNPROJ_HOME"]).glob("artifacts/0/*/artifacts/note.txt")
    stored.unlink()
    stored.write_text("nope")
    damaged = cli("runs", "artifacts", "@last", "note.txt", "--download", str(tmp_path / "here"))
    assert (damaged.returncode, "is not what the run left" in damaged.stderr) == (1, True), damaged.stderr
    assert tree(tmp_path / "here") == {}


@pytest.mark.parametrize("path", ["../out", "/etc/passwd", "a/../../out", "a//b", ""])
def test_a_server_cannot_name_a_place_outside(tmp_path: Path, path: str) -> None:
    run = Run("r" * 32, "0", "n", RunStatus.FINISHED, 0)
    files = open_direct("sqlite:///runs.db", home=tmp_path, environ={})
    with pytest.raises(RefusedError):
        Fetch(run, files, tmp_path / "here", "", {}).fetch([ArtifactInfo(path, 1)], lambda number, size: None)
    assert (tree(tmp_path / "here"), (tmp_path / "out").exists()) == ({}, False)
