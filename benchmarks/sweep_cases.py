"""Measurements of sweeps: trials that do nothing, what each costs beside the run's own start, and the memory of many."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from cases import Bench, Row, make_project
from measure import once, several

_STARTS = """
import json, resource, sys
from runproj import runner
from runproj.cli import output
from runproj.settings import load
from runproj.wiring import Wiring
wiring = Wiring(load(), output.TerminalReporter(quiet=True))
use = wiring.services()
plan = runner.load_plan(wiring.find_run("@last"), use)
def cpu():
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)
def start():
    runner.start(runner.Planned(plan, {}), use, wiring.leases, on_created=lambda run: None)
start()
before = cpu()
for _ in range(100):
    start()
print(json.dumps((cpu() - before) / 100))
"""


def sweep(bench: Bench) -> list[Row]:
    """Trials of `true`, two at a time; the same command started a hundred times by one process that does nothing else."""
    files = {"runproj.yaml": 'entry_points:\n  main:\n    command: ["true"]\n    parameters: {n: {type: int, default: 1}}\n'}
    url = make_project(bench, "sweep", files)
    system = ["--env-manager", "system", "--quiet"]
    single = several([bench.runproj, "run", url, *system], bench.environ, bench.work, bench.times)
    many, few = (1000, 100) if bench.times > 2 else (200, 50)
    base = [bench.runproj, "sweep", url, *system, "-j", "2", "-P"]
    small = once([*base, f"n=1..{few}"], bench.environ, bench.work)
    large = once([*base, f"n=1..{many}"], bench.environ, bench.work)
    python = Path(bench.runproj).with_name("python")
    told = subprocess.run([python, "-c", _STARTS], env=bench.environ, cwd=bench.work, check=True, capture_output=True)
    start = float(json.loads(told.stdout))
    each = (large.cpu - small.cpu) / (many - few)
    beyond = each - start
    return [
        Row("sweep", f"{many} trials, 2 at a time", f"{large.wall:.1f} s", f"<= {many * 0.06:.0f} s", large.wall <= many * 0.06),
        Row("sweep", "a trial", f"{each * 1000:.1f} ms CPU"),
        Row("sweep", "floor: start of a run in one process", f"{start * 1000:.1f} ms CPU"),
        Row("sweep", "beside it, for each trial", f"{beyond * 1000:.1f} ms CPU", "<= 10 ms CPU", beyond <= 0.01),
        Row("sweep", "a process for each instead", f"{single.cpu * 1000:.0f} ms CPU"),
        Row("sweep", f"largest process, {few} trials", f"{small.memory / 1e6:.1f} MB"),
        Row("sweep", f"largest process, {many} trials", f"{large.memory / 1e6:.1f} MB", "<= 60 MB", large.memory <= 60e6),
    ]


CASES = {"sweep": sweep}
