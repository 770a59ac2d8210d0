"""What tests run as forks is what users start: same words, same exit code, same variables, same folder."""

from __future__ import annotations

import os
import subprocess

import pytest

from conftest import Repository
from support import warm
from support.program import SYSTEM, Cli


def fresh(cli: Cli, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = cli.command(*arguments)
    return subprocess.run(command, cwd=cli.home, env=cli.env, capture_output=True, text=True, stdin=subprocess.DEVNULL)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--version",),
        ("runs", "list"),
        ("runs", "show", "nothing"),
        ("run", "nowhere"),
        ("no-such-command",),
        ("validate", "--json"),
    ],
)
def test_a_fork_says_what_a_fresh_start_says(cli: Cli, arguments: tuple[str, ...]) -> None:
    assert warm.find(cli.env)
    forked, started = cli(*arguments), fresh(cli, *arguments)
    assert (forked.returncode, forked.stdout, forked.stderr) == (started.returncode, started.stdout, started.stderr)


def test_a_command_is_given_the_same_variables_and_descriptors(cli: Cli, repository: Repository) -> None:
    code = "import os, sys\nprint(sorted(os.environ), len(os.listdir('/proc/self/fd')), sys.stdin.read(), sys.path[1:])\n"
    repository.commit({"runproj.yaml": "entry_points: {main: {command: [python, main.py]}}\n", "main.py": code})
    cli.env |= {"TZ": "Asia/Tokyo", "NOTE": "this one only"}
    forked, started = cli("run", repository.url, *SYSTEM), fresh(cli, "run", repository.url, *SYSTEM)
    assert forked.returncode == 0 and forked.stdout == started.stdout
    assert "'NOTE'" in forked.stdout and "NOTE" not in os.environ


def test_what_the_interpreter_reads_itself_is_a_start_of_its_own(cli: Cli) -> None:
    for name in ("PYTHONPATH", "LC_ALL", "LD_PRELOAD", "PYTHONWARNINGS"):
        assert warm.find({**cli.env, name: "x"}) is None
