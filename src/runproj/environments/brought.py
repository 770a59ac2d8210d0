"""Installs from what a capsule brought instead of from an index: the lock, with files of this machine where it had addresses."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runproj.environments import pylock
from runproj.files import explained

if TYPE_CHECKING:
    from runproj.kept import Kept


_WHEEL = re.compile(r"[A-Za-z0-9_.!+-]+\.whl")


def brought(home: Path) -> Kept | None:
    """What capsules brought; None where none was ever imported."""
    if not (home / "capsules").is_dir():
        return None
    from runproj.kept import Kept

    return Kept(home)


def localised(text: str, home: Path, scratch: Path) -> str:
    """The lock with the files that are here in place of their addresses; as it is where none is.

    Their hashes stay those of the lock, and the installer checks them.  Only a package that the lock has as a source archive or
    as a commit, and a capsule that was trusted as a built one, gets the hash of the latter.
    """
    kept = brought(home)
    if kept is None:
        return text
    head, *blocks = re.split(r"(?m)^(?=\[\[packages\]\]\s*$)", text)
    return head + "".join(_local(block, kept, scratch) for block in blocks)


def _local(block: str, kept: Kept, scratch: Path) -> str:
    package = pylock.packages(block)[0]
    for name, digest in _files(package, kept):
        path = linked(kept, digest, scratch / "brought" / digest / name)
        lines = ["[[packages]]", *(f"{key} = {_text(package[key])}" for key in ("name", "version", "marker") if key in package)]
        lines.append(f"wheels = [{{ name = {_text(name)}, path = {_text(str(path))}, hashes = {{ sha256 = {_text(digest)} }} }}]")
        return "\n".join(lines) + "\n\n"
    return block


def _files(package: dict[str, Any], kept: Kept) -> Iterator[tuple[str, str]]:  # a TOML table
    """Names and sha256 of files that are here and yield the package; wheels that the lock names come first."""
    for wheel in pylock.wheels(package):
        digest = str(wheel.get("hashes", {}).get("sha256", ""))
        if len(digest) == 64 and kept.objects.path(digest).exists():
            name = pylock.file_name(wheel)
            if _WHEEL.fullmatch(name):
                yield name, digest
    sources = [str(package[key].get("hashes", {}).get("sha256", "-")) for key in ("sdist", "archive") if key in package]
    sources += [pylock.repository_key(package)] if "vcs" in package else []
    for source in sources:
        if built := kept.wheel(source):
            yield built.name, built.sha256


def built_wheel(digest: str, home: Path, scratch: Path) -> Path | None:
    """The wheel that a capsule brought for a local package of that digest.  A folder of its path is named by the digest."""
    kept = brought(home)
    built = kept.wheel(digest) if kept else None
    if kept is None or built is None:
        return None
    return linked(kept, built.sha256, scratch / "brought" / digest / built.name)


def linked(kept: Kept, digest: str, path: Path) -> Path:
    """The content of that sha256 under a name that an installer understands."""
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(kept.objects.path(digest), path)
        except FileExistsError:
            pass
        except OSError:  # a file system without links
            shutil.copyfile(kept.objects.path(digest), path)
    return path


def _text(value: str) -> str:
    """A TOML string."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
