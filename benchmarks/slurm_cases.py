"""Measurements of the Slurm backend on a real Slurm of one node: submission beside bare `sbatch`, status of many jobs."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from cases import Bench, Row, make_project
from measure import once, several

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from support.slurm import Slurm

_MANY = 1000
_SUBMISSIONS = """
import json, pathlib, subprocess, sys, time
from runproj import runner
from runproj.cli import output
from runproj.core.backend import Job, JobHandle
from runproj.parcels import FreshParcel
from runproj.settings import load
from runproj.wiring import Wiring
times, many = int(sys.argv[1]), int(sys.argv[2])
wiring = Wiring(load(), output.TerminalReporter(quiet=True))
use = wiring.services()
plan = runner.load_plan(wiring.find_run("@last"), use)
backend = use.backends.open("slurm")
demand = runner.demand_of(plan, backend)
def job():
    run = use.tracking.create_run(runner.new_run(plan, use, "0" * 16, waits=True))
    runner.store_plan(plan, run, use)
    parcel = FreshParcel(run, plan, {}, use)
    parcel.folder
    return Job(run.id, "0" * 16, use.runs / run.id, parcel, run.name, demand)
def clock(call):
    begin = time.perf_counter()
    found = call()
    return time.perf_counter() - begin, found
def bare():
    words = ["sbatch", "--parsable", "--hold", "--output=/dev/null"]
    subprocess.run(words, input=b"#!/bin/bash\\ntrue\\n", check=True, capture_output=True)
one, floor = [], []
single = [job() for _ in range(times + 1)]
for number, fresh in enumerate(single):  # in turns, and each when the controller has written down the one before
    kinds = [(one, lambda: backend.submit([fresh])), (floor, bare)]
    for taken, call in kinds if number % 2 else reversed(kinds):
        time.sleep(0.2)
        taken.append(clock(call)[0])
jobs = [job() for _ in range(many)]
together, handles = clock(lambda: backend.submit(jobs))
asked, statuses = clock(lambda: backend.status(handles))
assert {status.state.value for status in statuses} == {"pending"}, statuses[:3]
print(json.dumps({"one": one[1:], "floor": floor[1:], "together": together, "asked": asked}))
"""


def slurm(bench: Bench) -> list[Row]:
    """Jobs that are held, so that nothing else runs: what is measured is the submission, and the question."""
    with tempfile.TemporaryDirectory(prefix="slurm-") as folder:
        cluster = Slurm(Path(folder), tasks=_MANY)
        try:
            cluster.start()
            return _rows(bench, cluster)
        finally:
            cluster.stop()


def _rows(bench: Bench, cluster: Slurm) -> list[Row]:
    environ = bench.environ | cluster.environ | {"PATH": f"{os.environ['PATH']}:/usr/sbin"}
    url = make_project(bench, "slurm", {"runproj.yaml": 'entry_points:\n  main:\n    command: ["true"]\n'})
    held = ["--backend-config", json.dumps({"extra": ["--hold"]})]
    on = [bench.runproj, "run", url, "--env-manager", "system", "--quiet", "--backend", "slurm", *held, "--detach"]
    once(on, environ, bench.work)
    programs = bench.folder("counting")
    asked = programs / "squeue"
    count = bench.work / "questions"
    real = subprocess.run(["which", "squeue"], check=True, capture_output=True, text=True, env=environ).stdout.strip()
    asked.write_text(f'#!/bin/sh\necho x >>"{count}"\nexec {real} "$@"\n')
    asked.chmod(0o755)
    counted = environ | {"PATH": f"{programs}:{environ['PATH']}"}
    python = Path(bench.runproj).with_name("python")
    words = [python, "-c", _SUBMISSIONS, str(3 * bench.times), str(_MANY)]
    told = json.loads(subprocess.run(words, env=counted, cwd=bench.work, check=True, capture_output=True).stdout)
    whole = several(on, environ, bench.work, bench.times)
    ours, floor = (statistics.median(told[name]) for name in ("one", "floor"))
    questions = len(count.read_text().splitlines())
    return [
        Row("slurm", "submission of a job", f"{ours * 1000:.0f} ms"),
        Row("slurm", "floor: bare sbatch", f"{floor * 1000:.0f} ms"),
        Row("slurm", "ratio to bare sbatch", f"{ours / floor:.2f}", "<= 2", ours <= 2 * floor),
        Row("slurm", f"submission of {_MANY} jobs together", f"{told['together'] * 1000:.0f} ms"),
        Row("slurm", f"status of {_MANY} jobs", f"{told['asked'] * 1000:.0f} ms"),
        Row("slurm", f"questions for {_MANY} jobs", str(questions), "1", questions == 1),
        Row("slurm", "runproj run --detach, all of it", f"{whole.shown()} s CPU, {whole.wall:.2f} s wall"),
    ]


CASES = {"slurm": slurm}
