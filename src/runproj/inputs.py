"""Declared inputs and remote `path` parameters: fetched, checked against their sha256, and recorded."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from runproj.core.call import Call
from runproj.core.project import InputSpec, ParameterType
from runproj.core.record import Input
from runproj.errors import StartError
from runproj.files import explained, sha256_file, tree_size

if TYPE_CHECKING:
    from runproj.core.capsule import PackedInput
    from runproj.kept import Kept

_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*):")
_CHUNK = 1 << 20
_MOST_HASHED = 1 << 30
"""Bytes behind a parameter that are read only to know what they were."""


def variable(name: str) -> str:
    """The environment variable that holds an input's path."""
    return "RUNPROJ_INPUT_" + re.sub(r"\W", "_", name).upper()


class Brought:
    """The data that came with a run in a capsule: a rerun gets what the run was given, whatever its address has now.

    rerun_of: the run that is repeated;  `run_id`: the one that repeats it, and can be repeated in turn.
    """

    def __init__(self, home: Path, rerun_of: str | None, run_id: str) -> None:
        self._kept: Kept | None = None
        self._data: dict[tuple[str, str, str], PackedInput] = {}
        if rerun_of is None or not (home / "capsules").is_dir():
            return
        from runproj.kept import Kept

        self._kept = Kept(home)
        found = self._kept.inputs(rerun_of)
        if found:
            self._kept.keep_inputs(run_id, found)
        self._data = {(data.kind, data.name, data.uri): data for data in found}

    def place(self, kind: str, name: str, uri: str, target: Path) -> bool:
        """Write what came with the run under that name to `target`; False where nothing did."""
        data = self._data.get((kind, name, uri))
        if data is None or self._kept is None:
            return False
        self._kept.restore(data, target)
        return True


def prepare(spec: InputSpec, project: Path, progress: Callable[[str], None], brought: Brought) -> tuple[Input, Path]:
    """Make an input available and check it; returns its record and where it is.

    A path is taken where it is, relative to the project's folder; a URI is fetched to `inputs/NAME` there, and so is what a
    capsule brought.
    Raises `StartError` where it is missing, cannot be fetched, or is not what its sha256 says.
    """
    path = project / "inputs" / spec.name
    if brought.place("input", spec.name, spec.uri, path):
        pass
    elif _SCHEME.match(spec.uri):
        fetch(spec.uri, path, progress)
    else:
        path = project / spec.uri
    if not path.exists():
        raise StartError(f"The input {spec.name!r} is missing", why=f"There is no {spec.uri} in the project.")
    digest, size = digest_of(path)
    if spec.sha256 and digest != spec.sha256.lower():
        raise StartError(
            f"The input {spec.name!r} is not the one that was declared",
            why=f"{spec.uri} has sha256 {digest}, not {spec.sha256}.",
            fix="Restore the data, or declare the new sha256.",
        )
    return Input(spec.name, _scrubbed(spec.uri), size, digest), path


def digest_of(path: Path) -> tuple[str, int]:
    """sha256 and bytes of a file, or of a folder's sorted listing of names and digests."""
    if path.is_file():
        return sha256_file(path), path.stat().st_size
    total, whole = 0, hashlib.sha256()
    for file in sorted(file for file in path.rglob("*") if file.is_file()):
        total += file.stat().st_size
        whole.update(f"{sha256_file(file)}  {file.relative_to(path)}\n".encode(errors="surrogateescape"))
    return whole.hexdigest(), total


def fetch(uri: str, target: Path, progress: Callable[[str], None]) -> None:
    """Write what `uri` (file, http, https) names to `target`, in bounded memory.  Raises `StartError`."""
    from http.client import HTTPException
    from urllib.error import URLError
    from urllib.parse import unquote, urlsplit
    from urllib.request import Request, urlopen

    try:
        parts = urlsplit(uri)
    except ValueError as error:
        raise StartError(f"Cannot fetch {_scrubbed(uri)}", why=str(error)) from error
    with explained(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    if parts.scheme == "file":
        source = Path(unquote(parts.path))
        if not source.is_file():
            raise StartError(f"Cannot fetch {uri}", why=f"There is no file {source}.")
        with explained(target):
            shutil.copyfile(source, target)
        return
    if parts.scheme not in ("http", "https"):
        raise StartError(
            f"Cannot fetch {_scrubbed(uri)}",
            why=f"There is no way to fetch {parts.scheme}: here.",
            fix="Use file:, http: or https:, or let the project fetch it (type uri instead of path).",
        )
    progress(f"Fetching {_scrubbed(uri)}")
    try:
        with urlopen(Request(uri, headers={"User-Agent": "runproj"}), timeout=60) as answer:
            wanted = answer.headers.get("Content-Length")
            with explained(target):
                file = target.open("wb")
            with file:
                while data := answer.read(_CHUNK):
                    with explained(target):
                        file.write(data)
    except (URLError, OSError, HTTPException, ValueError) as error:
        target.unlink(missing_ok=True)
        raise StartError(f"Cannot fetch {_scrubbed(uri)}", why=str(getattr(error, "reason", error))) from error
    if wanted is not None and target.stat().st_size != int(wanted):
        target.unlink()
        raise StartError(f"Cannot fetch {_scrubbed(uri)}", why="The connection ended before the file did.")


def _scrubbed(uri: str) -> str:
    """Without user and password, and without a query, which often holds a signature."""
    return re.sub(r"(?<=://)[^/@]*@", "", uri).split("?")[0]


def localise(call: Call, folder: Path, progress: Callable[[str], None], brought: Brought) -> Call:
    """The call with every remote `path` parameter fetched into `folder`, as MLproject files expect."""
    values = []
    for index, value in enumerate(call.values):
        text = value.resolved or value.value or ""
        if value.type is ParameterType.PATH and text:
            target = folder / f"param_{index}" / (os.path.basename(text.split("?")[0].rstrip("/")) or "data")  # noqa: PTH119
            match = _SCHEME.match(text)
            if brought.place("parameter", value.name, text, target):
                value = replace(value, resolved=str(target))
            elif match and match[1] in ("http", "https", "file"):
                fetch(text, target, progress)
                value = replace(value, resolved=str(target))
        values.append(value)
    return replace(call, values=tuple(values))


def behind_paths(call: Call, code: Path) -> Iterator[Input]:
    """What `path` parameters lead to outside of the folder `code`, checked where a replay demands the same content.

    More than 1 GB is read only on demand.  Raises `StartError`.
    """
    for value in call.values:
        text = value.resolved or value.value or ""
        path = Path(text)
        if value.type is not ParameterType.PATH or not path.is_absolute() or path.is_relative_to(code):
            continue
        if not path.exists():
            if value.sha256:
                raise StartError(f"What the parameter {value.name!r} led to is gone", why=f"There is no {text}.")
            continue
        if not value.sha256 and tree_size(path) > _MOST_HASHED:
            continue
        with explained(path, "read"):
            digest, size = digest_of(path)
        if value.sha256 and digest != value.sha256:
            raise StartError(
                f"What the parameter {value.name!r} leads to has another content than it had",
                why=f"{text} has sha256 {digest}, not {value.sha256}.",
                fix="Restore the data.",
            )
        yield Input(value.name, _scrubbed(value.value or text), size, digest, "parameter")
