"""The `pip:` part of a conda environment: resolved so that what conda has installed stays as it is."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from email.parser import HeaderParser
from pathlib import Path

from runproj.core.values import dataclass
from runproj.environments import pylock, resolve, uvtool
from runproj.errors import EnvironmentFailure


@dataclass(frozen=True)
class Installed:
    """A Python package that conda has installed."""

    name: str
    version: str
    metadata: str


def resolve_beside(question: resolve.Question, prefix: Path, scratch: Path, uv: uvtool.Uv) -> resolve.Answer:
    """The lock of what has to be added to `prefix`.

    Packages of conda's are offered to the resolver as files without content, and held at their versions: the index need not
    have them.  Only where that has no solution they may be replaced, with a note.
    """
    offered = {item.name: item for item in installed(prefix)}
    folder = scratch / "offered"
    folder.mkdir()
    for item in offered.values():
        _offer(item, folder)
    held = replace(question, constraints=tuple(f"{item.name}=={item.version}" for item in offered.values()), find=folder)
    try:
        answer = resolve.resolve(held, uv)
    except EnvironmentFailure:
        if question.strict:
            raise
        answer = resolve.resolve(question, uv)
    kept, changed = [], []
    for package in pylock.packages(answer.text):
        name, version = _normal(str(package["name"])), str(package.get("version", ""))
        ours = offered.get(name)
        if ours is not None and ours.version == version:
            continue
        kept.append(str(package["name"]))
        if ours is not None:
            changed.append(f"{name} {ours.version} → {version}")
    notes = (*answer.notes, *([f"What pip installs replaces packages of conda's: {', '.join(changed)}."] if changed else []))
    return replace(answer, text=pylock.only(answer.text, frozenset(kept)), notes=notes)


def installed(prefix: Path) -> Iterator[Installed]:
    """Python packages in a prefix that say their name and version."""
    for folder in sorted(prefix.glob("lib/python3*/site-packages/*")):
        file = (
            folder / "METADATA"
            if folder.suffix == ".dist-info"
            else folder / "PKG-INFO"
            if folder.suffix == ".egg-info"
            else None
        )
        if file is None:
            continue
        file = folder if folder.is_file() else file
        try:
            text = file.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        head = HeaderParser().parsestr(text, headersonly=True)
        name, version = str(head["Name"] or ""), str(head["Version"] or "")
        if name and re.fullmatch(r"[\w.!+]+", version):
            yield Installed(_normal(name), version, text)


def _offer(item: Installed, folder: Path) -> None:
    """A wheel of an installed package's metadata alone."""
    base = f"{item.name.replace('-', '_')}-{item.version}"
    with zipfile.ZipFile(folder / f"{base}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{base}.dist-info/METADATA", item.metadata)
        wheel.writestr(
            f"{base}.dist-info/WHEEL", "Wheel-Version: 1.0\nGenerator: runproj\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{base}.dist-info/RECORD", "")


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
