"""Killed at each rename, flush and removal of a fetch: the next one works, and cleans up what was left."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from runproj.core.source import Source
from runproj.files import Objects
from runproj.source import SourceStore

SCRIPT = """
import sys
from pathlib import Path
from runproj.core.source import Source
from runproj.files import Objects
from runproj.source import SourceStore
home = Path(sys.argv[1])
sources = SourceStore(home / "cache", home / "checkouts", Objects(home / "objects"))
sources.checkout(sources.fetch(Source(sys.argv[2])).pin, home / "work")
"""
RENAME, FLUSH, REMOVE, MAKE = "rename,renameat2", "fsync,fdatasync", "unlink,rmdir", "mkdir"


def killed_at(calls: str, number: int, home: Path, uri: str) -> bool:
    """Run a fetch in which each process is killed at its n-th call of that kind; False where it came through."""
    strace = [
        "strace",
        "-f",
        "-qq",
        "-o",
        "/dev/null",
        "-e",
        f"trace={calls}",
        "-e",
        f"inject={calls}:signal=SIGKILL:when={number}",
    ]
    command = [*strace, sys.executable, "-c", SCRIPT, str(home), uri]
    return (
        subprocess.run(command, capture_output=True, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}, check=False).returncode
        != 0
    )


def git(root: Path, *arguments: str) -> str:
    return subprocess.check_output(["git", *arguments], cwd=root, text=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "calls"),
    [
        *(("remote", calls) for calls in (RENAME, FLUSH, REMOVE, MAKE)),
        *(("dirty folder", calls) for calls in (RENAME, FLUSH, REMOVE)),
    ],
)
def test_killed_at_every_point(repository, isolated: Path, tmp_path: Path, calls: str, kind: str) -> None:
    repository.commit({"a.txt": "a", "sub/b.txt": "b"})
    if kind == "dirty folder":
        repository.write({"a.txt": "dirty", "new": "x"})
    uri = repository.url if kind == "remote" else str(repository.path)
    number, killed = 1, True
    while killed:
        home = tmp_path / f"home {number}"
        killed = killed_at(calls, number, home, uri)
        sources = SourceStore(home / "cache", home / "checkouts", Objects(home / "objects"))
        checkout = sources.fetch(Source(uri))
        assert (checkout.root / "a.txt").read_text() == ("a" if kind == "remote" else "dirty")
        assert git(checkout.root, "rev-parse", "HEAD").strip() == repository.head
        assert bool(git(checkout.root, "status", "--porcelain")) == (kind != "remote")
        subprocess.run(["git", "fsck", "--no-dangling"], cwd=checkout.root, check=True, capture_output=True)
        assert os.listdir(home / "checkouts") == [checkout.root.parent.name], f"left behind at {calls} {number}"
        bare = [path for path in (home / "cache").iterdir() if path.is_dir() and not path.name.startswith(".")]
        assert len(bare) == 1 and not list(bare[0].glob("**/*.lock"))
        assert not list(bare[0].glob("objects/**/tmp_*")), f"left behind at {calls} {number}"
        assert not list((home / "cache").glob(".*.new")), f"left behind at {calls} {number}"
        number += 1 if calls != MAKE else 3  # most folders are git's own
    assert number > 2
