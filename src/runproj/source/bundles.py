"""Pinned code as files that can be carried away, and back: git bundles, and what Git LFS holds.

What comes out of a capsule is kept apart from the cached repositories, in one repository for each commit: a stranger's file
must add nothing, not even a tag, to what is known of somebody's URL.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from runproj.core.capsule import PackedCode, PackedRepository
from runproj.core.source import Checkout
from runproj.core.values import dataclass
from runproj.errors import SourceError
from runproj.files import Objects, explained, remove_tree, sha256_file
from runproj.source import lfs, scratch, worktree
from runproj.source.cache import Remote
from runproj.source.gitcmd import Git
from runproj.source.vet import Facts

_HASH = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
SCHEME = "capsule:"
"""How the repository of a commit that a capsule brought is called."""


@dataclass(frozen=True)
class Bundles:
    """folder: where the repositories of capsules are;  `cache`: the cached repositories;  `check` refuses unfit commits."""

    folder: Path
    cache: Path
    objects: Objects
    check: Callable[[Facts, str], None]
    progress: Callable[[str], None]

    def repository(self, commit: str) -> Remote:
        """The repository of a commit that a capsule brought."""
        return Remote(self.folder, f"{SCHEME}{commit}", offline=True, progress=self.progress)

    def brought(self, commit: str) -> Remote | None:
        """The same; None where no capsule brought that commit."""
        remote = self.repository(commit)
        return remote if remote.facts(commit) else None

    def pack(self, checkout: Checkout, holding: Callable[[str, str], Remote], into: Path, *, whole: bool) -> PackedCode:
        """Write the code of a checkout to the empty folder `into`: its commits as bundles, its LFS files as they are.

        holding: the cached repository of a URL that has a commit.
        whole:   with the history of the commits and the tags in it, which `git describe` wants; without it, each alone.
        """
        pin = checkout.pin
        wanted = [(pin.uri, pin.commit, checkout.root)] if pin.commit else []
        wanted += [(module.uri, module.commit, checkout.root / module.path) for module in pin.submodules]
        packed = []
        found: set[str] = set()
        for number, (uri, commit, place) in enumerate(wanted):
            self.progress(f"packing {uri}")
            name = f"{number}.bundle"
            shallow = self._bundle(holding(uri, commit), commit, into / name, whole=whole)
            packed.append(PackedRepository(uri, commit, name, shallow))
            found |= set(self._take_lfs(place, into / "lfs"))
        return PackedCode(tuple(packed), tuple(sorted(found)))

    def _bundle(self, remote: Remote, commit: str, target: Path, *, whole: bool) -> tuple[str, ...]:
        """Write a bundle of a commit; returns the commits whose parents it leaves out."""
        thin = scratch.fresh(self.folder) / "thin"
        try:
            sha256 = len(commit) == 64
            worktree.make_repository(thin, worktree.repository_config(bare=True, sha256=sha256), "ref: refs/heads/main")
            known = remote.folder / "shallow"
            shallow = (known.read_text().split() if known.exists() else []) if whole else [commit]
            if shallow:
                (thin / "shallow").write_text("".join(f"{name}\n" for name in shallow))
            git = Git(thin, env={"GIT_ALTERNATE_OBJECT_DIRECTORIES": worktree.alternates(remote.folder / "objects")})
            names = {f"refs/runproj/commits/{commit}": commit, "refs/heads/main": commit}  # the branch is for `git clone`
            names |= _tags(remote, commit) if whole else {}
            git.out("update-ref", "--stdin", stdin="".join(f"create {name} {at}\n" for name, at in names.items()).encode())
            git.out("bundle", "create", "--quiet", str(target), "HEAD", "--all")
        finally:
            remove_tree(thin.parent)
        return tuple(shallow)

    def _take_lfs(self, place: Path, into: Path) -> Iterator[str]:
        """Copy the LFS files of a working tree that are in the cache."""
        for pointer in lfs.contents(place):
            source = lfs.stored(self.cache / "lfs", pointer)
            if source.exists():
                with explained(into):
                    into.mkdir(exist_ok=True)
                    shutil.copyfile(source, into / pointer)
                yield pointer

    def unpack(self, code: PackedCode, folder: Path) -> None:
        """Take over what `pack` wrote to `folder`.  Raises `SourceError` for what is not fit to be laid out."""
        for packed in code.repositories:
            self.add(packed, folder / packed.bundle)
        for oid in code.lfs:
            source = folder / "lfs" / oid
            if sha256_file(source) != oid:
                raise SourceError(f"The LFS file {oid} of the capsule is not what its name says")
            self.objects.put(source)

    def add(self, packed: PackedRepository, bundle: Path) -> Facts:
        """Take over a commit from its bundle."""
        if not all(_HASH.fullmatch(name) for name in (packed.commit, *packed.shallow)):
            raise SourceError(f"{packed.commit[:80]!r} is not a commit")
        facts = self.repository(packed.commit).take(packed.commit, bundle, packed.shallow, self.check)
        self.progress(f"unpacked {packed.uri} at {packed.commit[:12]}")
        return facts


def _tags(remote: Remote, commit: str) -> dict[str, str]:
    """The tags in the history of a commit."""
    listed = remote.git.line("for-each-ref", f"--merged={commit}", "--format=%(refname) %(objectname)", "refs/tags")
    return dict(line.split(" ") for line in listed.splitlines())
