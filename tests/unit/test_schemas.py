"""The published schemas are what the types say, and what commands print fits them."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from conftest import Repository
from runproj import schemas
from support.program import SYSTEM, Cli

FOLDER = Path(__file__).parents[2] / "schemas"


def test_schemas_are_fresh() -> None:
    assert schemas.stale(FOLDER) == []


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.json")), ids=lambda path: path.name)
def test_schemas_are_schemas(path: Path) -> None:
    jsonschema.Draft202012Validator.check_schema(json.loads(path.read_text()))


def test_what_commands_print_fits(cli: Cli, project: Repository) -> None:
    def check(name: str, *arguments: str) -> None:
        schema = json.loads((FOLDER / f"{name}.schema.json").read_text())
        jsonschema.validate(cli.json(*arguments), schema)

    check("plan", "plan", project.url, *SYSTEM)
    check("run", "run", project.url, *SYSTEM)
    check("run", "rerun", "@last", "-P", "lr=3")
    check("run", "runs", "show", "@last")
    check("runs-list", "runs", "list")
    check("runs-list", "wait", "@last")
    check("runs-list", "runs", "stop", "@last")
    check("runs-compare", "runs", "compare", "@last", "@last~1")
    check("runs-list", "runs", "delete", "@last")
    check("gc", "gc", "--deleted", "--days", "0")
    check("validate", "validate", str(project.path))
    check("env-list", "env", "list")
    check("env-list", "env", "verify")
    check("env-list", "env", "prune", "--days", "0")
    check("doctor", "doctor")
