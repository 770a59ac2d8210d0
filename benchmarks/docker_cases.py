"""What a run in a container costs beside bare `docker run` of the same image, taken in turns."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

from cases import Bench, Row, at_most, make_project
from measure import Result, Sample, once

BASE = Path(__file__).resolve().parents[1] / "tests" / "support" / "base_image.sh"


def docker(bench: Bench) -> list[Row]:
    """A project with an image that does nothing, all of it there already."""
    folder = os.environ.get("RUNPROJ_TEST_CACHE") or str(BASE.parents[2] / ".ci" / "cache")
    image = subprocess.run([BASE, folder], check=True, capture_output=True, text=True).stdout.strip()
    project = {"docker_env": image, "entry_points": {"main": {"command": "true"}}}
    url = make_project(bench, "contained", {"MLproject": json.dumps(project)})
    commands = {
        "bare": ["docker", "run", "--rm", image, "true"],
        "ours": [bench.runproj, "run", url],
        "host": [bench.runproj, "run", "--env-manager", "system", url],
    }
    samples: dict[str, list[Sample]] = {name: [] for name in commands}
    for turn in range(bench.times + 1):
        for name, argv in commands.items():
            taken = once(argv, bench.environ, bench.work)
            if turn:  # the first fills caches
                samples[name].append(taken)
    bare, ours, host = (Result(tuple(samples[name])) for name in commands)
    ratio = ours.wall / bare.wall
    return [
        at_most("docker", "runproj run URL", ours.cpu, 0.4, shown=f"{ours.shown()} s CPU, {ours.wall:.2f} s wall"),
        Row("docker", "bare docker run", f"{bare.wall:.2f} s wall"),
        Row("docker", "ratio of wall times", f"{ratio:.2f}", "<= 1.3", ratio <= 1.3),
        Row("docker", "the same run on the host", f"{host.wall:.2f} s wall"),
        Row("docker", "in a container, beyond bare and host", f"{ours.wall - bare.wall - host.wall:+.2f} s wall"),
    ]


CASES: dict[str, Callable[[Bench], list[Row]]] = {"docker": docker}
