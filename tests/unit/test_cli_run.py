"""`runproj run` from end to end, as its user types it: real repositories, real processes, real records."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import time
from pathlib import Path

import pytest

from conftest import Repository
from runproj import proc
from runproj.leases import Leases
from support.program import PROJECT, SYSTEM, Cli


def last(cli: Cli) -> dict:
    return cli.json("runs", "show", "@last")


def test_a_project_from_a_git_url_is_run_and_recorded(cli: Cli, project: Repository) -> None:
    result = cli("run", project.url, "-P", "lr=0.25", "-P", "name=it's", *SYSTEM)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout) == ["--lr", "0.25", "--name", "it's"]
    view = last(cli)
    run = view["run"]
    assert run["status"] == "FINISHED"
    assert {p["key"]: p["value"] for p in run["params"]} == {"lr": "0.25", "name": "it's"}
    tags = {t["key"]: t["value"] for t in run["tags"]}
    assert tags["mlflow.source.git.commit"] == project.head
    assert tags["mlflow.project.entryPoint"] == "main"
    assert view["plan"]["code"]["commit"] == project.head
    assert view["record"]["machine"]["cores"] >= 1
    assert view["exit_code"] == 0
    assert "PATH" in view["record"]["env_names"]
    assert {a["path"] for a in view["artifacts"]} >= {"logs/stdout.log", "logs/stderr.log", "runproj/plan.json"}
    assert cli("runs", "logs", "@last").stdout == result.stdout


def test_json_keeps_standard_output_for_the_document(cli: Cli, project: Repository) -> None:
    result = cli("run", project.url, *SYSTEM, "--json")
    assert json.loads(result.stdout)["run"]["status"] == "FINISHED"
    assert '["--lr", "0.1"' in result.stderr


def test_the_exit_code_is_the_projects_own(cli: Cli, project: Repository) -> None:
    assert cli("run", project.url, "-e", "fail", *SYSTEM).returncode == 3
    view = last(cli)
    assert (view["run"]["status"], view["exit_code"], view["reason"]) == ("FAILED", 3, "exit code 3")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["-P", "lr=abc"], 2, ["lr", "float", "abc"]),
        (["-e", "missing"], 2, ["a", "b"]),
        (["-e", "mian"], 125, ["mian", "main"]),
        (["-v", "no-such-branch"], 125, ["no-such-branch"]),
        (["-P", "lr"], 2, ["lr", "name"]),
        (["-P", "lr=1", "-P", "lr=2"], 2, ["lr"]),
        (["--backend", "moon"], 2, ["moon", "local"]),
        (["--timeout", "soon"], 2, ["soon"]),
        (["--nonsense"], 2, ["--nonsense"]),
    ],
)
def test_a_wrong_request_is_explained_and_leaves_no_run(
    cli: Cli, project: Repository, arguments: list[str], code: int, words: list[str]
) -> None:
    result = cli("run", project.url, *arguments, *SYSTEM)
    assert result.returncode == code, result.stderr
    assert all(word in result.stderr for word in words), result.stderr
    assert "Traceback" not in result.stderr
    assert cli.json("runs", "list")["runs"] == []


def test_an_unreachable_remote_is_explained(cli: Cli) -> None:
    result = cli("run", "git://127.0.0.1:1/nothing", *SYSTEM)
    assert result.returncode == 125
    assert "127.0.0.1" in result.stderr


def test_a_store_that_was_away_keeps_no_later_command_waiting(cli: Cli, project: Repository) -> None:
    active = Path(cli.env["RUNPROJ_HOME"]) / "active"
    cli.env["RUNPROJ_TRACKING_URI"] = "http://127.0.0.1:9"
    assert cli("run", project.url, *SYSTEM).returncode == 125
    assert not active.is_dir() or list(active.iterdir()) == [], "nothing was recorded, so nothing has to be closed"
    with socket.create_server(("127.0.0.1", 0)) as silent:
        Leases(active).take("lost", f"http://127.0.0.1:{silent.getsockname()[1]}").abandon()
        del cli.env["RUNPROJ_TRACKING_URI"]
        assert cli.json("runs", "list")["runs"] == []
        silent.setblocking(False)
        with pytest.raises(BlockingIOError):
            silent.accept()
    assert (active / "lost.json").exists(), "a command that uses that store closes the run"


def test_dry_run_prints_the_plan_and_starts_nothing(cli: Cli, project: Repository) -> None:
    plan = json.loads(cli("run", project.url, "--dry-run", "--json", *SYSTEM).stdout)
    same = json.loads(cli("plan", project.url, "--json", *SYSTEM).stdout)
    plan["lock"].pop("resolved_at")
    same["lock"].pop("resolved_at")
    assert plan == same
    assert plan["code"]["commit"] == project.head
    assert cli.json("runs", "list")["runs"] == []


def test_dirty_tree_is_captured_and_rerun_after_the_changes_are_gone(cli: Cli, project: Repository) -> None:
    project.write({"train.py": "import new; print(new.WORD)\n", "new.py": "WORD = 'dirty'\n"})
    first = cli("run", str(project.path), *SYSTEM)
    assert (first.returncode, first.stdout) == (0, "dirty\n"), first.stderr
    project.git("checkout", "-q", "--", ".")
    project.git("clean", "-fdq")
    assert cli("run", str(project.path), *SYSTEM).stdout != "dirty\n"
    again = cli("rerun", "@last~1", "--json")
    view = json.loads(again.stdout)
    assert view["run"]["status"] == "FINISHED", again.stderr
    tags = {t["key"]: t["value"] for t in view["run"]["tags"]}
    assert tags["mlflow.source.git.dirty"] == "true"
    assert cli("runs", "logs", "@last").stdout == "dirty\n"


def test_a_clean_tree_can_be_required(cli: Cli, project: Repository) -> None:
    assert cli("run", str(project.path), "--require-clean", *SYSTEM).returncode == 0
    project.write({"new.py": "x"})
    result = cli("run", str(project.path), "--require-clean", *SYSTEM)
    assert result.returncode == 125
    assert "new.py" in result.stderr


def test_rerun_with_another_parameter(cli: Cli, project: Repository) -> None:
    cli("run", project.url, "-P", "lr=0.5", "-P", "name=keep me", *SYSTEM)
    assert json.loads(cli("rerun", "@last", "-P", "lr=0.7").stdout) == ["--lr", "0.7", "--name", "keep me"]
    assert cli("rerun", "@last", "-P", "lr=abc").returncode == 2
    comparison = cli.json("runs", "compare", "@last", "@last~1")
    parameters = [d for d in comparison["differences"] if d["kind"] == "parameter"]
    assert parameters == [{"kind": "parameter", "name": "lr", "values": ["0.7", "0.5"]}]


def test_rerun_works_when_cache_and_branch_are_gone(cli: Cli, project: Repository) -> None:
    import shutil

    commit = project.head
    cli("run", project.url, "-P", "lr=0.5", *SYSTEM)
    shutil.rmtree(Path(cli.env["RUNPROJ_HOME"]) / "cache")
    project.commit({"train.py": "print('newer')"})
    result = cli("rerun", "@last")
    assert json.loads(result.stdout)[1] == "0.5", result.stderr
    assert last(cli)["plan"]["code"]["commit"] == commit


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_run_as_killed_with_all_it_started(cli: Cli, project: Repository, number: signal.Signals) -> None:
    process = cli.start("run", project.url, "-e", "wait", *SYSTEM)
    assert process.stdout and process.stdout.readline() == "waiting\n"
    run_id = cli.json("runs", "list")["runs"][0]["id"]
    assert list(proc.marked("RUNPROJ_GUARDED", run_id))
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == 128 + number
    view = last(cli)
    assert (view["run"]["status"], view["exit_code"]) == ("KILLED", 128 + number)
    assert not [pid for pid in proc.marked("RUNPROJ_GUARDED", run_id) if proc.start_time(pid)]


def test_kill_9_of_the_runner_leaves_nothing_and_the_next_look_closes_the_run(cli: Cli, project: Repository) -> None:
    process = cli.start("run", project.url, "-e", "wait", *SYSTEM)
    assert process.stdout and process.stdout.readline() == "waiting\n"
    run_id = cli.json("runs", "list")["runs"][0]["id"]
    process.kill()
    process.communicate()
    run = cli.json("runs", "list")["runs"][0]
    assert (run["id"], run["status"]) == (run_id, "FAILED")
    assert {t["key"]: t["value"] for t in run["tags"]}["runproj.lost"] == "1"
    assert cli("runs", "logs", run_id[:8]).stdout == "waiting\n", "what it had said is kept"
    assert not [pid for pid in proc.marked("RUNPROJ_GUARDED", run_id) if proc.start_time(pid)]
    assert cli("run", project.url, *SYSTEM).returncode == 0


def test_detached_runs_are_followed_waited_for_and_stopped_from_elsewhere(cli: Cli, project: Repository) -> None:
    started = cli("run", project.url, "-e", "wait", "--detach", *SYSTEM)
    run_id = started.stdout.strip()
    assert len(run_id) == 32, started.stderr
    follower = cli.start("runs", "logs", "-f", run_id)
    assert follower.stdout and follower.stdout.readline() == "waiting\n"
    assert cli("wait", run_id, "--timeout", "0.5").returncode == 124
    stopped = cli.json("runs", "stop", run_id)
    assert stopped["runs"][0]["status"] == "KILLED"
    assert follower.wait(timeout=60) == 0
    follower.communicate()
    assert cli("wait", run_id).returncode == 143
    finished = cli("run", project.url, "--detach", *SYSTEM).stdout.strip()
    assert cli("wait", finished).returncode == 0
    assert '["--lr"' in cli("runs", "logs", finished).stdout


def test_timeout(cli: Cli, project: Repository) -> None:
    assert cli("run", project.url, "-e", "wait", "--timeout", "1", *SYSTEM).returncode == 124
    assert "timed out" in last(cli)["reason"]


def test_git_bisect_run_finds_the_commit_and_skips_what_cannot_start(cli: Cli, repository: Repository) -> None:
    good = repository.commit({"MLproject": PROJECT["MLproject"], "train.py": "print(1)\n"})
    repository.commit({"a": "1"})
    repository.commit({"MLproject": "entry_points: [broken"})
    repository.commit({"MLproject": PROJECT["MLproject"], "b": "1"})
    culprit = repository.commit({"train.py": "raise SystemExit(1)\n"})
    repository.commit({"c": "1"})
    repository.git("bisect", "start", "HEAD", good)
    command = cli.command("run", ".", *SYSTEM)
    result = subprocess.run(["git", "bisect", "run", *command], cwd=repository.path, env=cli.env, capture_output=True, text=True)
    assert f"{culprit} is the first bad commit" in result.stdout, result.stdout + result.stderr


def test_a_full_disk_is_explained_and_the_next_command_closes_the_run(cli: Cli, project: Repository) -> None:
    small = cli.home / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", small], check=True)
    try:
        cli.env["RUNPROJ_HOME"] = str(small)
        assert cli("run", project.url, *SYSTEM).returncode == 0
        project.commit({"train.py": "import sys\nwhile True: sys.stdout.write('x' * 65536)\n"})
        result = cli("run", project.url, "--quiet", *SYSTEM)
        assert result.returncode == 125
        assert "No space left" in result.stderr
        runs = cli.json("runs", "list")["runs"]
        assert [run["status"] for run in runs] == ["FAILED", "FINISHED"]
        for folder in small.glob("artifacts/**/logs"):
            for log in folder.iterdir():
                log.unlink()
        project.commit({"train.py": "print('room again')\n"})
        again = cli("run", project.url, *SYSTEM)
        assert again.stdout == "room again\n", again.stderr
        with sqlite3.connect(small / "runproj.db") as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        connection.close()
    finally:
        time.sleep(0.1)
        subprocess.run(["umount", "-l", small], check=True)


def test_two_runs_at_once(cli: Cli, project: Repository) -> None:
    processes = [cli.start("run", project.url, "-P", f"lr={n}", *SYSTEM) for n in range(4)]
    for process in processes:
        process.communicate()
    assert [process.returncode for process in processes] == [0, 0, 0, 0]
    assert len(cli.json("runs", "list")["runs"]) == 4


def test_nothing_is_left_behind(cli: Cli, project: Repository) -> None:
    cli("run", project.url, *SYSTEM)
    home = Path(cli.env["RUNPROJ_HOME"])
    for name in ("runs", "active", "checkouts"):
        assert not (home / name).exists() or os.listdir(home / name) == []


def test_a_failed_checkout_can_be_kept(cli: Cli, project: Repository) -> None:
    cli("run", project.url, "-e", "fail", "--keep", *SYSTEM)
    run_id = last(cli)["run"]["id"]
    kept = Path(cli.env["RUNPROJ_HOME"]) / "runs" / run_id / "work"
    assert (kept / "train.py").exists()
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=kept, capture_output=True, text=True, check=True)
    assert head.stdout.strip() == project.head


def test_an_empty_virtualenv_is_the_default_and_it_isolates(cli: Cli, repository: Repository) -> None:
    repository.commit(
        {"show.py": "import sys\nprint(sys.prefix != sys.base_prefix)\ntry:\n import git\nexcept ImportError: print('no git')\n"}
    )
    result = cli("run", repository.url, "-e", "show.py")
    assert result.stdout == "True\nno git\n", result.stderr
    assert cli("run", repository.url, "-e", "show.py").stdout == result.stdout


def test_logging_without_mlflow_in_the_project(cli: Cli, repository: Repository) -> None:
    script = (
        "import runproj\n"
        "runproj.log_param('depth', 3)\n"
        "for step in range(3): runproj.log_metric('loss', 1 / (step + 1), step=step)\n"
        "runproj.set_tag('mood', 'good')\n"
        "open('note.txt', 'w').write('hello')\n"
        "runproj.log_artifact('note.txt')\n"
    )
    repository.commit({"train.py": script})
    result = cli("run", repository.url, "-e", "train.py")
    assert result.returncode == 0, result.stderr
    view = last(cli)
    assert {p["key"]: p["value"] for p in view["run"]["params"]} == {"depth": "3"}
    assert [(m["key"], m["step"]) for m in view["run"]["metrics"]] == [("loss", 2)]
    assert "note.txt" in {a["path"] for a in view["artifacts"]}


def test_a_wrong_command_line_is_a_document_too(cli: Cli) -> None:
    result = cli("run", "--nonsense", "--json")
    assert result.returncode == 2
    assert json.loads(result.stdout)["error"]["kind"] == "usage"
    assert "--nonsense" in result.stderr


def test_mlflows_experiment_id_is_honoured(cli: Cli, project: Repository) -> None:
    assert cli("run", project.url, "--experiment-name", "second", *SYSTEM).returncode == 0
    chosen = last(cli)["run"]["experiment_id"]
    assert chosen != "0"
    cli.env["MLFLOW_EXPERIMENT_ID"] = chosen
    assert cli("run", project.url, *SYSTEM).returncode == 0
    assert last(cli)["run"]["experiment_id"] == chosen
    cli.env["MLFLOW_EXPERIMENT_NAME"] = "third"
    assert cli("runs", "list").returncode == 2


def test_a_folder_without_descriptor_is_told_from_a_valid_one(cli: Cli, project: Repository) -> None:
    assert "The project is valid." in cli("validate", str(project.path)).stderr
    (empty := cli.home / "empty").mkdir()
    result = cli("validate", str(empty))
    assert (result.returncode, "No runproj.yaml" in result.stderr) == (0, True)


@pytest.mark.parametrize("need", ["cpus: 5000", "gpus: 64", "memory: 900TB", "nodes: 2"])
def test_what_this_machine_can_never_give_is_refused_before_anything_starts(cli: Cli, repository: Repository, need: str) -> None:
    repository.commit({"runproj.yaml": f"entry_points:\n  main:\n    command: 'true'\n    resources: {{{need}}}\n"})
    result = cli("run", repository.url, *SYSTEM)
    assert (result.returncode, "than this machine has" in result.stderr) == (125, True), result.stderr
    assert cli.json("runs", "list")["runs"] == []


def test_the_shell_is_offered_recent_runs_and_known_words(cli: Cli, project: Repository) -> None:
    def offered(*words: str) -> str:
        cli.env |= {"_RUNPROJ_COMPLETE": "complete_bash", "COMP_WORDS": " ".join(words), "COMP_CWORD": str(len(words) - 1)}
        result = subprocess.run(cli.command(), env=cli.env, capture_output=True, text=True)
        for name in ("_RUNPROJ_COMPLETE", "COMP_WORDS", "COMP_CWORD"):
            cli.env.pop(name)
        return result.stdout

    assert cli("run", project.url, "--run-name", "my-best", *SYSTEM).returncode == 0
    assert "my-best" in offered("runproj", "runs", "show", "my")
    assert "@last" in offered("runproj", "rerun", "@")
    assert "virtualenv" in offered("runproj", "run", "--env-manager", "v")


def test_metrics_that_json_has_no_number_for_keep_their_value(cli: Cli, repository: Repository) -> None:
    text = "entry_points:\n  main:\n    command: [python, -c, \"print('v=nan w=inf x=-inf')\"]\n    metrics:\n"
    text += "      - {pattern: '(?P<name>\\w)=(?P<value>\\S+)'}\n"
    repository.commit({"runproj.yaml": text})
    assert cli("run", repository.url, *SYSTEM).returncode == 0
    assert {m["key"]: m["value"] for m in last(cli)["run"]["metrics"]} == {"v": "NaN", "w": "Infinity", "x": "-Infinity"}
