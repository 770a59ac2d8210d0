"""Capsules at the command line: taken in once, whole, and never more than their run."""

from __future__ import annotations

import json
import os
import signal
import time
import zipfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

from conftest import HOSTILE, Repository
from runproj.core.capsule import MANIFEST
from support.program import SYSTEM, Cli

FILES = {
    "runproj.yaml": "name: small\nentry_points: {main: {command: [python, main.py], outputs: [out.txt]}}\n",
    "main.py": "import runproj\nrunproj.log_metrics({'a': 1.5})\nopen('out.txt', 'w').write('out')\n",
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A capsule, and the id of its run."""
    home = tmp_path_factory.mktemp(HOSTILE.replace("\n", ""))
    cli = Cli(home)
    cli.env |= {"HOME": str(home), "RUNPROJ_HOME": str(home / "runproj"), "GIT_CONFIG_GLOBAL": str(home / ".gitconfig")}
    (home / ".gitconfig").write_text("[user]\n name = Test\n email = test@example.org\n")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("HOME", "GIT_CONFIG_GLOBAL"):
            patch.setenv(name, cli.env[name])
        repository = Repository(home / "project")
        repository.commit(dict(FILES))
    run = cli.json("run", repository.url, *SYSTEM)["run"]["id"]
    exported = cli("export", run[:8], str(home / "capsule.zip"))
    assert exported.returncode == 0, exported.stderr
    assert "does not hold it" in exported.stderr and "0 packages" in exported.stdout
    return home / "capsule.zip", run


def changed(capsule: Path, target: Path, change: Callable[[dict], None], files: dict[str, bytes] | None = None) -> Path:
    """A capsule that says something else, and agrees with itself."""
    with zipfile.ZipFile(capsule) as source, zipfile.ZipFile(target, "w") as archive:
        manifest = json.loads(source.read(MANIFEST))
        content = {name: source.read(name) for name in source.namelist() if name != MANIFEST} | (files or {})
        manifest["files"] = [
            {"path": name, "size": len(data), "sha256": sha256(data).hexdigest()} for name, data in content.items()
        ]
        change(manifest)
        for name, data in content.items():
            archive.writestr(name, data)
        archive.writestr(MANIFEST, json.dumps(manifest))
    return target


def test_taken_in_twice_it_is_there_once(cli: Cli, made: tuple[Path, str]) -> None:
    capsule, run = made
    looked = cli.json("import", str(capsule), "--dry-run")
    assert looked["verified"] and cli.json("runs", "list")["runs"] == []
    for state in ("copied", "kept"):
        found = cli.json("import", str(capsule))
        assert found["run"] == run and found["verified"]
        assert [item["state"] for item in found["transfer"]["items"]] == [state]
    assert [item["id"] for item in cli.json("runs", "list")["runs"]] == [run]
    again = cli.json("rerun", run, "--offline")
    assert again["run"]["status"] == "FINISHED" and again["plan"]["rerun_of"] == run


def test_a_run_that_was_changed_here_stays_as_it_is(cli: Cli, made: tuple[Path, str], tmp_path: Path) -> None:
    capsule, run = made
    cli.json("import", str(capsule))
    with zipfile.ZipFile(capsule) as archive:
        record = archive.read(f"runs/{run}/run.json").replace(b'"1.5"', b'"1.6"').replace(b'"FINISHED"', b'"FAILED"')
    other = changed(capsule, tmp_path / "other.zip", lambda manifest: None, {f"runs/{run}/run.json": record})
    result = cli("import", str(other), "--json")
    assert result.returncode == 1
    assert [item["state"] for item in json.loads(result.stdout)["transfer"]["items"]] == ["differs"]
    assert cli.json("runs", "show", run)["run"]["status"] == "FINISHED"


def bundle_elsewhere(manifest: dict) -> None:
    manifest["code"]["repositories"][0]["bundle"] = "../../../../evil"


def other_commit(manifest: dict) -> None:
    manifest["code"]["repositories"][0]["commit"] = "0" * 40


def option_as_commit(manifest: dict) -> None:
    manifest["code"]["repositories"][0]["commit"] = "--upload-pack=touch evil"


def lfs_elsewhere(manifest: dict) -> None:
    manifest["code"]["lfs"] = ["../../evil"]


def wheel_elsewhere(manifest: dict) -> None:
    wheel = {"path": "wheels/../../evil.whl", "sha256": "0" * 64}
    manifest["environment"]["wheels"] = [wheel]


def wheel_of_elsewhere(manifest: dict) -> None:
    wheel = {"path": manifest["files"][0]["path"], "sha256": manifest["files"][0]["sha256"], "of": "../evil"}
    manifest["environment"]["wheels"] = [wheel]


def missing_input(manifest: dict) -> None:
    file = {"path": "../evil", "size": 1, "sha256": "0" * 64}
    manifest["inputs"] = [{"kind": "input", "name": "x", "uri": "x", "sha256": "", "files": [file], "folder": True}]


def run_elsewhere(manifest: dict) -> None:
    manifest["run"], manifest["runs"] = "../../evil", ["../../evil"]


@pytest.mark.parametrize(
    "change",
    [
        bundle_elsewhere,
        other_commit,
        option_as_commit,
        lfs_elsewhere,
        wheel_elsewhere,
        wheel_of_elsewhere,
        missing_input,
        run_elsewhere,
    ],
)
def test_a_manifest_that_means_harm_gets_nothing(
    cli: Cli, made: tuple[Path, str], tmp_path: Path, change: Callable[[dict], None]
) -> None:
    hostile = changed(made[0], tmp_path / "hostile.zip", change)
    result = cli("import", str(hostile), "--trust")
    assert result.returncode == 125, result.stdout
    assert "Traceback" not in result.stderr
    assert cli.json("runs", "list")["runs"] == []
    assert not [path for path in tmp_path.rglob("*evil*") if path.name != "hostile.zip"]
    assert cli.json("import", str(made[0]))["verified"]  # and nothing of it is in the way of the real one


def test_an_import_that_was_killed_is_completed_by_the_next(cli: Cli, made: tuple[Path, str]) -> None:
    capsule, run = made
    for pause in (0.15, 0.3, 0.4, 0.5):
        process = cli.start("import", str(capsule))
        time.sleep(pause)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert cli.json("import", str(capsule))["verified"]
    assert cli.json("rerun", run, "--offline")["run"]["status"] == "FINISHED"
    scratch = Path(cli.env["RUNPROJ_HOME"], "cache", "scratch")
    assert os.listdir(scratch) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("export", "@last", "capsule"), "no name of a capsule"),
        (("export", "capsule.zip"), "which?"),
        (("export", "@last", "capsule.zip", "--experiment", "x"), "mean nothing"),
        (("export", "folder", "--no-wheels"), "are for capsules"),
        (("import", "capsule.zip"), "There is no"),
        (("import", "capsule.zip", "--experiment", "x"), "holds one run"),
        (("import", "folder", "--trust"), "is no capsule"),
    ],
)
def test_what_has_no_meaning_is_said(cli: Cli, arguments: tuple[str, ...], said: str) -> None:
    result = cli(*arguments)
    assert result.returncode == 2 and said in result.stderr
