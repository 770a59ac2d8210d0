"""The example backend's package, installed, and a project whose runs record everything that a run can."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from runproj.files import Lock
from support.program import Cli

if TYPE_CHECKING:
    from conftest import Repository

PACKAGE = Path(__file__).parents[2] / "example_backends" / "background"

LOGGING = {
    "MLproject": (
        "name: placed\n"
        "entry_points:\n"
        "  main:\n"
        "    parameters: {n: {type: int, default: 3}, text: {type: string, default: x}}\n"
        "    command: python train.py {n} {text}\n"
        "  endless: {command: python endless.py}\n"
        "  nesting: {command: python nesting.py}\n"
        "  fail: {command: 'python -c \"import sys; print(1); sys.exit(3)\"'}\n"
        "  die: {command: 'python -c \"import os; os.kill(os.getpid(), 9)\"'}\n"
    ),
    "train.py": (
        "import os, pathlib, sys\n"
        "import runproj\n"
        "n, text = int(sys.argv[1]), sys.argv[2]\n"
        "print('text', text, flush=True)\n"
        "print('to stderr', file=sys.stderr)\n"
        "for step in range(n): runproj.log_metric('loss', 1 / (step + 1), step=step)\n"
        "runproj.log_param('found', 'yes'); runproj.set_tag('note', text)\n"
        "pathlib.Path('model.bin').write_bytes(b'weights' * 1000); runproj.log_artifact('model.bin', 'made')\n"
    ),
    "nesting.py": (
        "import runproj, time\n"
        "print('begun', flush=True)\n"
        "outer = runproj.start_run()\n"
        "runproj.start_run('inner', nested=True).log_metric('deep', 1)\n"
        "for step in range(10_000): outer.log_metric('loss', step, step=step); time.sleep(0.05)\n"
    ),
    "endless.py": (
        "import runproj, signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('asked to end', flush=True), sys.exit(0)))\n"
        "print('begun', flush=True)\n"
        "for step in range(10_000): runproj.log_metric('loss', step, step=step); time.sleep(0.05)\n"
    ),
}


def more(points: str, before: str = "") -> dict[str, str]:
    """The same in a file of runproj's own, with a log of a gigabyte and more entry points; some lines may come before them."""
    return {name: content for name, content in LOGGING.items() if name != "MLproject"} | {
        "runproj.yaml": (
            f"name: placed\n{before}"
            "entry_points:\n"
            "  main:\n"
            "    parameters: {n: {type: int, default: 3}, text: {type: string, default: x}}\n"
            "    command: [python, train.py, '{n}', '{text}']\n"
            "  endless: {command: [python, endless.py]}\n"
            f"{points}"
            "  large: {command: [python, large.py]}\n"
        ),
        "large.py": "import sys\nblock = b'x' * 999 + b'\\n'\nfor _ in range(1_000_000): sys.stdout.buffer.write(block)\n",
    }


def home(cli: Cli) -> Path:
    return Path(cli.env["RUNPROJ_HOME"])


def nothing_left(cli: Cli) -> None:
    for name in ("parcels", "active", "runs"):
        left = [str(path.relative_to(home(cli))) for path in (home(cli) / name).rglob("*")]
        lives = [path for path in left if "/.trash-" in path and Path("/proc", path.split("-")[1]).exists()]
        assert not left, f"{left}; those that remove {lives} are alive"


def detached(cli: Cli, project: Repository, *arguments: str) -> str:
    """Submit a run of a project; returns its id."""
    started = cli("run", project.url, *arguments, "--detach")
    assert started.returncode == 0, started.stderr
    return started.stdout.strip()


def tags_of(cli: Cli, run_id: str) -> dict[str, str]:
    return {tag["key"]: tag["value"] for tag in cli.json("runs", "show", run_id)["run"]["tags"]}


def heard(cli: Cli, run_id: str) -> None:
    """Wait until something that the run logged has come here."""
    deadline = time.monotonic() + 300
    while not cli.json("runs", "show", run_id)["run"]["metrics"]:
        assert time.monotonic() < deadline
        time.sleep(0.5)


def executor(cli: Cli, run_id: str) -> int:
    """The process that executes a run; the one that waits for it began before."""
    mark = f"{home(cli)}/parcels/{run_id}".encode()
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if mark in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
    return max(found)


def followed(process: subprocess.Popen[bytes]) -> tuple[int, int]:
    """Read all that a process prints; how many bytes it was, and how many kB the process had in memory at most."""
    assert process.stdout is not None
    size = most = 0
    while data := process.stdout.read(1 << 20):
        size += len(data)
        status = Path(f"/proc/{process.pid}/status").read_text()
        most = max(most, *(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")), 0)
    assert process.wait(60) == 0
    return size, most


@pytest.fixture(scope="session")
def background(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the example backend as pip installs it, which takes seconds: once for all processes of a session."""
    base = tmp_path_factory.getbasetemp()
    root = (base.parent if base.name.startswith("popen-") else base) / "background"
    folder, copy, ready = root / "site", root / "source", root / "ready"
    with Lock(root / "lock"):
        if not ready.exists():
            copy.mkdir()
            for path in PACKAGE.iterdir():
                if path.is_file():
                    (copy / path.name).write_bytes(path.read_bytes())
            command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(folder), str(copy)]
            subprocess.run(command, check=True, env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"})
            ready.touch()
    return folder
