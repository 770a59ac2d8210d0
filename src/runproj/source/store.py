"""Sources: resolves what was typed to a pin, and lays pins out as private working trees."""

from __future__ import annotations

import contextlib
import errno
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from runproj.core.source import Checkout, CodeDifference, Pin, PinKind, Source
from runproj.errors import SourceError
from runproj.files import Objects, explained, remove_tree, sha256_file
from runproj.source import capture, differences, scratch, uris
from runproj.source.archive import Archives, single_folder
from runproj.source.cache import Remote, git_error
from runproj.source.folders import EMPTY_TREE, Folders, Found, Rules
from runproj.source.gitcmd import GitFailed
from runproj.source.layout import Layout, untouched
from runproj.source.revisions import resolve, resolve_link
from runproj.source.submodules import Submodules
from runproj.source.uris import Address, Form
from runproj.source.vet import Facts

if TYPE_CHECKING:
    from runproj.core.capsule import PackedCode
    from runproj.source.bundles import Bundles


class SourceStore:
    """`runproj.core.source.Sources` over a cache of bare repositories.

    cache:     bare repositories;  `checkouts`: working trees until somebody moves them;  `objects`: patches.
    capture_limit: bytes of uncommitted files above which a local folder is refused.
    require_clean: refuse a local folder with uncommitted changes.
    progress:  told what is going on.
    """

    def __init__(
        self,
        cache: Path,
        checkouts: Path,
        objects: Objects,
        *,
        offline: bool = False,
        capture_limit: int = 512 * 1024 * 1024,
        require_clean: bool = False,
        progress: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._cache = cache
        self._checkouts = checkouts
        self._objects = objects
        self._offline = offline
        self._capture_limit = capture_limit
        self._require_clean = require_clean
        self._progress = progress
        self._laid_out: dict[Pin, list[Path]] = {}
        self._credentials: dict[str, str] = {}

    def fetch(self, source: Source) -> Checkout:
        """As `Sources.fetch`."""
        for folder in (self._checkouts, self._cache):
            scratch.sweep(folder)
        address = uris.parse(source)
        with self._folder() as root, _git_words(f"Cannot get {address.shown}"):
            if address.form is Form.ARCHIVE:
                found = self._archive(address, root)
            elif address.path is not None:
                found = self._local(address, root)
            else:
                found = self._remote(address)
            if found.remote is None:
                self._layout.tree(found.pin, root)
            else:
                self._layout.commit(found.remote, found.pin, root, has_lfs=found.lfs)
            checkout = Checkout(found.pin, root)
            if not checkout.project.is_dir():
                raise _no_folder(checkout, address)
            self._laid_out.setdefault(found.pin, []).append(root)
            return checkout

    def prune(self, *, days: float, dry_run: bool) -> list[tuple[str, int]]:
        """Remove cached sources that were not used for `days`; what, in words, and bytes.  Not while runs are in progress."""
        from runproj.source.prune import prune

        return list(prune(self._cache, days, dry_run=dry_run))

    def scratch(self) -> Path:
        """A path for a working tree that is removed by `discard`, or when this process has ended."""
        return scratch.fresh(self._checkouts) / "code"

    def checkout(self, pin: Pin, into: Path) -> Checkout:
        """As `Sources.checkout`."""
        uris.require_inside(pin.subdirectory, pin.uri)
        with _git_words(f"Cannot lay out {pin.uri}"):
            if root := self._take(pin):
                self._move(root, into)
            else:
                self._lay_out(pin, into)
        if into.is_relative_to(self._checkouts):
            self._laid_out.setdefault(pin, []).append(into)
        return Checkout(pin, into)

    def pack(self, checkout: Checkout, into: Path, *, whole: bool = True) -> PackedCode:
        """Write the code of a checkout to the empty folder `into`, for `unpack` to take over elsewhere (see `Bundles.pack`)."""

        def holding(url: str, commit: str) -> Remote:
            return self._holder(checkout.pin)[0] if commit == checkout.pin.commit else self._holding(url, commit)

        with _git_words(f"Cannot pack {checkout.pin.uri}"):
            return self._bundles.pack(checkout, holding, into, whole=whole)

    def unpack(self, code: PackedCode, folder: Path) -> None:
        """Take over code that `pack` wrote.  Raises `SourceError` where it is not fit to be laid out."""
        with _git_words("Cannot take over the code"):
            self._bundles.unpack(code, folder)

    def discard(self, checkout: Checkout) -> None:
        """As `Sources.discard`."""
        roots = self._laid_out.get(checkout.pin, [])
        if checkout.root in roots:
            roots.remove(checkout.root)
        self._remove(checkout.root)

    def compare(self, first: Pin, second: Pin) -> CodeDifference:
        """As `Sources.compare`."""
        with self._folder() as folder, _git_words("Cannot compare the code"):
            for side, pin in (("a", first), ("b", second)):
                self._lay_out(pin, folder / side)
            found = differences.compare(folder)
        self._remove(folder)
        return found

    def _take(self, pin: Pin) -> Path | None:
        """A working tree of `pin` that this process laid out and that is still as it was."""
        roots = self._laid_out.get(pin, [])
        while roots:
            root = roots.pop()
            if root.exists() and untouched(root):
                return root
            self._remove(root)
        return None

    def _remove(self, root: Path) -> None:
        remove_tree(root)
        if root.parent.parent == self._checkouts:
            with contextlib.suppress(OSError):
                root.parent.rmdir()

    @contextlib.contextmanager
    def _folder(self) -> Iterator[Path]:
        """A place for a working tree, removed again where laying it out fails."""
        root = self.scratch()
        try:
            with explained(root):
                root.mkdir()
                yield root
        except BaseException:
            remove_tree(root.parent)
            raise

    def _open(self, url: str) -> Remote:
        """The cached repository of a URL; of a scrubbed one with the credentials that came with it in this process."""
        remote = Remote(self._cache, self._credentials.get(url, url), offline=self._offline, progress=self._progress)
        self._credentials.setdefault(remote.shown, remote.url)
        return remote

    @property
    def _layout(self) -> Layout:
        return Layout(self._objects, self._open, self._holding, _require_fit, self._cache, self._progress)

    @property
    def _capsules(self) -> Path:
        return self._checkouts.parent / "capsules" / "git"

    @property
    def _bundles(self) -> Bundles:
        from runproj.source.bundles import Bundles

        return Bundles(self._capsules, self._cache, self._objects, _require_fit, self._progress)

    def _brought(self, commit: str) -> Remote | None:
        """The repository of a commit that a capsule brought."""
        return self._bundles.brought(commit) if self._capsules.is_dir() else None

    def _holding(self, url: str, commit: str) -> Remote:
        """The cached repository of a URL, or the one of a capsule where only that has the commit."""
        remote = self._open(url)
        return remote if remote.facts(commit) else self._brought(commit) or remote

    @property
    def _folders(self) -> Folders:
        return Folders(self._objects, self._open, Rules(self._capture_limit, self._checkouts.parent, self._require_clean))

    def _remote(self, address: Address) -> Found:
        remote = self._open(address.url)
        revision, folder = address.revision, address.subdirectory
        if address.link is not None:
            named, below = resolve_link(remote, address.link, offline=self._offline)
            revision, folder = revision or named, "/".join(part for part in (below, folder) if part)
        found = resolve(remote, revision, offline=self._offline)
        _require_fit(found.facts, remote.shown)
        modules = Submodules(self._open, _require_fit).collect(found.facts.submodules, address.url)
        pin = Pin(
            PinKind.GIT,
            uri=remote.shown,
            tree=found.facts.tree,
            commit=found.facts.commit,
            subdirectory=folder,
            revision=revision,
            branch=found.branch,
            committed_at=found.facts.committed_at,
            submodules=modules.pins,
            notes=(*found.notes, *modules.notes),
        )
        return Found(pin, remote, found.facts.lfs or modules.lfs)

    def _local(self, address: Address, root: Path) -> Found:
        folder = address.path
        assert folder is not None
        if not folder.exists():
            raise SourceError(
                f"There is no folder {folder}",
                why=f"{uris.scrub(str(folder))!r} is neither a folder nor a URL.",
                fix="Check the path; a URL starts with https://, ssh://, git:// or file://, or reads git@host:path.",
            )
        home = capture.find_home(folder)
        if (home is None and capture.is_bare(folder)) or (address.form is Form.REMOTE and home and home.root == folder):
            return self._remote(address)
        found = self._folders.pin(address, root)
        remove_tree(root / ".git")
        return found

    def _archive(self, address: Address, root: Path) -> Found:
        if address.revision is not None:
            raise SourceError(f"{address.shown} has no revisions", why="It is an archive.", fix="Drop -v.")
        archives = Archives(self._cache, self._capture_limit, self._offline, self._progress)
        path, note = archives.open(address)
        unpacked = root.with_name("unpacked")
        unpacked.mkdir()
        notes = archives.unpack(path, unpacked, address.shown)
        where = address.subdirectory or single_folder(unpacked)
        notes = (*notes, *([note] if note else []), f"sha256 of the archive: {sha256_file(path)}.")
        base = Pin(PinKind.TREE, address.shown, tree=EMPTY_TREE, subdirectory=where, notes=notes)
        pin = self._folders.pin_tree(unpacked, base, root, everything=True)
        remove_tree(unpacked)
        remove_tree(root / ".git")
        return Found(pin)

    def _lay_out(self, pin: Pin, into: Path) -> None:
        """Make the working tree of a recorded pin from the cache, or from wherever the commit can be had."""
        if pin.kind is PinKind.TREE:
            self._beside(into, partial(self._layout.tree, pin))
            return
        remote, facts = self._holder(pin)
        if not pin.uri.startswith("file://"):  # a folder of the user's own may hold what a stranger's may not
            _require_fit(facts, remote.shown)
        self._beside(into, partial(self._layout.commit, remote, pin, has_lfs=facts.lfs))

    def _holder(self, pin: Pin) -> tuple[Remote, Facts]:
        """The repository that has a pinned commit, fetched from wherever it can be had if need be."""
        assert pin.commit
        problems: list[SourceError] = []
        candidates = [self._open(url) for url in dict.fromkeys((pin.uri, *pin.origins))]
        if brought := self._brought(pin.commit):
            candidates.append(brought)
        for remote in sorted(candidates, key=lambda remote: remote.facts(pin.commit or "") is None):
            try:
                return remote, remote.ensure(pin.commit)
            except SourceError as error:
                problems.append(error)
        raise SourceError(
            f"Commit {pin.commit} cannot be had any more",
            why="\n".join(f"{problem.what}. {problem.why}" for problem in problems),
            fix="Bring back the repository, or a remote that has the commit.",
        )

    def _beside(self, into: Path, make: Callable[[Path], None]) -> None:
        with self._folder() as root:
            make(root)
            self._move(root, into)

    def _move(self, root: Path, into: Path) -> None:
        with explained(into):
            into.parent.mkdir(parents=True, exist_ok=True)
            try:
                root.rename(into)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                shutil.move(root, into)
        self._remove(root)


@contextlib.contextmanager
def _git_words(what: str) -> Iterator[None]:
    """Turn a git command that failed into an error for the user, in git's own words."""
    try:
        yield
    except GitFailed as error:
        raise git_error(what, uris.scrub_text(error.words)) from error


def _require_fit(facts: Facts, name: str) -> None:
    """Refuse a commit that would reach out of its folder, before any of it is laid out."""
    bad = [*facts.problems, *(f"The link {link} leads out of the repository." for link in facts.outside)]
    if bad:
        more = [f"… and {len(bad) - 8} more"] if len(bad) > 8 else []
        raise SourceError(
            f"{name} at {facts.commit[:12]} is not safe to lay out",
            why="\n".join(bad[:8] + more),
            fix="Ask its authors to remove these files, or clone it yourself and run the folder.",
        )


def _no_folder(checkout: Checkout, address: Address) -> SourceError:
    folders = sorted(path.name for path in checkout.root.iterdir() if path.is_dir() and path.name != ".git")
    return SourceError(
        f"{address.shown} has no folder {checkout.pin.subdirectory!r}",
        why=f"Folders at its top: {', '.join(folders[:10]) or 'none'}.",
        fix="Check the part behind #.",
    )
