"""Log into a run, from anywhere: `import runproj; runproj.log_metric("loss", 0.3)`.

What is logged is in a file when the call returns; a thread sends it.  Nothing that a network, a server or a disk can do raises
here or keeps the training waiting: what could not be sent is sent by `runproj sync`, in order, and recorded once.

Self-contained and for Python 3.6 and later: the executor puts a copy of this package on the path of the project's process,
whatever that process's environment has installed.
"""

from typing import Any, Iterable, List, Mapping, Optional, Union

from runproj.client import places
from runproj.client import runs as _runs
from runproj.client.runs import Run
from runproj.client.session import sessions as _sessions
from runproj.client.values import Refused

__all__ = [
    "Refused",
    "Run",
    "active_run",
    "delete_tag",
    "end_run",
    "flush",
    "log_artifact",
    "log_artifacts",
    "log_dict",
    "log_figure",
    "log_metric",
    "log_metrics",
    "log_param",
    "log_params",
    "log_table",
    "log_text",
    "run_id",
    "search_runs",
    "set_experiment",
    "set_tag",
    "set_tags",
    "set_tracking_uri",
    "start_run",
]


class _Chosen:
    """What was set for the rest of the process."""

    uri: Optional[str] = None
    experiment: Optional[str] = None


def set_tracking_uri(uri: str) -> None:
    """Record the runs that are started from now on at `uri`: `http(s)://SERVER`, or `sqlite:///PATH` where runproj is installed.

    Raises `Refused` for any other place.
    """
    places.tracking_uri(uri)
    _Chosen.uri = uri


def set_experiment(name: str) -> None:
    """Put the runs that are started from now on into the experiment of that name, which is made where there is none."""
    if not 0 < len(name) <= 500:
        raise Refused("the name of an experiment has from 1 to 500 characters")
    _Chosen.experiment = name


def start_run(
    name: Optional[str] = None,
    nested: bool = False,
    tags: Optional[Mapping[str, object]] = None,
    run_id: Optional[str] = None,
    experiment: Optional[str] = None,
) -> Run:
    """Begin a run, and log into it until it is ended: by `with`, by `end_run`, or with the process.

    nested: make it a child of the active run, which otherwise must be ended first.
    run_id: go on with a run that exists.
    Inside of a run of runproj, the first run that is not nested is that run itself.
    Outside of one, what is logged while no run is active begins a run by itself, which ends with the process or by `end_run`.
    """
    from runproj.client.starting import start

    return start(name, nested, tags, run_id, experiment or _Chosen.experiment, _Chosen.uri)


def end_run(status: str = "FINISHED") -> None:
    """End the active run, if there is one, as FINISHED, FAILED or KILLED."""
    active = _runs.stacks.active()
    if active is not None:
        active.end(status)


def active_run() -> Optional[Run]:
    """The run that is logged into; None where there is none."""
    return _runs.current()


def run_id() -> Optional[str]:
    """The id of the run that is logged into; None where there is none."""
    run = _runs.current()
    return run.id if run else places.inside() or None


def _run() -> Optional[Run]:
    """The run to log into, begun where there is none; None where none can be, which `begin` says."""
    run = _runs.current()
    if run is None:
        from runproj.client.starting import begin

        run = begin(_Chosen.experiment, _Chosen.uri)
    return run


def log_param(key: str, value: object) -> None:
    """Record a parameter; its text is `str(value)`.  Raises `Refused` where this process gave it another value before."""
    run = _run()
    if run is not None:
        run.log_param(key, value)


def log_params(params: Mapping[str, object]) -> None:
    """Record several parameters."""
    run = _run()
    if run is not None:
        run.log_params(params)


def log_metric(key: str, value: Any, step: Optional[int] = None, timestamp: Optional[int] = None) -> None:
    """Record a value of a metric: whatever `float` takes.  Raises `Refused` for anything else.

    step:      counts up from 0 for each metric where it is left out.
    timestamp: milliseconds since the epoch; now where it is left out.
    """
    run = _runs.stacks.active() or _run()
    if run is not None:
        run.log_metric(key, value, step, timestamp)


def log_metrics(metrics: Mapping[str, Any], step: Optional[int] = None, timestamp: Optional[int] = None) -> None:
    """Record a value of several metrics; `step` and `timestamp` as of `log_metric`."""
    run = _run()
    if run is not None:
        run.log_metrics(metrics, step, timestamp)


def set_tag(key: str, value: object) -> None:
    """Set a tag; its text is `str(value)`."""
    set_tags({key: value})


def set_tags(tags: Mapping[str, object]) -> None:
    """Set several tags."""
    run = _run()
    if run is not None:
        run.set_tags(tags)


def delete_tag(key: str) -> None:
    """Remove a tag."""
    run = _run()
    if run is not None:
        run.delete_tag(key)


def log_artifact(path: Any, folder: str = "") -> None:
    """Store a file as it is now, or a folder with everything in it, with the run; below `folder` where one is given."""
    run = _run()
    if run is not None:
        run.log_artifact(path, folder)


def log_artifacts(path: Any, folder: str = "") -> None:
    """Store everything that is in a folder with the run; below `folder` where one is given."""
    run = _run()
    if run is not None:
        run.log_artifacts(path, folder)


def log_text(text: str, path: str) -> None:
    """Store a text as a file of the run."""
    run = _run()
    if run is not None:
        run.log_text(text, path)


def log_dict(content: Any, path: str) -> None:
    """Store dicts, lists and scalars as a JSON file of the run."""
    run = _run()
    if run is not None:
        run.log_dict(content, path)


def log_figure(figure: Any, path: str) -> None:
    """Store a picture as a file of the run: of matplotlib, plotly, Pillow, or anything else that can save itself.

    The end of `path` says in which format (`.png`, `.svg`, `.html`, …).
    """
    run = _run()
    if run is not None:
        run.log_figure(figure, path)


def log_table(table: Any, path: str) -> None:
    """Add rows to a table of the run, which `mlflow.load_table` reads.

    table: a dict of lists, a list of dicts, or a data frame.
    path:  the table's file, `….json`.
    """
    run = _run()
    if run is not None:
        run.log_table(table, path)


def flush(seconds: float = 60.0) -> bool:
    """Wait until everything that was logged so far was sent; whether that was so in time."""
    done = [session.flush(seconds) for session in _sessions()]
    return all(done)


def search_runs(
    filter: str = "",
    order_by: Union[str, Iterable[str]] = (),
    experiments: Optional[Iterable[str]] = None,
    max_results: int = 1000,
    output: str = "auto",
) -> Any:
    """Runs that fit a filter, newest first unless `order_by` says otherwise.

    experiments: names; all where it is left out.
    output:      "pandas" for a DataFrame, "list" for dicts with the same keys; "auto" is a DataFrame where pandas is there.
    Raises `ConnectionError` where the server cannot be reached, and `Refused` for a filter that has no meaning.
    """
    from runproj.client.searching import search

    for session in _sessions():
        session.flush(5.0, give_up=True)
    orders: List[str] = [order_by] if isinstance(order_by, str) else list(order_by)
    names = None if experiments is None else [experiments] if isinstance(experiments, str) else list(experiments)
    return search(places.tracking_uri(_Chosen.uri), filter, orders, names, max_results, output)
