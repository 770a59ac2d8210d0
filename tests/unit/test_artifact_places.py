"""Artifacts apart from the store: a run whose files go to another folder, and to a bucket, from beginning to end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from conftest import HOSTILE, Repository
from support.program import SYSTEM, Cli


@pytest.fixture(params=["folder", "file url", "config", pytest.param("s3", marks=pytest.mark.slow)])
def there(request: pytest.FixtureRequest, tmp_path: Path, cli: Cli) -> Cli:
    """The program, with artifacts in another place."""
    folder = tmp_path / HOSTILE / "elsewhere"
    match request.param:
        case "folder":
            cli.env["RUNPROJ_ARTIFACTS_URI"] = str(folder)
        case "file url":
            cli.env["RUNPROJ_ARTIFACTS_URI"] = folder.as_uri()
        case "config":
            home = Path(cli.env["RUNPROJ_HOME"])
            home.mkdir(parents=True, exist_ok=True)
            (home / "config.toml").write_text(f"artifacts_uri = {json.dumps(str(folder))}\n")
        case "s3":
            url = request.getfixturevalue("s3")
            cli.env.update({"RUNPROJ_ARTIFACTS_URI": url, **request.getfixturevalue("s3_environment")})
    return cli


def test_a_run_with_artifacts_elsewhere(there: Cli, project: Repository, tmp_path: Path) -> None:
    result = there("run", project.url, "-P", "lr=0.5", *SYSTEM)
    assert result.returncode == 0, result.stderr
    shown = there.json("runs", "show", "@last")
    paths = [entry["path"] for entry in shown["artifacts"]]
    assert {"logs/stdout.log", "runproj/plan.json", "runproj/record.json"} <= set(paths), paths
    assert "0.5" in there("runs", "logs", "@last").stdout
    assert not (Path(there.env["RUNPROJ_HOME"]) / "artifacts").exists()
    assert there("runs", "delete", "@last").returncode == 0
    cleared = there("gc", "--deleted")
    assert cleared.returncode == 0, cleared.stderr
