"""Begin a run, or go on with one."""

import getpass
import os
import sys
import time
from typing import Any, Dict, Mapping, Optional

from runproj.client import places, values
from runproj.client.delivery import warn
from runproj.client.runs import PARENT, Run, stacks, status_of
from runproj.client.session import ending, process_lock, session_for
from runproj.client.values import Refused


def start(
    name: Optional[str],
    nested: bool,
    tags: Optional[Mapping[str, object]],
    run_id: Optional[str],
    experiment: Optional[str],
    uri: Optional[str],
) -> Run:
    """See `runproj.start_run`."""
    mine = stacks.mine()
    active = mine[-1] if mine else None
    if active is not None and not nested:
        why = "began with what was logged before start_run, and " if active.by_itself else ""
        fix = "end it with runproj.end_run(), or begin this one with nested=True"
        raise Refused(f"the run {active.client_id} {why}is active: {fix}")
    parent = stacks.active() if nested else None
    given = {values.name(key): values.text(value) for key, value in (tags or {}).items()}
    inside = places.inside()
    goes_on = run_id or (os.environ.get("MLFLOW_RUN_ID") if not mine and not inside and not nested else None)
    if inside and places.tracking_uri() and not uri and not mine and not nested and run_id in (None, inside):
        run = Run(places.tracking_uri(), {"create": False, "id": inside})
        given.update({"mlflow.runName": name} if name else {})
    elif goes_on:
        run = Run(places.tracking_uri(uri), {"create": False, "id": values.text(goes_on)})
    else:
        above = parent.client_id if parent else inside
        run = Run(places.tracking_uri(uri), _declared(name, given, experiment, above))
        given = {}
    if parent is not None:
        parent._place()  # so that it is introduced first
    run._place()
    if given:
        run.set_tags(given)
    mine.append(run)
    session_for(run._uri).at_end.append(lambda: _end(run))
    return run


class _Told:
    """What was said already."""

    nowhere = False


def begin(experiment: Optional[str], uri: Optional[str]) -> Optional[Run]:
    """The run that logging begins where there is none: one for the process, whichever thread it is that logs.

    None, with a warning the first time, where nothing says where to begin one.  Raises `Refused` as `start` does.
    """
    with process_lock():  # two threads may log their first value at once
        if stacks.active() is None:
            if ending() or not places.wanted(uri):
                _say_why_not()
                return None
            run = start(None, False, None, None, experiment, uri)
            run.by_itself = True
            stacks.share(run)
        return stacks.active()


def _say_why_not() -> None:
    if not _Told.nowhere:
        _Told.nowhere = True
        why = "this process is ending" if ending() else "MLFLOW_TRACKING_URI does not say where to begin one"
        warn(f"this process does not belong to a run, and {why}, so nothing is logged", 6)


def _end(run: Run) -> None:
    """The process ends: so does the run, as what ended the process says."""
    if not run.ended and not hasattr(sys, "ps1"):
        run.end(status_of(getattr(sys, "last_type", None), getattr(sys, "last_value", None)))
    elif not run.ended:
        run.end()


def _declared(name: Optional[str], tags: Dict[str, str], experiment: Optional[str], parent: str) -> Dict[str, Any]:
    if parent:
        tags.setdefault(PARENT, parent)
    program = os.path.abspath(sys.argv[0]) if sys.argv and sys.argv[0] not in ("", "-c", "-m") else ""
    user = _user()
    tags.setdefault("mlflow.user", user)
    if program:
        tags.setdefault("mlflow.source.name", values.text(program))
        tags.setdefault("mlflow.source.type", "LOCAL")
    by_id = os.environ.get("MLFLOW_EXPERIMENT_ID") if experiment is None else None
    return {
        "create": True,
        "id": os.urandom(16).hex(),
        "name": None if name is None else values.text(name),
        "experiment_id": by_id,
        "experiment": None if by_id else experiment or places.experiment(),
        "start": int(time.time() * 1000),
        "user": user,
        "tags": tags,
    }


def _user() -> str:
    try:
        return values.text(getpass.getuser())
    except (KeyError, OSError, ImportError):  # a user without a name
        return str(os.getuid())
