"""Look for runs: as a data frame, or as dicts with the same names."""

import re
import time
from typing import Any, Callable, Dict, List, Optional

from runproj.client import places
from runproj.client.values import Refused
from runproj.client.wire import Away, Rejected, Server, scrubbed

_PAGE = 1000
_DIRECTION = re.compile(r"\s*:\s*(asc|desc)\s*$", re.IGNORECASE)
"""As `--sort` of the command line has it, which MLflow's servers do not know."""
_PAUSES = (0.1, 0.5, 2.0)


def search(uri: str, filter: str, orders: List[str], experiments: Optional[List[str]], most: int, output: str) -> Any:
    """See `runproj.search_runs`."""
    if output not in ("auto", "pandas", "list"):
        raise Refused(f"{output!r} is no output: auto, pandas and list are")
    orders = [_DIRECTION.sub(lambda found: " " + found.group(1).upper(), order) for order in orders]
    server = _Patient(places.connect(uri))
    try:
        ids = _all(server) if experiments is None else [_named(server, name) for name in experiments]
        runs = _found(server, filter, orders, ids, most) if ids else []
    except Away as error:
        raise ConnectionError(f"{scrubbed(uri)} cannot be reached: {error}") from error
    except Rejected as error:
        raise Refused(str(error)) from None
    rows = [_row(run) for run in runs]
    return _shaped(rows, output)


class _Patient:
    """A server that is asked again, some times, where it is away."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def post(self, call: str, message: Dict[str, Any]) -> Any:
        return self._ask(lambda: self._server.post(call, message))

    def get(self, call: str, **query: str) -> Any:
        return self._ask(lambda: self._server.get(call, **query))

    def _ask(self, ask: Callable[[], Any]) -> Any:
        for pause in _PAUSES:
            try:
                return ask()
            except Away:
                time.sleep(pause)
        return ask()


def _found(server: _Patient, filter: str, orders: List[str], ids: List[str], most: int) -> List[Any]:
    found: List[Any] = []
    token = ""
    while len(found) < most:
        message = {
            "experiment_ids": ids,
            "filter": filter,
            "order_by": orders,
            "max_results": min(_PAGE, most - len(found)),
            "page_token": token,
        }
        page = server.post("runs/search", {key: value for key, value in message.items() if value != ""})
        found += page.get("runs", [])
        token = page.get("next_page_token", "")
        if not token:
            break
    return found


def _all(server: _Patient) -> List[str]:
    """Ids of all experiments."""
    found: List[str] = []
    token = ""
    while True:
        message = {"max_results": _PAGE, "page_token": token} if token else {"max_results": _PAGE}
        page = server.post("experiments/search", message)
        found += [str(item["experiment_id"]) for item in page.get("experiments", [])]
        token = page.get("next_page_token", "")
        if not token:
            return found


def _named(server: _Patient, name: str) -> str:
    return str(server.get("experiments/get-by-name", experiment_name=name)["experiment"]["experiment_id"])


def _row(run: Any) -> Dict[str, Any]:
    info, data = run["info"], run.get("data", {})
    row: Dict[str, Any] = {
        "run_id": info.get("run_id") or info.get("run_uuid"),
        "run_name": info.get("run_name"),
        "experiment_id": info.get("experiment_id"),
        "status": info.get("status"),
        "artifact_uri": info.get("artifact_uri"),
        "start_time": _integer(info.get("start_time")),
        "end_time": _integer(info.get("end_time")),
    }
    row.update({"metrics." + item["key"]: float(item.get("value", 0.0)) for item in data.get("metrics", [])})
    row.update({"params." + item["key"]: item.get("value", "") for item in data.get("params", [])})
    row.update({"tags." + item["key"]: item.get("value", "") for item in data.get("tags", [])})
    return row


def _integer(value: Any) -> Optional[int]:
    return None if value is None else int(value)


def _shaped(rows: List[Dict[str, Any]], output: str) -> Any:
    if output == "list":
        return rows
    try:
        import pandas
    except ImportError:
        if output == "pandas":
            raise
        return rows
    frame = pandas.DataFrame(rows)
    for column in ("start_time", "end_time"):
        if column in frame:
            frame[column] = pandas.to_datetime(frame[column], unit="ms", utc=True)
    return frame
