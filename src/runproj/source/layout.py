"""A pin → a working tree: the commit's files, the recorded changes, submodules and LFS files, checked against the record."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

from runproj.core.source import Pin
from runproj.core.values import dataclass
from runproj.errors import SourceError
from runproj.files import Objects, remove_tree, sha256_file
from runproj.source import lfs, worktree
from runproj.source.cache import Remote
from runproj.source.gitcmd import Git, GitFailed
from runproj.source.submodules import lay_out_order
from runproj.source.uris import scrub
from runproj.source.vet import Facts

_DAMAGED = re.compile(
    r"(?i)unable to (read|find|unpack)|missing|corrupt|bad (object|tree|sha1)|not a (tree|valid object|git repository)|"
    r"failed to unpack|inflate|does not match|packfile|unknown object|object file|invalid object"
)


@dataclass(frozen=True)
class Layout:
    """open: gives the cached repository of a URL;  `holding`: the one that has a commit of it, be it from a capsule;
    `check` refuses unfit commits;  `cache`: for LFS files of all runs."""

    objects: Objects
    open: Callable[[str], Remote]
    holding: Callable[[str, str], Remote]
    check: Callable[[Facts, str], None]
    cache: Path
    progress: Callable[[str], None]

    def commit(self, remote: Remote, pin: Pin, root: Path, *, has_lfs: bool) -> None:
        """Lay a pin with a commit, which `remote` has in the cache, out at the empty folder `root`."""
        assert pin.commit
        origin = pin.origins[0] if pin.origins else pin.uri
        self._borrowing(remote, pin.commit, origin, root, partial(self._files, pin))
        used = [remote]
        for module in lay_out_order(pin.submodules):
            below = self.holding(module.uri, module.commit)
            facts = below.ensure(module.commit)
            if not pin.uri.startswith("file://"):
                self.check(facts, f"Submodule {module.path}")
            has_lfs = has_lfs or facts.lfs
            place = self._empty(root, module.path)
            self._borrowing(below, module.commit, module.uri, place, partial(worktree.lay_out, tree=module.commit))
            if facts.lfs:
                lfs.resolve(place, self.cache / "lfs", [below], self.objects, self.progress)
        if has_lfs:
            others = [self.open(url) for url in pin.origins]
            lfs.resolve(root, self.cache / "lfs", [*used, *others], self.objects, self.progress)
        if pin.patch or has_lfs:
            note_status(root)

    def tree(self, pin: Pin, root: Path) -> None:
        """Lay a pin without a commit out at the empty folder `root`."""
        self._files(pin, worktree.prepare(root, None, "", None))
        note_status(root)

    def _borrowing(self, remote: Remote, commit: str, origin: str, root: Path, fill: Callable[[Git], None]) -> None:
        """Fill `root` with files whose objects come from the cache; a damaged cache is fetched anew, once."""
        try:
            fill(worktree.prepare(root, commit, scrub(origin), remote.folder))
        except GitFailed as error:
            if not _DAMAGED.search(error.words):
                raise
            remote.rebuild()
            remote.ensure(commit)
            for entry in root.iterdir():
                remove_tree(entry)
            fill(worktree.prepare(root, commit, scrub(origin), remote.folder))

    def _files(self, pin: Pin, git: Git) -> None:
        if pin.patch is None:
            worktree.lay_out(git, pin.commit or pin.tree)
            return
        patch = self.objects.path(pin.patch)
        if not patch.exists() or sha256_file(patch) != pin.patch:
            raise SourceError(
                f"The recorded changes of {pin.uri} are lost",
                why=f"The patch {pin.patch} is missing or damaged.",
                fix="It is kept with the artifacts of the run.",
            )
        tree = worktree.patched_tree(git, pin.commit, patch)
        worktree.require_tree(tree, pin.tree, pin.uri)
        worktree.lay_out(git, tree)

    def _empty(self, root: Path, path: str) -> Path:
        """The folder of a submodule, which the parent's tree has made empty."""
        place = root / path
        if place.is_symlink() or not place.resolve().is_relative_to(root.resolve()):
            raise SourceError(f"Submodule {path} would be laid out outside the project")
        place.mkdir(parents=True, exist_ok=True)
        if any(place.iterdir()):
            raise SourceError(f"Submodule {path} has files of the project in its place")
        return place


def note_status(root: Path) -> None:
    """Remember how the tree differs from its commit now, so that later changes can be told."""
    (root / ".git" / "runproj-status").write_bytes(status(root) or b"")


def status(root: Path) -> bytes | None:
    """How the tree differs from its commit; None where that cannot be said."""
    seen = Git(root / ".git", root).run("status", "--porcelain", "--ignored", "--ignore-submodules=all", "-z")
    return seen.out if seen.code == 0 else None


def untouched(root: Path) -> bool:
    """True where nobody has changed the working tree since it was laid out."""
    expected = root / ".git" / "runproj-status"
    return status(root) == (expected.read_bytes() if expected.exists() else b"")
