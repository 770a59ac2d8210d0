"""runproj: run any project from a git URL, pinned and recorded, and run it again exactly as before."""

from __future__ import annotations

__version__ = "0.1.0"

TYPE_CHECKING = False  # type checkers know the name; importing it would cost every command a third of its start
if TYPE_CHECKING:
    from runproj.client import (
        Refused,
        Run,
        active_run,
        delete_tag,
        end_run,
        flush,
        log_artifact,
        log_artifacts,
        log_dict,
        log_figure,
        log_metric,
        log_metrics,
        log_param,
        log_params,
        log_table,
        log_text,
        run_id,
        search_runs,
        set_experiment,
        set_tag,
        set_tags,
        set_tracking_uri,
        start_run,
    )

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


def __getattr__(name: str) -> object:
    """The logging functions, loaded when they are first used."""
    if name in __all__:
        from runproj import client

        found = globals()[name] = getattr(client, name)
        return found
    raise AttributeError(f"module 'runproj' has no attribute {name!r}")
