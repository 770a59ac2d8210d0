"""A run that is logged into, and which one that is at the moment."""

import itertools
import json
import os
import threading
import time
from typing import Any, Dict, Iterator, List, Mapping, Optional

from runproj.client import places, values
from runproj.client.session import Session, session_for
from runproj.client.values import Refused, line

PARENT = "mlflow.parentRunId"
_PATIENCE = 5.0


class Run:
    """A run, as `start_run` gives it; as a context manager it ends itself.

    Its methods are those of the module; they return at once, and raise `Refused` for what can never be recorded.
    """

    def __init__(self, uri: str, declared: Dict[str, Any]) -> None:
        self._uri = uri
        self._declared = declared
        self._session: Optional[Session] = None
        self._number = 0
        self._names: Dict[str, str] = {}
        self._steps: Dict[str, Iterator[int]] = {}
        self._params: Dict[str, str] = {}
        self._lock = threading.RLock()
        self.ended = False
        self.by_itself = False

    def __repr__(self) -> str:
        known = self._session.known_id(self._number) if self._session is not None else ""
        return f"Run(name={self.name!r}, id={known or self.client_id!r})"

    def _place(self) -> Session:
        """This process's session, to which the run has been introduced."""
        session = self._session
        if session is not None and session.pid == os.getpid() and not session.closed:
            return session
        if session is not None and session.pid != os.getpid():
            self._lock = threading.RLock()  # we are a child of a fork: somebody may have held it there
        with self._lock:
            if self._session is session:
                fresh = session_for(self._uri)
                declared = dict(self._declared)
                if session is not None and declared.get("create") and session.spool.folder:
                    made_by = declared.get("made_by") or os.path.join(session.spool.folder, "runs", str(self._number))
                    declared["made_by"] = made_by
                self._declared = declared
                self._number = fresh.declare(declared)
                self._session = fresh
            return self._session or session_for(self._uri)

    @property
    def id(self) -> str:
        """The run's id.

        Where the server gives ids of its own (MLflow's does), it is waited for, for some seconds at most; before the server
        knows the run, and on runproj's server always, it is the one that was chosen here.
        """
        own = str(self._declared["id"])
        if not self._declared.get("create") or not self._uri.startswith("http"):
            return own
        return self._place().id_of(self._number, _PATIENCE) or own

    run_id = id

    @property
    def client_id(self) -> str:
        """The id that was chosen here; the tag `runproj.spool` holds it."""
        return str(self._declared["id"])

    @property
    def name(self) -> Optional[str]:
        return self._declared.get("name")

    def _name(self, key: object) -> str:
        """A checked name, as JSON has it."""
        found = self._names.get(key)  # type: ignore[call-overload]  # whatever it is, it can be looked up or is refused below
        if found is None:
            found = self._names[str(key)] = json.dumps(values.name(key))
        return str(found)

    def log_metric(self, key: str, value: Any, step: Optional[int] = None, timestamp: Optional[int] = None) -> None:
        """Record a value of a metric."""
        session = self._place()
        name, number = self._name(key), values.number(value)
        now = int(time.time() * 1000) if timestamp is None else values.whole(timestamp, "timestamp", 0)
        counted = self._next_step(name) if step is None else values.whole(step, "step")
        session.write(b'["m",%d,%s,%s,%d,%d]\n' % (self._number, name.encode(), number.encode(), now, counted))

    def _next_step(self, name: str) -> int:
        steps = self._steps.get(name)
        if steps is None:
            steps = self._steps.setdefault(name, itertools.count())
        return next(steps)

    def log_metrics(self, metrics: Mapping[str, Any], step: Optional[int] = None, timestamp: Optional[int] = None) -> None:
        """Record a value of several metrics, all with the same time."""
        now = int(time.time() * 1000) if timestamp is None else timestamp
        for key, value in metrics.items():
            self._name(key)
            values.number(value)
        for key, value in metrics.items():
            self.log_metric(key, value, step, now)

    def log_params(self, params: Mapping[str, object]) -> None:
        """Record parameters.  Raises `Refused` where this process gave one of them another value before."""
        session = self._place()
        given = {values.name(key): values.text(value) for key, value in params.items()}
        with self._lock:
            for key, value in given.items():
                if self._params.get(key, value) != value:
                    raise Refused(
                        f"the parameter {key!r} is {self._params[key]!r} and cannot become {value!r}: it is written once"
                    )
            for key, value in given.items():
                if key not in self._params:
                    self._params[key] = value
                    session.write(line(["p", self._number, key, value]))

    def log_param(self, key: str, value: object) -> None:
        """Record a parameter."""
        self.log_params({key: value})

    def set_tags(self, tags: Mapping[str, object]) -> None:
        """Set tags."""
        session = self._place()
        given = {values.name(key): values.text(value) for key, value in tags.items()}
        for key, value in given.items():
            session.write(line(["t", self._number, key, value]))

    def set_tag(self, key: str, value: object) -> None:
        """Set a tag."""
        self.set_tags({key: value})

    def delete_tag(self, key: str) -> None:
        """Remove a tag; does nothing where there is none."""
        session = self._place()
        session.write(line(["d", self._number, values.name(key)]))

    def log_artifact(self, path: Any, folder: str = "") -> None:
        """Store a file as it is now, or a folder with everything in it; below `folder` where one is given."""
        from runproj.client.artifacts import log_path

        log_path(self, path, folder, whole=True)

    def log_artifacts(self, path: Any, folder: str = "") -> None:
        """Store everything that is in a folder; below `folder` where one is given."""
        from runproj.client.artifacts import log_path

        log_path(self, path, folder, whole=False)

    def log_text(self, text: str, path: str) -> None:
        """Store a text as a file."""
        from runproj.client.artifacts import log_bytes

        log_bytes(self, text.encode("utf-8", "backslashreplace"), path)

    def log_dict(self, content: Any, path: str) -> None:
        """Store dicts, lists and scalars as a JSON file."""
        from runproj.client.artifacts import log_json

        log_json(self, content, path)

    def log_figure(self, figure: Any, path: str) -> None:
        """Store a picture as a file."""
        from runproj.client.artifacts import log_figure

        log_figure(self, figure, path)

    def log_table(self, table: Any, path: str) -> None:
        """Add rows to a table."""
        from runproj.client.tables import table_of, table_path

        self.write("b", table_path(path), table_of(table))

    def write(self, kind: str, *rest: object) -> None:
        """Log any other event."""
        session = self._place()
        session.write(line([kind, self._number, *rest]))

    def place_for_file(self) -> "tuple[str, str]":
        """See `Session.place_for_file`."""
        return self._place().place_for_file()

    def end(self, status: str = "FINISHED") -> None:
        """Say how the run ended: FINISHED, FAILED or KILLED."""
        if status not in ("FINISHED", "FAILED", "KILLED"):
            raise Refused(f"{status!r} is not how a run ends: FINISHED, FAILED and KILLED are")
        if not self.ended:
            self.ended = True
            self.write("e", status, int(time.time() * 1000))
        stacks.remove(self)

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, kind: Optional[type], error: Optional[BaseException], trace: object) -> None:
        self.end(status_of(kind, error))


def status_of(kind: Optional[type], error: object) -> str:
    """How a run ends in which that was raised."""
    if kind is None or (issubclass(kind, SystemExit) and getattr(error, "code", 1) in (None, 0)):
        return "FINISHED"
    return "KILLED" if issubclass(kind, KeyboardInterrupt) else "FAILED"


class Stacks:
    """The runs that were started and not ended.  A thread that started none logs into what the process has started."""

    def __init__(self) -> None:
        self._own = threading.local()
        self._main: List[Run] = []
        self.inside: Optional[Run] = None

    def mine(self) -> List[Run]:
        if threading.current_thread() is threading.main_thread():
            return self._main
        if not hasattr(self._own, "runs"):
            self._own.runs = []
        found: List[Run] = self._own.runs
        return found

    def active(self) -> Optional[Run]:
        mine = self.mine() or self._main
        return mine[-1] if mine else None

    def share(self, run: Run) -> None:
        """Make a run of this thread that of the process."""
        self.mine().remove(run)
        self._main.append(run)

    def remove(self, run: Run) -> None:
        for stack in (self.mine(), self._main):
            if run in stack:
                stack.remove(run)


stacks = Stacks()


def current() -> Optional[Run]:
    """The run to log into: the one that was started last, else the one of runproj that this process belongs to."""
    active = stacks.active()
    if active is not None:
        return active
    if stacks.inside is None and places.inside() and places.tracking_uri():
        stacks.inside = Run(places.tracking_uri(), {"create": False, "id": places.inside()})
    return stacks.inside
