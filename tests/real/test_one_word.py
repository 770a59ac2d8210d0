"""The elastic net, with one word changed: here, in a container, on Slurm, Ray and Kubernetes.  Only where it ran differs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import Repository
from support.kubernetes import Kubernetes, pod_with
from support.ray import Ray
from support.slurm import Slurm

pytestmark = [pytest.mark.slow, pytest.mark.network, pytest.mark.timeout(3000)]

EXAMPLE = Path(__file__).parents[2] / "example_projects" / "sklearn_elasticnet"
PLACES = {
    "local": [],
    "docker": ["--env-manager", "docker"],
    "slurm": ["--backend", "slurm"],
    "ray": ["--backend", "ray"],
    "kubernetes": ["--backend", "kubernetes"],
}
WHERE = {
    ("run", "backend"),
    ("run", "name"),
    ("hardware", "host"),
    ("lock", "manager"),
    ("image", "reference"),
    ("run", "image of its job"),
    ("lock", "digest"),
}
"""What may differ between runs of other places; and of variables, what machines and images set for themselves."""
ITS_OWN = ("PATH", "LANG", "LC_CTYPE", "PIP_", "SSL_", "TINI_")


def asked(*arguments: str) -> dict:
    command = [sys.executable, "-m", "runproj.cli.main", *arguments, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=800)
    assert done.returncode == 0, done.stderr
    found: dict = json.loads(done.stdout)
    return found


def test_it_is_the_same_wherever_it_runs(
    repository: Repository, kubernetes: Kubernetes, ray: Ray, slurm: Slurm, base_image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(EXAMPLE, repository.path, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
    repository.commit({})
    for name, value in {**kubernetes.environ, **ray.environ, **slurm.environ, "RUNPROJ_DOCKER_BASE": base_image}.items():
        monkeypatch.setenv(name, value)
    home = Path(os.environ["RUNPROJ_HOME"])
    home.mkdir(exist_ok=True)
    (home / "config.toml").write_text(f"[backends]\nkubernetes = {inline(pod_with(home))}\n")
    metrics = {}
    for name, words in PLACES.items():
        view = asked("run", repository.url, "-P", "alpha=0.4", "--clean-env", "--run-name", name, *words)
        metrics[name] = {item["key"]: item["value"] for item in view["run"]["metrics"]}
    assert metrics["local"] == pytest.approx({"rmse": 63.2085, "mae": 51.1127, "r2": 0.39591}, rel=1e-3)
    for name in PLACES:
        assert metrics[name] == metrics["local"], name
        if name != "local":
            differences = asked("diff", "local", name)["differences"]
            found = {(item["kind"], item["name"]) for item in differences} - WHERE
            assert not {one for one in found if not (one[0] == "variable" and one[1].startswith(ITS_OWN))}, name


def inline(value: object) -> str:
    """A value as TOML writes it in one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {inline(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(inline, value)) + "]"
    return json.dumps(value)
