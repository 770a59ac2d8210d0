"""What came in capsules and no run needs any more: a run that is gone, and that nobody has repeated, needs nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from runproj.codec import DocumentError, from_json, to_json
from runproj.core.capsule import Manifest
from runproj.core.run import TagName
from runproj.core.values import dataclass
from runproj.files import Objects, atomic_write, remove_tree, tree_size

_DAY = 86400.0


@dataclass(frozen=True)
class Brought:
    """What came with a run.  store: where the run was recorded;  `repositories`: commits;  `objects`: sha256 of contents."""

    run: str
    store: str
    lock: str
    repositories: tuple[str, ...] = ()
    objects: tuple[str, ...] = ()

    @staticmethod
    def of(manifest: Manifest, store: str) -> Brought:
        environment = manifest.environment
        objects = {wheel.sha256 for wheel in environment.wheels}
        objects |= {file.sha256 for data in manifest.inputs for file in data.files}
        objects |= {file.sha256 for file in manifest.files if environment.image and file.path == environment.image.path}
        commits = tuple(packed.commit for packed in manifest.code.repositories)
        return Brought(manifest.run, store, environment.digest, commits, tuple(sorted({*objects, *manifest.code.lfs})))


def note(home: Path, brought: Brought) -> None:
    """Remember what came, before the run itself is recorded."""
    atomic_write(home / "capsules" / "runs" / f"{brought.run}.json", to_json(brought))


def collect(home: Path, store: str, has: Callable[[str, str], bool], *, days: float, dry_run: bool) -> Iterator[tuple[str, int]]:
    """Remove what no run of `store` needs and has been here for so many days; yields what, in words, and its bytes.

    has: whether any run, deleted ones too, has a tag of that value; the tag "" stands for the id.
    """
    root, objects = home / "capsules", Objects(home / "objects")
    known = {path: found for path in sorted((root / "runs").glob("*.json")) if (found := _read(path))}
    gone = [path for path, found in known.items() if found.store == store and _old(path, days) and not _needed(found, has)]
    staying = [found for path, found in known.items() if path not in gone]
    kept = {name for found in staying for name in found.objects}
    commits = {commit for found in staying for commit in found.repositories}
    for path in gone:
        found = known[path]
        places = [objects.path(name) for name in found.objects if name not in kept]
        places += [folder for commit in found.repositories if commit not in commits for folder in _repositories(root, commit)]
        kept |= set(found.objects)  # counted once
        commits |= set(found.repositories)
        size = sum(tree_size(place) for place in places if place.exists())
        if not dry_run:
            for place in (*places, *_indexes(root, found, places), path):
                remove_tree(place)
        yield f"what came with run {found.run[:8]} in a capsule", size


def _needed(found: Brought, has: Callable[[str, str], bool]) -> bool:
    """Whether the run is there, or one that was made from it or from the same."""
    main = found.repositories[0] if found.repositories else ""
    return has("", found.run) or (bool(main) and has(TagName.COMMIT, main)) or has(TagName.LOCK, found.lock)


def _repositories(root: Path, commit: str) -> list[Path]:
    return [facts.parent.parent for facts in (root / "git").glob(f"*/runproj/{commit}.json")]


def _indexes(root: Path, found: Brought, places: list[Path]) -> Iterator[Path]:
    """The entries that lead to contents which are removed."""
    yield root / "inputs" / f"{found.run}.json"
    doomed = {f"{place.parent.name}{place.name}" for place in places}
    for path in (*(root / "wheels").glob("*.json"), *(root / "images").glob("*.json")):
        if any(name in path.read_text() for name in doomed):
            yield path


def _read(path: Path) -> Brought | None:
    try:
        return from_json(Brought, path.read_bytes())
    except (OSError, DocumentError):
        return None


def _old(path: Path, days: float) -> bool:
    return time.time() - path.stat().st_mtime > max(days, 1 / 1440) * _DAY
