"""A local folder → a pin: its commit, what differs from it, and where the commit could be had elsewhere."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from runproj.core.source import Pin, PinKind, Source, SubmodulePin
from runproj.core.values import dataclass
from runproj.errors import SourceError
from runproj.files import Objects
from runproj.source import capture, uris, worktree
from runproj.source.cache import Remote
from runproj.source.gitcmd import Git
from runproj.source.submodules import Submodules
from runproj.source.uris import Address, Form
from runproj.source.vet import Facts, Survey, survey, text

EMPTY_TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
"""What git calls a tree with nothing in it."""


@dataclass(frozen=True)
class Rules:
    """limit: bytes of uncommitted files;  `skip`: a folder that is never captured;  `clean`: refuse uncommitted changes."""

    limit: int
    skip: Path
    clean: bool = False


@dataclass(frozen=True)
class Found:
    """A pin, and what laying it out needs to know: the cached repository (None without one), and whether it uses LFS."""

    pin: Pin
    remote: Remote | None = None
    lfs: bool = False


@dataclass(frozen=True)
class Folders:
    """Captures local folders.  Nothing in them is changed, not even the time stamps that git keeps in its index."""

    objects: Objects
    open: Callable[[str], Remote]
    rules: Rules

    def pin(self, address: Address, work: Path) -> Found:
        """The pin of a folder as it is now, or of a commit of its repository.  `work` is an empty folder to work in."""
        folder = address.path
        assert folder is not None
        if not folder.is_dir():
            fix = f"Name its folder, and the file with -e: {shlex.quote(str(folder.parent))} -e {shlex.quote(folder.name)}"
            raise SourceError(f"{folder} is a file", why="A project is a folder, a repository or a .zip.", fix=fix)
        home = capture.find_home(folder)
        if home and capture.is_foreign(home, folder):
            home = None
        top = home.root if home else folder
        where = "/".join(part for part in (*folder.relative_to(top).parts, address.subdirectory) if part)
        if where != where.encode(errors="replace").decode():
            raise SourceError(f"The name of {text(os.fsencode(folder))} is not valid UTF-8", fix="Rename the folder.")
        base = Pin(PinKind.TREE, uris.file_url(top), tree=EMPTY_TREE, subdirectory=where)
        head = capture.head_commit(home) if home else None
        if home is None or (head is None and address.revision is None):
            if address.revision is not None:
                raise SourceError(f"{top} has no revision {address.revision!r}", why="It is no git repository.", fix="Drop -v.")
            notes = (f"{top} has no commit yet; all its files were captured.",) if home else ()
            return Found(self.pin_tree(top, replace(base, notes=notes), work))
        if address.revision is not None:
            return self._commit(home, address.revision, base)
        assert head is not None
        return self._as_it_is(home, head, base, work)

    def pin_tree(self, top: Path, base: Pin, work: Path, *, everything: bool = False) -> Pin:
        """All files below `top` as a patch against nothing; with `everything` (archives), ignored ones too."""
        worktree.prepare(work, None, "", None)
        job = capture.Capture(top, None, work / ".git", capture.Config(everything=everything), self.rules.skip, self.rules.limit)
        captured = job.run()
        seen = survey(job.git, captured.tree)
        if everything and (bad := (*seen.problems, *seen.outside)):
            raise SourceError(
                f"The archive {base.uri} is refused",
                why=f"These lead out of it: {', '.join(bad[:5])}.",
                fix="Unpack it yourself and run the folder.",
            )
        notes = (*base.notes, *captured.notes, *_notes_on(seen))
        return replace(base, tree=captured.tree, patch=self._patch(job, EMPTY_TREE, captured.tree), notes=notes)

    def _commit(self, home: capture.Home, revision: str, base: Pin) -> Found:
        ran = Git(home.git_dir).run("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
        if ran.code:
            raise SourceError(
                f"{revision!r} is no branch, tag or commit of {home.root}", fix="`git log --all` lists what there is."
            )
        commit = ran.out.decode().strip()
        is_branch = Git(home.common).run("rev-parse", "--verify", "--quiet", f"refs/heads/{revision}").code == 0
        pin = replace(base, revision=revision, branch=revision if is_branch else None)
        return self._finish(home, pin, commit, None, capture.read_config(home))

    def _as_it_is(self, home: capture.Home, head: str, base: Pin, work: Path) -> Found:
        config = capture.read_config(home)
        facts = self.open(base.uri).ensure(head)
        remote = self.open(base.uri)
        worktree.prepare(work, head, "", remote.folder)
        job = capture.Capture(home.root, home, work / ".git", config, self.rules.skip, self.rules.limit)
        captured = job.run()
        seen = None
        pin = replace(base, branch=home.branch, notes=captured.notes)
        if captured.tree != facts.tree:
            if self.rules.clean:
                names = ", ".join(text(path) for path in captured.changed[:10]) or "staged changes"
                raise SourceError(f"{home.root} has uncommitted changes", why=names, fix="Commit them, or drop --require-clean.")
            pin = replace(pin, tree=captured.tree, patch=self._patch(job, head, captured.tree))
            seen = survey(job.git, captured.tree)
        for module in (seen or facts).submodules:
            self._require_clean_module(home.root, module, config, work)
        return self._finish(home, pin, head, seen, config)

    def _finish(self, home: capture.Home, pin: Pin, commit: str, seen: Survey | None, config: capture.Config) -> Found:
        remote = self.open(pin.uri)
        facts = remote.ensure(commit)
        shown = seen or facts
        parent = next((url for url in config.remotes if "://" in url or _is_scp(url)), pin.uri)
        modules = Submodules(self.open, _accept, home.root).collect(shown.submodules, parent)
        notes = [*pin.notes, *modules.notes, *_notes_on(shown)]
        if not config.remotes or capture.unpushed(home, commit):
            where = "no remote that is known has" if config.remotes else "the repository has no remote, so nobody else has"
            notes.append(f"Commit {commit[:12]} is only here: {where} it. Push it to be able to run it again elsewhere.")
        pin = replace(
            pin,
            kind=PinKind.GIT,
            commit=commit,
            tree=pin.tree if pin.patch else facts.tree,
            committed_at=facts.committed_at,
            origins=_origins(config, home),
            submodules=modules.pins,
            notes=tuple(notes),
        )
        return Found(pin, remote, shown.lfs or modules.lfs)

    def _patch(self, job: capture.Capture, base: str, tree: str) -> str:
        patch = job.scratch / "code.patch"
        capture.write_patch(job.git, base, tree, patch)
        return self.objects.put(patch)

    def _require_clean_module(self, root: Path, module: SubmodulePin, config: capture.Config, work: Path) -> None:
        """Refuse a submodule with changes of its own: the record would say one thing, and another would have run."""
        folder = root / module.path
        home = capture.find_home(folder)
        if home is None or home.root != folder:  # not fetched here: nothing can have been changed
            return
        place = work / ".git" / "module"
        worktree.prepare(place, module.commit, "", None)
        job = capture.Capture(
            folder, home, place / ".git", replace(config, excludes_file=None), self.rules.skip, self.rules.limit
        )
        captured = job.run()
        expected = job.git.line("rev-parse", "--verify", f"{module.commit}^{{tree}}")
        shutil.rmtree(place)
        if captured.tree != expected:
            names = ", ".join(text(path) for path in captured.changed[:10]) or "staged changes"
            raise SourceError(
                f"Submodule {module.path} has uncommitted changes",
                why=f"{names}. Only changes of the project itself can be captured.",
                fix=f"Commit them in {module.path}.",
            )


def _accept(_facts: Facts, _name: str) -> None:
    """The user's own folder may hold what a stranger's repository may not."""


def _notes_on(seen: Survey | Facts) -> tuple[str, ...]:
    if not seen.outside:
        return ()
    return (f"Links that lead out of the project; what they point to is not recorded: {', '.join(seen.outside[:5])}.",)


def _is_scp(url: str) -> bool:
    with contextlib.suppress(SourceError):
        return uris.parse(Source(url)).form is Form.REMOTE
    return False


def _origins(config: capture.Config, home: capture.Home) -> tuple[str, ...]:
    found = []
    for url in config.remotes:
        with contextlib.suppress(SourceError):
            address = uris.parse(Source(url))
            if address.form is Form.FOLDER:
                address = uris.local(os.path.join(home.root, url))  # noqa: PTH118 - as git reads a relative remote
            found.append(address.shown)
    return tuple(dict.fromkeys(found))
