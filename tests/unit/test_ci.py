"""`runproj ci`: a run and a verdict in the words of CI systems, which the project itself cannot put in its mouth."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from conftest import Repository
from runproj.ci import System, Words, document, summary, system
from runproj.core.run import Run, RunStatus, Tag
from runproj.core.verdict import Level, Replay, Verdict
from support.program import SYSTEM, Cli

FILES = {
    "runproj.yaml": (
        "name: ci\n"
        "entry_points:\n"
        "  main: {command: [python, main.py], outputs: [out.txt]}\n"
        "  moves: {command: [python, moves.py]}\n"
        "  fails: {command: [python, -c, \"print('::error::mine'); raise SystemExit(3)\"]}\n"
    ),
    "main.py": "print('::set-env name=X::evil')\nopen('out.txt', 'w').write('out')\n",
    "moves.py": "import random, runproj\nrunproj.log_metric('a', random.random())\n",
}


@pytest.fixture(autouse=True)
def _nobody_in_particular(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if no CI system ran the tests."""
    for name in ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY", "GITLAB_CI"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def repository_of_ci(repository: Repository) -> Repository:
    repository.commit(dict(FILES))
    return repository


def suites(path: Path) -> dict[str, tuple[int, int, int]]:
    """Tests, failures and errors of each suite, by the first words of its name; counted, and as it says itself."""
    found = {}
    for suite in ElementTree.parse(path).getroot():
        cases = suite.findall("testcase")
        counted = (len(cases), len(suite.findall("testcase/failure")), len(suite.findall("testcase/error")))
        assert counted == tuple(int(suite.get(name, "")) for name in ("tests", "failures", "errors"))
        found[" ".join(suite.get("name", "").split()[:2])] = counted
    return found


def test_on_github_it_folds_annotates_and_sums_up(cli: Cli, repository_of_ci: Repository, tmp_path: Path) -> None:
    page = tmp_path / "summary.md"
    cli.env |= {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(page), "CI": "true"}
    files = ("--junit", str(tmp_path / "j.xml"), "--report", str(tmp_path / "r.html"), "--capsule", str(tmp_path / "c.zip"))
    result = cli("ci", str(repository_of_ci.path), *SYSTEM, *files)
    assert result.returncode == 0, result.stdout + result.stderr
    lines = result.stdout.splitlines()
    assert [line.split("::")[1] for line in lines if line.startswith("::group")] == ["group", "group"]
    (token,) = {line.split("::")[2] for line in lines if line.startswith("::stop-commands::")}
    inside = lines[lines.index(f"::stop-commands::{token}") : lines.index(f"::{token}::")]
    assert "::set-env name=X::evil" in inside
    assert not [line for line in lines if line.startswith("::set-env") and line not in inside]
    assert any(line.startswith("::notice title=FINISHED") and "R4" in line for line in lines)
    assert "R4 reproduced bit by bit" in page.read_text() and repository_of_ci.head in page.read_text()
    assert suites(tmp_path / "j.xml") == {"runproj run": (1, 0, 0), "runproj reproduce": (2, 0, 0)}
    assert (tmp_path / "r.html").read_text().startswith("<!DOCTYPE html>") and (tmp_path / "c.zip").exists()


def test_what_does_not_come_back_fails_the_job(cli: Cli, repository_of_ci: Repository, tmp_path: Path) -> None:
    cli.env |= {"GITLAB_CI": "true", "CI": "true"}
    command = ("ci", repository_of_ci.url, "-e", "moves", *SYSTEM)
    result = cli(*command, "--junit", str(tmp_path / "j.xml"))
    assert result.returncode == 10, result.stdout + result.stderr
    sections = re.findall(r"\x1b\[0Ksection_(start|end):\d+:(\w+)\s\x1b\[0K", result.stdout)  # \r, which text mode makes \n
    names = ("runproj_run", "runproj_reproduce")
    assert sections == [(what, name) for name in names for what in ("start", "end")]
    assert "R0" in result.stdout and "R1 was demanded" in result.stdout
    found = suites(tmp_path / "j.xml")
    assert found["runproj run"] == (1, 0, 0) and found["runproj reproduce"][1] > 0
    view = cli.json(*command, "--at-least", "R0")
    assert view["exit_code"] == 0 and view["verdict"]["level"] == "R0"
    assert cli.json(*command, "-n", "0")["verdict"] is None


def test_what_fails_by_itself_is_told_with_its_code(cli: Cli, repository_of_ci: Repository, tmp_path: Path) -> None:
    cli.env["GITHUB_ACTIONS"] = "true"
    result = cli("ci", repository_of_ci.url, "-e", "fails", *SYSTEM, "--junit", str(tmp_path / "j.xml"))
    assert result.returncode == 3
    assert re.search(r"(?m)^::error title=FAILED .*::exit code 3", result.stdout)
    assert suites(tmp_path / "j.xml") == {"runproj run": (1, 1, 0)}
    result = cli("ci", repository_of_ci.url, "-v", "no-such-branch", *SYSTEM, "--junit", str(tmp_path / "j.xml"))
    assert result.returncode == 125 and "::error title=" in result.stdout and "no-such-branch" in result.stdout
    assert suites(tmp_path / "j.xml") == {"runproj run": (1, 0, 1)}
    for wrong in (("--at-least", "R9"), ("--report", "x.pdf")):
        assert cli("ci", repository_of_ci.url, *wrong).returncode == 2


def test_nothing_that_is_said_becomes_a_command() -> None:
    words = Words(System.GITHUB)
    (line,) = words.annotation("error", "a:b,c\n::x", "100%\r\n::set-env name=X::y")
    assert line == "::error title=a%3Ab%2Cc%0A%3A%3Ax::100%25%0D%0A::set-env name=X::y"
    assert words.begin("n", "a\n::b")[0] == "::group::a%0A::b"
    assert Words(System.GITHUB).token != words.token
    told = Words(System.GITLAB).begin("n", "a\x1b[0Ksection_end:1:n\r") + Words(System.OTHER).annotation(
        "error", "a\n", "b\nc\x1b"
    )
    assert "\x1b" not in told[0].partition("\r")[2].removeprefix("\x1b[0K") and told[1:] == ["error: a ", "  b", "  c "]
    assert [system(env) for env in ({"GITHUB_ACTIONS": "true"}, {"GITLAB_CI": "true"}, {"CI": "1"})] == list(System)


def test_junit_and_summary_hold_whatever_text_there_is() -> None:
    evil = "<script>\x00\x1b]]>&\ufffe\udcff\n`x`|"
    run = Run("a" * 32, "1", "n", RunStatus.FAILED, 0, 1500, tags=(Tag("runproj.reason", evil),))
    root = ElementTree.fromstring(document(run, None, "", Level.R1).encode())
    assert root[0].get("time") == "1.500" and "<script>" in (root[0][0][0].text or "")
    verdict = Verdict(run.id, Level.FAILED, Level.FAILED.words, (Replay(Level.FAILED, reason=evil),))
    whole = ElementTree.fromstring(document(None, verdict, evil, Level.R1).encode())
    assert [suite.get("errors") for suite in whole] == ["1", "1"]
    assert not re.search(r"(?<!\\)[<`|]", summary(verdict, [evil]))
    assert json.dumps(summary(None, []))


BISECT = Path(__file__).resolve().parents[2] / "docs/how-to/bisect.md"
ROLL = "import runproj\nrunproj.log_metric('a', {value})\n"


def bisected(repository: Repository, lines: list[str], bad: str, good: str, cli: Cli) -> str:
    """What git says in the end after the commands of a recipe."""
    env = {**cli.env, "PATH": f"{Path(sys.executable).parent}:{cli.env['PATH']}"}
    said = ""
    for line in (*lines, "git bisect reset"):
        words = shlex.split(line.replace("BAD GOOD", f"{bad} {good}"))
        done = subprocess.run(words, cwd=repository.path, env=env, capture_output=True, text=True)
        said += done.stdout + done.stderr
    return said


def test_the_recipes_of_the_bisect_page_find_the_commit(cli: Cli, repository: Repository) -> None:
    commands = [line.strip() for line in BISECT.read_text().splitlines() if line.startswith("    git bisect")]
    recipes = [commands[first : first + 2] for first in range(0, len(commands), 2)]
    assert [recipe[0].split()[2] for recipe in recipes] == ["start"] * 3
    good = repository.commit({"main.py": ROLL.format(value=1), "check.py": "print('good')\n"})
    project = "name: b\nentry_points: {main: {command: [python, main.py]}, check: {command: [python, check.py]}}\n"
    good = repository.commit({"runproj.yaml": project})
    repository.commit({"a": "1"})
    wrong = repository.commit({"check.py": "raise SystemExit(4)\n"})
    chance = repository.commit({"main.py": ROLL.format(value="__import__('random').random()")})
    bad = repository.commit({"b": "1"})
    for recipe, culprit in zip(recipes, (wrong, wrong, chance), strict=True):
        said = bisected(repository, recipe, bad, good, cli)
        assert f"{culprit} is the first bad commit" in said, said
    assert repository.head == bad and repository.git("status", "--porcelain") == ""
