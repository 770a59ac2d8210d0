"""`runs search`: what it finds and shows, in the embedded store and on a server."""

from __future__ import annotations

import csv
import io
import math
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import HOSTILE
from runproj.artifacts import open_artifacts
from runproj.cli import columns, output
from runproj.core.run import Metric, NewRun, Param, RunChanges, RunStatus, Tag
from runproj.core.search import Entity
from runproj.server.endpoint import Endpoint
from runproj.tracking import open_store
from support.program import Cli

RATES = ("0.1", "0.01", "0.001", "0.05")
SCORES = (0.1 + 0.2, 0.95, math.nan, 5e-324)


@pytest.fixture(params=["sqlite", "over http"])
def found(request: pytest.FixtureRequest, cli: Cli, isolated: Path) -> Iterator[Cli]:
    """The program, with four runs in the store that it uses."""
    home = Path(cli.env["RUNPROJ_HOME"])
    uri = f"sqlite:///{home / 'runproj.db'}"
    store = open_store(uri, home=home, environ={})
    experiment = store.experiment(HOSTILE).id
    for number, (rate, score) in enumerate(zip(RATES, SCORES, strict=True)):
        tags = (Tag("model", "xgb" if number % 2 else HOSTILE),)
        params = (Param("lr", rate), Param("same", "1"))
        run = store.create_run(NewRun(experiment, 1000 + number, name=f"run {number}", params=params, tags=tags))
        store.update(run.id, RunChanges(status=RunStatus.FINISHED, end=2000, metrics=(Metric("accuracy", score, 1),)))
    if request.param == "sqlite":
        yield cli
        return
    with socket.create_server(("127.0.0.1", 0)) as listener:
        endpoint = Endpoint(listener, "secret", store, open_artifacts(uri, home=home, environ={}), run.id, experiment)
        endpoint.start()
        cli.env |= {
            "RUNPROJ_TRACKING_URI": f"http://127.0.0.1:{listener.getsockname()[1]}",
            "MLFLOW_TRACKING_TOKEN": "secret",
            "RUNPROJ_HOME": str(isolated / "another home"),
        }
        yield cli
        endpoint.close()


def names(document: dict) -> list[str]:
    return [run["name"] for run in document["runs"]]


def test_runs_are_found_and_sorted(found: Cli) -> None:
    assert names(found.json("runs", "search")) == ["run 3", "run 2", "run 1", "run 0"]
    assert names(found.json("runs", "search", "metrics.accuracy > 0.2", "--sort", "metrics.accuracy:desc")) == ["run 1", "run 0"]
    assert names(found.json("runs", "search", "tags.model = 'xgb'", "--sort", "params.lr")) == ["run 1", "run 3"]
    assert names(found.json("runs", "search", "--sort", "attributes.start_time ASC", "-n", "2")) == ["run 0", "run 1"]
    assert names(found.json("runs", "search", "--experiment", HOSTILE, "-n", "1")) == ["run 3"]
    assert names(found.json("runs", "search", "--experiment", "Default")) == []


def test_a_table_shows_what_is_asked_for_and_what_differs(found: Cli) -> None:
    result = found("runs", "search", "params.same = '1'", "--sort", "metrics.accuracy:desc", "-n", "3")
    assert result.stdout.splitlines()[0].split() == ["RUN", "NAME", "STATUS", "same", "accuracy", "lr"]
    assert result.stdout.splitlines()[1].split()[-3:] == ["1", "0.95", "0.01"]
    assert "first 3" in result.stderr
    chosen = found("runs", "search", "--columns", "tags.model,lr")
    assert chosen.stdout.splitlines()[0].split() == ["RUN", "NAME", "STATUS", "model", "lr"]
    wrong = found("runs", "search", "--columns", "rate")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "params.lr" in wrong.stderr
    assert "No run is like that" in found("runs", "search", "params.lr = 'x'").stderr


def test_csv_holds_every_value_exactly(found: Cli, tmp_path: Path) -> None:
    target = tmp_path / HOSTILE / "runs.csv"
    target.parent.mkdir(exist_ok=True)
    assert found("runs", "search", "--csv", str(target)).returncode == 0
    shown = found("runs", "search", "--csv", "-").stdout
    assert target.read_text() == shown
    rows = list(csv.DictReader(io.StringIO(shown, newline="")))
    assert [row["params.lr"] for row in rows] == list(reversed(RATES))
    assert [row["metrics.accuracy"] for row in rows] == ["5e-324", "nan", "0.95", "0.30000000000000004"]
    assert [row["tags.model"] for row in rows] == ["xgb", HOSTILE, "xgb", HOSTILE]
    assert (rows[0]["status"], rows[0]["start_time"]) == ("FINISHED", "1970-01-01T00:00:01.003Z")


def test_a_wrong_filter_is_shown_with_its_place(found: Cli) -> None:
    for arguments in (("metrics.accuracy > high",), ("--sort", "speed:desc")):
        result = found("runs", "search", *arguments)
        assert (result.returncode, result.stdout) == (2, "")
        assert "high" in result.stderr or "speed" in result.stderr
    assert found.json("runs", "search", "metrics.accuracy > high")["error"]["kind"] == "usage"


def test_a_narrow_terminal_names_what_it_leaves_out(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from runproj.core.run import Run

    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    params = tuple(Param(f"parameter {number}", "value") for number in range(9))
    runs = [Run("a" * 32, "0", "文字" * 40, RunStatus.FINISHED, 0, params=params)]
    facts = [columns.facts_of(run) for run in runs]
    hidden = columns.table(runs, facts, columns.all_columns(facts))
    lines = capsys.readouterr().out.splitlines()
    assert all(output.width(line) <= 100 for line in lines)
    assert [column.key for column in hidden] == [f"parameter {number}" for number in range(1, 9)]
    assert columns.worth_showing(facts, [(Entity.PARAM, "absent"), (Entity.ATTRIBUTE, "status")]) == [
        columns.Column(Entity.PARAM, "absent")
    ]


def test_runs_that_a_filter_finds_are_compared(found: Cli) -> None:
    comparison = found.json("runs", "compare", "--where", "params.lr < 0.06", "run 2")
    assert len(comparison["runs"]) == 3
    assert {item["name"] for item in comparison["differences"] if item["kind"] == "parameter"} == {"lr"}
    assert "run 3" in found("runs", "compare", "run 0", "run 3").stdout
    for arguments, word in (
        ((), "nothing to compare"),
        (("--where", "params.lr = '0.1'"), "1 run found"),
        (("-w", "x"), "Invalid"),
    ):
        result = found("runs", "compare", *arguments)
        assert (result.returncode, result.stdout) == (2, "")
        assert word in result.stderr


def test_a_list_leaves_out_the_parameters_that_all_runs_share(found: Cli) -> None:
    lines = found("runs", "list").stdout.splitlines()
    assert [line.split("run ")[1].split() for line in lines[1:]] == [
        ["3", "accuracy=4.941e-324", "←", "lr=0.05"],
        ["2", "accuracy=nan", "←", "lr=0.001"],
        ["1", "accuracy=0.95", "←", "lr=0.01"],
        ["0", "accuracy=0.3", "←", "lr=0.1"],
    ]
