"""What runproj is compared with: `mlflow run`, in an environment of its own that is built once and kept."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Mlflow:
    """An installed MLflow."""

    folder: Path
    version: str

    @property
    def program(self) -> Path:
        return self.folder / "bin" / "mlflow"

    def environ(self, work: Path) -> dict[str, str]:
        """Variables for a quiet MLflow that keeps everything in `work`."""
        return plain_environment() | {
            "PATH": os.pathsep.join([str(self.folder / "bin"), str(Path(tool("uv")).parent), os.environ.get("PATH", os.defpath)]),
            "MLFLOW_TRACKING_URI": f"sqlite:///{work / 'mlflow.db'}",
            "MLFLOW_ENV_ROOT": str(work / "envs"),
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "TMPDIR": str(work / "tmp"),
        }


def plain_environment() -> dict[str, str]:
    """This process's environment without anything that would make one tool do other work than the other."""
    skipped = ("MLFLOW_", "RUNPROJ_", "PYTHONDONTWRITEBYTECODE", "VIRTUAL_ENV", "PYTHONPATH", "CI")
    return {name: value for name, value in os.environ.items() if not name.startswith(skipped)}


def tool(name: str) -> str:
    """The program of that name, from this interpreter's environment if it has it."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if not found:
        raise SystemExit(f"{name} is needed and was not found")
    return found


def cache_folder() -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(root) / "runproj-benchmarks"


def runproj(folder: Path) -> Path:
    """This working tree, installed as a user has it, without the tools of its developers; returns the program."""
    root = Path(__file__).resolve().parents[1]
    subprocess.run([tool("uv"), "venv", "-q", "-p", os.path.realpath(sys.executable), folder], check=True)
    subprocess.run([tool("uv"), "pip", "install", "-q", "-p", folder, "--reinstall-package", "runproj", root], check=True)
    subprocess.run([folder / "bin" / "python", "-m", "compileall", "-q", folder / "lib"], check=True)
    return folder / "bin" / "runproj"


def mlflow() -> Mlflow:
    """MLflow, installed on first use with uv."""
    folder = cache_folder() / f"mlflow-py{sys.version_info.major}{sys.version_info.minor}"
    if not (folder / "installed").exists():
        print(f"installing mlflow into {folder} (once)", file=sys.stderr)
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        python = os.path.realpath(sys.executable)
        subprocess.run([tool("uv"), "venv", "-q", "-p", python, folder], check=True)
        subprocess.run([tool("uv"), "pip", "install", "-q", "-p", folder, "mlflow"], check=True)
        (folder / "installed").touch()
    said = subprocess.run([folder / "bin" / "mlflow", "--version"], check=True, capture_output=True, text=True).stdout
    return Mlflow(folder, said.split()[-1])
