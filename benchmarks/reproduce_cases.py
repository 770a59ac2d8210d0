"""Measurements of verdicts: hashing outputs against `sha256sum`, and what `reproduce` costs beyond the run itself."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from pathlib import Path

from cases import Bench, Row, make_project
from measure import once, several

_HASH = "from pathlib import Path; import sys; from runproj.files import sha256_file; sha256_file(Path(sys.argv[1]))"
_WORK = (
    "import numpy, time\nend = time.process_time() + 3\nwhile time.process_time() < end: numpy.ones(1000).sum()\nprint('x = 1')\n"
)


def hashing(bench: Bench) -> list[Row]:
    """One large output, in the cache of the file system."""
    path = bench.folder("hash") / "output.bin"
    size = min(bench.log_bytes, 2_000_000_000)
    with path.open("wb") as file:
        for _ in range(size // (1 << 20)):
            file.write(os.urandom(1 << 20))
    python = Path(bench.runproj).with_name("python")
    start = several([python, "-c", "import runproj.files"], bench.environ, bench.work, bench.times)
    ours = several([python, "-c", _HASH, path], bench.environ, bench.work, bench.times)
    theirs = several(["sha256sum", path], bench.environ, bench.work, bench.times)
    path.unlink()
    share = theirs.wall / (ours.wall - start.wall)
    return [
        Row("hash", "speed of sha256sum", f"{size / theirs.wall / 1e6:.0f} MB/s"),
        Row("hash", "outputs, share of that", f"{share:.0%}", ">= 70 %", share >= 0.7),
    ]


def reproduce(bench: Bench) -> list[Row]:
    """A run of some seconds in an environment with numpy, and the replay of it with a verdict."""
    version = platform.python_version()
    files = {
        "runproj.yaml": f'environment: {{python: "{version}", dependencies: [numpy]}}\nentry_points:\n  main:\n'
        "    command: [python, work.py]\n    outputs: [work.py]\n    metrics: ['(?P<name>x) = (?P<value>.*)']\n",
        "work.py": _WORK,
    }
    url = make_project(bench, "work", files)
    run = [bench.runproj, "run", "--quiet", url]
    once(run, bench.environ, bench.work)
    listed = subprocess.run(
        [bench.runproj, "runs", "list", "--json", "-n", "1"], env=bench.environ, cwd=bench.work, check=True, capture_output=True
    )
    original = json.loads(listed.stdout)["runs"][0]["id"]
    plain = several(run, bench.environ, bench.work, bench.times)
    judged = several([bench.runproj, "reproduce", "--quiet", original], bench.environ, bench.work, bench.times)
    beyond = judged.cpu / plain.cpu - 1
    return [
        Row("reproduce", "run", f"{plain.wall:.2f} s wall, {plain.shown()} s CPU"),
        Row("reproduce", "reproduce", f"{judged.wall:.2f} s wall, {judged.shown()} s CPU"),
        Row("reproduce", "CPU beyond the run", f"{beyond:.1%}", "<= 10 %", beyond <= 0.1),
    ]


CASES = {"hash": hashing, "reproduce": reproduce}
