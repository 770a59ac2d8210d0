"""What every backend promises, as tests for pytest: a backend's package makes a subclass, and passes.

```python
from runproj.testing import BackendSuite

class TestMine(BackendSuite):
    backend = "mine"
    config = {"queue": "test"}
```

The program is run as its users run it; nothing inside of it is touched.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

HOSTILE = 'it\'s a "Größe" $(x) `y`\n;& %j'
"""A name with everything that breaks careless code."""

PROJECT = {
    "MLproject": (
        "name: suite\n"
        "entry_points:\n"
        "  main:\n"
        "    parameters: {text: {type: string, default: x}, n: {type: int, default: 3}}\n"
        "    command: python main.py {text} {n}\n"
        "  fail: {command: 'python -c \"import sys; sys.exit(3)\"'}\n"
        "  die: {command: 'python -c \"import os; os.kill(os.getpid(), 9)\"'}\n"
        "  endless: {command: python endless.py}\n"
    ),
    "main.py": (
        "import pathlib, runproj, sys\n"
        "print(sys.argv[1]); print('problem', file=sys.stderr)\n"
        "for step in range(int(sys.argv[2])): runproj.log_metric('loss', 1 / (step + 1), step=step)\n"
        "pathlib.Path('model.bin').write_bytes(b'weights'); runproj.log_artifact('model.bin')\n"
    ),
    "endless.py": (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('asked', flush=True), sys.exit(0)))\n"
        "print('begun', flush=True)\n"
        "time.sleep(300)\n"
    ),
}


class Program:
    """runproj, with a home and a project of this test's own."""

    def __init__(self, folder: Path, backend: str, config: Mapping[str, Any], environ: Mapping[str, str]) -> None:
        self.home, self.project = folder / "runproj home", folder / "project"
        self.environ = {**os.environ, "RUNPROJ_HOME": str(self.home), **environ}
        self.on = ["--env-manager", "system", "--backend", backend, "--backend-config", json.dumps(dict(config))]
        self.project.mkdir(parents=True)
        for name, content in PROJECT.items():
            (self.project / name).write_text(content)

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "runproj", *arguments]

    def __call__(self, *arguments: str, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments),
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
            cwd=self.project,
        )

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the project where the backend runs it."""
        return self("run", str(self.project), *self.on, *arguments)

    def detached(self, *arguments: str) -> str:
        """Submit a run; returns its id."""
        done = self.run(*arguments, "--detach")
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def show(self, run_id: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self("runs", "show", run_id, "--json").stdout)["run"]
        return found

    def runs(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self("runs", "list", "--json").stdout)["runs"]
        return found

    def begun(self, run_id: str, seconds: float) -> None:
        """Wait until the command of `endless` has spoken."""
        command = self.command("runs", "logs", "--follow", run_id)
        following = subprocess.Popen(command, env=self.environ, stdout=subprocess.PIPE, text=True, cwd=self.project)
        try:
            assert following.stdout is not None
            deadline = time.monotonic() + seconds
            while following.stdout.readline() != "begun\n":
                assert time.monotonic() < deadline, "the job did not begin"
        finally:
            following.kill()
            following.communicate()

    def clean(self, seconds: float = 120.0) -> None:
        """Nothing is left of jobs that are over; whoever closes a run removes what it had after its end is stored."""
        deadline = time.monotonic() + seconds
        for name in ("active", "parcels", "runs"):
            folder = self.home / name
            while folder.exists() and list(folder.iterdir()):
                assert time.monotonic() < deadline, f"{name} is not empty"
                time.sleep(0.05)


class BackendSuite:
    """The tests.  backend, config: as in `--backend` and `--backend-config`;  patience: seconds until a job begins or ends."""

    backend = ""
    config: Mapping[str, Any] = {}
    patience = 300.0

    @pytest.fixture
    def environ(self) -> Mapping[str, str]:
        """Variables that the program needs to reach the engine; to be overridden."""
        return {}

    @pytest.fixture
    def program(self, tmp_path: Path, environ: Mapping[str, str]) -> Iterator[Program]:
        made = Program(tmp_path / HOSTILE, self.backend, self.config, environ)
        yield made
        for run in made.runs():
            if run["status"] in ("RUNNING", "SCHEDULED"):
                made("runs", "stop", run["id"])

    def test_a_run_is_recorded_whole_and_both_streams_are_seen(self, program: Program) -> None:
        done = program.run("-P", f"text={HOSTILE}", "-P", "n=50", "--run-name", HOSTILE)
        assert done.returncode == 0, done.stderr
        assert done.stdout == f"{HOSTILE}\n"
        assert "problem\n" in done.stderr
        (run,) = program.runs()
        assert (run["status"], run["name"]) == ("FINISHED", HOSTILE)
        assert [(item["key"], item["step"]) for item in run["metrics"]] == [("loss", 49)]
        assert program("runs", "logs", run["id"]).stdout == f"{HOSTILE}\n"
        assert program("runs", "logs", "--stderr", run["id"]).stdout == "problem\n"
        artifacts = json.loads(program("runs", "artifacts", run["id"], "--json").stdout)["artifacts"]
        assert "model.bin" in [item["path"] for item in artifacts]
        program.clean()

    @pytest.mark.parametrize(("entry_point", "code", "reason"), [("fail", 3, "exit code 3"), ("die", 137, "SIGKILL")])
    def test_exit_codes_and_signals(self, program: Program, entry_point: str, code: int, reason: str) -> None:
        done = program.run("-e", entry_point)
        assert done.returncode == code, done.stderr
        assert reason in done.stderr
        assert [run["status"] for run in program.runs()] == ["FAILED"]
        program.clean()

    def test_a_detached_run_is_followed_and_stopped_by_other_processes(self, program: Program) -> None:
        run_id = program.detached("-e", "endless")
        program.begun(run_id, self.patience)
        assert program.show(run_id)["status"] == "RUNNING"
        for _ in range(2):
            assert program("runs", "stop", run_id).returncode == 0
        assert program.show(run_id)["status"] == "KILLED"
        assert program("runs", "logs", run_id).stdout == "begun\nasked\n"
        program.clean()

    def test_ctrl_c_stops_the_job(self, program: Program) -> None:
        command = program.command("run", str(program.project), "-e", "endless", *program.on)
        process = subprocess.Popen(command, env=program.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=self.patience)
        assert process.returncode > 128, said
        assert [run["status"] for run in program.runs()] == ["KILLED"]
        program.clean()

    def test_many_at_once(self, program: Program) -> None:
        ids = [program.detached("-P", f"n={number}") for number in (2, 3, 4)]
        assert program("wait", *ids).returncode == 0
        found = {run["id"]: (run["status"], [item["step"] for item in run["metrics"]]) for run in program.runs()}
        assert found == {run_id: ("FINISHED", [step]) for run_id, step in zip(ids, (1, 2, 3), strict=True)}
        program.clean()

    def test_what_the_backend_does_not_know_is_refused_before_anything_starts(self, program: Program) -> None:
        refused = program.run("--backend-config", '{"no such option": 1}')
        assert refused.returncode == 2
        assert "no such option" in refused.stderr
        assert program.runs() == []


class EngineSuite(BackendSuite):
    """Further tests for backends whose jobs go on without the process that submitted them."""

    def test_a_run_whose_follower_was_killed_is_completed_by_the_next_command(self, program: Program) -> None:
        command = program.command("run", str(program.project), "-P", "n=300", *program.on)
        process = subprocess.Popen(command, env=program.environ, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert process.stdout is not None
        process.stdout.readline()
        process.kill()
        process.communicate()
        (run,) = program.runs()
        assert program("wait", run["id"]).returncode == 0
        run = program.show(run["id"])
        assert (run["status"], [item["step"] for item in run["metrics"]]) == ("FINISHED", [299])
        program.clean()
