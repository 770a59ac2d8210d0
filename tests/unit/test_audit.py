"""`--audit`: what a command reads and whom it calls without its project saying so, and that looking on changes nothing."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import Repository
from runproj.audit import Scope, findings, require, words
from runproj.core.environment import EnvPlace
from runproj.core.record import Audit
from runproj.errors import BackendError, UsageError
from support.program import SYSTEM, Cli
from support.waiting import until

READS = """\
import os, runproj, socket, subprocess, sys
home = os.environ["HOME"]
open(home + "/da ta\\n>.csv").read()
open("inside.txt").read()
open(os.environ["RUNPROJ_INPUT_DECLARED"]).read()
open(sys.argv[1]).read()
with open(home + "/made.txt", "w") as file:
    file.write("made")
open(home + "/made.txt").read()
subprocess.run('(cat lib/helper.txt &) ; wait; cat "$HOME/lib/helper.txt"', shell=True, cwd=home, check=True)
sys.path.insert(0, home + "/lib")
import helper
for port in sys.argv[2:]:
    with socket.socket() as link:
        link.connect_ex(("127.0.0.1", int(port)))
runproj.log_metric("a", 1)
"""
PROJECT = """\
name: audited
entry_points:
  main:
    command: [python, main.py, "{table}", "{port}"]
    parameters: {table: {type: path}, port: {type: int}}
    inputs: {declared: {uri: HOME/declared.txt}}
  three: {command: [python, -c, "import sys; sys.exit(3)"]}
  crash: {command: [python, -c, "import os; os.kill(os.getpid(), 11)"]}
  missing: {command: [no-such-program]}
  nothing: {command: [python, -c, pass]}
  leaves: {command: "(setsid sleep 7731 &) ; true"}
  waits: {command: [python, -c, "import subprocess; print('up', flush=True); subprocess.run(['sleep', '6631'])"]}
"""


@pytest.fixture
def audited(cli: Cli, repository: Repository, isolated: Path) -> Repository:
    project = (
        PROJECT.replace("7731", LEFT)
        .replace("6631", NAP)
        .replace("HOME", str(isolated).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n"))
    )
    quoted = project.replace("uri: ", 'uri: "').replace("declared.txt}", 'declared.txt"}')
    repository.commit({"runproj.yaml": quoted, "main.py": READS, "inside.txt": "inside"})
    for name in ("da ta\n>.csv", "declared.txt", "table.csv", "lib/helper.txt", "lib/helper.py"):
        path = isolated / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("VALUE = 1\n")
        os.utime(path, (1_600_000_000, 1_600_000_000))
    return repository


def test_what_is_not_declared_is_named_and_nothing_else(cli: Cli, audited: Repository, isolated: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        command = ("run", audited.url, "-P", f"table={isolated / 'table.csv'}", "-P", f"port={port}", *SYSTEM)
        noted = cli(*command, "--audit", "--json")
        assert noted.returncode == 0, noted.stderr
        record = json.loads(noted.stdout)["record"]
        found = {str(Path(item["path"]).relative_to(isolated)): item for item in record["audit"]["files"]}
        assert set(found) == {"da ta\n>.csv", "lib/helper.txt", "lib/helper.py"}
        digest = subprocess.run(["sha256sum", "lib/helper.py"], cwd=isolated, capture_output=True, text=True).stdout.split()[0]
        assert found["lib/helper.py"] == {"path": str(isolated / "lib/helper.py"), "size": 10, "sha256": digest}
        assert record["audit"]["connections"] == [{"host": "127.0.0.1", "port": port}]
        assert any("without being declared" in note for note in record["notes"])
        assert not list(Path(cli.env["RUNPROJ_HOME"], "runs").iterdir())

        forbidden = cli(*command, "--audit-strict", "-q")
        assert forbidden.returncode == 21 and "helper.txt" in forbidden.stderr
    assert cli.json("runs", "show", "@last")["run"]["status"] == "FAILED"
    again = cli.json("rerun", "@last", "-P", f"port={port}")
    assert again["exit_code"] == 0 and again["record"].get("audit") is None


@pytest.mark.parametrize(
    ("entry_point", "code", "reason"),
    [
        ("three", 3, "exit code 3"),
        ("crash", 139, "ended by SIGSEGV"),
        ("missing", 127, "could not be started"),
        ("nothing", 0, ""),
    ],
)
def test_a_watched_command_ends_as_it_would(cli: Cli, audited: Repository, entry_point: str, code: int, reason: str) -> None:
    result = cli("run", audited.url, "-e", entry_point, *SYSTEM, "--audit-strict", "--json")
    view = json.loads(result.stdout)
    assert result.returncode == code and reason in (view["reason"] or "")
    assert view["record"]["audit"] == {"files": [], "connections": [], "more": 0}


LEFT, NAP = f"7731.{os.getpid()}", f"6631.{os.getpid()}"
"""Seconds that nobody else sleeps for."""


def sleeping(seconds: str) -> list[str]:
    listed = subprocess.run(["pgrep", "-fx", f"sleep {seconds}"], capture_output=True, text=True)
    return listed.stdout.split()


def test_a_watched_command_leaves_nothing_behind(cli: Cli, audited: Repository) -> None:
    result = cli("run", audited.url, "-e", "leaves", *SYSTEM, "--audit")
    assert result.returncode == 0 and "1 processes that the command left running" in result.stderr
    assert sleeping(LEFT) == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_a_watched_command_is_stopped_with_its_run(cli: Cli, audited: Repository, number: int, code: int) -> None:
    process = cli.start("run", audited.url, "-e", "waits", *SYSTEM, "--audit")
    assert process.stdout
    assert process.stdout.readline() == "up\n"
    process.send_signal(number)
    assert process.wait(60) == code
    until(lambda: not sleeping(NAP))
    assert cli.json("runs", "show", "@last")["run"]["status"] == ("FAILED" if number == signal.SIGKILL else "KILLED")


def test_without_strace_it_says_what_to_install(cli: Cli, audited: Repository, tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("git", "env"):
        (programs / name).symlink_to(shutil.which(name) or "")
    (programs / "python3").symlink_to(os.path.realpath(sys.executable))
    cli.env["PATH"] = str(programs)
    result = cli("run", audited.url, "-e", "three", *SYSTEM, "--audit")
    assert result.returncode == 125 and "apt install strace" in result.stderr
    assert cli.json("runs", "list")["runs"] == []


def test_where_nothing_can_be_watched_it_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot look into a container"):
        require(EnvPlace.IMAGE)
    broken = tmp_path / "strace"
    broken.write_text("#!/bin/sh\necho 'ptrace: Operation not permitted' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(BackendError, match="does not work here") as error:
        require(EnvPlace.HOST)
    assert "not permitted" in error.value.why


LOG = r"""
1  execve("/usr/bin/python3", ["guard.py"], 0x7fff /* 3 vars */) = 0
1  openat(AT_FDCWD</x>, "OUT/guards-own", O_RDONLY) = 3<OUT/guards-own>
2  openat(AT_FDCWD</x>, "a", O_RDONLY|O_CLOEXEC <unfinished ...>
3  openat(AT_FDCWD</x>, "b", O_WRONLY|O_CREAT, 0666) = 3<OUT/written>
2  <... openat resumed>) = 3<OUT/inter\"rupted \303\244\n\76>
3  openat(AT_FDCWD</x>, "c", O_RDONLY) = -1 ENOENT (No such file or directory)
3  openat(AT_FDCWD</x>, "d", O_RDONLY|O_DIRECTORY) = 3<OUT/folder>
3  openat(AT_FDCWD</x>, "e", O_RDONLY) = 3<OUT/gone>(deleted)
3  execve("OUT/program", ["program"], 0x7fff /* 3 vars */) = 0
3  execve("OUT/absent", ["absent"], 0x7fff /* 3 vars */) = -1 ENOENT (No such file or directory)
3  connect(3<socket:[1]>, {sa_family=AF_INET, sin_port=htons(443), sin_addr=inet_addr("192.0.2.1")}, 16) = 0
3  connect(3<socket:[1]>, {sa_family=AF_INET, sin_port=htons(53), sin_addr=inet_addr("192.0.2.53")}, 16) = 0
3  connect(3<s>, {sa_family=AF_INET6, sin6_port=htons(80), sin6_flowinfo=0, inet_pton(AF_INET6, "::2", &sin6_addr)}, 28) = 0
3  connect(3<socket:[2]>, {sa_family=AF_UNIX, sun_path="/run/x"}, 110) = 0
3  connect(3<socket:[3]>, {sa_family=AF_INET, sin_port=htons(5000), sin_addr=inet_addr("127.0.0.1")}, 16) = 0
3  +++ exited with 0 +++
garbage
"""


def test_the_log_of_strace_is_read_as_it_is_written(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for name in ("guards-own", "written", 'inter"rupted ä\n>', "gone", "program", "absent", "declared"):
        (out / name).write_text(name)
        os.utime(out / name, (1, 1))
    log = tmp_path / "log"
    log.write_text(LOG.replace("OUT", str(out)))
    found = findings(log, Scope((), 2.0, frozenset({("127.0.0.1", 5000)})))
    assert [Path(file.path).name for file in found.files] == ["gone", 'inter"rupted ä\n>', "program"]
    assert [(call.host, call.port) for call in found.connections] == [("192.0.2.1", 443), ("::2", 80)]
    assert "program" in words(found) and "192.0.2.1:443" in words(found)
    assert findings(log, Scope((out,), 2.0)).files == ()
    assert findings(log, Scope((), 0.0)).files == ()  # all of it was written since
    assert findings(tmp_path / "none", Scope((), 0.0)) == Audit() and words(Audit()) == ""
