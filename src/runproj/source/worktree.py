"""Lays a pinned tree out as a working tree with a `.git` of its own, which borrows its objects from the cache."""

from __future__ import annotations

import os
import re
from pathlib import Path

from runproj.errors import SourceError
from runproj.files import explained
from runproj.source.gitcmd import Git

_CLEAN = re.compile(rb"[A-Za-z0-9_./ +@%=,-]")


def _quoted(path: Path) -> bytes:
    """A path as git's object-borrowing list wants it: C-style, so that a newline or quote in it does no harm."""
    return b'"' + b"".join(bytes([c]) if _CLEAN.match(bytes([c])) else b"\\%03o" % c for c in os.fsencode(path)) + b'"'


def alternates(*folders: Path) -> str:
    """The value of GIT_ALTERNATE_OBJECT_DIRECTORIES for object folders."""
    return b":".join(_quoted(folder) for folder in folders).decode()


def config_value(text: str) -> str:
    """A value for a git configuration file."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
    return f'"{escaped}"'


def repository_config(*, bare: bool, sha256: bool, extra: str = "") -> str:
    """The text of a new repository's configuration."""
    version, extension = ("1", "[extensions]\n\tobjectFormat = sha256\n") if sha256 else ("0", "")
    return (
        f"[core]\n\trepositoryformatversion = {version}\n\tfilemode = true\n\tbare = {'true' if bare else 'false'}\n"
        f"\thooksPath = /dev/null\n\tlogAllRefUpdates = {'false' if bare else 'true'}\n{extension}{extra}"
    )


def make_repository(git_dir: Path, config: str, head: str) -> None:
    """What `git init` would write, without a process and without templates."""
    with explained(git_dir):
        for folder in ("objects/info", "objects/pack", "refs/heads", "refs/tags", "info"):
            (git_dir / folder).mkdir(parents=True, exist_ok=True)
        (git_dir / "config").write_text(config)
        (git_dir / "HEAD").write_text(f"{head}\n")


def prepare(root: Path, commit: str | None, origin: str, borrow: Path | None, *, sha256: bool = False) -> Git:
    """A repository at `root` with nothing checked out, HEAD at `commit`, its objects borrowed from repository `borrow`."""
    git_dir = root / ".git"
    remote = ""
    if origin:
        fetch = "+refs/heads/*:refs/remotes/origin/*"
        remote = f'[remote "origin"]\n\turl = {config_value(origin)}\n\tfetch = {fetch}\n'
    make_repository(
        git_dir,
        repository_config(bare=False, sha256=sha256 or len(commit or "") == 64, extra=remote),
        commit or "ref: refs/heads/main",
    )
    if borrow:
        objects = os.fsencode(borrow / "objects")
        line = _quoted(borrow / "objects") if b"\n" in objects else objects  # git-lfs cannot read quoted ones
        (git_dir / "objects/info/alternates").write_bytes(line + b"\n")
        if (shallow := borrow / "shallow").exists():
            (git_dir / "shallow").write_bytes(shallow.read_bytes())
        _copy_tags(borrow, git_dir)
    return Git(git_dir, root)


def _copy_tags(borrow: Path, git_dir: Path) -> None:
    """The tags of the cached history, so that `git describe` and what builds on it (setuptools-scm) work."""
    lines: dict[str, str] = {}
    packed = borrow / "packed-refs"
    if packed.exists():
        name = ""
        for line in packed.read_text(errors="surrogateescape").splitlines():
            if line.startswith("^"):
                if name:
                    lines[name] += f"\n{line}"
                continue
            value, _, name = line.partition(" ")
            name = name if name.startswith("refs/tags/") and not line.startswith("#") else ""
            if name:
                lines[name] = f"{value} {name}"
    tags = borrow / "refs/tags"
    for folder, _, names in os.walk(tags):
        for entry in names:
            path = Path(folder, entry)
            name = f"refs/tags/{path.relative_to(tags)}"
            if not entry.endswith(".lock"):
                lines[name] = f"{path.read_text().strip()} {name}"
    if lines:
        text = "".join(f"{lines[name]}\n" for name in sorted(lines))
        (git_dir / "packed-refs").write_text(f"# pack-refs with: sorted\n{text}", errors="surrogateescape")


def lay_out(git: Git, tree: str) -> None:
    """Write index and files of a commit or tree whose objects are there.  Raises `GitFailed`."""
    git.out("read-tree", "--reset", "-u", tree)


def patched_tree(git: Git, base: str | None, patch: Path) -> str:
    """The tree that `patch` makes of commit `base` (None: of the empty tree); its objects stay in the repository."""
    assert git.git_dir
    index = git.git_dir / "patched-index"
    beside = Git(git.git_dir, git.work_tree, env={"GIT_INDEX_FILE": str(index)})
    try:
        beside.out("read-tree", base) if base else beside.out("read-tree", "--empty")
        beside.out("apply", "--cached", "--binary", "--whitespace=nowarn", "--allow-empty", "--", str(patch))
        return beside.line("write-tree")
    finally:
        index.unlink(missing_ok=True)


def require_tree(actual: str, expected: str, name: str) -> None:
    """Raise `SourceError` where the files are not the ones that were pinned."""
    if actual != expected:
        raise SourceError(
            f"The code of {name} is not what was recorded",
            why=f"Its tree is {actual}, the record says {expected}.",
            fix="The stored patch or the repository has been altered.",
        )
