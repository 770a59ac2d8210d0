"""PEP 751 lock files: cutting out what is local to a checkout, checking hashes, and the same as pip's requirements."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from runproj.core.values import dataclass
from runproj.errors import EnvironmentFailure
from runproj.files import sha256_text

_HEAD = "[[packages]]"


@dataclass(frozen=True)
class Local:
    """A package of the lock that is on the file system: its path relative to the project."""

    name: str
    path: str
    editable: bool


def cut_local(text: str, base: Path, project: Path) -> tuple[str, list[Local]]:
    """The lock without its local packages, so that it is the same text on every machine, and these packages.

    base: the folder that paths in the lock are relative to.
    """
    head, blocks = split(text)
    kept: list[str] = []
    local: list[Local] = []
    for block in blocks:
        package = _package(block)
        source = package.get("directory") or package.get("archive") or {}
        path = source.get("path") or next((w["path"] for w in package.get("wheels", ()) if "path" in w), None)
        if path is None:
            kept.append(block)
            continue
        place = (base / path).resolve()
        relative = os.path.relpath(place, project.resolve())
        local.append(Local(str(package.get("name", place.name)), relative, bool(source.get("editable"))))
    return joined(re.sub(r"(?m)^#.*\n", "", head), kept), local


def split(text: str) -> tuple[str, list[str]]:
    """The head of a lock, and the text of each package."""
    head, *blocks = re.split(r"(?m)^(?=\[\[packages\]\]\s*$)", text)
    return head, blocks


def joined(head: str, blocks: Sequence[str]) -> str:
    """The inverse of `split`."""
    head = _without_blank_end(re.sub(r"(?m)^packages\s*=\s*\[\s*\]\s*\n?", "", head))
    return head + ("\n" + "\n".join(map(_without_blank_end, blocks)) if blocks else "packages = []\n")


def name_of(block: str) -> str:
    """The name of the package that a block describes."""
    return str(_package(block).get("name", ""))


def only(text: str, names: frozenset[str]) -> str:
    """The lock with these packages of it alone."""
    head, blocks = split(text)
    return joined(head, [block for block in blocks if name_of(block) in names])


def _without_blank_end(text: str) -> str:
    return text.rstrip() + "\n" if text.strip() else ""


def _package(block: str) -> dict[str, Any]:  # a TOML table, looked into with care
    packages = parse(block).get("packages")
    return packages[0] if packages else {}


def parse(text: str) -> dict[str, Any]:  # a TOML document
    """The lock as data.  Raises `EnvironmentFailure`."""
    import tomllib

    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise EnvironmentFailure("The lock file is not valid TOML", why=str(error)) from error


def packages(text: str) -> list[dict[str, Any]]:  # TOML tables
    """The packages of a lock."""
    found = parse(text).get("packages", [])
    return [package for package in found if isinstance(package, dict)]


def require_hashes(text: str, name: str) -> None:
    """Raise `EnvironmentFailure` where a file of the lock could be replaced unseen."""
    bare: list[str] = []
    for package in packages(text):
        files = [*package.get("wheels", ()), *filter(None, [package.get("sdist"), package.get("archive")])]
        pinned = bool(package.get("vcs", {}).get("commit-id")) or "directory" in package
        if not pinned and (not files or any(not file.get("hashes") for file in files)):
            bare.append(str(package.get("name")))
    if bare:
        raise EnvironmentFailure(
            f"{name} has no hashes for {', '.join(bare[:5])}{' …' if len(bare) > 5 else ''}",
            fix="Make it anew with hashes (`uv lock`, `uv pip compile --format pylock.toml --generate-hashes`), or remove it.",
        )


def file_name(file: dict[str, Any]) -> str:  # a TOML table
    """The name of a wheel or source archive of a lock, whose address ends in it."""
    return str(file.get("name") or unquote(urlsplit(str(file.get("url", ""))).path)).rpartition("/")[2]


def wheels(package: dict[str, Any]) -> list[dict[str, Any]]:  # TOML tables
    """The files of a package that can be installed as they are, one that was named by its address among them."""
    archive = package.get("archive", {})
    return [*package.get("wheels", ()), *([archive] if file_name(archive).endswith(".whl") else [])]


def blocks(text: str) -> list[str]:
    """The text of each package of a lock."""
    return re.split(r"(?m)^(?=\[\[packages\]\]\s*$)", text)[1:]


def repository_key(package: dict[str, Any]) -> str:  # a TOML table
    """A sha256 that stands for the commit of a repository that a package is built from."""
    vcs = package.get("vcs", {})
    return sha256_text("\0".join(str(vcs.get(key, "")) for key in ("type", "url", "commit-id", "subdirectory")))


def as_requirements(text: str) -> str:
    """The lock in the words of `pip install --require-hashes`.  Raises `EnvironmentFailure` for what pip cannot check."""
    return "".join(f"{requirement(package)}\n" for package in packages(text))


def requirement(package: dict[str, Any]) -> str:  # a TOML table
    """A package of a lock as a line with hashes.  Raises `EnvironmentFailure` for one that pip cannot check."""
    files = [*package.get("wheels", ()), *filter(None, [package.get("sdist"), package.get("archive")])]
    hashes = sorted({f"--hash=sha256:{file['hashes']['sha256']}" for file in files if "sha256" in file.get("hashes", {})})
    if "vcs" in package or not hashes:
        raise EnvironmentFailure(
            f"pip cannot check {package.get('name')}, which comes from a repository",
            fix="Install with uv (`--installer uv`, the default).",
        )
    marker = f" ; {package['marker']}" if "marker" in package else ""
    here = next((Path(file["path"]).as_uri() for file in files if Path(file.get("path", "")).is_absolute()), None)
    archive = here or package.get("archive", {}).get("url")
    pinned = f"{package['name']} @ {archive}" if archive else f"{package['name']}=={package['version']}"
    return " ".join([pinned + marker, *hashes])
