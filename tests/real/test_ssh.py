"""Runs on a machine that is reached by ssh and sees nothing of this one: whatever breaks, is killed, or goes away."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import uv

from conftest import Repository
from runproj.backends import ssh_there
from runproj.backends.catalogue import BackendContext
from runproj.backends.ssh import SshBackend
from runproj.backends.ssh_line import Line
from runproj.core.backend import JobHandle, JobState
from support import placing
from support.cluster import reason_of
from support.placing import LOGGING, followed, heard, home, nothing_left
from support.program import SYSTEM, Cli
from support.sshd import Sshd

pytestmark = pytest.mark.slow

PROJECT = LOGGING | {
    "MLproject": LOGGING["MLproject"]
    + "  large: {command: python large.py}\n  slow: {command: python slow.py}\n  kept: {command: python kept.py}\n",
    "kept.py": (
        "import pathlib, runproj\npathlib.Path('model.bin').write_bytes(b'weights'); runproj.log_artifact('model.bin', 'made')\n"
    )
    + LOGGING["endless.py"],
    "large.py": "import sys\nblock = b'x' * 999 + b'\\n'\nfor _ in range(200_000): sys.stdout.buffer.write(block)\n",
    "slow.py": (
        "import pathlib, time\n"
        "for number in range(40):\n"
        "    print(number, flush=True); time.sleep(0.1)\n"
        "    while number == 20 and not (pathlib.Path.home() / 'go').exists(): time.sleep(0.05)\n"
    ),
}
WHERE = {
    "runproj.yaml": (
        "environment: {python: '3'}\n"
        "entry_points: {main: {command: [python, -c, 'import os, sys; print(sys.prefix, os.stat(sys.prefix).st_ino)']}}\n"
    )
}


@pytest.fixture
def project(repository: Repository) -> Repository:
    repository.commit(PROJECT)
    return repository


def there(sshd: Sshd, **config: object) -> tuple[str, ...]:
    """Words for `run`."""
    return ("--backend", "ssh", "--backend-config", json.dumps({**sshd.config, **config}))


def detached(cli: Cli, project: Repository, sshd: Sshd, *arguments: str) -> str:
    return placing.detached(cli, project, *there(sshd), *SYSTEM, *arguments)


def ended(cli: Cli, run_id: str, sshd: Sshd) -> dict:
    """The run when it has ended, of which nothing is left anywhere."""
    cli("wait", run_id)
    run: dict = cli.json("runs", "show", run_id)["run"]
    nothing_left(cli)
    assert not (sshd.jobs / run_id).exists()
    return run


def test_a_machine_that_has_only_python(cli: Cli, repository: Repository, sshd: Sshd) -> None:
    """runproj brings itself there, and builds the environment there, each once; uncommitted changes go along."""
    repository.commit(WHERE)
    repository.write({"untracked.txt": "changed\n"})
    programs = sshd.home / ".local" / "bin"
    programs.mkdir(parents=True)
    (programs / "uv").symlink_to(uv.find_uv_bin())
    config = json.dumps({name: value for name, value in sshd.config.items() if name != "python"})
    runs = [cli("run", str(repository.path), "--backend", "ssh", "--backend-config", config)]
    (python,) = sshd.jobs.glob("runproj-*.*.*-*/env/bin/python")
    python.unlink()
    python.symlink_to("/gone/python3.11")  # the system's Python has become a newer one
    runs.append(cli("run", str(repository.path), "--backend", "ssh", "--backend-config", config))
    assert [done.returncode for done in runs] == [0, 0], runs[0].stderr
    assert runs[0].stdout == runs[1].stdout
    assert runs[0].stdout.startswith(f"{sshd.home}/")
    assert [path.name[:8] for path in sshd.jobs.iterdir() if path.is_symlink()] == ["runproj-"]
    nothing_left(cli)


def test_a_machine_that_goes_away_and_comes_back(cli: Cli, project: Repository, sshd: Sshd) -> None:
    """The command goes on; whoever follows sees every line once."""
    (sshd.home / "go").unlink(missing_ok=True)
    follower = cli.start("run", project.url, "-e", "slow", *there(sshd), *SYSTEM)
    assert follower.stdout is not None
    assert follower.stdout.readline() == "0\n"
    (run,) = cli.json("runs", "list")["runs"]
    sshd.stop()
    try:
        shown = cli("runs", "show", run["id"])
        assert "RUNNING" in shown.stdout and "cannot be reached by ssh" in shown.stderr
        time.sleep(2)
    finally:
        sshd.start()
    (sshd.home / "go").touch()
    out = follower.stdout.read()  # not `communicate`, which forgets what has been read with the first line
    assert follower.wait(300) == 0
    assert out.split() == [str(number) for number in range(1, 40)]
    assert ended(cli, run["id"], sshd)["status"] == "FINISHED"


def test_an_executor_that_is_killed(cli: Cli, project: Repository, sshd: Sshd) -> None:
    """What it had recorded is kept: the files, too."""
    run_id = detached(cli, project, sshd, "-e", "kept")
    heard(cli, run_id)
    os.kill(sshd.executor(run_id), signal.SIGKILL)
    run = ended(cli, run_id, sshd)
    assert run["status"] == "FAILED" and reason_of(run).startswith("lost: its executor is gone")
    assert [metric["key"] for metric in run["metrics"]] == ["loss"]
    assert "made/model.bin" in [item["path"] for item in cli.json("runs", "artifacts", run_id)["artifacts"]]


def test_a_submission_that_is_killed_anywhere(cli: Cli, project: Repository, sshd: Sshd) -> None:
    """Each run ends, and no command runs twice."""
    marks = sshd.home / "marks"
    project.commit({"MLproject": f"entry_points: {{main: {{command: 'echo x >>{marks}'}}}}\n"})
    for delay in (0.4, 0.6, 0.7, 0.8, 1.0):
        process = cli.start("run", project.url, *there(sshd), *SYSTEM)
        time.sleep(delay)
        process.kill()
        process.communicate()
    runs = cli.json("runs", "list")["runs"]
    cli("wait", *(run["id"] for run in runs))
    runs = cli.json("runs", "list")["runs"]
    assert {run["status"] for run in runs} <= {"FINISHED", "FAILED"}
    count = len(marks.read_text().splitlines()) if marks.exists() else 0
    assert count == [run["status"] for run in runs].count("FINISHED")
    nothing_left(cli)


def test_a_job_is_started_once_whoever_says_so(sshd: Sshd, tmp_path: Path) -> None:
    """An archive that did not arrive whole is refused and leaves nothing; what is no job of ours is left alone."""
    run_id = "0123456789abcdef0123456789abcdef"
    base = sshd.home / "other jobs"
    (base / ("f" * 32)).mkdir(parents=True)
    program = [sys.executable, "-m", ssh_there.__name__, "mark", "begin", str(base), run_id]
    cut = subprocess.run(program, input=b"", capture_output=True, check=False)
    assert cut.returncode == ssh_there.REFUSED and b"did not arrive whole" in cut.stderr
    assert [path.name for path in base.iterdir()] == ["f" * 32]
    (base / run_id).mkdir()
    for mark in ("started", "given-up"):
        (base / run_id / mark).touch()
        again = subprocess.run(program, input=b"", capture_output=True, check=False)
        assert (again.returncode, again.stderr, (base / run_id / "parcel").exists()) == (0, b"", False)
        (base / run_id / mark).unlink()
    hostile = subprocess.run([*program[:-1], "../evil"], input=b"", capture_output=True, check=False)
    assert hostile.returncode == ssh_there.REFUSED and b"is no run" in hostile.stderr


def test_what_never_started_does_not_stay(sshd: Sshd) -> None:
    """The machine was restarted while the job was laid out: its secrets go with the next job's coming, a day later."""
    base = sshd.home / "restarted"
    young, old, begun = (f"{number:032x}" for number in range(3))
    for run_id in (young, old, begun):
        (base / run_id / "parcel").mkdir(parents=True)
        (base / run_id / "lock").touch()
    (base / begun / "started").touch()
    for run_id in (old, begun):
        os.utime(base / run_id / "lock", (0, 0))
    program = [sys.executable, "-m", ssh_there.__name__, "mark", "begin", str(base), "a" * 32]
    subprocess.run(program, input=b"", capture_output=True, check=False)
    assert sorted(path.name for path in base.iterdir()) == sorted((young, begun))


def test_a_job_that_is_stopped_while_it_is_laid_out(sshd: Sshd, tmp_path: Path) -> None:
    base, run_id = sshd.home / "stopped", "b" * 32
    (tmp_path / "plan.json").write_text("{}")
    (tmp_path / "complete").touch()
    archive = subprocess.run(["tar", "-C", tmp_path, "-c", "plan.json", "complete"], capture_output=True, check=True).stdout
    words = [sys.executable, "-m", ssh_there.__name__, "mark"]
    begin = subprocess.Popen([*words, "begin", str(base), run_id], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    assert begin.stdin is not None
    while not (base / run_id / "lock").exists():
        time.sleep(0.01)
    (base / run_id / "given-up").touch()  # before there is a parcel
    begin.communicate(archive)
    assert begin.returncode == 0 and not (base / run_id / "started").exists()


def test_any_shell_takes_what_is_said() -> None:
    """csh takes no ends of lines and no `!` in quotes, fish no backslash before a quote."""
    words = ("it's", "!!", "two\nlines", "\\n %s $(id) `id` é", "")
    said = Line("box", (), os.environ)._command("for word; do printf '%s|' \"$word\"; done\n# it's !\n", words)[-1]
    assert not set("\n!`") & set(said)
    assert subprocess.run(["sh", "-c", said], capture_output=True, text=True, check=True).stdout == "".join(
        f"{w}|" for w in words
    )


def test_a_large_log(cli: Cli, project: Repository, sshd: Sshd) -> None:
    command = cli.command("run", project.url, "-e", "large", *there(sshd), *SYSTEM)
    process = subprocess.Popen(command, env=cli.env, cwd=cli.home, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    size, most = followed(process)
    assert size == 200_000_000
    assert most < 120_000, "kB in memory"
    nothing_left(cli)


def test_one_machine_that_is_away_says_nothing_of_others(sshd: Sshd, tmp_path: Path) -> None:
    backend = SshBackend(BackendContext(tmp_path, os.environ))
    details = {"host": "127.0.0.1", "python": sys.executable, "folder": "~/jobs", "ssh": json.dumps(sshd.config["ssh"])}
    (sshd.home / "jobs").mkdir()
    away = {**details, "ssh": json.dumps(["-p", "1"])}
    unmounted = {**details, "folder": "/not/mounted"}
    silent = {**details, "python": "/bin/true"}
    places = (details, away, unmounted, silent, details)
    found = backend.status([JobHandle("ssh", "x", "", f"{number:032x}", where) for number, where in enumerate(places)])
    assert [status.state for status in found] == [JobState.LOST, *[JobState.UNKNOWN] * 3, JobState.LOST]


def test_what_is_wrong_is_said(cli: Cli, project: Repository, sshd: Sshd, tmp_path: Path) -> None:
    unknown = [word if not word.startswith("UserKnown") else f"UserKnownHostsFile={tmp_path}/none" for word in sshd.config["ssh"]]
    old = sshd.home / "old python"
    old.write_text("#!/bin/sh\necho 0.0.1\n")
    old.chmod(0o755)
    for config, words in (
        ({"ssh": unknown}, "Host key verification failed"),
        ({"ssh": ["-p", "1"]}, "Connection refused"),
        ({"host": ""}, "not said which machine"),
        ({"host": "-oProxyCommand=touch /tmp/canary"}, "no name of a machine"),
        ({"python": "/no/such/python"}, "has no runproj"),
        ({"python": "~/old python"}, "has runproj 0.0.1"),
        ({"python": "/$(touch ~/canary)"}, "has no runproj"),
        ({"python": "venv/bin/python"}, "not said below which folder"),
        ({"folder": "jobs"}, "not said below which folder"),
        ({"partition": "gpu"}, "no partitions"),
    ):
        refused = cli("run", project.url, *there(sshd, **config), *SYSTEM)
        assert refused.returncode == 125, refused.stderr
        assert words in " ".join(refused.stderr.split())
    assert not (sshd.home / "canary").exists()
    assert cli.json("runs", "list")["runs"] == []
    assert not home(cli).joinpath("parcels").exists() or not list(home(cli).joinpath("parcels").iterdir())


def test_connections_are_shared_in_a_folder_that_nobody_else_has(tmp_path: Path) -> None:
    def shared(folder: Path) -> bool:
        line = Line("box", (), {**os.environ, "XDG_RUNTIME_DIR": str(folder)})
        return any(word.startswith("ControlPath=") for word in line._command("true", ()))

    good, open_to_all, other, blank = (Path(f"/tmp/runproj-test-{os.getpid()}-{number}") for number in ("0", "1", "2", "3 %h"))
    name = f"runproj-ssh-{os.getuid()}"
    try:
        for folder in (good, open_to_all, other, blank):
            folder.mkdir()
        (open_to_all / name).mkdir()
        (open_to_all / name).chmod(0o777)
        (other / name).symlink_to(tmp_path)
        assert [shared(folder) for folder in (good, open_to_all, other, blank)] == [True, False, False, False]
    finally:
        for folder in (good, open_to_all, other, blank):
            subprocess.run(["rm", "-rf", folder], check=True)
