"""Runs in containers, with a real engine: everything inside, exact endings, and no container left behind, whatever is killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from conftest import Repository
from runproj import proc
from runproj.engine import find
from support.docker import Docker
from support.program import Cli

pytestmark = pytest.mark.slow

HOSTILE_VALUE = 'it\'s "$(hostname)" `id`\n; rm -rf $HOME && é'
FILES = {
    "inside.py": (
        "import json, os, sys\n"
        "word = sys.argv[1]\n"
        "print(json.dumps([os.path.exists('/.dockerenv'), os.getcwd(), os.getuid(), word]))\n"
        "print('to stderr', file=sys.stderr)\n"
        "open('written', 'w').write('by the command')\n"
        "open(os.path.expanduser('~/in-home'), 'w').close()\n"
        "open(sys.argv[2]).read() if len(sys.argv) > 2 else None\n"
    ),
    "log.py": (
        "import json, os, urllib.request\n"
        "import runproj\n"
        "runproj.log_metric('by_client', 0.5)\n"
        "body = {'run_id': os.environ['MLFLOW_RUN_ID'], 'key': 'by_mlflow', 'value': 2.5, 'timestamp': 1, 'step': 0}\n"
        "url = os.environ['MLFLOW_TRACKING_URI'] + '/api/2.0/mlflow/runs/log-metric'\n"
        "head = {'Authorization': 'Bearer ' + os.environ['MLFLOW_TRACKING_TOKEN'], 'Content-Type': 'application/json'}\n"
        "urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode(), head), timeout=10).read()\n"
    ),
    "stop.py": (
        "import signal, sys, time\n"
        "def stop(number, frame):\n"
        "    time.sleep(0.3)\n"
        "    print('asked to stop by', number, file=sys.stderr, flush=True)\n"
        "    sys.exit(5)\n"
        "signal.signal(signal.SIGTERM, stop)\n"
        "signal.signal(signal.SIGINT, stop)\n"
        "print('waiting', flush=True)\n"
        "time.sleep(60)\n"
    ),
    "spool.py": "import time, runproj\nrunproj.log_metric('kept', 3.0)\nprint('waiting', flush=True)\ntime.sleep(60)\n",
    "data dir/a b": "data\n",
}
PROJECT = """
name: contained
environment:
  docker: {image: IMAGE}
entry_points:
  main:
    parameters: {word: string, data: {type: path, default: "data dir/a b"}}
    command: "python inside.py {word} {data} && echo $HOSTNAME | cat; python inside.py 'after' | cat"
  log: {command: [python, log.py]}
  exit: {parameters: {code: int}, command: "python3 -c 'import sys; sys.exit({code})'"}
  kill: {parameters: {number: int}, command: [python3, -c, "import os, sys; os.kill(os.getpid(), int(sys.argv[1]))", "{number}"]}
  missing: {command: [no-such-program]}
  forbidden: {command: [/etc/passwd]}
  memory: {command: [python3, -c, "x = bytearray(300_000_000)"], resources: {memory: 64MB}}
  pipe: {command: "python3 stop.py | cat"}
  stubborn: {command: "trap '' TERM; echo waiting; while true; do sleep 1; done"}
  who: {command: "cat /which; echo x > owned; exit 3"}
"""


@pytest.fixture(scope="module")
def image(engine: Docker) -> str:
    return engine.image("RUN echo first > /which")


@pytest.fixture
def contained(repository: Repository, image: str) -> Repository:
    repository.commit({**FILES, "runproj.yaml": PROJECT.replace("IMAGE", image)})
    return repository


def tags(cli: Cli, reference: str = "@last") -> dict[str, str]:
    return {tag["key"]: tag["value"] for tag in cli.json("runs", "show", reference)["run"]["tags"]}


def test_the_whole_command_is_inside_and_values_arrive_as_they_are(
    cli: Cli, contained: Repository, engine: Docker, tmp_path: Path, image: str
) -> None:
    data = tmp_path / 'given "data" $(x)'
    data.write_text("given")
    result = cli("run", contained.url, "-P", f"word={HOSTILE_VALUE}", "-P", f"data={data}")
    assert result.returncode == 0, result.stderr
    first, host, second = result.stdout.splitlines()
    me = [True, "/runproj/code", os.getuid()]
    assert (json.loads(first), json.loads(second)) == ([*me, HOSTILE_VALUE], [*me, "after"])
    assert host and host != os.uname().nodename
    assert "to stderr\nto stderr\n" in result.stderr
    shown = cli.json("runs", "show", "@last")
    lock = shown["plan"]["lock"]
    assert lock["image"]["asked"]["image"] == image
    assert lock["image"]["reference"] == lock["image"]["id"] == engine.client.images.get(image).id
    assert tags(cli)["mlflow.docker.image.id"] == lock["image"]["id"]
    engine.gone(cli, 120)


def test_what_is_logged_inside_reaches_the_run(cli: Cli, contained: Repository) -> None:
    result = cli("run", contained.url, "-e", "log")
    assert result.returncode == 0, result.stderr
    metrics = {metric["key"]: metric["value"] for metric in cli.json("runs", "show", "@last")["run"]["metrics"]}
    assert metrics == {"by_client": 0.5, "by_mlflow": 2.5}


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (["exit", "-P", "code=0"], 0, ""),
        (["exit", "-P", "code=1"], 1, "exit code 1"),
        (["exit", "-P", "code=42"], 42, "exit code 42"),
        (["exit", "-P", "code=255"], 255, "exit code 255"),
        (["kill", "-P", "number=9"], 137, "exit code 137"),
        (["kill", "-P", "number=11"], 139, "exit code 139"),
        (["missing"], 127, "the command 'no-such-program' could not be started in the image: No such file or directory"),
        (["forbidden"], 126, "the command '/etc/passwd' could not be started in the image: Permission denied"),
        (["memory"], 137, "killed because it used more memory than its container may (resources: memory: 64MB)"),
        (["pipe", "--timeout", "2"], 124, "timed out after 2 s"),
        (["stubborn", "--timeout", "2", "--grace", "0.5"], 124, "timed out after 2 s"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else "",
)
def test_endings_are_exact(cli: Cli, contained: Repository, engine: Docker, arguments: list[str], code: int, reason: str) -> None:
    result = cli("run", contained.url, "-e", *arguments)
    assert result.returncode == code, result.stderr
    assert tags(cli).get("runproj.reason", "") == reason
    engine.gone(cli, 120)


def waiting(process: subprocess.Popen[str]) -> None:
    assert process.stdout
    assert process.stdout.readline() == "waiting\n", process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_reaches_all_of_a_pipeline(cli: Cli, contained: Repository, engine: Docker, number: signal.Signals) -> None:
    process = cli.start("run", contained.url, "-e", "pipe")
    waiting(process)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert f"asked to stop by {number.value}\n" in err
    assert cli.json("runs", "show", "@last")["run"]["status"] == "KILLED"
    engine.gone(cli, 120)


def test_who_does_not_stop_is_killed(cli: Cli, contained: Repository, engine: Docker) -> None:
    process = cli.start("run", contained.url, "-e", "stubborn", "--grace", "0.5")
    waiting(process)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143
    engine.gone(cli, 120)


def names(engine: Docker) -> set[str]:
    return {found.name for found in engine.client.containers.list(all=True, ignore_removed=True)}


def guard_of(process: subprocess.Popen[str]) -> int:
    below = proc.descendants([process.pid])
    return next(pid for pid in below if b"contained.py" in Path(f"/proc/{pid}/cmdline").read_bytes())


def test_kill_9_leaves_no_container(cli: Cli, contained: Repository, engine: Docker) -> None:
    process = cli.start("run", contained.url, "-e", "stubborn")
    waiting(process)
    process.kill()
    process.wait()
    engine.gone(cli, 120)
    for delay in (0.3, 0.5, 0.7, 0.9):  # while it is planned, recorded, created, started
        process = cli.start("run", contained.url, "-e", "stubborn")
        time.sleep(delay)
        process.kill()
        process.wait()
        time.sleep(0.1)
        engine.gone(cli, 120)
    listed = cli.json("runs", "list")["runs"]
    assert {run["status"] for run in listed} == {"FAILED"}


def test_kill_9_of_the_guard_ends_the_run_and_of_both_is_made_good_by_the_next_command(
    cli: Cli, contained: Repository, engine: Docker
) -> None:
    foreign = [
        engine.client.containers.create(engine.base, ["true"], labels=labels)
        for labels in ({"runproj.home": "another", "runproj.run": "0" * 32}, {"something": "else"})
    ]
    try:
        process = cli.start("run", contained.url, "-e", "stubborn")
        waiting(process)
        os.kill(guard_of(process), signal.SIGKILL)
        process.communicate(timeout=60)
        assert process.returncode == 137
        assert engine.containers(cli) == []
        assert {container.name for container in foreign} <= names(engine)
        process = cli.start("run", contained.url, "-e", "stubborn")
        waiting(process)
        guard = guard_of(process)
        process.send_signal(signal.SIGSTOP)
        os.kill(guard, signal.SIGKILL)
        process.kill()
        process.wait()
        assert len(engine.containers(cli)) == 1
        assert cli.json("runs", "list")["runs"][0]["status"] == "FAILED"
        assert engine.containers(cli) == []
        assert {container.name for container in foreign} <= names(engine)
    finally:
        for container in foreign:
            container.remove(force=True)


def test_what_a_killed_run_has_logged_and_not_sent_is_sent_later(cli: Cli, contained: Repository, engine: Docker) -> None:
    process = cli.start("run", contained.url, "-e", "spool.py", "-A", "network=none")
    waiting(process)
    process.kill()
    process.wait()
    assert cli.json("runs", "list")["runs"][0]["status"] == "FAILED"
    synced = cli("sync")
    assert synced.returncode == 0, synced.stderr
    metrics = cli.json("runs", "show", "@last")["run"]["metrics"]
    assert [(metric["key"], metric["value"]) for metric in metrics] == [("kept", 3.0)]
    engine.gone(cli, 120)


def test_a_detached_run_is_stopped(cli: Cli, contained: Repository, engine: Docker) -> None:
    run_id = cli("run", contained.url, "-e", "pipe", "--detach").stdout.strip()
    deadline = time.monotonic() + 300
    while "waiting" not in cli("runs", "logs", run_id).stdout:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert cli("runs", "stop", run_id).returncode == 0
    cli("wait", run_id)
    assert cli.json("runs", "show", run_id)["run"]["status"] == "KILLED"
    engine.gone(cli, 120)


def test_a_rerun_uses_the_image_of_the_run_though_its_tag_has_moved(
    cli: Cli, contained: Repository, engine: Docker, image: str
) -> None:
    assert cli("run", contained.url, "-e", "who").stdout == "first\n"
    other = engine.image("RUN echo second > /which")
    moved = engine.client.images.get(image)
    moved.tag(image.replace(":1", ":kept"))  # an image without a name goes with any image that was built on it
    engine.client.images.get(other).tag(image)
    try:
        assert cli("rerun", "@last").stdout == "first\n"
        assert cli("run", contained.url, "-e", "who").stdout == "second\n"
    finally:
        moved.tag(image)
        engine.client.images.remove(image.replace(":1", ":kept"))


def test_files_belong_to_the_caller(cli: Cli, contained: Repository) -> None:
    """The capability lets another user read this checkout of runproj, wherever it is, and use the engine."""
    other = [
        "setpriv",
        "--reuid=1234",
        "--regid=1234",
        "--clear-groups",
        "--inh-caps=+dac_override",
        "--ambient-caps=+dac_override",
    ]
    with tempfile.TemporaryDirectory() as folder:  # pytest's own can be entered by one user only
        home = Path(folder)
        shutil.copytree(contained.path, home / "project")
        for path in (home, *home.rglob("*")):
            os.lchown(path, 1234, 1234)
        env = {**cli.env, "HOME": folder, "RUNPROJ_HOME": f"{home}/home", "GIT_CONFIG_GLOBAL": os.devnull}
        command = [*other, *cli.command("run", f"file://{home}/project", "-e", "who", "--keep")]
        ran = subprocess.run(command, env=env, cwd=folder, capture_output=True, text=True)
        assert ran.returncode == 3, ran.stderr
        status = next((home / "home/runs").rglob("owned")).stat()
        assert (status.st_uid, status.st_gid) == (1234, 1234)


def test_where_there_is_no_engine_or_no_image_it_is_said(cli: Cli, contained: Repository, repository: Repository) -> None:
    usual = dict(cli.env)
    cli.env["DOCKER_HOST"] = "unix:///nonexistent/docker.sock"
    result = cli("run", contained.url, "-e", "who")
    assert result.returncode == 125
    assert "There is no Docker engine" in result.stderr
    assert "systemctl start docker" in result.stderr
    cli.env["DOCKER_HOST"] = "ssh://user@example.org"
    assert "cannot be used" in cli("run", contained.url, "-e", "who").stderr
    cli.env = usual
    repository.commit({"runproj.yaml": PROJECT.replace("IMAGE", "127.0.0.1:9/no/such:image")})
    result = cli("run", contained.url, "-e", "who")
    assert result.returncode == 125
    assert "The image 127.0.0.1:9/no/such:image is not here, and its registry does not tell of it" in result.stderr
    assert cli.json("runs", "list")["runs"] == []


def test_an_engine_that_goes_away(cli: Cli, contained: Repository, engine: Docker, tmp_path: Path) -> None:
    real = find(cli.env).url.removeprefix("unix://")
    script, listening = Path(__file__).parents[1] / "support" / "relay.py", tmp_path / "engine.sock"
    relay = subprocess.Popen([sys.executable, script, listening, real], stdout=subprocess.PIPE, text=True)
    assert relay.stdout
    assert relay.stdout.readline() == "listening\n"
    usual = dict(cli.env)
    cli.env["DOCKER_HOST"] = f"unix://{listening}"
    try:
        process = cli.start("run", contained.url, "-e", "stubborn")
        waiting(process)
    finally:
        relay.kill()
        relay.wait()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 125
    assert "The Docker engine went away while the command ran" in err
    assert cli.json("runs", "show", "@last")["run"]["status"] == "FAILED"
    assert len(engine.containers(cli)) == 1, "nobody could have removed it"
    cli.env = usual
    assert cli("run", contained.url, "-e", "exit", "-P", "code=0").returncode == 0
    engine.gone(cli, 120)
