"""runproj: run any project from a git URL, pinned and recorded, and run it again exactly as before."""

from __future__ import annotations

__version__ = "0.1.0"

_LOGGING = frozenset({"log_artifact", "log_metric", "log_metrics", "log_param", "log_params", "run_id", "set_tag", "set_tags"})


def __getattr__(name: str) -> object:
    """The logging functions, loaded when they are first used."""
    if name in _LOGGING:
        from runproj import client

        return getattr(client, name)
    raise AttributeError(f"module 'runproj' has no attribute {name!r}")
