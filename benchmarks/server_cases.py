"""The tracking server's measurements, each beside `mlflow server` on SQLite in the same run.

Server CPU is the time of the server and its processes for one operation; wall times are the client's.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

import peers
import servers
from cases import Bench, Row, at_most, ratio

AT = 1_700_000_000_000

Operation = Callable[[servers.Server], object]
_FILL = Path(__file__).with_name("fill_server.py")


@contextmanager
def both(bench: Bench, name: str, fill: int = 0) -> Iterator[tuple[servers.Server, servers.Server | None]]:
    """Our server and MLflow's, each over a store of its own, which may be filled with runs first."""
    home = bench.folder(f"{name}/home")
    if fill:
        environ = bench.environ | {"RUNPROJ_HOME": str(home)}
        subprocess.run([Path(bench.runproj).with_name("python"), _FILL, "ours", str(fill)], env=environ, check=True)
    other = servers.mlflow(bench.folder(f"{name}/mlflow")) if bench.with_peers else nullcontext(None)
    with servers.ours(bench.runproj, home) as mine, other as theirs:
        if theirs and fill:
            database = str(bench.work / name / "mlflow" / "mlflow.db")
            subprocess.run([sys.executable, _FILL, "mlflow", str(fill), database], check=True)
        yield mine, theirs


Pair = tuple[servers.Server, servers.Server | None]


def compared(case: str, what: str, share: int, pair: Pair, operation: Operation, times: int, rounds: int = 5) -> list[Row]:
    """Server CPU of one operation of ours and of MLflow's, which takes ten times as long and is repeated less."""
    mine, theirs = pair
    cost = mine.cost(partial(operation, mine), times, rounds)
    rows = [Row(case, what, f"{cost:.2f} ms CPU")]
    if theirs is not None:
        other = theirs.cost(partial(operation, theirs), max(1, times // 5), min(rounds, 3))
        rows += [Row(case, f"  peer: {what}", f"{other:.2f} ms CPU"), ratio(case, "  ratio", cost, other, share)]
    return rows


def server(bench: Bench) -> list[Row]:
    """Starting, and memory at rest."""
    with both(bench, "rest") as (mine, theirs):
        for one in filter(None, (mine, theirs)):
            one.call("POST", "runs/search", {"experiment_ids": ["0"]})
        rows = [
            at_most("server", "start to first answer", mine.started, 1.0, "s"),
            at_most("server", "memory at rest", mine.memory(), 90, "MB"),
        ]
        if theirs:
            rows.append(Row("server", "peer: start, memory at rest", f"{theirs.started:.1f} s, {theirs.memory():.0f} MB"))
    return rows


def logging(bench: Bench) -> list[Row]:
    """The calls of which a training is made."""
    rows = []
    with both(bench, "logging") as pair:
        runs = {one: (one.new_run(), one.new_run(), one.new_run(), _whole_run(one)) for one in pair if one}
        count = iter(range(1 << 30))

        def log_metric(server: servers.Server) -> None:
            step = next(count)
            server.call("POST", "runs/log-metric", {"run_id": runs[server][0], "key": "loss", **_point(step)})

        def one_key(server: servers.Server) -> None:
            first = next(count) * 1000
            points = [{"key": "loss", **_point(step)} for step in range(first, first + 1000)]
            server.call("POST", "runs/log-batch", {"run_id": runs[server][1], "metrics": points})

        def many_keys(server: servers.Server) -> None:
            step = next(count)
            points = [{"key": f"k{key}", **_point(step)} for key in range(1000)]
            server.call("POST", "runs/log-batch", {"run_id": runs[server][2], "metrics": points})

        def get_run(server: servers.Server) -> None:
            server.call("GET", f"runs/get?run_id={runs[server][3]}")

        for what, share, times, operation in (
            ("log-metric", 8, 200, log_metric),
            ("create-run", 8, 100, servers.Server.new_run),
            ("log-batch, 1,000 points of one metric", 10, 20, one_key),
            ("log-batch, one point of 1,000 metrics", 10, 20, many_keys),
            ("create-run and log-batch of 10 + 10 + 5", 10, 50, _whole_run),
            ("get-run with 10 + 10 + 5", 8, 100, get_run),
        ):
            rows += compared("logging", what, share, pair, operation, times)
    return rows


def _point(step: int) -> dict[str, object]:
    return {"value": step / 7, "timestamp": AT + step, "step": step}


def _whole_run(server: servers.Server) -> str:
    """A run with 10 metrics, 10 params and 5 tags, in one batch."""
    run = server.new_run()
    message = {
        "run_id": run,
        "metrics": [{"key": f"m{key}", **_point(key)} for key in range(10)],
        "params": [{"key": f"p{key}", "value": str(key)} for key in range(10)],
        "tags": [{"key": f"t{key}", "value": str(key)} for key in range(5)],
    }
    server.call("POST", "runs/log-batch", message)
    return run


_ASYNC = """
import mlflow, sys
mlflow.set_tracking_uri(sys.argv[1])
with mlflow.start_run():
    for step in range(500):
        mlflow.log_metric("loss", step / 7, step=step, synchronous=False)
    mlflow.flush_async_logging()
"""


def asynchronous(bench: Bench) -> list[Row]:
    """500 metrics of MLflow's own client in its asynchronous mode."""
    if not bench.with_peers:
        return []
    python = peers.mlflow().folder / "bin" / "python"
    environ = peers.plain_environment() | {"MLFLOW_DISABLE_TELEMETRY": "true"}

    def train(server: servers.Server) -> None:
        command = [python, "-c", _ASYNC, f"http://127.0.0.1:{server.port}"]
        subprocess.run(command, env=environ, check=True, capture_output=True)

    with both(bench, "async") as pair:
        return compared("async", "500 asynchronous metrics and a flush", 8, pair, train, 1, 3)


def writers(bench: Bench) -> list[Row]:
    """Many clients at once: errors, points lost, the slowest requests, requests a second."""
    rows = []
    with both(bench, "writers") as (mine, theirs):
        for crowd in (8, 32):
            case = f"{crowd} writers"
            for what, points, times in (("log-metric", 1, 40), ("log-batch of 25", 25, 20)):
                ours = _crowd(mine, crowd, points, times)
                wrong = ours.errors + ours.lost
                rows.append(Row(case, f"{what}: errors, lost", f"{ours.errors}, {ours.lost}", "0, 0", wrong == 0))
                rows.append(at_most(case, f"{what}: p99", ours.p99, 1.0, "s"))
                rows.append(Row(case, f"{what}: requests a second", f"{ours.speed:.0f}"))
                if theirs:
                    other = _crowd(theirs, crowd, points, max(3, times // 10))
                    rows.append(Row(case, "  peer: requests a second, p99", f"{other.speed:.1f}, {other.p99:.1f} s"))
                    faster = ours.speed / other.speed
                    rows.append(Row(case, "  ratio of speeds", f"{faster:.1f}", ">= 10", faster >= 10))
    return rows


class _Crowd:
    """What came of many writers."""

    def __init__(self) -> None:
        self.errors, self.lost = 0, 0
        self.taken: list[float] = []
        self.speed = 0.0

    @property
    def p99(self) -> float:
        return sorted(self.taken)[int(len(self.taken) * 0.99)]


def _crowd(server: servers.Server, size: int, points: int, times: int) -> _Crowd:
    """`size` clients in processes of their own would measure the clients; threads that wait for answers do not."""
    result, lock = _Crowd(), threading.Lock()
    runs = [server.new_run() for _ in range(size)]

    def write(run: str) -> None:
        connection, taken, errors = servers.connect(server.port), [], 0
        for step in range(times):
            metrics = [{"key": f"m{key}", "value": step, "timestamp": AT, "step": step} for key in range(points)]
            body = {"run_id": run, "metrics": metrics} if points > 1 else {"run_id": run, **metrics[0]}
            begin = time.monotonic()
            try:
                servers.call(connection, "POST", "runs/log-batch" if points > 1 else "runs/log-metric", body)
            except (OSError, RuntimeError):
                errors += 1
                connection = servers.connect(server.port)
            taken.append(time.monotonic() - begin)
        with lock:
            result.taken += taken
            result.errors += errors

    threads = [threading.Thread(target=write, args=(run,)) for run in runs]
    begin = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    result.speed = size * times / (time.monotonic() - begin)
    for run in runs:
        for key in range(points):
            found = server.call("GET", f"metrics/get-history?run_id={run}&metric_key=m{key}").get("metrics", [])
            result.lost += times - len(found)
    return result


_FILTER = "metrics.m1 > 0.5 and params.model = 'xgb'"
_SEARCHES: Sequence[tuple[str, int, dict[str, object]]] = (
    ("filter on metric and param, by metric, first 100", 10, {"filter": _FILTER, "order_by": ["metrics.m2 DESC"]}),
    ("no filter, newest 100", 10, {}),
    ("by metric alone, first 100", 100, {"order_by": ["metrics.m3 ASC"]}),
)


def search(bench: Bench) -> list[Row]:
    """10,000 runs with 10 params, 10 metrics and 5 tags."""
    rows = []
    with both(bench, "search", 10_000) as pair:
        for what, share, message in _SEARCHES:
            rows += compared("search 10,000", what, share, pair, partial(_first_page, message=message), 5)
        rows += compared("search 10,000", "paging through all, 1,000 at a time", 10, pair, _page_through, 1, 3)
    return rows


def _first_page(server: servers.Server, message: dict[str, object]) -> None:
    server.call("POST", "runs/search", {"experiment_ids": ["0"], "max_results": 100, **message})


def _page_through(server: servers.Server) -> int:
    token, found = "", 0
    while True:
        page = server.call("POST", "runs/search", {"experiment_ids": ["0"], "max_results": 1000, "page_token": token})
        found += len(page["runs"])
        token = page.get("next_page_token", "")
        if not token:
            return found


def search_large(bench: Bench) -> list[Row]:
    """100,000 runs: the first page of each search."""
    rows = []
    with both(replace(bench, with_peers=False), "large", 100_000) as (mine, _):
        for what, _, message in _SEARCHES:
            taken = [_timed(partial(_first_page, mine, message)) * 1000 for _ in range(6)]
            rows.append(at_most("search 100,000", what, statistics.median(taken[1:]), 150, "ms"))
    return rows


def history(bench: Bench) -> list[Row]:
    """100,000 points of one metric: read whole, and thinned out."""
    rows = []
    with both(bench, "history") as pair:
        runs = {one: one.new_run() for one in pair if one}
        for one, run in runs.items():
            _ingest(one, run, 100_000)
        path = "metrics/get-history-bulk-interval?metric_key=loss&max_results=320&run_ids="
        for what, operation, times in (
            ("read whole", lambda server: _whole_history(server, runs[server]), 1),
            ("thinned out to 320", lambda server: server.call("GET", path + runs[server]), 5),
        ):
            rows += compared("history", f"100,000 points, {what}", 10, pair, operation, times, 3)
    return rows


def _whole_history(server: servers.Server, run: str) -> int:
    token, found = "", 0
    while True:
        page = server.call("GET", f"metrics/get-history?run_id={run}&metric_key=loss&max_results=25000&page_token={token}")
        found += len(page["metrics"])
        token = page.get("next_page_token", "")
        if not token:
            return found


def _ingest(server: servers.Server, run: str, count: int) -> None:
    for first in range(0, count, 1000):
        points = [{"key": "loss", **_point(step)} for step in range(first, first + 1000)]
        server.call("POST", "runs/log-batch", {"run_id": run, "metrics": points})


def ingest(bench: Bench) -> list[Row]:
    """A million points in batches of a thousand, then a plot of them."""
    with both(replace(bench, with_peers=False), "ingest") as (mine, _):
        run = mine.new_run()
        took = _timed(lambda: _ingest(mine, run, 1_000_000))
        path = f"metrics/get-history-bulk-interval?metric_key=loss&max_results=2500&run_ids={run}"
        plot = [_timed(lambda: mine.call("GET", path)) * 1000 for _ in range(4)]
    return [
        at_most("ingest", "1,000,000 points in batches", took, 20, "s"),
        at_most("ingest", "a plot of them", statistics.median(plot), 300, "ms"),
    ]


def artifacts(bench: Bench) -> list[Row]:
    """A file of 100 MB up and down, beside copying it with the disk's own speed."""
    size = 100_000_000
    source, copy = bench.work / "large.bin", bench.work / "copy.bin"
    source.write_bytes(os.urandom(size))
    with both(replace(bench, with_peers=False), "artifacts") as (mine, _):
        up, down, disk, peak = [], [], [], 0.0
        for number in range(5):
            with source.open("r+b") as file:
                file.write(os.urandom(16))  # the same content again would cost nothing
            disk.append(_timed(lambda: _copied(source, copy)))
            up.append(_timed(lambda number=number: _put(mine, source, size, number)))
            peak = max(peak, mine.memory())
            down.append(_timed(lambda number=number: _get(mine, number)))
            peak = max(peak, mine.memory())
    floor = size / statistics.median(disk) / 1e6
    rows = [Row("artifacts", "floor: cp and fsync", f"{floor:.0f} MB/s")]
    for what, taken in (("upload", up), ("download", down)):
        speed = size / statistics.median(taken) / 1e6
        rows.append(Row("artifacts", f"{what} of 100 MB", f"{speed:.0f} MB/s", ">= 60 % of the floor", speed >= 0.6 * floor))
    return [*rows, at_most("artifacts", "server's memory", peak, 100, "MB")]


def _timed(operation: Callable[[], object]) -> float:
    begin = time.monotonic()
    operation()
    return time.monotonic() - begin


def _copied(source: Path, target: Path) -> None:
    with source.open("rb") as read, target.open("wb") as write:
        while data := read.read(1 << 20):
            write.write(data)
        write.flush()
        os.fsync(write.fileno())


def _put(server: servers.Server, source: Path, size: int, number: int) -> None:
    with source.open("rb") as file:
        path = f"/api/2.0/mlflow-artifacts/artifacts/0/run{number}/artifacts/large.bin"
        server.connection.request("PUT", path, file, {"Content-Length": str(size)})
        answer = server.connection.getresponse()
        answer.read()
        assert answer.status == 200, answer.status


def _get(server: servers.Server, number: int) -> None:
    server.connection.request("GET", f"/api/2.0/mlflow-artifacts/artifacts/0/run{number}/artifacts/large.bin")
    answer = server.connection.getresponse()
    while answer.read(1 << 20):
        pass


CASES: dict[str, Callable[[Bench], list[Row]]] = {
    "server": server,
    "logging": logging,
    "async": asynchronous,
    "writers": writers,
    "search": search,
    "search-large": search_large,
    "history": history,
    "ingest": ingest,
    "artifacts": artifacts,
}
