"""Tables in MLflow's format, `{"columns": […], "data": [[…], …]}`: rows logged under one name add up, as MLflow's do."""

import hashlib
import json
import os
from typing import Any, Dict, List, Mapping, Optional, Sequence

from runproj.client.files import fetch_file, store_file
from runproj.client.remote_runs import RunOnServer
from runproj.client.spool import Spool, read_json, write_json
from runproj.client.values import Refused, plain, text
from runproj.client.values import path as checked_path
from runproj.client.wire import Server

_TAG = "mlflow.loggedArtifacts"


def table_of(given: Any) -> Dict[str, List[Any]]:
    """Columns and rows of a dict of lists, a list of dicts, or a data frame.  Raises `Refused`."""
    if hasattr(given, "to_dict"):
        try:
            given = given.to_dict(orient="list")
        except TypeError:  # polars
            given = given.to_dict(as_series=False)
    if isinstance(given, Mapping):
        return _of_columns(given)
    if isinstance(given, Sequence) and all(isinstance(row, Mapping) for row in given):
        columns = list(dict.fromkeys(text(key) for row in given for key in row))
        rows = [{text(key): plain(value) for key, value in row.items()} for row in given]
        return {"columns": columns, "data": [[row.get(column) for column in columns] for row in rows]}
    raise Refused("a table is a dict of lists, a list of dicts, or a data frame")


def table_path(path: str) -> str:
    """A checked path of a table.  Raises `Refused`."""
    found = checked_path(path)
    if not found.endswith(".json"):
        raise Refused(f"{found!r} is no place for a table: its name ends with .json")
    return found


def _of_columns(given: Mapping[Any, Any]) -> Dict[str, List[Any]]:
    columns = {}
    for key, values in given.items():
        found = plain(values)
        columns[text(key)] = found if isinstance(found, list) else [found]
    longest = max([len(values) for values in columns.values()] or [0])
    if any(len(values) != longest for values in columns.values()):
        raise Refused("the columns of a table have the same length")
    return {"columns": list(columns), "data": [list(row) for row in zip(*columns.values())]}


def joined(first: Dict[str, List[Any]], second: Dict[str, List[Any]]) -> Dict[str, List[Any]]:
    """The rows of both; what one lacks is null."""
    columns = list(dict.fromkeys([*first["columns"], *second["columns"]]))
    data = []
    for table in (first, second):
        places = [table["columns"].index(column) if column in table["columns"] else None for column in columns]
        data += [[None if place is None else row[place] for place in places] for row in table["data"]]
    return {"columns": columns, "data": data}


def send_rows(server: Server, run: RunOnServer, spool: Spool, number: int, event: Sequence[Any], line: bytes) -> None:
    """Add rows to a table of a run.  Raises `Away`, `Rejected` and OSError.

    What the table is like with them is kept in the spool before it is sent, with a word on which rows that were: rows that are
    sent twice are added once.
    """
    path, rows = event
    name = f"{number}-{hashlib.sha256(path.encode()).hexdigest()[:16]}"
    kept = os.path.join(spool.scratch(), "table-" + name)
    state = read_json(kept)
    mark = hashlib.sha256(line).hexdigest() + str(spool.journal.position())
    if state is None or state["mark"] != mark:  # other processes add rows too: only the server knows them all
        before = _table(fetch_file(server, run, path) or b"null")
        state = {"mark": mark, "table": joined(before, rows) if before else rows}
        write_json(kept, state)
    ready = kept + ".json"
    write_json(ready, state["table"])
    store_file(server, run, ready, path)
    _tag(server, run, path)


def _table(content: bytes) -> Optional[Dict[str, List[Any]]]:
    """What is there already, where it is a table."""
    try:
        found = json.loads(content.decode())
    except ValueError:
        return None
    return found if isinstance(found, dict) and {"columns", "data"} <= set(found) else None


def _tag(server: Server, run: RunOnServer, path: str) -> None:
    """Tell MLflow's tools that it is a table."""
    tags = server.get("runs/get", run_id=run.id)["run"].get("data", {}).get("tags", [])
    try:
        known = json.loads(next((tag["value"] for tag in tags if tag["key"] == _TAG), "[]"))
    except ValueError:
        known = []
    entry = {"path": path, "type": "table"}
    if entry not in known:
        server.post("runs/set-tag", {"run_id": run.id, "key": _TAG, "value": json.dumps([*known, entry])})
