"""A team's server for a whole test session, over a store of its own, and scripts of real clients that are run against it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from support.mlflow import mlflow_environment
from support.team import Team, team_server

CLIENTS = Path(__file__).parent / "clients"


@pytest.fixture(scope="session")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    """A `runproj server` in a process of its own, on a free port over a new store."""
    with team_server(home=tmp_path_factory.mktemp("team home")) as found:
        yield found


class Answers(NamedTuple):
    """What a script printed, by section, and what it said on standard error."""

    sections: dict[str, object]
    said: str


def start_client(python: Path, script: str, uri: str, *arguments: str, folder: Path) -> subprocess.Popen[str]:
    """Start a script of `support/clients`, with nothing that leads its client anywhere else."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [str(python), str(CLIENTS / script), *arguments]
    environment = mlflow_environment(MLFLOW_TRACKING_URI=uri)
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True
    )


def answers(process: subprocess.Popen[str]) -> Answers:
    """Wait for a script, and read its last line."""
    try:
        printed, said = process.communicate(timeout=280)
    finally:
        process.kill()
    assert process.returncode == 0, said[-3000:]
    (line,) = (line for line in printed.splitlines() if line.startswith("RESULT"))
    found = Answers(json.loads(line.removeprefix("RESULT")), said)
    failed = {name: value[2] for name, value in found.sections.items() if isinstance(value, list) and value[:1] == ["failed"]}
    assert not failed, "\n".join(failed.values())
    return found


def differences(first: object, second: object, path: str = "") -> dict[str, tuple[object, object]]:
    """Where two answers are not equal, by path."""
    if isinstance(first, dict) and isinstance(second, dict):
        found: dict[str, tuple[object, object]] = {}
        for key in dict.fromkeys([*first, *second]):
            found |= differences(first.get(key, "(nothing)"), second.get(key, "(nothing)"), f"{path}/{key}")
        return found
    return {} if first == second else {path: (first, second)}
