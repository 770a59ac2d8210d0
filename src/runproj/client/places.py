"""Where to record, and where to keep what is not recorded yet."""

import os
from typing import Any, Optional

from runproj.client.values import Refused
from runproj.client.wire import Http, Server


def home() -> str:
    """runproj's folder for everything."""
    chosen = os.environ.get("RUNPROJ_HOME")
    if chosen:
        return os.path.abspath(os.path.expanduser(chosen))
    data = os.environ.get("XDG_DATA_HOME", "")
    return os.path.join(data if data.startswith("/") else os.path.expanduser("~/.local/share"), "runproj")


def spool_root() -> str:
    """The folder of spools."""
    return os.environ.get("RUNPROJ_SPOOL") or os.path.join(home(), "spool")


def inside() -> str:
    """The id of the run of runproj that this process belongs to; empty outside of one."""
    return os.environ.get("RUNPROJ_RUN_ID", "")


def inside_uri() -> str:
    """Where the run of runproj that this process belongs to can be reached; empty outside of one."""
    uri = os.environ.get("MLFLOW_TRACKING_URI", "") if inside() else ""
    return uri.rstrip("/") if uri.startswith(("http://", "https://")) else ""


def tracking_uri(chosen: Optional[str] = None) -> str:
    """Where to record.  Raises `Refused` for a place that cannot be used.

    Inside of a run that is where the run is recorded; outside, what runproj's own settings say.
    """
    uri = wanted(chosen)
    if inside() and not chosen:
        return uri
    if uri.startswith(("http://", "https://")):
        return uri.rstrip("/")
    if uri.startswith(("sqlite:///", "postgresql://", "postgres://")) and _installed() is not None:
        return uri
    raise Refused(
        f"the tracking URI {uri!r} cannot be used from here; http://SERVER can, and sqlite:///PATH where runproj is installed"
    )


def wanted(chosen: Optional[str] = None) -> str:
    """The tracking URI as it is set, whether it can be used or not; empty where nothing says one."""
    if inside() and not chosen:
        return inside_uri()
    return chosen or os.environ.get("RUNPROJ_TRACKING_URI") or os.environ.get("MLFLOW_TRACKING_URI") or _configured()


def experiment() -> str:
    """The name of the experiment of new runs."""
    found = os.environ.get("MLFLOW_EXPERIMENT_NAME")
    module = _installed()
    return found or (str(module.experiment()) if module else "Default")


def _configured() -> str:
    module = _installed()
    return str(module.tracking_uri()) if module else ""


def connect(uri: str) -> Server:
    """The server, or the store, at a tracking URI."""
    if uri.startswith(("http://", "https://")):
        return Server(Http(uri, os.environ))
    module = _installed()
    if module is None:
        raise Refused(f"{uri!r} needs an installed runproj")
    return Server(module.exchange(uri))


def _installed() -> Any:
    """The rest of runproj; None for the copy that runs give to their projects."""
    try:
        from runproj.client import installed
    except (ImportError, SyntaxError):
        return None
    return installed
