"""Capsules of large runs: memory and speed of `export` and `import`."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

from cases import Bench, Row, at_most, make_project
from measure import once

_LIMIT = 150.0
"""Megabytes, whatever the size of the run."""
_WRITE = """\
import os, sys
size, block = int(sys.argv[1]), os.urandom(1 << 20)
with open("large.bin", "wb") as file:
    for number in range(size >> 20):
        file.write(number.to_bytes(8, "big") + block[8:])
"""
_PROJECT = """\
name: large
entry_points:
  main: {command: [python, write.py, "{size}"], parameters: {size: {type: int}}, outputs: [large.bin]}
"""


def capsule(bench: Bench) -> list[Row]:
    """A run with an output of 5 GB, out of one home and into another."""
    url = make_project(bench, "large", {"runproj.yaml": _PROJECT, "write.py": _WRITE})
    here = {**bench.environ, "RUNPROJ_HOME": str(bench.work / "capsule-here")}
    there = {**bench.environ, "RUNPROJ_HOME": str(bench.work / "capsule-there")}
    size = bench.log_bytes
    once([bench.runproj, "run", url, "--env-manager", "system", "-P", f"size={size}", "-q"], here, bench.work)
    target = bench.work / "large.zip"
    exported = once([bench.runproj, "export", "@last", target], here, bench.work)
    floor = _hashing(target)
    imported = once([bench.runproj, "import", target], there, bench.work)
    shown = subprocess.run([bench.runproj, "runs", "show", "@last", "--json"], env=there, check=True, capture_output=True)
    assert json.loads(shown.stdout)["record"]["outputs"][0]["path"] == "large.bin"
    target.unlink()
    gigabytes = f"{size / 1e9:g} GB"
    return [
        at_most(
            "capsule",
            f"memory of an export of {gigabytes}",
            exported.memory / 1e6,
            _LIMIT,
            "MB",
            f"{exported.memory / 1e6:.0f} MB",
        ),
        at_most(
            "capsule",
            f"memory of an import of {gigabytes}",
            imported.memory / 1e6,
            _LIMIT,
            "MB",
            f"{imported.memory / 1e6:.0f} MB",
        ),
        Row("capsule", "export", f"{exported.wall:.1f} s, {size / exported.wall / 1e6:,.0f} MB/s"),
        Row("capsule", "import", f"{imported.wall:.1f} s, {size / imported.wall / 1e6:,.0f} MB/s"),
        Row("capsule", "sha256sum of the capsule", f"{floor:.1f} s, {size / floor / 1e6:,.0f} MB/s"),
    ]


def _hashing(path: Path) -> float:
    begin = time.monotonic()
    subprocess.run(["sha256sum", str(path)], check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - begin


CASES = {"capsule": capsule}
