"""The request: lines for the resolver made from an EnvSpec, and the key under which its lock is kept."""

from __future__ import annotations

import datetime
import hashlib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from urllib.parse import unquote

from runproj import codec
from runproj.core.environment import EnvManager, EnvSpec, LockOptions
from runproj.core.values import dataclass
from runproj.environments.trees import digest_of
from runproj.errors import EnvironmentFailure, UsageError

VERSION = 1
"""Of the rules that make a lock and an environment; a higher number makes all of them anew."""

_PATH = re.compile(r"""^(?:-e|--editable)[ =]\s*(?P<editable>.+)$|^(?P<plain>\.{0,2}/.*|\.{1,2}(?:\[.*\])?|file:.+)$""")
_NAMED = re.compile(r"^[A-Za-z0-9][\w.-]*\s*(?:\[[^\]]*\])?\s*@\s*(?P<url>file:.+)$")
_INCLUDE = re.compile(r"^(?:-r|--requirement|-c|--constraint)[ =]?\s*(?P<path>\S.*)$")
_NAME = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)")


@dataclass(frozen=True)
class Moment:
    """The time at which the index is read.  `date` is None for now; `text` goes into the key."""

    text: str
    date: datetime.datetime | None = None


def moment(as_of: str, when: datetime.datetime | None, now: datetime.datetime) -> Moment:
    """What `--as-of` means for a commit of that time.

    A commit's own moment is the midnight (UTC) that ends the day after it: what its author had on the day, whatever their
    time zone and the delay of an upload, and one lock for all commits of a day.  A moment that has not come yet is now.
    """
    if as_of == "now" or (as_of == "commit" and when is None):
        return Moment("now")
    if as_of == "commit" and when is not None:
        utc = when.astimezone(datetime.UTC)
        date = datetime.datetime(utc.year, utc.month, utc.day, tzinfo=datetime.UTC) + datetime.timedelta(days=2)
    else:
        date = _parse_date(as_of)
    return Moment(iso(date), date if date < now else None)


def iso(date: datetime.datetime) -> str:
    """The moment as the index and the record write it."""
    return date.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _parse_date(text: str) -> datetime.datetime:
    try:
        date = datetime.datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(
            f"--as-of {text!r} is not a date", fix='Write "commit", "now", or a date like 2022-06-01 or 2022-06-01T12:00:00Z.'
        ) from None
    if re.fullmatch(r"\d{4}-?(\d{2}-?\d{2}|W\d{2}-?\d)", text):
        date += datetime.timedelta(days=1)  # a day includes what was uploaded on it
    return date if date.tzinfo else date.replace(tzinfo=datetime.UTC)


@dataclass(frozen=True)
class Wanted:
    """What the resolver is asked for.

    lines: of a requirements file;  soft: lines that are added where they can be had;  python: the interpreter wish.
    """

    lines: tuple[str, ...]
    soft: tuple[str, ...] = ()
    python: str | None = None
    notes: tuple[str, ...] = ()


def wanted(spec: EnvSpec, options: LockOptions) -> Wanted:
    """The request of a project.  conda's words become PyPI's, with a note of what has no counterpart."""
    conda_lines: tuple[str, ...] = ()
    notes = list(spec.notes)
    python = spec.python
    if spec.conda or spec.manager is EnvManager.CONDA:
        from runproj.environments.conda_names import translate

        mapped = translate(spec.conda)
        conda_lines, python = mapped.requirements, python or mapped.python
        notes += mapped.notes
    if spec.manager is EnvManager.DOCKER:
        notes.append("The project declares docker_env; it runs on this machine, without its image, because that was asked for.")
    return Wanted((*_stated(conda_lines), *pip_lines(spec, options)), python=python, notes=tuple(notes))


def pip_lines(spec: EnvSpec, options: LockOptions) -> tuple[str, ...]:
    """What is asked for in pip's words."""
    return (*_stated((*spec.build_requirements, *spec.requirements)), *options.extra)


def _stated(lines: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(line for line in lines if line.strip() and not line.lstrip().startswith("#"))


def names(lines: tuple[str, ...]) -> set[str]:
    """The normalised names of the packages that are asked for by name."""
    found = (_NAME.match(line.strip()) for line in lines)
    return {re.sub(r"[-_.]+", "-", match[1]).lower() for match in found if match}


def key(spec: EnvSpec, project: Path, at: Moment, options: LockOptions, where: tuple[str, ...]) -> str:
    """The digest of everything that decides a lock: equal keys are equal requests.  `where`: platform, index configuration."""
    stated = {
        "version": VERSION,
        "as_of": at.text,
        "manager": options.manager.value if options.manager else "auto",
        "strict": options.strict,
        "where": where,
    }
    return digest(spec, project, options.extra, stated, digest_of)


def digest(
    spec: EnvSpec, project: Path, extra: tuple[str, ...], stated: Mapping[str, object], package: Callable[[Path], str]
) -> str:
    """A sha256 over what a project asks for, `stated`, and all that lines point to.  `package`: what counts of a local one."""
    content = hashlib.sha256(codec.to_json({**stated, "spec": codec.to_plain(spec), "extra": extra}).encode())
    for line in (*spec.build_requirements, *spec.requirements, *extra):
        for part in _pointed_to(line, project, project, package):
            content.update(part.encode())
    if spec.lock_file is not None:
        content.update(_read(project / spec.lock_file).encode())
    return content.hexdigest()


def _pointed_to(line: str, folder: Path, project: Path, package: Callable[[Path], str], depth: int = 0) -> Iterator[str]:
    """What a line points to: the lines of a file it includes, the files of a local package."""
    line = re.sub(r"(^|\s)#.*$", "", line).strip()
    if (include := _INCLUDE.match(line)) and depth < 20:
        path = folder / unquoted(include["path"])
        text = _read(path)
        yield text
        for inner in text.splitlines():
            yield from _pointed_to(inner, path.parent, project, package, depth + 1)
    elif local := local_path(line):
        yield package(project / local)


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError as error:
        raise EnvironmentFailure(
            f"The requirements name {path.name}, which cannot be read", why=f"{path}: {os.strerror(error.errno or 0)}"
        ) from error


def unquoted(path: str) -> str:
    """A path of a requirements line without its quotes."""
    return path.strip().strip("\"'")


def local_path(line: str) -> str | None:
    """The path of a line that installs from the file system, as written; None for a package of an index or a repository."""
    bare = line.partition(" ;")[0].strip()
    if found := _PATH.match(bare):
        path = unquoted(found["editable"] or found["plain"])
    elif found := _NAMED.match(bare):
        path = found["url"]
    else:
        return None
    if re.match(r"^[a-z+]+://", path) and not path.startswith("file:"):
        return None
    path = unquote(re.sub(r"^file:(?://(?:localhost)?(?=/))?", "", path)) if path.startswith("file:") else path
    return re.sub(r"\[[^\]]*\]$", "", path.partition("#")[0]) or "."
