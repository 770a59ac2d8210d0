"""A local folder as it is now → commit, patch and tree, without touching a byte of it."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
from dataclasses import field
from pathlib import Path

from runproj.core.values import dataclass
from runproj.errors import SourceError
from runproj.source import worktree
from runproj.source.gitcmd import Git
from runproj.source.vet import text

LEFT_OUT = ("__pycache__", ".ipynb_checkpoints", ".DS_Store")
"""Derived files that are no part of a project; where they are not ignored anyway, a note says that they were left out."""
IGNORE_FILE = ".runprojignore"


@dataclass(frozen=True)
class Home:
    """A local repository: where its parts are.

    root:    the working tree's top;  git_dir: of this working tree;  common: the one that holds objects and references.
    """

    root: Path
    git_dir: Path
    common: Path

    @property
    def branch(self) -> str | None:
        """The branch that is checked out; None where HEAD is detached."""
        head = (self.git_dir / "HEAD").read_text(errors="surrogateescape").strip()
        return head.removeprefix("ref: refs/heads/") if head.startswith("ref: refs/heads/") else None


@dataclass(frozen=True)
class Config:
    """What matters of the repository's configuration.  With `everything`, ignored files are captured too."""

    remotes: tuple[str, ...] = ()
    excludes_file: str | None = None
    file_mode: bool = True
    everything: bool = False


def find_home(folder: Path) -> Home | None:
    """The repository that `folder` is in; None where it is in none."""
    for root in (folder, *folder.parents):
        mark = root / ".git"
        if mark.is_dir() and (mark / "HEAD").exists():
            return Home(root, mark, mark)
        if mark.is_file():
            git_dir = root / mark.read_text(errors="surrogateescape").removeprefix("gitdir:").strip()
            pointer = git_dir / "commondir"
            common = git_dir / pointer.read_text(errors="surrogateescape").strip() if pointer.exists() else git_dir
            return Home(root, git_dir.resolve(), common.resolve())
    return None


def is_foreign(home: Home, folder: Path) -> bool:
    """True where the repository around `folder` ignores it, as one over a whole home folder does: it is not its project."""
    if folder == home.root:
        return False
    git = Git(home.git_dir, home.root, users_config=True)
    return git.run("check-ignore", "-q", "--", str(folder)).code == 0 and not git.run("ls-files", "--", str(folder)).out


def is_bare(folder: Path) -> bool:
    """True for a repository without a working tree."""
    return all((folder / part).exists() for part in ("HEAD", "objects", "refs"))


def read_config(home: Home) -> Config:
    """The repository's configuration together with the user's."""
    pattern = r"^(remote\..*\.url|core\.(excludesfile|filemode))$"
    ran = Git(home.common, users_config=True).run("config", "-z", "--get-regexp", pattern)
    remotes: dict[str, str] = {}
    excludes, file_mode = None, True
    for item in ran.out.decode(errors="surrogateescape").split("\0"):
        key, _, value = item.partition("\n")
        if key.startswith("remote."):
            remotes.setdefault(key.removeprefix("remote.").removesuffix(".url"), value)
        elif key == "core.excludesfile":
            excludes = value
        elif key == "core.filemode":
            file_mode = value.lower() not in ("false", "no", "off", "0")
    ordered = sorted(remotes, key=lambda name: (name != "origin", name != "upstream"))
    return Config(tuple(dict.fromkeys(remotes[name] for name in ordered)), excludes, file_mode)


def head_commit(home: Home) -> str | None:
    """The commit that is checked out; None before the first one."""
    ran = Git(home.git_dir).run("rev-parse", "--verify", "--quiet", "HEAD^{commit}")
    return ran.out.decode().strip() if ran.code == 0 else None


@dataclass(frozen=True)
class Captured:
    """The files of a folder as a tree in the scratch repository.  `changed` lists what differs from the index."""

    tree: str
    changed: tuple[bytes, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Listing:
    """Paths relative to the folder.  `hidden` are tracked files that git was told to take for unchanged."""

    changed: set[bytes] = field(default_factory=set)
    untracked: set[bytes] = field(default_factory=set)
    hidden: set[bytes] = field(default_factory=set)
    all: set[bytes] = field(default_factory=set)


@dataclass(frozen=True)
class Capture:
    """Reads a folder into a scratch repository.

    folder:  the folder, or the top of its repository;  `scratch` is the scratch repository's `.git`.
    skip:    a folder that is never captured (runproj's own home).
    limit:   bytes of changed and untracked files.
    """

    folder: Path
    home: Home | None
    scratch: Path
    config: Config
    skip: Path
    limit: int

    def run(self) -> Captured:
        """The folder's files as a tree.  Raises `SourceError` where something cannot be captured."""
        self._take_index()
        options = ["-c", f"core.fileMode={str(self.config.file_mode).lower()}"]
        if self.config.excludes_file is not None:
            options += ["-c", f"core.excludesFile={self.config.excludes_file}"]
        listing = self._list(options)
        if listing.hidden:  # marked "assume unchanged": what runs is what is there, not what git was told to believe
            names = b"\0".join(listing.hidden) + b"\0"
            self.git.out("update-index", "-z", "--no-assume-unchanged", "--stdin", stdin=names)
            listing = self._list(options)
        self._check(listing)
        notes = self._notes(listing, options)
        paths = sorted(listing.changed | listing.untracked)
        if paths:
            names = b"\0".join(paths) + b"\0"
            self.git.out(*options, "update-index", "-z", "--add", "--remove", "--replace", "--stdin", stdin=names)
        return Captured(self.git.line("write-tree"), tuple(paths), tuple(notes))

    @property
    def git(self) -> Git:
        """The scratch repository, looking at the folder and able to read the objects of the folder's own repository."""
        env = {}
        if self.home is not None:
            env["GIT_ALTERNATE_OBJECT_DIRECTORIES"] = worktree.alternates(self.home.common / "objects")
        return Git(self.scratch, self.folder, env=env)

    def _take_index(self) -> None:
        """Start from the folder's own index: it knows which files have not changed since they were hashed."""
        if self.home is None:
            return
        names = ["index", *(path.name for path in self.home.git_dir.glob("sharedindex.*"))]
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                shutil.copy2(self.home.git_dir / name, self.scratch / name)  # the time of the index is part of its meaning
        with contextlib.suppress(FileNotFoundError):
            shutil.copyfile(self.home.common / "info/exclude", self.scratch / "info/exclude")

    def _list(self, options: list[str]) -> _Listing:
        excludes = [f"--exclude={name}" for name in LEFT_OUT]
        if self.skip.is_relative_to(self.folder) and self.skip != self.folder:
            relative = re.sub(r"([*?\[\]\\ !#])", r"\\\1", str(self.skip.relative_to(self.folder)))
            excludes.append(f"--exclude=/{relative}/")
        if (own := self.folder / IGNORE_FILE).is_file():
            excludes.append(f"--exclude-from={own}")
        rules = () if self.config.everything else ("--exclude-standard", *excludes)
        out = self.git.out(*options, "ls-files", "-z", "-v", "-c", "-m", "-d", "-o", *rules)
        listing = _Listing()
        for line in out.split(b"\0"):
            tag, path = line[:1], line[2:]
            if tag == b"?":
                listing.untracked.add(path)
            elif tag in (b"C", b"R", b"M"):
                listing.changed.add(path)
            elif tag.islower():
                listing.hidden.add(path)
            if path:
                listing.all.add(path)
        return listing

    def _check(self, listing: _Listing) -> None:
        """Refuse what cannot be captured, before anything is read."""
        if nested := sorted(text(path) for path in listing.untracked if path.endswith(b"/")):
            raise SourceError(
                f"{self.folder} contains other repositories: {', '.join(nested[:5])}",
                why="They are neither ignored nor submodules, so it is not clear what of them belongs to the project.",
                fix=f"Add them to .gitignore or {IGNORE_FILE}, or make them submodules.",
            )
        sizes: dict[bytes, int] = {}
        for path in listing.changed | listing.untracked:
            with contextlib.suppress(OSError):
                status = os.lstat(os.fsencode(self.folder) + b"/" + path)
                if stat.S_ISREG(status.st_mode):
                    sizes[path] = status.st_size
                elif not (stat.S_ISLNK(status.st_mode) or stat.S_ISDIR(status.st_mode)):
                    raise SourceError(f"{text(path)} is no regular file", why="Pipes, sockets and devices cannot be captured.")
        if (total := sum(sizes.values())) > self.limit:
            largest = sorted(sizes, key=lambda path: sizes[path], reverse=True)[:5]
            raise SourceError(
                f"{self.folder} has {_mb(total)} of files that are not committed; the limit is {_mb(self.limit)}",
                why="The largest: " + ", ".join(f"{text(path)} ({_mb(sizes[path])})" for path in largest) + ".",
                fix=f"List them in .gitignore or {IGNORE_FILE} to leave them out, or set RUNPROJ_CAPTURE_LIMIT to take them in.",
            )

    def _notes(self, listing: _Listing, options: list[str]) -> list[str]:
        """What lies beside the captured files and is not captured itself."""
        folders = {b""}
        for path in listing.all:
            while (path := path.rpartition(b"/")[0]) and path not in folders:
                folders.add(path)
        empty, special, derived = list[bytes](), list[bytes](), set[str]()
        top = os.fsencode(self.folder)
        for folder in folders:
            with contextlib.suppress(OSError), os.scandir(top + b"/" + folder) as found:
                for entry in found:
                    path = folder + b"/" + entry.name if folder else entry.name
                    if path in listing.all or path in folders or entry.name == b".git":
                        continue
                    if entry.name.decode(errors="replace") in LEFT_OUT:
                        derived.add(entry.name.decode())
                    elif entry.is_dir(follow_symlinks=False):
                        if not os.listdir(entry.path):
                            empty.append(path)
                    elif not entry.is_file(follow_symlinks=False) and not entry.is_symlink():
                        special.append(path)
        notes = []
        if special:
            notes.append(f"Not captured, since they are no regular files: {_names(special)}.")
        if empty := self._not_ignored(empty, options):
            notes.append(f"Empty folders are not captured: {_names(empty)}.")
        if self.home is None and derived:
            notes.append(f"Left out: {', '.join(sorted(derived))}.")
        return notes

    def _not_ignored(self, paths: list[bytes], options: list[str]) -> list[bytes]:
        if not paths:
            return paths
        names = b"".join(path + b"/\0" for path in paths)
        ran = self.git.run(*options, "check-ignore", "-z", "--no-index", "--stdin", stdin=names)
        ignored = set(ran.out.split(b"\0"))
        return [path for path in paths if path + b"/" not in ignored and path not in ignored]


def _names(paths: list[bytes]) -> str:
    shown = ", ".join(text(path) for path in sorted(paths)[:5])
    return shown + (f" and {len(paths) - 5} more" if len(paths) > 5 else "")


def _mb(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 100_000 else f"{size} bytes"


def unpushed(home: Home, commit: str) -> bool:
    """True where no remote that the repository knows has the commit."""
    ran = Git(home.common).run("rev-list", "-n1", commit, "--not", "--remotes")
    return bool(ran.out.strip())


def write_patch(git: Git, base: str, tree: str, into: Path) -> None:
    """The difference between two trees in `git apply` format, the same bytes for the same trees."""
    options = "-r -p --binary --full-index --no-renames --no-ext-diff --no-textconv --no-color --src-prefix=a/ --dst-prefix=b/"
    git.out("diff-tree", *options.split(), "--no-relative", f"--output={into}", base, tree)
    if not into.exists():
        into.touch()
