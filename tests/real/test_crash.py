"""kill -9 of the runner, anywhere: the next command works, nothing is orphaned, no run stays RUNNING, no cache is poisoned."""

from __future__ import annotations

import json
import os
import random
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import Repository
from runproj import proc
from support.program import Cli

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]

PROJECT = {
    "runproj.yaml": (
        "name: crash\n"
        "environment: {requirements: [./tiny]}\n"
        "entry_points:\n"
        "  main: {command: [python, main.py], outputs: [out.txt]}\n"
    ),
    "main.py": (
        "import subprocess, time, tiny\n"
        "subprocess.Popen(['setsid', 'sleep', '0.3'])\n"
        "open('out.txt', 'w').write(tiny.WORD)\n"
        "print(tiny.WORD, flush=True)\n"
        "time.sleep(0.1)\n"
    ),
    "tiny/pyproject.toml": (
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        '[project]\nname = "tiny"\nversion = "1.0"\n'
    ),
    "tiny/tiny.py": "WORD = 'tiny works'\n",
    "tiny/backend.py": (
        "import zipfile\n"
        "META = 'Metadata-Version: 2.1\\nName: tiny\\nVersion: 1.0\\n'\n"
        "WHEEL = 'Wheel-Version: 1.0\\nGenerator: backend\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n'\n"
        "def build_wheel(folder, config=None, metadata=None):\n"
        "    name = 'tiny-1.0-py3-none-any.whl'\n"
        "    with zipfile.ZipFile(folder + '/' + name, 'w') as z:\n"
        "        z.write('tiny.py'); z.writestr('tiny-1.0.dist-info/METADATA', META)\n"
        "        z.writestr('tiny-1.0.dist-info/WHEEL', WHEEL); z.writestr('tiny-1.0.dist-info/RECORD', '')\n"
        "    return name\n"
    ),
}


class Crasher:
    """Runs the program in a home of its own, and checks what must hold after each death."""

    def __init__(self, home: Path, url: str) -> None:
        self.url = url
        self.cli = Cli(home.parent)
        self.env = self.cli.env
        self.env["RUNPROJ_HOME"] = str(home)
        self.home = home

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.cli(*arguments)

    def check(self, where: str) -> None:
        """The invariants, by the next commands a user would type."""
        listed = self.run("runs", "list", "-n", "1000", "--json")
        assert listed.returncode == 0, f"{where}: {listed.stderr}"
        running = [run["id"] for run in json.loads(listed.stdout)["runs"] if run["status"] in ("RUNNING", "SCHEDULED")]
        assert running == [], where
        again = self.run("run", self.url)
        assert (again.returncode, again.stdout) == (0, "tiny works\n"), f"{where}: {again.stderr}"
        for name in ("active", "runs", "checkouts"):
            folder = self.home / name
            left = os.listdir(folder) if folder.exists() else []
            assert left == [], f"{where}: {name} holds {left}"

    def orphans(self) -> list[int]:
        """Processes that were started for this home and still live."""
        return [pid for pid in proc.marked("RUNPROJ_HOME", str(self.home)) if proc.start_time(pid)]

    def no_orphans(self, where: str) -> None:
        deadline = time.monotonic() + 20
        while (alive := self.orphans()) and time.monotonic() < deadline:
            time.sleep(0.05)
        told = [Path(f"/proc/{pid}/cmdline").read_text() for pid in alive if Path(f"/proc/{pid}").exists()]
        assert alive == [], f"{where}: {told}"


@pytest.fixture
def crasher(isolated: Path, repository: Repository) -> Crasher:
    repository.commit(PROJECT)
    return Crasher(isolated / "crash home", repository.url)


def test_fifty_random_points(crasher: Crasher) -> None:
    begun = time.monotonic()
    subprocess.run(crasher.cli.command("run", crasher.url), env=crasher.env, check=True, capture_output=True)
    cold = time.monotonic() - begun
    rng = random.Random(20260101)
    for number in range(50):
        if number % 3 == 0:  # let it fetch and build again
            for name in ("envs", "cache"):
                remove(crasher.home / name)
        process = subprocess.Popen(crasher.cli.command("run", crasher.url), env=crasher.env, stdout=-3, stderr=-3)
        delay = rng.uniform(0, cold if number % 3 == 0 else cold / 2)
        time.sleep(delay)
        process.kill()
        process.wait()
        where = f"kill {number} after {delay:.3f} s"
        crasher.no_orphans(where)
        crasher.check(where)


def remove(path: Path) -> None:
    from runproj.files import remove_tree

    remove_tree(path)


def points(crasher: Crasher, call: str) -> Iterator[int]:
    """Kill the runner at its first, second, … call of a system call, until it gets through."""
    number = 1
    while True:
        command = ["strace", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={call}:signal=SIGKILL:when={number}"]
        result = subprocess.run(
            [*command, *crasher.cli.command("run", crasher.url)], env=crasher.env, capture_output=True, text=True
        )
        if result.returncode == 0:
            return
        yield number
        number += 1


@pytest.mark.parametrize(("call", "least"), [("rename", 5), ("fsync", 5), ("unlink", 3)])
def test_every_point_of_a_warm_run(crasher: Crasher, call: str, least: int) -> None:
    assert crasher.run("run", crasher.url).returncode == 0
    seen = 0
    for number in points(crasher, call):
        crasher.no_orphans(f"{call} {number}")
        crasher.check(f"{call} {number}")
        seen += 1
    assert seen >= least, "the walk met the points it is for"


@pytest.mark.parametrize("call", ["rename"])
def test_every_rename_of_a_cold_run(crasher: Crasher, call: str) -> None:
    seen = 0
    for number in points(crasher, call):
        crasher.no_orphans(f"{call} {number}")
        crasher.check(f"{call} {number}")
        for name in ("envs", "cache", "locks"):
            remove(crasher.home / name)
        seen += 1
    assert seen >= 5, "the walk met the points it is for"
