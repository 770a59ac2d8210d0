"""Copies the files of a run or logged model, and reads each again where it has arrived."""

from __future__ import annotations

from pathlib import Path

from runproj.core.models import LoggedModel
from runproj.core.run import Run
from runproj.core.tracking import ArtifactInfo
from runproj.core.transfer import FileMoved, Target, Tree
from runproj.errors import RunprojError, StorageError
from runproj.files import sha256_file


def move_files(
    tree: Tree, target: Target, owner: Run | LoggedModel, scratch: Path
) -> tuple[tuple[FileMoved, ...], tuple[str, ...]]:
    """Copy what the target does not have yet; returns the files, and what is wrong with some.  `scratch` is for their bytes."""
    wanted = sorted((info for info in tree.files() if info.size is not None), key=lambda info: info.path)
    if not wanted:
        return (), ()
    there = target.tree(owner)
    sizes = {info.path: info.size for info in there.files()}
    moved, problems = [], []
    for info in wanted:
        try:
            moved.append(_move(info, tree, target, owner, scratch, sizes))
        except RunprojError as error:
            problems.append(f"{info.path}: {error.what}")
    for file in moved:
        if (found := _sha256(there, file.path, scratch)) != file.sha256:
            problems.append(f"{file.path}: sha256 {found or 'of nothing'} instead of {file.sha256}")
    return tuple(moved), tuple(problems)


def listed(tree: Tree) -> tuple[FileMoved, ...]:
    """The files that would be copied, unread."""
    return tuple(FileMoved(info.path, info.size, "") for info in tree.files() if info.size is not None)


def compare_files(tree: Tree, there: Tree, scratch: Path) -> tuple[str, ...]:
    """What is wrong with the files of `there`, which are to be those of `tree`; nothing is written."""
    problems = []
    for info in sorted((info for info in tree.files() if info.size is not None), key=lambda info: info.path):
        wanted = _sha256(tree, info.path, scratch)
        if not wanted or (found := _sha256(there, info.path, scratch)) != wanted:
            problems.append(
                f"{info.path}: " + (f"sha256 {found or 'of nothing'} instead of {wanted}" if wanted else "unreadable")
            )
    return tuple(problems)


def _move(
    info: ArtifactInfo, tree: Tree, target: Target, owner: Run | LoggedModel, scratch: Path, sizes: dict[str, int | None]
) -> FileMoved:
    fetched = scratch / "fetched"
    try:
        path = tree.fetch(info.path, fetched)
        file = FileMoved(info.path, path.stat().st_size, sha256_file(path))
        if file.size < (info.size or 0):  # one that is written to may have grown
            raise StorageError(f"{file.size} bytes instead of {info.size}, which its listing tells")
        same = sizes.get(info.path, -1) == file.size and _sha256(target.tree(owner), info.path, scratch) == file.sha256
        if not same:
            target.put(owner, path, info.path)
    finally:
        fetched.unlink(missing_ok=True)
    return file


def _sha256(there: Tree, path: str, scratch: Path) -> str:
    """The hash of a file; empty where it is not there."""
    fetched = scratch / "arrived"
    try:
        return sha256_file(there.fetch(path, fetched))
    except RunprojError:
        return ""
    finally:
        fetched.unlink(missing_ok=True)
