"""Sources: resolves what was typed to a pin, and lays pins out as private working trees."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from runproj.core.source import Checkout, Pin, PinKind, Source
from runproj.errors import SourceError
from runproj.files import Objects, explained, remove_tree, sha256_file
from runproj.source import capture, scratch, uris, worktree
from runproj.source.cache import Remote
from runproj.source.gitcmd import Git, GitFailed
from runproj.source.revisions import resolve, resolve_link
from runproj.source.uris import Address, Form
from runproj.source.vet import Facts, text

EMPTY_TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
"""What git calls a tree with nothing in it."""


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

    def fetch(self, source: Source) -> Checkout:
        """As `Sources.fetch`."""
        scratch.sweep(self._checkouts)
        address = uris.parse(source)
        with self._folder() as root, _git_words(f"Cannot get {address.shown}"):
            match address.form:
                case Form.ARCHIVE:
                    raise SourceError("Archives are not supported yet")
                case Form.FOLDER | Form.REMOTE if address.path is not None:
                    pin = self._local(address, root)
                case _:
                    pin = self._remote(address, root)
            checkout = Checkout(pin, root)
            if not checkout.project.is_dir():
                raise _no_folder(checkout, address)
            self._laid_out.setdefault(pin, []).append(root)
            return checkout

    def scratch(self) -> Path:
        """A path for a working tree that is removed by `discard`, or when this process has ended."""
        return scratch.fresh(self._checkouts) / "code"

    def checkout(self, pin: Pin, into: Path) -> Checkout:
        """As `Sources.checkout`."""
        if root := self._take(pin):
            with explained(into):
                into.parent.mkdir(parents=True, exist_ok=True)
                shutil.move(root, into)
            self._forget_folder(root)
        else:
            with _git_words(f"Cannot lay out {pin.uri}"):
                self._lay_out(pin, into)
        if into.is_relative_to(self._checkouts):
            self._laid_out.setdefault(pin, []).append(into)
        return Checkout(pin, into)

    def discard(self, checkout: Checkout) -> None:
        """As `Sources.discard`."""
        roots = self._laid_out.get(checkout.pin, [])
        if checkout.root in roots:
            roots.remove(checkout.root)
        remove_tree(checkout.root)
        self._forget_folder(checkout.root)

    def _take(self, pin: Pin) -> Path | None:
        """A working tree of `pin` that this process laid out and that is still as it was."""
        roots = self._laid_out.get(pin, [])
        while roots:
            root = roots.pop()
            if not root.exists():
                continue
            seen = Git(root / ".git", root).run("status", "--porcelain", "--ignored", "--ignore-submodules=all", "-z")
            expected = root / ".git" / "runproj-status"
            if seen.code == 0 and seen.out == (expected.read_bytes() if expected.exists() else b""):
                return root
            remove_tree(root)
            self._forget_folder(root)
        return None

    def _forget_folder(self, root: Path) -> None:
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
        return Remote(self._cache, url, offline=self._offline, progress=self._progress)

    def _remote(self, address: Address, root: Path) -> Pin:
        remote = self._open(address.url)
        revision, folder = address.revision, address.subdirectory
        if address.link is not None:
            named, below = resolve_link(remote, address.link, offline=self._offline)
            revision, folder = revision or named, "/".join(part for part in (below, folder) if part)
        found = resolve(remote, revision, offline=self._offline)
        _require_fit(found.facts, remote.shown)
        pin = Pin(
            PinKind.GIT,
            uri=remote.shown,
            tree=found.facts.tree,
            commit=found.facts.commit,
            subdirectory=folder,
            revision=revision,
            branch=found.branch,
            committed_at=found.facts.committed_at,
            notes=found.notes,
        )
        self._lay_out_commit(remote, pin, root)
        return pin

    def _local(self, address: Address, root: Path) -> Pin:
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
            return self._remote(address, root)
        return self._captured(folder, home, address, root)

    def _captured(self, folder: Path, home: capture.Home | None, address: Address, root: Path) -> Pin:
        if not folder.is_dir():
            raise SourceError(f"{folder} is a file", why="A project is a folder, a repository or a .zip.", fix="Name its folder.")
        top = home.root if home else folder
        below = [str(folder.relative_to(top)) if folder != top else "", address.subdirectory]
        where = "/".join(part for part in below if part)
        head = capture.head_commit(home) if home else None
        config = capture.read_config(home) if home else capture.Config()
        base = Pin(PinKind.TREE, uris.file_url(top), tree=EMPTY_TREE, subdirectory=where)
        if home is None or (head is None and address.revision is None):
            return self._capture_tree(top, home, config, base, address.revision, root)
        remote = self._open(base.uri)
        commit = head
        if address.revision is not None:
            commit = self._local_revision(home, address.revision)
        assert commit is not None
        facts = remote.ensure(commit)
        pin = replace(
            base,
            kind=PinKind.GIT,
            commit=commit,
            tree=facts.tree,
            revision=address.revision,
            branch=_branch(home, address.revision),
            committed_at=facts.committed_at,
            origins=_origins(config, home),
            notes=_local_notes(home, config, commit, facts),
        )
        if address.revision is None:
            pin = self._capture_dirt(home, config, pin, remote, root)
        remove_tree(root / ".git")
        self._lay_out_commit(remote, pin, root)
        return pin

    def _local_revision(self, home: capture.Home, revision: str) -> str:
        ran = Git(home.git_dir).run("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
        if ran.code:
            raise SourceError(
                f"{revision!r} is no branch, tag or commit of {home.root}", fix="`git log --all` lists what there is."
            )
        return ran.out.decode().strip()

    def _capture_dirt(self, home: capture.Home, config: capture.Config, pin: Pin, remote: Remote, root: Path) -> Pin:
        worktree.prepare(root, pin.commit, "", remote.folder)
        limit = self._capture_limit
        job = capture.Capture(home.root, home, root / ".git", config, self._checkouts.parent, limit)
        captured = job.run()
        pin = replace(pin, notes=(*pin.notes, *captured.notes))
        if captured.tree == pin.tree:
            return pin
        if self._require_clean:
            names = ", ".join(text(path) for path in captured.changed[:10]) or "staged changes"
            raise SourceError(f"{home.root} has uncommitted changes", why=names, fix="Commit them, or drop --require-clean.")
        assert pin.commit
        patch = root / ".git" / "code.patch"
        capture.write_patch(job.git, pin.commit, captured.tree, patch)
        return replace(pin, tree=captured.tree, patch=self._objects.put(patch))

    def _capture_tree(
        self, top: Path, home: capture.Home | None, config: capture.Config, pin: Pin, revision: str | None, root: Path
    ) -> Pin:
        if revision is not None:
            raise SourceError(f"{top} has no revision {revision!r}", why="It is not under version control.", fix="Drop -v.")
        worktree.prepare(root, None, "", None)
        job = capture.Capture(top, home, root / ".git", config, self._checkouts.parent, self._capture_limit)
        captured = job.run()
        patch = root / ".git" / "code.patch"
        capture.write_patch(job.git, EMPTY_TREE, captured.tree, patch)
        pin = replace(pin, tree=captured.tree, patch=self._objects.put(patch), notes=captured.notes)
        remove_tree(root / ".git")
        self._lay_out_tree(pin, root)
        return pin

    def _lay_out(self, pin: Pin, into: Path) -> None:
        """Make the working tree of a recorded pin from the cache, or from wherever the commit can be had."""
        if pin.kind is PinKind.TREE:
            self._beside(into, partial(self._lay_out_tree, pin))
            return
        assert pin.commit
        problems: list[SourceError] = []
        candidates = [self._open(url) for url in dict.fromkeys((pin.uri, *pin.origins))]
        for remote in sorted(candidates, key=lambda remote: remote.facts(pin.commit or "") is None):
            try:
                remote.ensure(pin.commit)
                self._beside(into, partial(self._lay_out_commit, remote, pin))
                return
            except SourceError as error:
                problems.append(error)
        raise SourceError(
            f"Commit {pin.commit} cannot be had any more",
            why="\n".join(str(problem) for problem in problems),
            fix="Bring back the repository, or a remote that has the commit.",
        )

    def _beside(self, into: Path, make: Callable[[Path], None]) -> None:
        with self._folder() as root:
            make(root)
            with explained(into):
                into.parent.mkdir(parents=True, exist_ok=True)
                shutil.move(root, into)
        self._forget_folder(root)

    def _lay_out_commit(self, remote: Remote, pin: Pin, root: Path) -> None:
        assert pin.commit
        origin = pin.origins[0] if pin.origins else pin.uri
        try:
            self._write_files(worktree.prepare(root, pin.commit, origin, remote.folder), pin)
        except GitFailed:
            remote.rebuild()
            remote.ensure(pin.commit)
            remove_tree(root)
            root.mkdir()
            self._write_files(worktree.prepare(root, pin.commit, origin, remote.folder), pin)

    def _lay_out_tree(self, pin: Pin, root: Path) -> None:
        self._write_files(worktree.prepare(root, None, "", None), pin)

    def _write_files(self, git: Git, pin: Pin) -> None:
        if pin.patch is None:
            worktree.lay_out(git, pin.commit or pin.tree)
            return
        patch = self._objects.path(pin.patch)
        if not patch.exists() or sha256_file(patch) != pin.patch:
            raise SourceError(
                f"The recorded changes of {pin.uri} are lost",
                why=f"The patch {pin.patch} is missing or damaged.",
                fix="It is kept with the artifacts of the run.",
            )
        tree = worktree.patched_tree(git, pin.commit, patch)
        worktree.require_tree(tree, pin.tree, pin.uri)
        worktree.lay_out(git, tree)
        assert git.git_dir
        seen = git.out("status", "--porcelain", "--ignored", "--ignore-submodules=all", "-z")
        (git.git_dir / "runproj-status").write_bytes(seen)


@contextlib.contextmanager
def _git_words(what: str) -> Iterator[None]:
    """Turn a git command that failed into an error for the user, in git's own words."""
    try:
        yield
    except GitFailed as error:
        raise SourceError(what, why=uris.scrub_text(error.words)) from error


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


def _origins(config: capture.Config, home: capture.Home) -> tuple[str, ...]:
    found = []
    for url in config.remotes:
        with contextlib.suppress(SourceError):
            address = uris.parse(Source(url))
            if address.form is Form.FOLDER:
                address = uris.local(os.path.join(home.root, url))  # noqa: PTH118 - git reads a relative remote like this
            found.append(address.shown)
    return tuple(dict.fromkeys(found))


def _branch(home: capture.Home, revision: str | None) -> str | None:
    if revision is None:
        return home.branch
    return revision if Git(home.common).run("rev-parse", "--verify", "--quiet", f"refs/heads/{revision}").code == 0 else None


def _local_notes(home: capture.Home, config: capture.Config, commit: str, facts: Facts) -> tuple[str, ...]:
    notes = []
    if not config.remotes or capture.unpushed(home, commit):
        where = "no remote that is known has" if config.remotes else "the repository has no remote, so nobody else has"
        notes.append(f"Commit {commit[:12]} is only here: {where} it. Push it to be able to run it again elsewhere.")
    if facts.outside:
        notes.append(
            f"Links that lead out of the project, whose targets are not part of the record: {', '.join(facts.outside[:5])}."
        )
    return tuple(notes)


def _no_folder(checkout: Checkout, address: Address) -> SourceError:
    folders = sorted(path.name for path in checkout.root.iterdir() if path.is_dir() and path.name != ".git")
    return SourceError(
        f"{address.shown} has no folder {checkout.pin.subdirectory!r}",
        why=f"Folders at its top: {', '.join(folders[:10]) or 'none'}.",
        fix="Check the part behind #.",
    )
