"""What names may look like and how much fits into one request, as MLflow's server has it: its clients rely on the refusals."""

from __future__ import annotations

import posixpath
import re

from runproj.server.protocol import invalid

_KEY = re.compile(r"[/\w.\- :]*")
_KEY_LENGTH = 250


def check_key(key: str) -> str:
    """The key of a metric, parameter or tag.  Raises `Problem`."""
    if not _KEY.fullmatch(key):
        raise invalid(
            f"Invalid value \"{key}\" for parameter 'name' supplied: Names may only contain alphanumerics, underscores (_),"
            " dashes (-), periods (.), spaces ( ), colon(:) and slashes (/)."
        )
    if key in ("", ".") or key.startswith(("/", "..")) or posixpath.normpath(key) != key:
        raise invalid(f"Invalid value \"{key}\" for parameter 'name' supplied: it must be a path in its simplest form.")
    if len(key) > _KEY_LENGTH:
        raise invalid(f"'name' exceeds the maximum length of {_KEY_LENGTH} characters")
    return key


def check_batch(metrics: int, params: int, tags: int) -> None:
    """The sizes of a log-batch request.  Raises `Problem`."""
    for what, count, most in (("metrics", metrics, 1000), ("params", params, 100), ("tags", tags, 100)):
        if count > most:
            raise invalid(f"A batch logging request can contain at most {most} {what}; it has {count}. Please send several.")
    if metrics + params + tags > 1000:
        raise invalid("A batch logging request can contain at most 1000 metrics, params and tags in total.")


def check_experiment_name(name: str) -> str:
    """Raises `Problem`."""
    if not 0 < len(name) <= 500:
        raise invalid("Experiment name must be a non-empty string of at most 500 characters.")
    return name


def check_tag(key: str, value: str, longest_key: int, longest_value: int) -> None:
    """A tag of an experiment or of the registry.  Raises `Problem`."""
    check_key(key)
    if len(key) > longest_key or len(value) > longest_value:
        raise invalid(f"A tag has a key of at most {longest_key} and a value of at most {longest_value} characters.")
