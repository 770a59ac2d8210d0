"""What an image is built from: Dockerfile, context, arguments and base images, as one digest and as one archive."""

from __future__ import annotations

import hashlib
import os
import re
import stat
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import IO

from runproj import codec
from runproj.core.environment import ImageBuild
from runproj.core.values import dataclass
from runproj.errors import EnvironmentFailure
from runproj.files import sha256_file

VERSION = 1
NAME = ".runproj.Dockerfile"
"""The Dockerfile's name in the archive: its base images are pinned there, which the project's own are not."""

_IGNORE = ".dockerignore"
_MOMENT = 315532800  # 1980: the same for each build, and one that zip files can hold
_FROM = re.compile(
    r"^(?P<head>[ \t]*FROM[ \t]+(?:--platform=\S+[ \t]+)?)(?P<image>\S+)(?P<tail>(?:[ \t]+AS[ \t]+(?P<stage>\S+))?.*)$",
    re.I | re.M,
)
_ARG = re.compile(r"^[ \t]*ARG[ \t]+(\w+)(?:=(.*?))?[ \t]*$", re.I | re.M)
_MODERN = re.compile(
    r"^[ \t]*(?:RUN[ \t]+--(?:mount|network|security)=|(?:COPY|ADD)[ \t]+--(?:link|chmod|checksum|parents|exclude)\b"
    r"|(?:RUN|COPY|ADD)[ \t].*<<-?[\"']?\w)",
    re.I | re.M,
)


@dataclass(frozen=True)
class Entry:
    """A file of the context.  `content`: its sha256, or where a link leads; empty for a folder."""

    name: str
    kind: str
    content: str = ""


@dataclass(frozen=True)
class Recipe:
    """All that decides an image.  `bases`: each base image as the Dockerfile names it, and as it was pinned."""

    text: str
    folder: Path
    entries: tuple[Entry, ...]
    build: ImageBuild
    bases: tuple[tuple[str, str], ...]

    @property
    def inputs(self) -> str:
        """The digest of it all."""
        deciding = {
            "version": VERSION,
            "dockerfile": self.text,
            "context": codec.to_plain(self.entries),
            "arguments": codec.to_plain(self.build.arguments),
            "target": self.build.target,
            "bases": self.bases,
            "machine": os.uname().machine,
        }
        return hashlib.sha256(codec.to_json(deciding).encode()).hexdigest()

    @property
    def modern(self) -> bool:
        """Whether it is written for BuildKit."""
        return _MODERN.search(self.text) is not None

    def archive(self, file: IO[bytes]) -> None:
        """Write what the engine builds from; equal recipes are equal bytes."""
        with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
            pinned = _pinned(self.text, dict(self.build.arguments), dict(self.bases))
            for name, text in ((NAME, pinned), (_IGNORE, self._ignored())):
                archive.addfile(_plain(name, 0, len(text.encode())), BytesIO(text.encode()))
            for entry in self.entries:
                if entry.name == _IGNORE:
                    continue
                path = self.folder / entry.name
                status = path.lstat()
                info = _plain(entry.name, status.st_mode, 0)
                if entry.kind == "link":
                    info.type, info.linkname = tarfile.SYMTYPE, entry.content
                    archive.addfile(info)
                elif entry.kind == "folder":
                    info.type = tarfile.DIRTYPE
                    archive.addfile(info)
                else:
                    info.size = status.st_size
                    with path.open("rb") as content:
                        archive.addfile(info, content)

    def _ignored(self) -> str:
        """The ignore file, for the engine to hide what is not of the project."""
        mine = any(entry.name == _IGNORE for entry in self.entries)
        return f"{(self.folder / _IGNORE).read_text(errors='replace')}\n{NAME}\n" if mine else f"{_IGNORE}\n{NAME}\n"


def _plain(name: str, mode: int, size: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.mode, info.size, info.mtime = (0o755 if mode & 0o100 or stat.S_ISDIR(mode) else 0o644), size, _MOMENT
    return info


def read(build: ImageBuild, project: Path, pin: Callable[[str], str]) -> Recipe:
    """The recipe in a checkout; `pin` makes of a base image's name what cannot move.  Raises `EnvironmentFailure`."""
    root = next((folder for folder in (project, *project.parents) if (folder / ".git").exists()), project)
    folder, file = _inside(root, project / build.context), _inside(root, project / build.dockerfile)
    if not folder.is_dir() or not file.is_file():
        missing = build.context if not folder.is_dir() else build.dockerfile
        raise EnvironmentFailure(f"There is no {missing} in the project to build its image from")
    try:
        text = file.read_text()
    except UnicodeDecodeError as error:
        raise EnvironmentFailure(f"{build.dockerfile} is not text", why=str(error)) from error
    names = list(dict.fromkeys(base for base, _ in _bases(text, dict(build.arguments))))
    entries = tuple(_entries(folder, _ignored(folder, file)))
    return Recipe(text, folder, entries, build, tuple((name, pin(name)) for name in names))


def _inside(root: Path, path: Path) -> Path:
    real = Path(os.path.realpath(path))
    if not real.is_relative_to(os.path.realpath(root)):
        raise EnvironmentFailure("An image cannot be built from what is outside of the project", why=str(path))
    return real


def _ignored(folder: Path, dockerfile: Path) -> list[str]:
    """The patterns of `NAME.dockerignore` beside the Dockerfile, else of `.dockerignore`."""
    for file in (dockerfile.with_name(f"{dockerfile.name}.dockerignore"), folder / _IGNORE):
        if file.is_file():
            lines = (line.strip() for line in file.read_text(errors="replace").splitlines())
            return [line for line in lines if line and not line.startswith("#")]
    return []


def _entries(folder: Path, patterns: list[str]) -> Iterator[Entry]:
    """The files of the context, sorted.  Without `.git`: ours differs from checkout to checkout."""
    for name in sorted(_names(folder, patterns)):
        if name == ".git" or name.startswith(".git/"):
            continue
        path = folder / name
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode):
            yield Entry(name, "link", str(path.readlink()))
        elif stat.S_ISDIR(mode):
            yield Entry(name, "folder")
        elif stat.S_ISREG(mode):
            yield Entry(name, "program" if mode & 0o100 else "file", sha256_file(path))


def _names(folder: Path, patterns: list[str]) -> Iterable[str]:
    if patterns:
        try:
            from docker.utils.build import PatternMatcher
        except ImportError as error:
            raise EnvironmentFailure(
                "Reading .dockerignore needs the docker SDK, which is not installed", fix="pip install 'runproj[docker]'"
            ) from error
        yield from PatternMatcher(patterns).walk(str(folder))
        return
    for here, folders, files in os.walk(folder):
        if ".git" in folders and Path(here) == folder:
            folders.remove(".git")
        for name in (*folders, *files):
            yield os.path.relpath(f"{here}/{name}", folder)


def _bases(text: str, arguments: Mapping[str, str]) -> Iterator[tuple[str, re.Match[str]]]:
    """The images that stages begin with, and where they are named."""
    first = _FROM.search(text)
    defaults = {name: value.strip("\"'") for name, value in _ARG.findall(text[: first.start() if first else 0])}
    known = {**defaults, **{name: value for name, value in arguments.items() if name in defaults}}
    stages: set[str] = set()
    for found in _FROM.finditer(text):
        name = re.sub(
            r"\$(?:\{(\w+)(?::-([^}]*))?\}|(\w+))", lambda m: known.get(m[1] or m[3]) or m[2] or "", found["image"].strip("\"'")
        )
        if name and name.lower() != "scratch" and name.lower() not in stages:
            yield name, found
        if found["stage"]:
            stages.add(found["stage"].lower())


def _pinned(text: str, arguments: Mapping[str, str], bases: Mapping[str, str]) -> str:
    """The Dockerfile with its base images as they were pinned."""
    for name, found in reversed(list(_bases(text, arguments))):
        text = f"{text[: found.start('image')]}{bases[name]}{text[found.end('image') :]}"
    return text
