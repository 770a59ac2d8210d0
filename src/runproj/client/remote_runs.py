"""A run of a spool as the server knows it: found where it is there already, made once where it is not."""

import fcntl
import os
from contextlib import contextmanager
from typing import Any, Dict, Iterator, NamedTuple, Optional

from runproj.client.spool import Spool, read_json, write_json
from runproj.client.wire import Away, Rejected, Server

TAG = "runproj.spool"
"""Tag of a run that was made from a spool; its value is the id that was chosen there, whatever id the server gave it."""


class RunOnServer(NamedTuple):
    """id: the server's; client_id: the one that was chosen before the server was asked."""

    id: str
    client_id: str
    artifacts: str = ""


def find_or_make(server: Server, spool: Spool, number: int) -> RunOnServer:
    """The run that the spool's events call `number`.  Raises `Away` and `Rejected`."""
    known = spool.noted(number, "id")
    if known:
        return RunOnServer(**known)
    declared = spool.noted(number, "json") or spool.undeclared.get(number)
    if declared is None:
        raise Rejected("nothing says which run it belongs to")
    if declared.get("create"):
        with _maker(spool, number, declared) as maker:
            run = maker.known() or _make(server, spool, declared, maker)
            maker.remember(run)
    else:
        run = _on_server(server.get("runs/get", run_id=declared["id"]), declared["id"])
    spool.note(number, "id", run._asdict())
    return run


class _Maker:
    """The files, in the spool of the process that began the run, by which all its children agree on who makes it."""

    def __init__(self, base: str, shared: bool) -> None:
        self._base = base
        self.shared = shared

    def known(self) -> Optional[RunOnServer]:
        found = read_json(self._base + ".id") if self._base else None
        return RunOnServer(**found) if found else None

    def remember(self, run: RunOnServer) -> None:
        self._write(".id", run._asdict())

    def begin(self) -> bool:
        """Whether nobody can have made the run so far; from now on somebody may."""
        first = not self.shared and not (self._base and os.path.exists(self._base + ".creating"))
        self._write(".creating", True)
        return first

    def _write(self, suffix: str, value: object) -> None:
        try:
            if self._base:
                write_json(self._base + suffix, value)
        except OSError:
            pass  # the maker's spool is gone, or the disk is full: see `Spool.making`


@contextmanager
def _maker(spool: Spool, number: int, declared: Dict[str, Any]) -> Iterator[_Maker]:
    base = declared.get("made_by") or (os.path.join(spool.folder, "runs", str(number)) if spool.folder else "")
    try:
        lock = os.open(base + ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600) if base else None
    except OSError:
        lock = None
    try:
        if lock is not None:
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield _Maker(base, bool(declared.get("made_by")))
    finally:
        if lock is not None:
            fcntl.flock(lock, fcntl.LOCK_UN)  # closing does not do it where a child that was forked meanwhile has a copy
            os.close(lock)


def _make(server: Server, spool: Spool, declared: Dict[str, Any], maker: _Maker) -> RunOnServer:
    client_id = declared["id"]
    asked = spool.making.get(client_id)
    experiment = asked or _experiment(server, declared)
    first = maker.begin() and not asked
    spool.making[client_id] = experiment
    if not first:
        found = _tagged(server, experiment, client_id)
        if found is not None:
            return found
    tags = dict(declared.get("tags") or {})
    parent = tags.get("mlflow.parentRunId")
    if parent:
        tags["mlflow.parentRunId"] = _id_of(spool, parent)
    tags[TAG] = client_id
    message = {
        "run_id": client_id,  # our server keeps it; MLflow's gives one of its own
        "experiment_id": experiment,
        "start_time": declared["start"],
        "user_id": declared.get("user", ""),
        "tags": [{"key": key, "value": value} for key, value in tags.items()],
    }
    if declared.get("name"):
        message["run_name"] = declared["name"]
    return _on_server(server.post("runs/create", message), client_id)


def _id_of(spool: Spool, client_id: str) -> str:
    """The server's id of a run of this spool, which was made before; any other id is what it is."""
    for number in spool.declared():
        known = spool.noted(number, "id")
        if known and known["client_id"] == client_id:
            return str(known["id"])
    return client_id


def _tagged(server: Server, experiment: str, client_id: str) -> Optional[RunOnServer]:
    message = {
        "experiment_ids": [experiment],
        "filter": f"tags.`{TAG}` = '{client_id}'",
        "run_view_type": "ALL",
        "max_results": 1,
    }
    found = server.post("runs/search", message).get("runs")
    return _on_server({"run": found[0]}, client_id) if found else None


def _experiment(server: Server, declared: Dict[str, Any]) -> str:
    """The id of the run's experiment, which is made where there is none of its name."""
    given = declared.get("experiment_id")
    if given:
        return str(given)
    name = str(declared.get("experiment") or "Default")
    for _ in range(2):
        try:
            return str(server.get("experiments/get-by-name", experiment_name=name)["experiment"]["experiment_id"])
        except Rejected as error:
            if not error.missing:
                raise
        try:
            return str(server.post("experiments/create", {"name": name})["experiment_id"])
        except Rejected as error:
            refusal = error  # somebody else may have been faster
    raise refusal


def _on_server(answer: Any, client_id: str) -> RunOnServer:
    try:
        info = answer["run"]["info"]
        return RunOnServer(str(info.get("run_id") or info["run_uuid"]), client_id, str(info.get("artifact_uri") or ""))
    except (KeyError, TypeError):
        raise Away("it does not answer as an MLflow server does") from None
