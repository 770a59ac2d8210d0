"""Git LFS: pointers in a working tree become the files they stand for."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from runproj.errors import SourceError
from runproj.files import Objects, atomic_copy
from runproj.source.cache import FETCH_TIMEOUT, Remote
from runproj.source.gitcmd import Git, Ran
from runproj.source.uris import scrub_text
from runproj.source.vet import cat, text
from runproj.source.worktree import config_value

_MAGIC = b"version https://git-lfs.github.com/spec/v1\n"
_OID = re.compile(rb"(?m)^oid sha256:([0-9a-f]{64})$")
_FILTER = (
    '[filter "lfs"]\n\tclean = git-lfs clean -- %f\n\tsmudge = git-lfs smudge -- %f\n\tprocess = git-lfs filter-process\n'
    "\trequired = true\n"
)


def resolve(root: Path, store: Path, remotes: Sequence[Remote], objects: Objects, progress: Callable[[str], None]) -> None:
    """Replace the pointers in `root` by their files, kept in `store` for later runs.  Raises `SourceError`.

    GIT_LFS_SKIP_SMUDGE=1, git-lfs's own switch, leaves the pointers as they are.
    """
    git_dir = root / ".git"
    pointers = _pointers(root)
    if not pointers or os.environ.get("GIT_LFS_SKIP_SMUDGE", "0") not in ("", "0"):
        return
    if shutil.which("git-lfs") is None:
        raise SourceError(
            f"{remotes[0].shown} keeps {len(pointers)} files in Git LFS, and git-lfs is not installed",
            why=f"Among them: {_some(pointers)}.",
            fix="Install git-lfs (for example `apt install git-lfs`), or set GIT_LFS_SKIP_SMUDGE=1 to run with the pointers.",
        )
    with (git_dir / "config").open("a") as config:
        config.write(f"{_FILTER}[lfs]\n\tstorage = {config_value(str(store))}\n")
    _bring(root, store, objects)
    problems = []
    for remote in remotes:
        progress(f"fetching {len(pointers)} LFS files of {remote.shown}")
        ran = _fetch(root, remote, progress)
        if ran.code:
            problems.append(scrub_text(ran.err.strip(), remote.url))
        checked_out = Git(git_dir, root).run("lfs", "checkout", timeout=FETCH_TIMEOUT)
        if not (left := _pointers(root)):
            return
        problems.append(checked_out.err.strip())
    words = "\n".join(dict.fromkeys(problem for problem in problems if problem))
    raise SourceError(
        f"{len(left)} files of {remotes[0].shown} cannot be had from Git LFS",
        why=f"{words}\nAmong them: {_some(left)}.".strip(),
        fix="Check access to the LFS server, or set GIT_LFS_SKIP_SMUDGE=1 to run with the pointers.",
    )


def _fetch(root: Path, remote: Remote, progress: Callable[[str], None]) -> Ran:
    name = "runproj-lfs"
    environment = remote.environment((f"remote.{name}.url", remote.shown), ("lfs.concurrenttransfers", "8"))
    git = Git(users_config=True, env=environment, cwd=root)  # with GIT_DIR set, git-lfs would look into it for other repositories
    return git.run("lfs", "fetch", name, "HEAD", timeout=FETCH_TIMEOUT, progress=progress)


def contents(root: Path) -> list[str]:
    """sha256 of the files that the commit or recorded tree at `root` holds as pointers, whether these were replaced or not."""
    git = Git(root / ".git", root)
    listed = git.out("ls-files", "-s", "-z", "--", ":(attr:filter=lfs)").split(b"\0")
    blobs = [line.split(b" ")[1].decode() for line in listed if line]
    found = (_OID.search(blob) for blob in cat(git, blobs) if blob and blob.startswith(_MAGIC))
    return list(dict.fromkeys(match[1].decode() for match in found if match))


def stored(store: Path, oid: str) -> Path:
    """Where git-lfs keeps a file in its storage folder."""
    return store / "objects" / oid[:2] / oid[2:4] / oid


def _bring(root: Path, store: Path, objects: Objects) -> None:
    """Give git-lfs the files that a capsule has brought."""
    for oid in contents(root):
        source, target = objects.path(oid), stored(store, oid)
        if source.exists() and not target.exists():
            atomic_copy(source, target)


def _pointers(root: Path) -> list[bytes]:
    listed = Git(root / ".git", root).out("ls-files", "-z", "--", ":(attr:filter=lfs)")
    found = []
    for name in listed.split(b"\0"):
        path = root / os.fsdecode(name)
        if name and path.is_file() and not path.is_symlink():
            with path.open("rb") as file:
                if file.read(len(_MAGIC)) == _MAGIC:
                    found.append(name)
    return found


def _some(names: list[bytes]) -> str:
    return ", ".join(text(name) for name in names[:5])
