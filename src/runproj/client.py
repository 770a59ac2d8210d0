"""Log parameters, metrics, tags and files into the run that this process belongs to: `import runproj; runproj.log_metric(...)`.

Self-contained and for Python 3.6 and later: the executor puts a copy of this file on the path of the project's process as the
package `runproj`, whatever that process's environment has installed.  Outside of a run the functions warn once and do nothing.
"""
# Python 3.6 has no newer spelling of types and paths, and the state of a process is a module's:
# ruff: noqa: UP006, UP035, UP045, PLW0603, PTH100, PTH103, PTH112, PTH118, PTH119, PTH120, PTH123, PTH206

import base64
import json
import os
import sys
import threading
import time
import warnings
from typing import IO, Any, Dict, Iterator, List, Mapping, Optional, Tuple

__all__ = ["log_artifact", "log_metric", "log_metrics", "log_param", "log_params", "run_id", "set_tag", "set_tags"]

_MOST_IN_A_BATCH = 100
_lock = threading.RLock()
_session = None  # type: Optional[_Session]
_warned = set()  # type: set[str]


class Refused(ValueError):
    """The record refuses a value: a parameter that has another one already, or a name that cannot be used."""


def run_id() -> Optional[str]:
    """The id of the run that this process belongs to; None outside of a run."""
    return os.environ.get("RUNPROJ_RUN_ID") or None


def log_param(key: str, value: object) -> None:
    """Record a parameter; its text is `str(value)`.  Raises `Refused` where it has another value already."""
    log_params({key: value})


def log_params(params: Mapping[str, object]) -> None:
    """Record several parameters."""
    _batch("params", [{"key": str(key), "value": str(value)} for key, value in params.items()])


def log_metric(key: str, value: float, step: Optional[int] = None, timestamp: Optional[int] = None) -> None:
    """Record a value of a metric.

    step:      counts up from 0 for each metric where it is left out.
    timestamp: milliseconds since the epoch; now where it is left out.
    """
    log_metrics({key: value}, step, timestamp)


def log_metrics(metrics: Mapping[str, float], step: Optional[int] = None, timestamp: Optional[int] = None) -> None:
    """Record a value of several metrics; `step` and `timestamp` as of `log_metric`."""
    session = _find_session()
    if session is None:
        return
    now = int(time.time() * 1000) if timestamp is None else timestamp
    points = []
    for key, value in metrics.items():
        number = session.next_step(str(key)) if step is None else int(step)
        points.append({"key": str(key), "value": _double(float(value)), "timestamp": now, "step": number})
    _batch("metrics", points)


def set_tag(key: str, value: object) -> None:
    """Set a tag; its text is `str(value)`."""
    set_tags({key: value})


def set_tags(tags: Mapping[str, object]) -> None:
    """Set several tags."""
    _batch("tags", [{"key": str(key), "value": str(value)} for key, value in tags.items()])


def log_artifact(path: str, folder: str = "") -> None:
    """Store a file, or a folder with everything in it, with the run; below `folder` where one is given."""
    session = _find_session()
    if session is None:
        return
    for source, name in _files(os.fspath(path)):
        target = "/".join(part for part in (folder.strip("/"), name) if part)
        with _Tolerant():
            session.upload(source, target)


def _double(value: float) -> object:
    """JSON has no NaN and no infinities: they travel as words."""
    if value != value:
        return "NaN"
    if value in (float("inf"), float("-inf")):
        return "Infinity" if value > 0 else "-Infinity"
    return value


def _batch(kind: str, items: List[Dict[str, object]]) -> None:
    session = _find_session()
    if session is None:
        return
    for start in range(0, len(items), _MOST_IN_A_BATCH):
        with _Tolerant():
            session.post("runs/log-batch", {"run_id": session.run, kind: items[start : start + _MOST_IN_A_BATCH]})


def _files(path: str) -> Iterator[Tuple[str, str]]:
    """Each file at or below `path`, with its name relative to the folder that `path` is in."""
    if not os.path.isdir(path):
        yield path, os.path.basename(path)
        return
    base = os.path.basename(os.path.abspath(path))
    for above, folders, names in os.walk(path):
        folders.sort()
        for name in sorted(names):
            source = os.path.join(above, name)
            yield source, "/".join([base, *os.path.relpath(source, path).split(os.sep)])


def _find_session() -> "Optional[_Session]":
    """The connection to the run's server; None, with a warning the first time, where there is no run."""
    global _session
    with _lock:
        if _session is not None and _session.pid == os.getpid():
            return _session
        run, uri = run_id(), os.environ.get("MLFLOW_TRACKING_URI", "")
        if not run or not uri.startswith(("http://", "https://")):
            _warn("this process does not belong to a run of runproj, so nothing is logged")
            return None
        _session = _Session(uri, run)
        return _session


def _warn(text: str) -> None:
    if text not in _warned:
        _warned.add(text)
        warnings.warn("runproj: " + text, RuntimeWarning, stacklevel=4)


class _Tolerant:
    """A record that cannot be reached must not end a training that took hours: warn, and go on."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: Optional[BaseException], trace: object) -> bool:
        from http.client import HTTPException

        if isinstance(error, (ConnectionError, HTTPException, TimeoutError)) or type(error).__name__ in ("timeout", "gaierror"):
            _warn(f"the run's record cannot be reached ({type(error).__name__}); what is logged now is lost")
            return True
        return False


class _Session:
    """One connection, kept open, used by one thread at a time."""

    def __init__(self, uri: str, run: str) -> None:
        from urllib.parse import urlsplit

        parts = urlsplit(uri)
        self.pid = os.getpid()
        self.run = run
        self._secure = parts.scheme == "https"
        self._host, self._port = parts.hostname or "", parts.port
        self._base = parts.path.rstrip("/")
        self._headers = _authorization(parts.username, parts.password)
        self._connection = None  # type: Any  # http.client is loaded late
        self._steps = {}  # type: Dict[str, int]
        self._artifacts = None  # type: Optional[str]

    def next_step(self, key: str) -> int:
        with _lock:
            self._steps[key] = self._steps.get(key, -1) + 1
            return self._steps[key]

    def post(self, call: str, message: Mapping[str, object]) -> Any:
        body = json.dumps(message).encode()
        return self._request("POST", "/api/2.0/mlflow/" + call, body, {"Content-Type": "application/json"})

    def upload(self, source: str, path: str) -> None:
        from urllib.parse import quote, urlsplit

        if self._artifacts is None:
            found = self._request("GET", "/api/2.0/mlflow/runs/get?run_id=" + self.run, None, {})
            self._artifacts = str(found["run"]["info"]["artifact_uri"])
        root = urlsplit(self._artifacts)
        if root.scheme == "mlflow-artifacts":
            target = quote((root.path + "/" + path).lstrip("/"))
            with open(source, "rb") as file:
                headers = {"Content-Type": "application/octet-stream", "Content-Length": str(os.fstat(file.fileno()).st_size)}
                self._request("PUT", "/api/2.0/mlflow-artifacts/artifacts/" + target, file, headers)
        elif root.scheme in ("", "file"):
            _copy(source, os.path.join(root.path, *path.split("/")))
        else:
            _warn(f"files of this run are kept at {root.scheme}: and cannot be stored from here")

    def _request(self, method: str, path: str, body: "Any", headers: Mapping[str, str]) -> Any:
        """Send a request, and once more where the connection turns out to be closed.  Raises `Refused` for an answer of 4xx."""
        with _lock:
            for attempt in (1, 2):
                try:
                    if isinstance(body, bytes) or body is None:
                        return self._send(method, path, body, headers)
                    body.seek(0)
                    return self._send(method, path, body, headers)
                except (ConnectionError, OSError):
                    self._connection = None
                    if attempt == 2:
                        raise
                except Exception as error:
                    if type(error).__module__ != "http.client" or attempt == 2:
                        raise
                    self._connection = None
        return None

    def _send(self, method: str, path: str, body: "Optional[IO[bytes] | bytes]", headers: Mapping[str, str]) -> Any:
        import http.client

        if self._connection is None:
            kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
            self._connection = kind(self._host, self._port, timeout=60)
        merged = dict(self._headers)
        merged.update(headers)
        self._connection.request(method, self._base + path, body, merged)
        answer = self._connection.getresponse()
        content = answer.read()
        if answer.status >= 500:
            raise ConnectionError(f"the server answered {answer.status}")
        if answer.status >= 400:
            raise Refused(_message(content) or f"the server answered {answer.status}")
        return json.loads(content.decode() or "{}")


def _authorization(user: Optional[str], password: Optional[str]) -> Dict[str, str]:
    token = os.environ.get("MLFLOW_TRACKING_TOKEN")
    if token:
        return {"Authorization": "Bearer " + token}
    user = user or os.environ.get("MLFLOW_TRACKING_USERNAME")
    password = password or os.environ.get("MLFLOW_TRACKING_PASSWORD")
    if user:
        return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password or ''}".encode()).decode()}
    return {}


def _message(content: bytes) -> str:
    try:
        return str(json.loads(content.decode())["message"])
    except (ValueError, KeyError, TypeError):
        return ""


def _copy(source: str, target: str) -> None:
    import shutil

    os.makedirs(os.path.dirname(target), exist_ok=True)
    shutil.copyfile(source, target)


def _give_way() -> None:
    """Be the installed runproj where the environment has one: this copy must not hide it from a `runproj run` inside the run."""
    from importlib.machinery import PathFinder

    module = sys.modules["runproj"]
    here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    spec = PathFinder.find_spec("runproj", [path for path in sys.path if os.path.abspath(path or ".") != here])
    if spec is None or spec.loader is None or spec.origin is None:
        return
    module.__path__ = list(spec.submodule_search_locations or [])
    module.__file__ = spec.origin
    module.__spec__ = spec
    spec.loader.exec_module(module)


if __name__ == "runproj":
    _give_way()
