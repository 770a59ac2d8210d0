"""Resolution: requirement lines → the text of a PEP 751 lock with hashes, read from the index as it stood at a moment."""

from __future__ import annotations

import contextlib
import datetime
import re
from collections.abc import Iterator
from pathlib import Path

from runproj.core.environment import PythonPin
from runproj.core.values import dataclass
from runproj.environments import pylock, trees, uvtool
from runproj.environments.requests import iso, local_path
from runproj.environments.versions import Version, parse
from runproj.errors import EnvironmentFailure, StartError


@dataclass(frozen=True)
class Question:
    """What to resolve: hard and soft lines, for an interpreter, as of a date (None: now), in a project's folder.

    constraints: versions that hold where the packages are needed at all.
    find: a folder with wheels that may be taken beside those of the index.
    """

    lines: tuple[str, ...]
    soft: tuple[str, ...]
    python: PythonPin
    as_of: datetime.datetime | None
    project: Path
    strict: bool = False
    offline: bool = False
    constraints: tuple[str, ...] = ()
    find: Path | None = None


@dataclass(frozen=True)
class Answer:
    """A lock without local packages, these packages, and how it came about."""

    text: str
    local: tuple[pylock.Local, ...] = ()
    as_of: str | None = None
    notes: tuple[str, ...] = ()


def empty(python: PythonPin) -> Answer:
    """The lock of an environment with nothing in it."""
    return Answer(f'lock-version = "1.0"\ncreated-by = "runproj"\nrequires-python = ">={python.version}"\npackages = []\n')


def resolve(question: Question, uv: uvtool.Uv) -> Answer:
    """The newest versions of the moment that fit together.

    Where that date has no solution, today's index is read instead, with a note (not with `strict`); soft lines are dropped
    where they are in the way.  Raises `EnvironmentFailure` with the resolver's words.
    """
    first: str | None = None
    said = ""
    for as_of, soft in _attempts(question):
        text, said = _compile(question, as_of, (*question.lines, *(question.soft if soft else ())), uv)
        if text is not None:
            return _answer(text[0], text[1], as_of, _notes(question, as_of, first))
        first = first if first is not None else said
        if uvtool.is_network(said) or "No space left on device" in said:
            break
    if not question.lines and uvtool.is_network(said):
        return empty(question.python)  # only what is nice to have is missing
    raise uvtool.failure("The environment cannot be resolved", said, offline=question.offline)


def _attempts(question: Question) -> Iterator[tuple[datetime.datetime | None, bool]]:
    dates = [question.as_of] if question.as_of is None or question.strict else [question.as_of, None]
    for date in dates:
        if question.soft:
            yield date, True
        if question.lines or not question.soft:
            yield date, False


def _notes(question: Question, as_of: datetime.datetime | None, first: str | None) -> tuple[str, ...]:
    if question.as_of is None or as_of is not None:
        return ()
    return (f"The index as of {iso(question.as_of)} has no solution, so today's was used. It said: {_gist(first or '')}",)


def _gist(said: str) -> str:
    """The first words of a resolver that say something."""
    lines = [line.strip() for line in uvtool.words(said).splitlines()]
    reason = next((line for line in lines if line.startswith(("cause:", "Because"))), lines[0] if lines else "nothing")
    return re.sub(r"^(cause:|error:)\s*", "", reason)[:300]


def _answer(text: str, local: list[pylock.Local], as_of: datetime.datetime | None, notes: tuple[str, ...]) -> Answer:
    return Answer(text, tuple(local), iso(as_of) if as_of else None, notes)


def _compile(
    question: Question, as_of: datetime.datetime | None, lines: tuple[str, ...], uv: uvtool.Uv
) -> tuple[tuple[str, list[pylock.Local]] | None, str]:
    """One run of the resolver: the lock, or None and what was said instead."""
    with uv.scratch() as scratch, _clean(question):
        target = scratch / "pylock.toml"
        arguments: list[str | Path] = ["pip", "compile", "-", "--format", "pylock.toml", "--generate-hashes", "--no-header"]
        arguments += ["--no-annotate", "--quiet", "--python", question.python.path, "--output-file", target]
        arguments += uvtool.dated(iso(as_of) if as_of else None)
        if question.constraints:
            limits = scratch / "constraints.txt"
            limits.write_text("".join(f"{line}\n" for line in question.constraints))
            arguments += ["--constraints", limits]
        if question.find is not None:
            arguments += ["--find-links", question.find]
        if version_of(question.python) < _NEW_METADATA:
            arguments += ["--config-file", uv.corrected(scratch)]
        try:
            done = uv.run(
                arguments,
                cwd=question.project,
                scratch=scratch,
                offline=question.offline,
                stdin="".join(f"{line}\n" for line in lines).encode(),
            )
        except StartError as error:
            raise uvtool.start_error(error) from error
        said = done.err.decode(errors="replace")
        if done.code != 0:
            return None, said
        text, local = pylock.cut_local(target.read_text(), scratch, question.project)
    pylock.require_hashes(text, "The index")
    return (text, local), said


def version_of(python: PythonPin) -> Version:
    return parse(python.version) or (0,)


_NEW_METADATA = (3, 8)
"""From this Python on, no package is installed whose metadata has to be corrected."""


def _clean(question: Question) -> contextlib.AbstractContextManager[None]:
    """Metadata of local packages is made by their own build, which likes to leave folders behind."""
    local = any(local_path(line) for line in question.lines)
    return trees.untouched(question.project) if local else contextlib.nullcontext()


def export(lock_file: Path, project: Path, python: PythonPin, uv: uvtool.Uv) -> tuple[Answer, str]:
    """A project's `uv.lock` in PEP 751's words; the second value is what there is to say about its state, or empty."""
    folder = lock_file.parent
    with uv.scratch() as scratch:
        target = scratch / "pylock.toml"
        arguments: list[str | Path] = ["export", "--frozen", "--format", "pylock.toml", "--no-header", "--quiet"]
        arguments += ["--python", python.path, "--output-file", target]
        done = uv.run(arguments, cwd=folder, scratch=scratch, offline=True)
        if done.code != 0 or not target.exists():
            raise uvtool.failure(f"{lock_file.name} cannot be used", done.err.decode(errors="replace"))
        text, local = pylock.cut_local(target.read_text(), scratch, project)
        check: list[str | Path] = ["lock", "--check", "--python", python.path, "--quiet"]
        state = uv.run(check, cwd=folder, scratch=scratch, offline=True)
    said = state.err.decode(errors="replace")
    stale = state.code != 0 and ("needs to be updated" in said or "not found in the cache" in said)
    note = (
        f"{lock_file.name} is older than pyproject.toml (`uv lock` brings it up to date); it is used as it is." if stale else ""
    )
    return Answer(text, tuple(local)), note


def project_lock(lock_file: Path, project: Path) -> Answer:
    """A project's own `pylock.toml`, taken as it is."""
    try:
        content = lock_file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise EnvironmentFailure(f"The lock file {lock_file.name} cannot be read", why=str(error)) from error
    pylock.packages(content)
    text, local = pylock.cut_local(content, lock_file.parent, project)
    pylock.require_hashes(text, lock_file.name)
    return Answer(text, tuple(local))


def with_extra(own: Answer, extra: Answer) -> Answer:
    """A lock of the project's own, and what `--with` adds to it."""
    head, _, _ = own.text.partition("[[packages]]")
    have = {package["name"] for package in pylock.packages(own.text)}
    blocks = re.split(r"(?m)^(?=\[\[packages\]\]\s*$)", extra.text)[1:]
    added = [block for block in blocks if pylock.packages(block)[0]["name"] not in have]
    if not added:
        return own
    text = own.text if have else re.sub(r"(?m)^packages\s*=\s*\[\s*\]\s*\n?", "", head)
    return Answer(text.rstrip() + "\n\n" + "\n".join(added), own.local + extra.local, extra.as_of, own.notes + extra.notes)
