"""Copies between this machine and a container of an engine that does not see this machine's folders.

Part of the guard `contained.py`: it imports the standard library and `runproj.engine` alone, and only where it is needed.  What
comes back was in a stranger's hands: nothing of it is written outside of its folder, whatever names and links it has.
"""

from __future__ import annotations

import os
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Sequence
from typing import IO

from runproj.engine import Engine, EngineError


class Refused(Exception):
    """What came is not taken; the message says why."""


def load(engine: Engine, name: str, root: str, parts: Iterable[Sequence[str]], owner: Sequence[int], scratch: str) -> None:
    """Copy files and folders of this machine into a container that has not been started, as their owner's.

    root: a volume of the container;  parts: each a path here and one there, below root;  owner: user and group;
    scratch: a folder here for what is on its way.
    """

    def owned(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid, member.gid, member.uname, member.gname = owner[0], owner[1], "", ""
        return member

    with tempfile.TemporaryFile(dir=scratch) as file:
        with tarfile.open(fileobj=file, mode="w") as archive:
            for path, target in parts:
                archive.add(path, os.path.relpath(target, root), filter=owned)
        size = file.tell()
        file.seek(0)
        with engine.connect(engine.PATIENCE) as link:
            engine.upload(link, f"/containers/{name}/archive", {"path": root}, file, size, method="PUT")


def fetch(engine: Engine, name: str, source: str, into: str, check: Callable[[], None]) -> None:
    """Put a folder of a container in the place of one here; all of it or nothing.  `check`: called now and then, may raise."""
    fresh, old = f"{into}.fetched", f"{into}.before"
    try:
        os.mkdir(fresh, 0o700)  # noqa: PTH102 - pathlib is not worth its import
        with engine.send("GET", f"/containers/{name}/archive", {"path": source}) as link:
            engine.head(link)
            with link.makefile("rb") as stream:
                unpack(stream, fresh, check)
        os.rename(into, old)  # noqa: PTH104
        try:
            os.rename(fresh, into)  # noqa: PTH104
        except OSError:
            os.rename(old, into)  # noqa: PTH104
            raise
    except (OSError, tarfile.TarError, EngineError) as error:
        raise Refused(f"what the command left could not be fetched: {getattr(error, 'message', None) or error}") from error
    finally:
        for folder in (fresh, old):
            shutil.rmtree(folder, ignore_errors=True)


def unpack(stream: IO[bytes], into: str, check: Callable[[], None] = lambda: None) -> None:
    """Lay out an archive of one folder, without that folder.  Raises `Refused`, `OSError`, `TarError`.

    Links are made when everything else is there, so that nothing is written through one, and the deepest first, so that none is
    made through another; devices and pipes are left out, by all of their names.
    """
    links: dict[str, str] = {}
    modes: list[tuple[str, int]] = []
    left_out: set[str] = set()
    with tarfile.open(fileobj=stream, mode="r|") as archive:
        for member in archive:
            check()
            path = _inside(into, member.name)
            if member.issym():
                links[path] = member.linkname
            elif member.isdir():
                os.makedirs(path, exist_ok=True)  # noqa: PTH103
                modes.append((path, member.mode & 0o777 | 0o700))
            elif member.islnk():
                first = _inside(into, member.linkname)
                if first in links:  # a link may have several names too
                    links[path] = links[first]
                elif first not in left_out:
                    os.link(first, path, follow_symlinks=False)
            elif member.isreg():
                _write(archive, member, path, check)
            else:
                left_out.add(path)
        if archive.fileobj.tell() == archive.offset:  # no block that says so
            raise Refused("the container's archive has no end")
    for path, target in sorted(links.items(), key=lambda link: -link[0].count("/")):
        os.symlink(target, path)  # noqa: PTH211
    for path, mode in reversed(modes):
        os.chmod(path, mode)  # noqa: PTH101


def _write(archive: tarfile.TarFile, member: tarfile.TarInfo, path: str, check: Callable[[], None]) -> None:
    content = archive.extractfile(member)
    assert content is not None
    with open(path, "xb") as file:  # noqa: PTH123
        while data := content.read(1 << 20):
            file.write(data)
            check()
    os.chmod(path, member.mode & 0o777 | 0o600)  # noqa: PTH101
    os.utime(path, (member.mtime, member.mtime))


def _inside(folder: str, name: str) -> str:
    """Where a member goes, whose first part is the folder itself."""
    _, *parts = [part for part in name.split("/") if part not in ("", ".")] or [""]
    if ".." in parts or name.startswith("/"):
        raise Refused(f"the container's archive has a member {name!r}")
    return "/".join([folder, *parts])
