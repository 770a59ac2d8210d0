"""From a spool to a server: events in order, as few requests as they fit into, each again and again until it was heard.

Everything sent can be sent twice without being recorded twice: points of metrics carry the time at which they were logged,
parameters and tags are what they are, files replace themselves, and a run is known by an id that was chosen here.
"""

import json
import time
import warnings
from typing import Any, Dict, List, NamedTuple, Optional, Set, Tuple

from runproj.client.files import send_file
from runproj.client.journal import Position
from runproj.client.remote_runs import RunOnServer, find_or_make
from runproj.client.spool import Spool
from runproj.client.wire import Rejected, Server

_METRICS, _OTHERS, _TOTAL = 1000, 100, 1000


class Item(NamedTuple):
    """A metric, parameter or tag of a request, and the line that asked for it."""

    kind: str
    message: Dict[str, Any]
    line: bytes


class Batch:
    """What one run's next request will say."""

    def __init__(self) -> None:
        self.items: List[Item] = []
        self._params: Dict[str, str] = {}
        self._counts = {"metrics": 0, "params": 0, "tags": 0}

    def takes(self, item: Item) -> bool:
        """Whether it still fits in."""
        if item.kind == "metrics":
            return self._counts["metrics"] < _METRICS and len(self.items) < _TOTAL
        key, value = item.message["key"], item.message["value"]
        changed = item.kind == "params" and self._params.get(key, value) != value
        return self._counts[item.kind] < _OTHERS and len(self.items) < _TOTAL and not changed

    def add(self, item: Item) -> None:
        key = item.message["key"]
        if item.kind == "params":
            if key in self._params:
                return
            self._params[key] = item.message["value"]
        elif item.kind == "tags":  # the last one wins
            self.items = [other for other in self.items if other.kind != "tags" or other.message["key"] != key]
        self.items.append(item)
        self._counts[item.kind] += 1


class Delivery:
    """Sends a spool.  One thread at a time.

    ends: whether it is for this delivery to say how the run of runproj, that the spool's owner belonged to, ended.
    """

    def __init__(self, spool: Spool, server: Server, ends: bool = True) -> None:
        self.spool = spool
        self.server = server
        self.sent = 0
        self.refused = 0
        self._ends = ends
        self._runs: Dict[int, RunOnServer] = {}
        self._impossible: Dict[int, Rejected] = {}
        self._batches: Dict[int, Batch] = {}
        self._collected: Optional[Tuple[Optional[Position], int]] = None
        self._told: Set[str] = set()
        self._set_aside: Set[bytes] = set()

    def step(self) -> int:
        """Send the next events; returns how many, 0 where nothing is left.

        Raises `Away`; then nothing has been forgotten, and what was heard is not sent again by this delivery.
        """
        if self._collected is not None:
            count = max(1, self._collected[1])
            self._settle(*self._collected)
            return count
        chunk = self.spool.journal.read()
        since, last = 0, None  # type: int, Optional[Position]
        for (line, position), event in zip(chunk.lines, _parsed([line for line, _ in chunk.lines])):
            if event is None:
                self._refuse(line, "it is not an event")
            elif event[0] not in _BATCHED:
                self._settle(last, since)
                since = 0
                self._do(event, line)
            elif not self._collect(event, line):
                self._settle(last, since)
                since = 0
                self._collect(event, line)
            since, last = since + 1, position
        self._settle(last, since)
        return len(chunk.lines)

    def _settle(self, position: Optional[Position], count: int) -> None:
        """Send what was collected, and remember it as sent."""
        self._collected = (position, count)
        for number in list(self._batches):
            self._send(number, self._batches[number].items)
            del self._batches[number]
        self._collected = None
        if count:
            self.spool.journal.done(position, count)
            self.sent += count
        self._set_aside.clear()

    def _collect(self, event: List[Any], line: bytes) -> bool:
        """Put an event into its run's next request; whether it fits in."""
        kind, number = _BATCHED[event[0]], event[1]
        if kind == "metrics":
            message = {"key": event[2], "value": event[3], "timestamp": event[4], "step": event[5]}
        else:
            message = {"key": event[2], "value": event[3]}
        item, batch = Item(kind, message, line), self._batches.get(number)
        if batch is None:
            batch = self._batches[number] = Batch()
        if not batch.takes(item):
            return False
        batch.add(item)
        return True

    def _send(self, number: int, items: List[Item]) -> None:
        try:
            self._post(self._run(number).id, items)
        except Rejected as error:
            self._divide(number, items, error)

    def _post(self, run: str, items: List[Item]) -> None:
        message: Dict[str, Any] = {"run_id": run}
        for item in items:
            message.setdefault(item.kind, []).append(item.message)
        self.server.post("runs/log-batch", message)

    def _divide(self, number: int, items: List[Item], error: Rejected) -> None:
        """Find the items for which a request was refused, and send the others."""
        run = self._runs.get(number)
        if run is None or self._hopeless(run.id):
            for item in items:
                self._refuse(item.line, str(error))
            return
        waiting = [items]
        while waiting:
            some = waiting.pop()
            try:
                self._post(run.id, some)
            except Rejected as refusal:
                if len(some) == 1:
                    self._refuse(some[0].line, str(refusal))
                    continue
                middle = len(some) // 2
                waiting += [some[middle:], some[:middle]]

    def _hopeless(self, run: str) -> bool:
        """Whether the server refuses everything for this run: it was deleted, say."""
        try:
            self.server.post("runs/log-batch", {"run_id": run})
        except Rejected:
            return True
        return False

    def _do(self, event: List[Any], line: bytes) -> None:
        """What is not part of a batch."""
        kind, number = event[0], int(event[1])
        try:
            run = self._run(number)
            if kind == "e":
                self._end(number, run, event)
            elif kind == "d":
                self._delete_tag(run, event[2])
            elif kind == "a":
                send_file(self.server, run, self.spool.folder, event[2], event[3])
            elif kind == "b":
                from runproj.client.tables import send_rows

                send_rows(self.server, run, self.spool, number, event[2:], line)
        except Rejected as error:
            self._refuse(line, str(error))
        except FileNotFoundError as error:
            self._refuse(line, f"the file is gone: {error}")
        except OSError as error:
            self._refuse(line, f"the file cannot be read: {error}")

    def _end(self, number: int, run: RunOnServer, event: List[Any]) -> None:
        if self._ends or run.client_id != self.spool.about.run:
            self.server.post("runs/update", {"run_id": run.id, "status": event[2], "end_time": event[3]})
        self.spool.note(number, "ended", event[2])

    def _delete_tag(self, run: RunOnServer, key: str) -> None:
        try:
            self.server.post("runs/delete-tag", {"run_id": run.id, "key": key})
        except Rejected as error:
            if not error.missing:
                raise

    def _run(self, number: int) -> RunOnServer:
        if number in self._impossible:
            raise self._impossible[number]
        if number not in self._runs:
            try:
                self._runs[number] = find_or_make(self.server, self.spool, number)
            except Rejected as error:
                self._impossible[number] = error
                raise
        return self._runs[number]

    def id_of(self, number: int) -> str:
        """The run's id where the server has told it; empty before."""
        return self._runs[number].id if number in self._runs else ""

    def _refuse(self, line: bytes, why: str) -> None:
        if line in self._set_aside:  # on an earlier attempt at the same events
            return
        self._set_aside.add(line)
        self.refused += 1
        self.spool.refuse(line, why)
        if why not in self._told and len(self._told) < _MOST_TOLD:
            self._told.add(why)
            what = line.decode(errors="replace")
            kept = "it is kept, and `runproj sync --refused` tries again"
            warn(f"the server refused {what:.100}: {why.strip().rstrip('.'):.300}; {kept}")

    def close_lost_runs(self) -> None:
        """End the runs that the spool's owner began and did not live to end.  Raises `Away`."""
        for number in self.spool.declared():
            declared = self.spool.noted(number, "json") or {}
            if not declared.get("create") or declared.get("made_by") or self.spool.noted(number, "ended") is not None:
                continue
            try:
                run = self._run(number)
                found = self.server.get("runs/get", run_id=run.id)["run"]
                if found["info"].get("status") in ("RUNNING", "SCHEDULED"):
                    reason = "lost: its process vanished without ending it"
                    tags = [{"key": "runproj.lost", "value": "1"}, {"key": "runproj.reason", "value": reason}]
                    self.server.post("runs/log-batch", {"run_id": run.id, "tags": tags})
                    end = self._last(declared, found)
                    self.server.post("runs/update", {"run_id": run.id, "status": "FAILED", "end_time": end})
            except Rejected:
                pass
            self.spool.note(number, "ended", "FAILED")

    def _last(self, declared: Dict[str, Any], found: Dict[str, Any]) -> int:
        """When something was last logged into a run, in milliseconds since the epoch: by the spool's owner, or a fork of it."""
        now, metrics = int(time.time() * 1000), found.get("data", {}).get("metrics", [])
        times = [int(metric.get("timestamp") or 0) for metric in metrics] + [self.spool.journal.written() or now]
        return max([int(declared.get("start") or 0)] + [moment for moment in times if moment <= now])


_BATCHED = {"m": "metrics", "p": "params", "t": "tags"}
_LENGTHS = {"m": 6, "p": 4, "t": 4, "r": 2, "e": 4, "d": 3, "a": 4, "b": 4}
_MOST_TOLD = 20


def _parsed(lines: List[bytes]) -> List[Optional[List[Any]]]:
    """The events of lines; None where a crash of the machine left something else there."""
    try:
        found = json.loads((b"[" + b",".join(lines) + b"]").decode())
        if len(found) == len(lines):
            return [event if _fits(event) else None for event in found]
    except ValueError:
        pass
    return [_parsed([line])[0] if len(lines) > 1 else None for line in lines]


def _fits(event: Any) -> bool:
    try:
        return isinstance(event, list) and len(event) == _LENGTHS[event[0]] and isinstance(event[1], int)
    except (KeyError, IndexError, TypeError):
        return False


def warn(text: str, level: int = 0) -> None:
    """A warning that never becomes an exception: what goes wrong with the record is not for the training to suffer from.

    level: how far up the caller is whose line it is about; 0 where it is about no line.
    """
    try:
        if level:
            warnings.warn("runproj: " + text, RuntimeWarning, stacklevel=level)
        else:
            warnings.warn_explicit(text, RuntimeWarning, "runproj", 1, registry={})
    except Exception:  # warnings are errors here
        pass
