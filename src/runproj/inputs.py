"""Declared inputs and remote `path` parameters: fetched, checked against their sha256, and recorded."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from runproj.core.call import Call
from runproj.core.project import EntryPoint, InputSpec, ParameterType
from runproj.core.record import Input, Output
from runproj.core.services import Services
from runproj.errors import DescriptorError, NotFoundError, StartError
from runproj.files import explained, remove_tree, sha256_file, sha256_text, tree_size

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
    strangers: it came in a capsule, or repeats one that did: the runs that its plan names are its maker's word.
    """

    def __init__(self, home: Path, rerun_of: str | None, run_id: str) -> None:
        self._kept: Kept | None = None
        self.strangers = False
        self._data: dict[tuple[str, str, str], PackedInput] = {}
        if rerun_of is None or not (home / "capsules").is_dir():
            return
        from runproj.kept import Kept

        self._kept = Kept(home)
        found = self._kept.inputs(rerun_of)
        self.strangers = self._kept.brought(rerun_of)
        if self.strangers:
            self._kept.keep_inputs(run_id, found)
        self._data = {(data.kind, data.name, data.uri): data for data in found}

    def place(self, kind: str, name: str, uri: str, target: Path) -> bool:
        """Write what came with the run under that name to `target`; False where nothing did."""
        data = self._data.get((kind, name, uri))
        if data is None or self._kept is None:
            return False
        self._kept.restore(data, target)
        return True

    def content(self, digest: str) -> Path | None:
        """A file that came with the run, by its sha256; None where it did not."""
        known = any(file.sha256 == digest for data in self._data.values() for file in data.files)
        return self._kept.objects.path(digest) if known and self._kept is not None else None


def prepare(spec: InputSpec, project: Path, use: Services, brought: Brought) -> tuple[Input, Path]:
    """Make an input available and check it; returns its record and where it is.

    A path is taken where it is, relative to the project's folder; a URI is fetched to `inputs/NAME` there, and so is what a
    capsule brought.  What another step put out is put where it was there.
    Raises `StartError` where it is missing, cannot be fetched, or is not what its sha256 says.
    """
    if spec.step:
        return _of_step(spec, project, use, brought)
    path = project / "inputs" / spec.name
    if brought.place("input", spec.name, spec.uri, path):
        pass
    elif _SCHEME.match(spec.uri):
        fetch(spec.uri, path, use.reporter.progress)
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


def make_room(specs: Sequence[InputSpec], project: Path) -> None:
    """Remove what the code has where outputs of other steps are to be; of a link itself, not of what it leads to.

    Raises `StartError` for a place outside of the project.
    """
    for spec in (spec for spec in specs if spec.step):
        path = project / spec.uri
        below = [PurePosixPath(spec.uri), *(PurePosixPath(file.path) for file in spec.files)]
        plain = all(".." not in part.parts and part.is_relative_to(below[0]) for part in below) and below[0].parts
        if not plain or not path.parent.resolve().is_relative_to(project.resolve()):
            raise StartError(f"The input {spec.name!r} would be outside of the project", why=f"{spec.uri} leads out of it.")
        with explained(path):
            if path.is_dir() and not path.is_symlink():
                remove_tree(path)
            else:
                path.unlink(missing_ok=True)


def _of_step(spec: InputSpec, project: Path, use: Services, brought: Brought) -> tuple[Input, Path]:
    from runproj.core.pipeline import digest_at

    if not spec.run:
        raise StartError(f"The input {spec.name!r} is put out by {spec.step!r}, and the plan does not say by which run")
    found = []
    for file in spec.files:
        target = project / file.path
        with explained(target):
            target.parent.mkdir(parents=True, exist_ok=True)
        output(spec.run, file, target, use, brought)
        with explained(target, "read"):
            found.append(Output(file.path, target.stat().st_size, sha256_file(target)))
    digest = digest_at(found, spec.uri)
    if digest != spec.sha256:
        raise StartError(
            f"The input {spec.name!r} is not what {spec.step!r} put out",
            why=f"{spec.uri} of run {spec.run[:8]} has sha256 {digest}, not {spec.sha256}.",
            fix="It was replaced since, or is damaged in the store.",
        )
    return Input(spec.name, spec.uri, sum(file.size for file in found), digest), project / spec.uri


def output(run_id: str, file: Output, into: Path, use: Services, brought: Brought) -> None:
    """Write a file that a run put out to `into`: from what came with the job or in a capsule, or from where that run keeps it.

    Raises `StartError` where it is gone.
    """
    came = use.given / file.sha256 if use.given else None
    path = came if came and came.exists() else brought.content(file.sha256)
    if path is not None:
        with explained(into):
            shutil.copyfile(path, into)
        return
    if brought.strangers:
        raise StartError(
            f"The output {file.path!r} of another run did not come with the capsule",
            why="Which of your runs it would be taken from is the word of whoever made the capsule.",
        )
    try:
        use.artifacts.get(use.tracking.get_run(run_id), file.path, into)
    except NotFoundError as error:
        raise StartError(
            f"The output {file.path!r} of run {run_id[:8]} is gone", why=error.what, fix="Run the step that puts it out again."
        ) from error


def digest_of(path: Path) -> tuple[str, int]:
    """sha256 and bytes of a file, or of a folder's sorted listing of names and digests."""
    if path.is_file():
        return sha256_file(path), path.stat().st_size
    total, whole = 0, hashlib.sha256()
    for file in sorted(file for file in path.rglob("*") if file.is_file()):
        total += file.stat().st_size
        whole.update(f"{sha256_file(file)}  {file.relative_to(path)}\n".encode(errors="surrogateescape"))
    return whole.hexdigest(), total


def scope_of(entry_point: EntryPoint, call: Call, project: Path) -> str:
    """sha256 over the files of a project that decide the result of an entry point, with their names and modes.

    Raises `DescriptorError` for a pattern that names none.
    """
    from runproj.core.pipeline import decides, names

    whole, unused = hashlib.sha256(), list(entry_point.code)
    for name, path in sorted(_files_of(project)):
        if not decides(name, entry_point, call):
            continue
        unused = [pattern for pattern in unused if not names(pattern, name)]
        link = path.is_symlink()
        digest = sha256_text(str(path.readlink())) if link else sha256_file(path)
        mode = "link" if link else "program" if path.stat().st_mode & 0o100 else "file"
        whole.update(f"{digest} {mode} {name}\0".encode(errors="surrogateescape"))
    if unused:
        raise DescriptorError(
            f"No file of the project is {unused[0]!r}, which {entry_point.name!r} declares as its code",
            fix="Patterns are like src/**/*.py, relative to the descriptor's folder; a folder stands for all in it.",
        )
    return whole.hexdigest()


def _files_of(project: Path) -> Iterator[tuple[str, Path]]:
    for folder, below, files in os.walk(project):
        below[:] = [name for name in below if name != ".git"]
        for path in (Path(folder, name) for name in (*files, *below)):
            if path.is_symlink() or path.is_file():
                yield path.relative_to(project).as_posix(), path


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
