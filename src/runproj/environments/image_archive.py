"""Images as files, as `docker save` and `docker load` have them: out of the engine and in again, in bounded memory."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import IO, Any

from runproj.engine import Engine, EngineAway, EngineError, segment
from runproj.errors import EnvironmentFailure
from runproj.files import explained

_CHUNK = 1 << 20
_PATIENCE = 900.0
"""Seconds in which an engine gets large images ready before it sends the first byte."""
_LARGEST = 16 * 1024 * 1024
"""Bytes of a list in an archive."""
_NAMED = ("io.containerd.image.name", "org.opencontainers.image.ref.name")
"""Annotations that would give an image a name."""


def save(engine: Engine, image: str, target: Path) -> None:
    """Write the image of that id to a file.  Raises `EnvironmentFailure`."""
    try:
        with engine.send("GET", f"/images/{segment(image)}/get", {}) as link, explained(target), target.open("wb") as file:
            link.settimeout(_PATIENCE)
            engine.head(link)
            while data := link.recv(_CHUNK):
                file.write(data)
    except (EngineAway, EngineError, TimeoutError) as error:
        raise EnvironmentFailure(f"The image {image} cannot be saved", why=str(error)) from error


def load(engine: Engine, archive: Path) -> None:
    """Have the images of a file in the engine, under their ids alone.  Raises `EnvironmentFailure`."""
    _require_nameless(archive)
    try:
        with archive.open("rb") as file, engine.connect(_PATIENCE) as link:
            engine.upload(link, "/images/load", {"quiet": 1}, file, archive.stat().st_size)
            for line in b"".join(iter(lambda: link.recv(1 << 16), b"")).splitlines():
                if line.startswith(b"{") and (said := json.loads(line).get("error")):
                    raise EngineError(500, str(said))
    except (EngineAway, EngineError, OSError, ValueError) as error:
        raise EnvironmentFailure("The image of the capsule cannot be loaded", why=str(error)) from error


def _require_nameless(archive: Path) -> None:
    """An archive may say what its images are to be called: one from a stranger must not take the place of another image."""
    try:
        with tarfile.open(archive, "r:") as members:
            for member in members:
                name = member.name.rpartition("/")[2]  # wherever it lies: links may lead the engine to it
                if name in ("manifest.json", "index.json", "repositories") and _names(_read(members, member)):
                    raise EnvironmentFailure(
                        "The image of the capsule is refused", why="It would give names to images of this machine."
                    )
    except (tarfile.TarError, ValueError, OSError) as error:
        raise EnvironmentFailure("The image of the capsule cannot be read", why=str(error)) from error


def _read(members: tarfile.TarFile, member: tarfile.TarInfo) -> Any:  # whatever JSON holds
    content: IO[bytes] | None = members.extractfile(member) if member.isfile() and member.size <= _LARGEST else None
    if content is None:
        raise ValueError(f"{member.name} is no list")
    return json.loads(content.read(), object_pairs_hook=_folded)


def _folded(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object as the engine reads it, to which keys in capitals are the same."""
    found = {key.casefold(): value for key, value in pairs}
    if len(found) != len(pairs):
        raise ValueError("a list says something twice")
    return found


def _names(listed: Any) -> bool:  # whatever JSON holds
    """Whether a list of an archive names an image."""
    if isinstance(listed, list):  # manifest.json
        return any(not isinstance(item, dict) or bool(item.get("repotags")) for item in listed)
    manifests = listed.get("manifests", []) if isinstance(listed, dict) else [listed]
    if isinstance(listed, dict) and "manifests" not in listed:  # repositories
        return bool(listed)
    return any(not isinstance(item, dict) or any(key in (item.get("annotations") or {}) for key in _NAMED) for item in manifests)
