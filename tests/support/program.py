"""The program, run as its users run it, and a small project for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from support import warm

PROJECT = {
    "MLproject": (
        "name: demo\n"
        "entry_points:\n"
        "  main:\n"
        "    parameters:\n"
        "      lr: {type: float, default: 0.1}\n"
        "      name: {type: string, default: x}\n"
        "    command: python train.py --lr {lr} --name {name}\n"
        "  fail: {command: 'python -c \"import sys; sys.exit(3)\"'}\n"
        "  wait: {command: 'python wait.py'}\n"
        "  missing: {parameters: {a: float, b: int}, command: 'echo {a} {b}'}\n"
    ),
    "train.py": "import sys, json; print(json.dumps(sys.argv[1:]))\n",
    "wait.py": (
        "import subprocess, sys, time\n"
        "subprocess.Popen(['setsid', 'sleep', '77'])\n"
        "print('waiting', flush=True)\n"
        "time.sleep(600)\n"
    ),
}
SYSTEM = ("--env-manager", "system")


class Cli:
    """The program, run as a user would."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.env = dict(os.environ)

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "runproj.cli.main", *arguments]

    def __call__(self, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        usual = type(self).command is Cli.command  # who starts it in another way starts it
        if usual and (prepared := warm.find(self.env)):
            return prepared.run(list(arguments), self.env, cwd or self.home)
        return subprocess.run(
            self.command(*arguments), cwd=cwd or self.home, env=self.env, capture_output=True, text=True, stdin=subprocess.DEVNULL
        )

    def json(self, *arguments: str) -> dict:
        result = self(*arguments, "--json")
        return json.loads(result.stdout)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(*arguments), cwd=self.home, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
