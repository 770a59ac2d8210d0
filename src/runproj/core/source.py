"""Source → Pin → Checkout: the code that was asked for, pinned, and laid out on disk."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from runproj.core.values import dataclass

if TYPE_CHECKING:
    from runproj.core.capsule import PackedCode


@dataclass(frozen=True)
class Source:
    """What the user typed: a URL or folder, a revision, and the sub-folder behind `#`.

    `uri` may carry credentials; it never leaves this process.  Records hold `Pin.uri`, which is scrubbed.
    """

    uri: str
    revision: str | None = None
    subdirectory: str = ""


class PinKind(Enum):
    """How the code is identified."""

    GIT = "git"  # a commit, plus a patch where the tree was dirty
    TREE = "tree"  # a folder or archive outside git: everything is in the patch, against the empty tree


@dataclass(frozen=True)
class SubmodulePin:
    """A submodule at its recorded commit.  `path` is relative to the repository's root."""

    path: str
    uri: str
    commit: str


@dataclass(frozen=True)
class Pin:
    """Code that can be had again: everything needed to lay out the very same files, and nothing secret.

    commit:       full hash (40 or 64 hex digits); None for `PinKind.TREE`.
    tree:         git's tree hash of the files that run, the patch included: equal trees are equal code.
    patch:        sha256 of the stored binary patch (`git apply` format) against `commit`, or against the empty tree.
    committed_at: ISO 8601 time of the commit with offset; None for a tree outside git.
    origins:      further scrubbed URLs that may have the commit, best first (the remotes of a local folder).
    notes:        what the user should know of how it was pinned.
    """

    kind: PinKind
    uri: str
    tree: str
    commit: str | None = None
    subdirectory: str = ""
    revision: str | None = None
    branch: str | None = None
    committed_at: str | None = None
    patch: str | None = None
    origins: tuple[str, ...] = ()
    submodules: tuple[SubmodulePin, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def dirty(self) -> bool:
        """True where the files differ from the commit."""
        return self.kind is PinKind.GIT and self.patch is not None


@dataclass(frozen=True)
class Checkout:
    """A private working tree of a pin.  `root` holds `.git`; `project` is `root` or the sub-folder of it."""

    pin: Pin
    root: Path

    @property
    def project(self) -> Path:
        return self.root / self.pin.subdirectory


@dataclass(frozen=True)
class FileChange:
    """A file that is not the same in two pins; `path` from the top.  `state`: "added", "removed" or "changed"."""

    path: str
    state: str


@dataclass(frozen=True)
class CodeDifference:
    """What differs between two pins, file by file, and as a unified diff (empty where that would be too large)."""

    files: tuple[FileChange, ...] = ()
    patch: str = ""


class Sources(Protocol):
    """Where code comes from: resolves, caches and lays out."""

    def fetch(self, source: Source) -> Checkout:
        """Resolve to a full commit and return a clean private working tree of it.

        Raises `SourceError`.  On return the commit is in the cache and the patch, if any, is stored.
        """

    def checkout(self, pin: Pin, into: Path) -> Checkout:
        """Lay the pinned code out at `into` (which must not exist); a tree that `fetch` laid out is moved there.

        Fetches the commit again where the cache lost it.  Raises `SourceError`.
        """

    def scratch(self) -> Path:
        """A path for a working tree that is removed by `discard`, or once this process has ended."""

    def pack(self, checkout: Checkout, into: Path, *, whole: bool = True) -> PackedCode:
        """Write the code to the empty folder `into`, for `unpack` to take over elsewhere; uncommitted changes stay a patch.

        whole: with the history of its commits.  Raises `SourceError`.
        """

    def unpack(self, code: PackedCode, folder: Path) -> None:
        """Take over code that `pack` wrote.  Raises `SourceError` where it is not fit to be laid out."""

    def discard(self, checkout: Checkout) -> None:
        """Remove a working tree that nobody needs any more; does nothing where it is gone already."""

    def compare(self, first: Pin, second: Pin) -> CodeDifference:
        """What differs between the files of two pins.  Raises `SourceError` where one cannot be had any more."""
