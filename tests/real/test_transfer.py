"""Records that the real MLflow client has made come over, are read by it from `runproj server`, and go back."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from runproj.core.transfer import ORIGIN, Fingerprint
from runproj.tracking import open_full_store
from runproj.tracking.restore import Whole
from runproj.transfer import points
from support.mlflow import mlflow_environment, mlflow_serves
from support.program import Cli
from support.team import team_server

pytestmark = [pytest.mark.slow, pytest.mark.network]

# Python's -P: the folder of these scripts has a module `mlflow` of its own
SUPPORT = Path(__file__).parents[1] / "support"
RUNS = 50
FEW = 7

Look = Callable[[str], dict]


@dataclass(frozen=True)
class Made:
    """Stores that the real client has filled, and an empty database of its making."""

    database: Path
    mlruns: Path
    empty: Path


@pytest.fixture(scope="module")
def made(mlflow_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("made by mlflow")
    found = Made(folder / "mlflow.db", folder / "b" / "mlruns", folder / "c" / "empty.db")
    for path in (found.mlruns, found.empty):
        path.parent.mkdir()
    wanted = [f"sqlite:///{found.database}", str(RUNS), str(found.mlruns), str(FEW), f"sqlite:///{found.empty}", "0"]
    fill(mlflow_python, folder, *wanted)
    return found


def fill(python: Path, folder: Path, *wanted: str) -> None:
    environ = mlflow_environment(MLFLOW_ALLOW_FILE_STORE="true")
    subprocess.run([python, "-P", SUPPORT / "fill_mlflow.py", *wanted], check=True, env=environ, cwd=folder)


@pytest.fixture(scope="module")
def look(mlflow_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Look]:
    """What the real client sees at a tracking URI; asked once for each, in one process, since it takes seconds to begin."""
    seen: dict[str, dict] = {}
    command = [mlflow_python, "-P", SUPPORT / "look_mlflow.py"]
    environ, folder = mlflow_environment(MLFLOW_ALLOW_FILE_STORE="true"), tmp_path_factory.mktemp("looking")
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environ, cwd=folder, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdin and process.stdout

        def ask(uri: str) -> dict:
            if uri not in seen:
                process.stdin.write(json.dumps(uri) + "\n")
                process.stdin.flush()
                seen[uri] = dict(json.loads(process.stdout.readline()))
            return seen[uri]

        yield ask


def served(look: Look) -> dict:
    """What the real client sees on a server of the configured store."""
    with team_server() as team:
        return look(team.url)


def agree(one: dict, other: dict) -> None:
    assert one.keys() == other.keys()
    for part in one:
        assert one[part] == other[part], part


def hashes(root: Path) -> dict[str, str]:
    """sha256 of each artifact below a folder, by the end of its path that does not depend on where the folder is."""
    found = {}
    for path in root.rglob("artifacts/**/*"):
        parts = path.relative_to(root).parts
        if path.is_file() and "artifacts" in parts[1:4]:
            found["/".join(parts[1:])] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def prints(uri: str, home: Path) -> dict[str, tuple[str, Fingerprint]]:
    """Experiment and fingerprint of each run of a store of ours, by the id that it had at first."""
    whole = Whole(open_full_store(uri, home=home).database)
    runs = [(known.name, moved.run) for known in whole.experiments() for moved in whole.runs(whole.run_ids(known))]
    first = {run.id: run.tag(ORIGIN) or run.id for _, run in runs}
    found = {}
    for experiment, run in runs:
        tags = tuple(replace(tag, value=first.get(tag.value, tag.value)) for tag in run.tags)  # parent runs
        told = points.fingerprint(replace(run, tags=tags), whole.points(run.id), exact=False)
        found[first[run.id]] = (experiment, told)
    return found


def home(cli: Cli) -> Path:
    return Path(cli.env["RUNPROJ_HOME"])


def ours(cli: Cli) -> str:
    return f"sqlite:///{home(cli) / 'runproj.db'}"


def moved(result: subprocess.CompletedProcess[str]) -> dict:
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    return dict(json.loads(result.stdout))


@pytest.mark.timeout(3000)
def test_a_database_comes_over(made: Made, look: Look, cli: Cli) -> None:
    report = moved(cli("import", str(made.database), "--json"))
    assert (report["runs"], report["models"], report["versions"]) == (RUNS + 4, 2, 2)
    assert report["verified"] and not report["losses"]
    assert hashes(made.database.parent / "mlruns") == hashes(home(cli) / "artifacts")
    again = moved(cli("import", str(made.database), "--json"))
    assert {item["state"] for item in again["items"]} == {"kept"}
    agree(look(f"sqlite:///{made.database}"), served(look))  # last: loading a model leaves a file beside it


@pytest.mark.timeout(3000)
def test_a_folder_comes_over(made: Made, look: Look, cli: Cli) -> None:
    report = moved(cli("import", str(made.mlruns), "--json"))
    assert (report["runs"], report["models"], report["losses"]) == (FEW + 4, 2, [])
    agree(look(str(made.mlruns)), served(look))


@pytest.mark.timeout(3000)
def test_a_server_comes_over(mlflow_python: Path, look: Look, cli: Cli, tmp_path: Path) -> None:
    with mlflow_serves(mlflow_python, tmp_path) as url:  # of its own: on a shared one are runs of other tests
        fill(mlflow_python, tmp_path, url, str(FEW))
        report = moved(cli("import", url, "--json"))
        assert (report["runs"], report["models"]) == (FEW + 4, 2)
        agree(look(url), served(look))


@pytest.mark.timeout(3000)
def test_a_database_comes_over_into_postgresql(made: Made, look: Look, cli: Cli, postgres: str) -> None:
    cli.env["RUNPROJ_TRACKING_URI"] = postgres
    report = moved(cli("import", str(made.database), "--json"))
    assert report["verified"] and report["runs"] == RUNS + 4
    cli.env.pop("RUNPROJ_TRACKING_URI")
    moved(cli("import", str(made.database), "--json"))
    assert prints(postgres, home(cli)) == prints(ours(cli), home(cli))


@pytest.mark.timeout(3000)
def test_killed_at_any_time_it_goes_on(made: Made, cli: Cli) -> None:
    kills = 0
    for number in range(1, 12):
        process = subprocess.Popen(cli.command("import", str(made.database)), env=cli.env, stderr=subprocess.DEVNULL)
        if finished(process, home(cli) / "transfers", number * 4):
            break
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        kills += 1
    report = moved(cli("import", str(made.database), "--json"))
    assert kills >= 1
    assert report["verified"] and report["runs"] == RUNS + 4
    assert sum(item["state"] == "kept" for item in report["items"]) >= 4
    other = home(cli) / "other.db"
    moved(cli("import", str(made.database), "--into", f"sqlite:///{other}", "--json"))
    assert prints(ours(cli), home(cli)) == prints(f"sqlite:///{other}", home(cli))
    assert hashes(made.database.parent / "mlruns") == hashes(home(cli) / "artifacts")


def finished(process: subprocess.Popen[bytes], journals: Path, lines: int) -> bool:
    """Wait until a transfer has noted so many things, or has ended; whether it has ended."""
    while process.poll() is None:
        if sum(path.read_bytes().count(b"\n") for path in journals.glob("*.jsonl")) >= lines:
            return False
        time.sleep(0.002)
    return True


@pytest.mark.timeout(3000)
@pytest.mark.parametrize("kind", ["folder", "database", "server"])
def test_what_goes_out_comes_back(kind: str, made: Made, look: Look, cli: Cli, tmp_path: Path, mlflow_python: Path) -> None:
    source = made.mlruns if kind == "folder" else made.database  # what MLflow's databases cannot hold is not in its own
    moved(cli("import", str(source), "--json"))
    seen = served(look)
    target = tmp_path / "out" / "mlruns"
    if kind == "database":
        target = made.empty
    uri = {"folder": str(target), "database": f"sqlite:///{target}"}.get(kind, "")
    if kind == "server":
        with team_server("--store", f"sqlite:///{tmp_path / 'other.db'}") as team:
            moved(cli("export", team.url, "--json"))
            agree(seen, look(team.url))
            moved(cli("import", team.url, "--into", f"sqlite:///{tmp_path / 'back.db'}", "--json"))
    else:
        moved(cli("export", str(target), "--json"))
        agree(seen, look(uri))
        moved(cli("import", str(target), "--into", f"sqlite:///{tmp_path / 'back.db'}", "--json"))
        other = moved(cli("export", str(target), "--from", f"sqlite:///{tmp_path / 'back.db'}", "--json", "--suffix", "-2"))
        assert {item["state"] for item in other["items"]} == {"there"}
    assert prints(f"sqlite:///{tmp_path / 'back.db'}", tmp_path) == prints(ours(cli), home(cli))
