"""What a server counts of its answers, as Prometheus reads it, and its access log."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from runproj.files import explained
from runproj.server.protocol import Request, Response

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of the histogram of answer times, in seconds."""

Counts = dict[tuple[str, ...], float]
"""By values of labels."""


class Watch:
    """Counts answers, and writes a line for each where there is a log.

    log:    takes one line.
    shared: folder through which the processes of one server know each other's counts; None for a server of one process.
    """

    def __init__(self, log: Callable[[str], None] | None = None, shared: Path | None = None) -> None:
        self._log = log
        self._shared = shared
        self._lock = threading.Lock()
        self._requests: Counts = {}
        self._times: Counts = {}
        self._told = 0.0
        self.in_flight = 0
        self.started = time.time()

    def counted(self, handle: Callable[[Request], Response]) -> Callable[[Request], Response]:
        """`handle`, with what is being answered counted."""

        def answer(request: Request) -> Response:
            with self._lock:
                self.in_flight += 1
            try:
                return handle(request)
            finally:
                with self._lock:
                    self.in_flight -= 1

        return answer

    def done(self, request: Request, response: Response, seconds: float) -> None:
        """An answer was sent."""
        route = request.marks.route
        bucket = next((bound for bound in _BUCKETS if seconds <= bound), "+Inf")
        with self._lock:
            _add(self._requests, (request.method if route else "", route, str(response.status)), 1)
            _add(self._times, (route, str(bucket)), 1)
            _add(self._times, (route, "sum"), seconds)
        if self._log is not None:
            self._log(_line(request, response, seconds))
        if self._shared is not None and time.monotonic() - self._told > 1:
            self._tell(self._shared)

    def _tell(self, folder: Path) -> None:
        self._told = time.monotonic()
        with self._lock:
            document = {"requests": [*map(_item, self._requests.items())], "times": [*map(_item, self._times.items())]}
        temporary = folder / f".{os.getpid()}.{threading.get_ident()}"
        with contextlib.suppress(OSError):  # counts of a moment ago will do
            temporary.write_text(json.dumps(document))
            temporary.replace(folder / f"{os.getpid()}.json")

    def exposition(self, totals: Mapping[str, int], connections: int) -> str:
        """The counts in Prometheus' text format (0.0.4)."""
        requests, times = self._all()
        usage = resource.getrusage(resource.RUSAGE_SELF)
        lines = _counter(
            "runproj_http_requests_total", "Answers by method, route and status.", ("method", "route", "status"), requests
        )
        lines += _histogram(times)
        for name, text, value in (
            ("runproj_http_requests_in_flight", "Requests that are being answered.", self.in_flight),
            ("runproj_http_connections", "Open connections.", connections),
            *(
                (f"runproj_store_{name}", f"Number of {name.replace('_', ' ')} in the store.", value)
                for name, value in totals.items()
            ),
            ("process_resident_memory_bytes", "Memory of this process.", _resident()),
            ("process_start_time_seconds", "When this process was started, since the epoch.", self.started),
        ):
            lines += [f"# HELP {name} {text}", f"# TYPE {name} gauge", f"{name} {value}"]
        name = "process_cpu_seconds_total"
        lines += [f"# HELP {name} Processor time of this process.", f"# TYPE {name} counter"]
        lines.append(f"{name} {usage.ru_utime + usage.ru_stime:.3f}")
        return "\n".join(lines) + "\n"

    def _all(self) -> tuple[Counts, Counts]:
        """Counts of this process and of those beside it."""
        with self._lock:
            requests, times = dict(self._requests), dict(self._times)
        others = self._shared.glob("*.json") if self._shared else ()
        for path in others:
            if path.stem != str(os.getpid()):
                document = json.loads(path.read_text())
                for key, value in document["requests"]:
                    _add(requests, tuple(key), value)
                for key, value in document["times"]:
                    _add(times, tuple(key), value)
        return requests, times


def _add(counts: Counts, key: tuple[str, ...], value: float) -> None:
    counts[key] = counts.get(key, 0) + value


def _item(pair: tuple[tuple[str, ...], float]) -> tuple[list[str], float]:
    return list(pair[0]), pair[1]


def _counter(name: str, text: str, labels: tuple[str, ...], counts: Counts) -> list[str]:
    lines = [f"# HELP {name} {text}", f"# TYPE {name} counter"]
    return [*lines, *(f"{name}{_labels(labels, key)} {value:g}" for key, value in sorted(counts.items()))]


def _labels(names: Iterable[str], values: Iterable[str]) -> str:
    escaped = (value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n") for value in values)
    return "{" + ",".join(f'{name}="{value}"' for name, value in zip(names, escaped, strict=True)) + "}"


def _histogram(times: Counts) -> list[str]:
    name = "runproj_http_request_seconds"
    lines = [f"# HELP {name} Time from the head of a request to the end of its answer.", f"# TYPE {name} histogram"]
    for route in sorted({route for route, _ in times}):
        total = 0.0
        for bound in (*map(str, _BUCKETS), "+Inf"):
            total += times.get((route, bound), 0)
            lines.append(f"{name}_bucket{_labels(('route', 'le'), (route, bound))} {total:g}")
        lines.append(f"{name}_sum{_labels(('route',), (route,))} {times.get((route, 'sum'), 0):.6f}")
        lines.append(f"{name}_count{_labels(('route',), (route,))} {total:g}")
    return lines


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _line(request: Request, response: Response, seconds: float) -> str:
    """One JSON object, with everything that others chose escaped.  Queries, bodies and credentials are not in it."""
    entry = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "peer": request.peer,
        "user": request.marks.user,
        "method": request.method,
        "path": request.path[:2000],
        "route": request.marks.route,
        "status": response.status,
        "bytes": len(response.body) if response.chunks is None else response.length,
        "seconds": round(seconds, 6),
        "agent": request.headers.get("user-agent", "")[:200],
    }
    return json.dumps(entry)


def open_log(path: str) -> Callable[[str], None]:
    """Takes lines for the file at `path`, which grows at its end; `-` stands for standard output.

    Each line is one write, so that the lines of several processes do not mix.  Raises `StorageError`.
    """
    if path == "-":
        descriptor = 1
    else:
        with explained(Path(path)):
            descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)

    def write(line: str) -> None:
        with contextlib.suppress(OSError):  # a full disk must not keep anybody from logging runs
            os.write(descriptor, line.encode() + b"\n")

    return write
