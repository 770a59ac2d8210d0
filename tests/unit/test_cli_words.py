"""What the commands say: about nothing, about one, about what is wrong."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from conftest import Repository
from runproj.cli import output
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


def test_a_wait_that_ends_too_soon_says_so_once(cli: Cli, project: Repository) -> None:
    run = cli("run", project.url, "-e", "wait", "--detach", "--quiet", *SYSTEM)
    assert "background" not in run.stderr
    result = cli("wait", run.stdout.strip(), "--timeout", "0.2s")
    assert (result.returncode, result.stderr.count("RUNNING")) == (124, 1), result.stderr
    assert "is KILLED." in cli("runs", "stop", run.stdout.strip()).stderr


def test_nothing_and_one_are_said_as_such(cli: Cli, project: Repository) -> None:
    assert cli("env", "list").stderr == "No environments yet.\n"
    assert cli("env", "prune", "--dry-run").stderr == "There is nothing to remove.\n"
    assert cli("gc", "--dry-run").stderr == "There is nothing to remove.\n"
    project.write({"runproj.yaml": "entry_points: {main: {command: x, comand: y}}\n"})
    assert "1 error, 0 warnings." in cli("validate", str(project.path)).stderr
    cli("run", project.url, "-e", "fail", *SYSTEM)
    shown = cli("runs", "show", "@last").stdout
    assert shown.count("exit code 3") == 1
    cli("runs", "delete", "@last")
    assert "1 thing to remove" in cli("gc", "--dry-run", "--deleted").stderr


def test_a_table_is_cut_at_the_width_that_its_letters_take(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("NO_COLOR", "1")
    output.table(("NAME",), [("文字" * 20,), ("x" * 20,)])
    wide, exact = capsys.readouterr().out.splitlines()[1:]
    assert (output.width(wide), wide[-1]) == (19, "…")
    assert exact == "x" * 20


def test_a_narrow_table_leaves_out_what_matters_least(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("NO_COLOR", "1")
    heads = {}
    for columns in (100, 60, 50, 20):
        monkeypatch.setenv("COLUMNS", str(columns))
        output.table(("ID", "WHEN", "COMMIT", "WHAT"), [("1", "yesterday", "c" * 20, "w" * 60)], spare=(2, 1))
        heads[columns] = capsys.readouterr().out.split("\n")[0].split()
    assert heads == {100: ["ID", "WHEN", "COMMIT", "WHAT"], 60: ["ID", "WHEN", "WHAT"], 50: ["ID", "WHAT"], 20: ["ID", "WHAT"]}


@pytest.mark.parametrize("group", [(), ("runs",), ("experiments",), ("models",), ("env",), ("user",)])
def test_a_list_of_commands_says_whole_sentences(cli: Cli, group: tuple[str, ...]) -> None:
    shown = cli(*group, "-h").stdout
    assert "Commands:" in shown
    assert not [line for line in shown.splitlines() if line.endswith("...") and "Usage" not in line]


@pytest.mark.parametrize("command", ["run", "gc", "server", "runs list", "runs search", "runs correlate", "user token"])
def test_options_say_what_they_take_in_words(cli: Cli, command: str) -> None:
    assert not re.findall(r"<(?:str|int|float)[^>]*>", cli(*command.split(), "-h").stdout)


def test_a_wrong_command_line_is_told_where_the_right_one_is(cli: Cli) -> None:
    assert cli.json("runs", "list", "--limit", "0")["error"]["fix"] == "runproj runs list --help"
    assert cli.json("plan")["error"]["fix"] == "runproj plan --help"
    assert "Did you mean 'list'" in cli("runs", "lst").stderr
    assert "runproj experiments list" in cli("runs", "list", "--experiment", "Defalt").stderr


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("runproj experiments ", "restore"),
        ("runproj runs list --experiment ", "Default"),
        ("runproj runs list --status ", "FAILED"),
        ("runproj runs artifacts ", "@last"),
        ("runproj sweep re", "resume"),
        ("runproj run . -e ", "main"),
        ("runproj run . --trust -e ma", "main"),
        ("runproj run -e fa", "fail"),
        ("runproj run . -P ", "lr="),
        ("runproj sweep . -e main -P l", "lr="),
        ("runproj run ../project#. -P l", "lr="),
    ],
)
def test_the_shell_is_offered_what_fits(cli: Cli, project: Repository, words: str, offered: str) -> None:
    cli.env |= {"_RUNPROJ_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    done = cli(cwd=project.path)
    assert (done.returncode, offered in done.stdout.split()) == (0, True), done.stdout + done.stderr


def test_logs_can_be_read_by_several_at_once(cli: Cli, project: Repository) -> None:
    cli("run", project.url, *SYSTEM)
    readers = [cli.start("runs", "logs", "@last", "--all") for _ in range(4)]
    assert {(reader.communicate(), reader.returncode) for reader in readers} == {(('["--lr", "0.1", "--name", "x"]\n', ""), 0)}
    assert list((Path(cli.env["RUNPROJ_HOME"]) / "cache" / "views").iterdir()) == []


def test_a_plan_is_for_people_unless_json_is_asked_for(cli: Cli, project: Repository) -> None:
    shown = cli("plan", project.url, "-P", "lr=0.5", *SYSTEM)
    lines = dict(line.split(maxsplit=1) for line in shown.stdout.splitlines())
    assert (lines["commit"], lines["lr"]) == (project.head, "0.5  (-P)")
    assert cli("run", project.url, "-P", "lr=0.5", "--dry-run", *SYSTEM).stdout == shown.stdout


def test_the_last_line_names_what_took_time(cli: Cli, project: Repository) -> None:
    project.commit({"train.py": "import time; time.sleep(0.1)\n"})
    line = cli("run", project.url, *SYSTEM).stderr.splitlines()[-1]
    assert re.fullmatch(r"FINISHED in \S+s  \S+ \(\w{8}\)  (\w+ \S+s  )*run \S+s(  \w+ \S+s)*", line), line


def test_the_experiment_of_the_settings_is_used(cli: Cli, project: Repository) -> None:
    home = Path(cli.env["RUNPROJ_HOME"])
    home.mkdir(parents=True, exist_ok=True)
    (home / "config.toml").write_text('experiment = "chosen once"\n')
    cli("run", project.url, *SYSTEM)
    cli("run", project.url, "--experiment-name", "another", *SYSTEM)
    assert len(cli.json("runs", "list", "--experiment-name", "chosen once")["runs"]) == 1
    cli("rerun", "@last")
    assert len(cli.json("runs", "list", "--experiment-name", "another")["runs"]) == 2, "a rerun stays with what it repeats"


def test_who_names_a_script_is_told_how(cli: Cli, project: Repository) -> None:
    result = cli("run", str(project.path / "train.py"), *SYSTEM)
    assert result.returncode == 125
    assert "-e train.py" in result.stderr


def test_both_streams_can_be_followed(cli: Cli, project: Repository) -> None:
    project.commit({"train.py": "import sys, time\nprint('out', flush=True); time.sleep(1); print('err', file=sys.stderr)\n"})
    run = cli("run", project.url, "--detach", "--quiet", *SYSTEM).stdout.strip()
    assert cli("runs", "logs", "-af", run).stdout == "out\nerr\n"
    assert cli("runs", "logs", "-a", run).stdout == "out\nerr\n"
