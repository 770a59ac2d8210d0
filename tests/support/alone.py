"""Programs that see nothing of the tests' files, as if they ran on another machine."""

from __future__ import annotations

from pathlib import Path

_HIDE = """
mount --make-rprivate /
exec 9<"$1"
mount -t tmpfs none "$2"
mkdir -p "$1"
mount --no-canonicalize --bind /proc/self/fd/9 "$1"
shift 2
exec "$@"
"""


def away(own: Path, hidden: Path) -> list[str]:
    """Words before a command: what is in `hidden` is hidden from it, but for its own folder."""
    return ["unshare", "--mount", "sh", "-euc", _HIDE, "sh", str(own), str(hidden)]
