"""Benchmarks of the whole program against MLflow and against the floor: `python benchmarks/run.py [--quick] [--only NAME]`.

CPU seconds are user + system of every process that was waited for, as minimum / median / maximum.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import capsule_cases
import docker_cases
import peers
import ray_cases
import reproduce_cases
import server_cases
import slurm_cases
import sweep_cases
from cases import CASES as RUN_CASES
from cases import Bench, CommandFailed, Row

CASES = (
    RUN_CASES
    | server_cases.CASES
    | capsule_cases.CASES
    | docker_cases.CASES
    | reproduce_cases.CASES
    | sweep_cases.CASES
    | ray_cases.CASES
    | slurm_cases.CASES
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", choices=sorted(CASES), metavar="NAME", help=f"one of {', '.join(CASES)}")
    parser.add_argument("--quick", action="store_true", help="fewer repetitions and 200 MB of logs: to see that it works")
    parser.add_argument("--times", type=int, help="repetitions (7; 2 when quick)")
    parser.add_argument("--log-size", type=float, help="GB of log output (5; 0.2 when quick)")
    parser.add_argument("--no-peers", action="store_true", help="do not install and measure MLflow")
    parser.add_argument("--runproj", type=Path, help="the program to measure (this tree, freshly installed)")
    parser.add_argument("--folder", type=Path, help="where to work (a temporary folder)")
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    options = parser.parse_args()
    gigabytes = options.log_size or (0.2 if options.quick else 5)
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    with tempfile.TemporaryDirectory(prefix="runproj-benchmark-", dir=options.folder) as work:
        bench = Bench(
            work=Path(work),
            runproj=str(options.runproj or peers.runproj(Path(work) / "runproj")),
            times=options.times or (2 if options.quick else 7),
            log_bytes=int(gigabytes * 1e9),
            with_peers=not options.no_peers,
        )
        rows = [row for name in options.only or CASES for row in _rows(name, bench)]
    if options.json:
        print(json.dumps({"machine": machine(), "rows": [dataclasses.asdict(row) for row in rows]}, indent=2))
    else:
        print(f"{machine()}\n")
        _table(rows)
    return 1 if any(row.good is False for row in rows) else 0


def _rows(name: str, bench: Bench) -> list[Row]:
    print(f"measuring: {name}", file=sys.stderr)
    try:
        return CASES[name](bench)
    except CommandFailed as error:
        print(error, file=sys.stderr)
        return [Row(name, "failed", str(error).splitlines()[0], good=False)]


def machine() -> str:
    """The machine in one line."""
    model = next((line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), "?")
    load = os.getloadavg()[0]
    return f"{os.cpu_count()} x {model}, {platform.platform()}, Python {platform.python_version()}, load {load:.1f}"


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def _table(rows: list[Row]) -> None:
    words = {True: "ok", False: "MISSED", None: ""}
    cells = [("case", "what", "value", "target", ""), *((r.case, r.what, r.value, r.target, words[r.good]) for r in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(5)]
    for row in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


if __name__ == "__main__":
    sys.exit(main())
