"""What the commands say: about nothing, about one, about what is wrong."""

from __future__ import annotations

from conftest import Repository
from support.program import SYSTEM, Cli


def test_a_list_of_an_unknown_experiment_says_so_and_makes_none(cli: Cli, project: Repository) -> None:
    assert cli("run", project.url, "--experiment-name", "known", *SYSTEM).returncode == 0
    for _ in range(2):
        result = cli("runs", "list", "--experiment-name", "unknown")
        assert (result.returncode, result.stdout) == (1, "")
        assert "There is no experiment 'unknown'" in result.stderr
    assert "No run is like that" in cli("runs", "list", "--experiment-name", "known", "--status", "failed").stderr
    wrong = cli("runs", "list", "--status", "done")
    assert wrong.returncode == 2
    assert "'done'" in wrong.stderr
    assert "FINISHED" in wrong.stderr
