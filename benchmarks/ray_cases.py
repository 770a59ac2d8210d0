"""Measurements of the Ray backend on a real Ray of one node: from submission to the command's first act, beside Ray's own."""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

from cases import Bench, Row, make_project
from measure import once

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from support.ray import Ray, installed


def ray(bench: Bench) -> list[Row]:
    """In turns: the same command notes the time when it begins."""
    cluster = Ray()
    try:
        cluster.start()
        return _rows(bench, cluster)
    finally:
        cluster.stop()


def _rows(bench: Bench, cluster: Ray) -> list[Row]:
    environ = bench.environ | cluster.environ | {"RAY_AUTH_MODE": "token"}
    begun = bench.work / "begun"
    act = f"date +%s.%N > '{begun}'"
    url = make_project(bench, "ray", {"runproj.yaml": f'entry_points:\n  main:\n    command: "{act}"\n'})
    ours = [bench.runproj, "run", url, "--env-manager", "system", "--quiet", "--backend", "ray", "--detach"]
    bare = [installed() / "ray", "job", "submit", "--no-wait", "--entrypoint-num-cpus=1", "--", "sh", "-c", act]
    taken: dict[str, list[float]] = {"ours": [], "bare": []}
    for number in range(bench.times + 1):
        kinds = [("ours", ours), ("bare", bare)]
        for kind, command in kinds if number % 2 else reversed(kinds):
            begun.unlink(missing_ok=True)
            start = time.time()
            once(command, environ, bench.work)
            while not (begun.exists() and (noted := begun.read_text().strip())):
                time.sleep(0.02)
            taken[kind].append(float(noted) - start)
    ours_took, bare_took = (statistics.median(taken[kind][1:]) for kind in ("ours", "bare"))
    ratio = ours_took / bare_took
    return [
        Row("ray", "from `runproj run` to the command", f"{ours_took:.2f} s"),
        Row("ray", "from `ray job submit` to the command", f"{bare_took:.2f} s"),
        Row("ray", "ratio", f"{ratio:.2f}", "<= 1.2", ratio <= 1.2),
    ]


CASES = {"ray": ray}
