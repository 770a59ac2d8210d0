"""How runs end when something goes wrong around them: signals at every moment, stores that fail, runs inside runs."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conftest import Repository
from support.program import SYSTEM, Cli

MLFLOW_CHILD = """\
import json, os, sys, time, urllib.request
url = os.environ["MLFLOW_TRACKING_URI"] + "/api/2.0/mlflow/runs/create"
body = json.dumps({"experiment_id": os.environ["MLFLOW_EXPERIMENT_ID"], "start_time": 1}).encode()
headers = {"Content-Type": "application/json", "Authorization": "Bearer " + os.environ["MLFLOW_TRACKING_TOKEN"]}
print(json.load(urllib.request.urlopen(urllib.request.Request(url, body, headers)))["run"]["info"]["run_id"], flush=True)
time.sleep(60)
"""


def program(cli: Cli, before: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The program with something happening inside it, which `before` arranges."""
    code = f"import os, signal, sys, time\nfrom runproj.cli import main\n{before}\nsys.exit(main.run({list(arguments)!r}))"
    return subprocess.run([sys.executable, "-c", code], cwd=cli.home, env=cli.env, capture_output=True, text=True)


def statuses(cli: Cli) -> dict[str, str]:
    return {run["id"]: run["status"] for run in cli.json("runs", "list")["runs"]}


def reason(cli: Cli) -> str:
    return cli.json("runs", "show", "@last")["reason"] or ""


@pytest.mark.parametrize("method", ["_store", "_store_files"])
def test_a_signal_while_the_run_is_closed_waits_until_it_is(cli: Cli, project: Repository, method: str) -> None:
    before = (
        "from runproj.executor import _Recording as R\n"
        f"original = R.{method}\n"
        f"def slowly(self, outcome): os.kill(os.getpid(), signal.SIGTERM); time.sleep(0.2); original(self, outcome)\n"
        f"R.{method} = slowly"
    )
    result = program(cli, before, "run", project.url, *SYSTEM)
    assert result.returncode == 128 + signal.SIGTERM, result.stderr
    assert list(statuses(cli).values()) == ["FINISHED"]


def test_a_run_goes_on_when_its_terminal_hangs_up_if_it_was_told_to(cli: Cli, repository: Repository) -> None:
    """`nohup runproj run …`: what is ignored when it starts stays ignored while the command runs."""
    code = "import time; print('waiting', flush=True); time.sleep(1.5)"
    repository.commit({"run.py": code})
    process = subprocess.Popen(
        ["nohup", *cli.command("run", repository.url, "-e", "run.py", *SYSTEM)],
        env=cli.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdout and process.stdout.readline() == b"waiting\n"
    process.send_signal(signal.SIGHUP)
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert list(statuses(cli).values()) == ["FINISHED"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_runs_inside_a_run_end_with_it(cli: Cli, repository: Repository, number: signal.Signals) -> None:
    repository.commit({"run.py": MLFLOW_CHILD})
    process = cli.start("run", repository.url, "-e", "run.py", *SYSTEM)
    assert process.stdout
    inner = process.stdout.readline().strip()
    process.send_signal(number)
    process.communicate(timeout=60)
    assert statuses(cli)[inner] == "FAILED"
    assert "RUNNING" not in statuses(cli).values()


def test_the_phase_in_which_an_executor_vanished_is_told(cli: Cli, project: Repository) -> None:
    process = cli.start("run", project.url, "-e", "wait", *SYSTEM)
    assert process.stdout and process.stdout.readline() == "waiting\n"
    process.kill()
    process.communicate()
    assert "phase 'run'" in reason(cli)


def test_an_outcome_that_could_not_be_recorded_is_recorded_by_the_next_command(cli: Cli, project: Repository) -> None:
    before = (
        "from runproj.errors import TrackingError\n"
        "from runproj.executor import _Recording as R\n"
        "def fails(self, outcome): raise TrackingError('away')\n"
        "R._store = fails"
    )
    assert program(cli, before, "run", project.url, "-e", "fail", *SYSTEM).returncode == 3
    view = cli.json("runs", "show", "@last")
    assert (view["run"]["status"], view["exit_code"], view["reason"]) == ("FAILED", 3, "exit code 3")


def test_a_store_that_fails_while_the_command_runs_does_not_end_it(cli: Cli, repository: Repository) -> None:
    text = (
        "name: x\nentry_points:\n  main:\n    command: [python, run.py]\n    metrics: [{name: loss, pattern: 'loss=([0-9]+)'}]\n"
    )
    code = "import time\nfor i in range(3): print(f'loss={i}', flush=True); time.sleep(0.7)\nprint('done')\n"
    repository.commit({"runproj.yaml": text, "run.py": code})
    before = (
        "from runproj.errors import TrackingError\n"
        "from runproj.tracking.store import SqlStore as S\n"
        "original, failed = S.update, []\n"
        "def fails_once(self, run_id, changes):\n"
        "    if changes.metrics and not failed: failed.append(1); raise TrackingError('away')\n"
        "    original(self, run_id, changes)\n"
        "S.update = fails_once"
    )
    result = program(cli, before, "run", repository.url, *SYSTEM)
    assert (result.returncode, result.stdout.splitlines()[-1]) == (0, "done"), result.stderr
    metrics = cli.json("runs", "show", "@last")["run"]["metrics"]
    assert [(m["key"], m["value"], m["step"]) for m in metrics] == [("loss", 2.0, 2)]


def test_a_metric_that_the_store_refuses_costs_only_itself(cli: Cli, repository: Repository) -> None:
    text = (
        "name: x\nentry_points:\n  main:\n    command: [python, run.py]\n"
        r"    metrics: [{pattern: '(?P<name>\S+)=(?P<value>\d+)'}]" + "\n"
    )
    repository.commit({"runproj.yaml": text, "run.py": "print('bad=1'); print('good=2')\n"})
    before = (
        "from runproj.errors import RefusedError\n"
        "from runproj.tracking.store import SqlStore as S\n"
        "original = S.update\n"
        "def refuses(self, run_id, changes):\n"
        "    if any(m.key == 'bad' for m in changes.metrics): raise RefusedError('a bad name')\n"
        "    original(self, run_id, changes)\n"
        "S.update = refuses"
    )
    result = program(cli, before, "run", repository.url, *SYSTEM)
    assert result.returncode == 0, result.stderr
    view = cli.json("runs", "show", "@last")
    assert [m["key"] for m in view["run"]["metrics"]] == ["good"]
    assert "a bad name" in " ".join(view["record"]["notes"])


@pytest.mark.parametrize(
    ("what", "status", "code", "words"),
    [
        ("os.kill(os.getpid(), signal.SIGINT); time.sleep(0.1)", "KILLED", 130, "stopped by SIGINT"),
        ("from runproj.errors import StorageError; raise StorageError('no room')", "FAILED", 125, "no room"),
    ],
)
def test_a_run_that_does_not_come_to_its_executor_is_closed_with_the_reason(
    cli: Cli, project: Repository, what: str, status: str, code: int, words: str
) -> None:
    before = f"from runproj import runner\ndef fails(*_):\n    {what}\nrunner.store_plan = fails"
    assert program(cli, before, "run", project.url, *SYSTEM).returncode == code
    view = cli.json("runs", "show", "@last")
    assert (view["run"]["status"], view["exit_code"], view["reason"]) == (status, code, words)


def test_a_detached_executor_that_does_not_start_is_noticed_at_once(cli: Cli, project: Repository) -> None:
    result = program(cli, "sys.executable = '/bin/false'", "run", project.url, "--detach", *SYSTEM)
    assert result.returncode == 125
    assert list(statuses(cli).values()) == ["FAILED"]
    assert "did not start" in reason(cli)


def test_a_rerun_keeps_what_the_run_was_made_with(cli: Cli, project: Repository) -> None:
    assert cli("run", project.url, "--experiment", "mine", "--clean-env", *SYSTEM).returncode == 0
    options = cli.json("rerun", "@last", "--dry-run")["options"]
    assert (options["experiment"], options["clean_env"]) == ("mine", True)


def test_a_patch_comes_back_from_the_record_when_caches_are_gone(cli: Cli, project: Repository) -> None:
    project.write({"train.py": "print('dirty')\n"})
    assert cli("run", str(project.path), *SYSTEM).stdout == "dirty\n"
    project.git("checkout", "-q", "--", ".")
    for name in ("cache", "objects"):
        shutil.rmtree(Path(cli.env["RUNPROJ_HOME"]) / name)
    assert cli("rerun", "@last").stdout == "dirty\n"


def test_a_file_whose_name_is_no_text_is_recorded_readably(cli: Cli, repository: Repository) -> None:
    text = "name: x\nentry_points:\n  main: {command: [python, run.py], outputs: ['*.txt']}\n"
    repository.commit({"runproj.yaml": text, "run.py": "open(b'out\\xff.txt', 'w').write('1')\n"})
    assert cli("run", repository.url, *SYSTEM).returncode == 0
    assert [output["path"] for output in cli.json("runs", "show", "@last")["record"]["outputs"]] == ["out\\udcff.txt"]


def test_logs_are_found_beside_what_the_project_put_there(cli: Cli, repository: Repository) -> None:
    text = "name: x\nentry_points:\n  main: {command: [python, run.py], outputs: [logs]}\n"
    code = "import os\nos.makedirs('logs/events')\nopen('logs/events/1', 'w').write('x')\nprint('hello')\n"
    repository.commit({"runproj.yaml": text, "run.py": code})
    assert cli("run", repository.url, *SYSTEM).returncode == 0
    assert cli("runs", "logs", "@last").stdout == "hello\n"


def test_logs_of_a_run_that_ends_while_they_are_opened_are_printed(cli: Cli, project: Repository) -> None:
    run_id = cli("run", project.url, "--detach", *SYSTEM).stdout.strip()
    before = (
        "import runproj.runner as r\noriginal = r.handle_of\n"
        "def late(run): time.sleep(2); return original(run)\n"
        "r.handle_of = late"
    )
    assert '["--lr"' in program(cli, before, "runs", "logs", "-f", run_id).stdout


def test_a_kept_checkout_is_not_garbage_before_its_time(cli: Cli, project: Repository) -> None:
    cli("run", project.url, "-e", "fail", "--keep", *SYSTEM)
    (kept,) = (Path(cli.env["RUNPROJ_HOME"]) / "runs").iterdir()
    for days, there in ((20, True), (40, False)):
        then = time.time() - days * 86400
        os.utime(kept, (then, then))
        cli("gc")
        assert kept.exists() is there


def test_a_copy_of_the_client_is_kept_while_it_is_used(cli: Cli, project: Repository) -> None:
    cli("run", project.url, *SYSTEM)
    (used,) = (Path(cli.env["RUNPROJ_HOME"]) / "cache" / "client").iterdir()
    unused, half = used.with_name("of an older runproj"), used.with_name(".half-written")
    for folder in (used, unused, half):
        folder.mkdir(exist_ok=True)
        os.utime(folder, (time.time() - 31 * 86400,) * 2)
    cli("run", project.url, *SYSTEM)
    cli("gc")
    assert (used.exists(), unused.exists(), half.exists()) == (True, False, False)


def test_a_run_goes_on_when_nobody_listens_any_more(cli: Cli, repository: Repository) -> None:
    """`runproj run … 2>&1 | head`, or a terminal that was closed."""
    repository.commit(
        {"run.py": "import sys, time; time.sleep(1); print('x' * 100_000); print('y' * 100_000, file=sys.stderr); sys.exit(3)"}
    )
    command = cli.command("run", repository.url, "-e", "run.py", *SYSTEM)
    process = subprocess.Popen(command, env=cli.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert process.stdout and process.stdout.readline()
    process.stdout.close()
    assert process.wait(timeout=60) == 3
    view = cli.json("runs", "show", "@last")
    assert (view["run"]["status"], view["reason"]) == ("FAILED", "exit code 3")


def test_a_reader_who_leaves_early_is_no_failure_to_tell_of(cli: Cli, project: Repository) -> None:
    cli("run", project.url, *SYSTEM)
    process = subprocess.Popen(cli.command("runs", "list"), env=cli.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout and process.stderr
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(timeout=60) == 128 + signal.SIGPIPE


def test_a_name_with_a_line_end_is_one_row(cli: Cli, project: Repository) -> None:
    cli("run", project.url, "--run-name", "one\ntwo", *SYSTEM)
    assert len(cli("runs", "list").stdout.splitlines()) == 2
