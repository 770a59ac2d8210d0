"""What capsules brought to this machine and nobody else can be asked for: input data of runs, and packages that were built."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from runproj.codec import DocumentError, from_json, to_json
from runproj.core.capsule import PackedInput
from runproj.core.values import dataclass
from runproj.errors import StorageError
from runproj.files import Objects, atomic_write, explained, sha256_text

_CHUNK = 1 << 20


@dataclass(frozen=True)
class SavedImage:
    """An image of the Docker engine: its id, and the sha256 under which `objects` has it."""

    id: str
    sha256: str


@dataclass(frozen=True)
class BuiltWheel:
    """A package that was built elsewhere: the name of its file, and the sha256 under which `objects` has it."""

    name: str
    sha256: str


class Kept:
    """Indexes below `home/capsules`; the contents are in the content-addressed store."""

    def __init__(self, home: Path) -> None:
        self._root = home / "capsules"
        self.objects = Objects(home / "objects")

    def inputs(self, run_id: str) -> tuple[PackedInput, ...]:
        """The data that came with a run; empty for a run that came with none."""
        try:
            return from_json(tuple[PackedInput, ...], (self._root / "inputs" / f"{run_id}.json").read_bytes())
        except (FileNotFoundError, DocumentError):
            return ()

    def brought(self, run_id: str) -> bool:
        """Whether a run came in a capsule, or repeats one that did."""
        return any((self._root / part / f"{run_id}.json").exists() for part in ("runs", "inputs"))

    def keep_inputs(self, run_id: str, inputs: tuple[PackedInput, ...]) -> None:
        """Remember data, whose contents are in the store already, as that of a run."""
        atomic_write(self._root / "inputs" / f"{run_id}.json", to_json(inputs))

    def restore(self, data: PackedInput, into: Path) -> None:
        """Write the data to `into`, a file or folder that does not exist.  Raises `StorageError` where it is not what it was."""
        for file in data.files:
            target = into / file.path if file.path else into
            if not target.resolve().is_relative_to(into.resolve()):
                raise StorageError(f"The input {data.name!r} has a file outside of it", why=file.path)
            with explained(target):
                target.parent.mkdir(parents=True, exist_ok=True)
                digest = _copy(self.objects.path(file.sha256), target)
            if digest != file.sha256:
                raise StorageError(
                    f"The input {data.name!r} is not what was imported",
                    why=f"{file.path or data.uri} has sha256 {digest}, not {file.sha256}.",
                    fix="Import the capsule again.",
                )

    def wheel(self, of: str) -> BuiltWheel | None:
        """The package that was built from a source archive (its sha256) or local package (its digest)."""
        try:
            found = from_json(BuiltWheel, (self._root / "wheels" / f"{of}.json").read_bytes())
        except (FileNotFoundError, DocumentError):
            return None
        return found if self.objects.path(found.sha256).exists() else None

    def image(self, name: str) -> SavedImage | None:
        """The image of that id, or what a trusted capsule brought as the image of that reference."""
        try:
            found = from_json(SavedImage, (self._root / "images" / f"{sha256_text(name)}.json").read_bytes())
        except (FileNotFoundError, DocumentError):
            return None
        return found if self.objects.path(found.sha256).exists() else None

    def keep_image(self, name: str, image: SavedImage) -> None:
        """Remember an image, whose content is in the store already."""
        atomic_write(self._root / "images" / f"{sha256_text(name)}.json", to_json(image))

    def keep_wheel(self, of: str, wheel: BuiltWheel) -> None:
        """Remember a built package, whose content is in the store already."""
        atomic_write(self._root / "wheels" / f"{of}.json", to_json(wheel))


def _copy(source: Path, target: Path) -> str:
    """Copy a file in bounded memory; returns the sha256 of what was copied."""
    whole = hashlib.sha256()
    with source.open("rb") as content, target.open("wb") as file:
        while data := content.read(_CHUNK):
            whole.update(data)
            file.write(data)
    os.utime(target)
    return whole.hexdigest()
