"""Parameters of type `path`: what exists where the user is, and what belongs to the project."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from runproj.core.call import BoundValue, Call
from runproj.core.project import ParameterType
from runproj.errors import ParameterError

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")


def resolve_paths(call: Call, project: Path, cwd: Path) -> Call:
    """The call with its local paths made real.  Raises `ParameterError` naming those that do not exist.

    A path that the user gives is looked for where the user is, and becomes absolute; then in the project, where the command
    runs, and stays as it is.  A default, and a value taken from an earlier run, is looked for in the project first.
    `file:` URIs become paths.  Other URIs are left alone: whoever executes the call fetches them.  Values are recorded raw.
    """
    missing: list[str] = []
    values = tuple(_resolved(value, project, cwd, missing) for value in call.values)
    if missing:
        raise ParameterError(
            missing[0] if len(missing) == 1 else f"{len(missing)} paths do not exist",
            why="\n".join(missing) if len(missing) > 1 else "",
            fix=f"Looked in {cwd} and in the project.",
        )
    return replace(call, values=values)


def _resolved(value: BoundValue, project: Path, cwd: Path, missing: list[str]) -> BoundValue:
    text = value.value
    if value.type is not ParameterType.PATH or not text:
        return value
    if text.startswith("file:"):
        from urllib.parse import unquote, urlsplit

        text = unquote(urlsplit(text).path)
    elif _SCHEME.match(text):
        return value
    given = value.source != "default" and not value.source.startswith("run ")
    for folder in (cwd, project) if given else (project, cwd):
        if _exists(folder / text):
            found = text if folder is project else str((folder / text).absolute())
            return value if found == value.value else replace(value, resolved=found)
    missing.append(f"Parameter {value.name!r} from {value.source}: there is no file or folder {text!r}")
    return value


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name that is too long, or has no meaning here
        return False
