"""What differs between two pins: both are laid out and compared file by file, so that patches, submodules and archives count."""

from __future__ import annotations

from pathlib import Path

from runproj.core.source import CodeDifference, FileChange
from runproj.files import remove_tree
from runproj.source.gitcmd import Git, GitFailed

_STATES = {"A": "added", "D": "removed", "M": "changed", "T": "changed"}
_LARGEST = 16 << 20
"""Bytes of a diff; of a larger one only the names are told."""
_ARGUMENTS = ("diff", "--no-index", "--no-ext-diff", "--no-textconv", "--no-color", "--no-renames", "--no-prefix")


def compare(folder: Path) -> CodeDifference:
    """How the folder `b` in `folder` differs from its folder `a`; both lose what git keeps in them."""
    for side in ("a", "b"):
        for found in [*(folder / side).rglob(".git")]:
            remove_tree(found)
    git = Git(cwd=folder)
    names = git.run(*_ARGUMENTS, "--name-status", "-z", "--", "a", "b")
    if names.code not in (0, 1):
        raise GitFailed(("diff",), names)
    words = names.out.decode(errors="surrogateescape").split("\0")
    changes = tuple(
        FileChange(path.partition("/")[2], _STATES.get(state[:1], "changed"))
        for state, path in zip(words[::2], words[1::2], strict=False)
    )
    text = git.run(*_ARGUMENTS, "--", "a", "b", at_most=_LARGEST) if changes else names
    return CodeDifference(changes, text.out.decode(errors="replace") if text.code in (0, 1) else "")
