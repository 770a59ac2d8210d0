"""Files of runs: copied into the spool when they are logged, sent from there."""

import os
from typing import Iterator, Tuple

from runproj.client.remote_runs import RunOnServer
from runproj.client.wire import Rejected, Server

_CLONE = 0x40049409  # FICLONE of linux/fs.h: a copy that shares its blocks until one of the two is changed


def below(path: str) -> Iterator[Tuple[str, str]]:
    """Each file at or below `path`, with its name relative to it."""
    if not os.path.isdir(path):
        yield path, os.path.basename(path)
        return
    for above, folders, names in os.walk(path):
        folders.sort()
        for name in sorted(names):
            source = os.path.join(above, name)
            yield source, "/".join(os.path.relpath(source, path).split(os.sep))


def keep(source: str, target: str) -> None:
    """Copy a file as it is now.  A hard link would not do: a file that is written again in place changes under all its names."""
    import fcntl
    import shutil

    with open(source, "rb") as old, open(target, "wb") as new:
        try:
            fcntl.ioctl(new.fileno(), _CLONE, old.fileno())
        except OSError:  # most file systems cannot
            shutil.copyfileobj(old, new, 1 << 20)


def send_file(server: Server, run: RunOnServer, folder: str, kept: str, path: str) -> None:
    """Store a file of the spool, or any other by its full path, with a run.  Raises `Away`, `Rejected` and OSError.

    One that was kept is removed as soon as it was stored: that it is gone means that it was sent before.
    """
    source = os.path.join(folder, kept)
    own = not os.path.isabs(kept)
    if own and not os.path.exists(source):
        return
    store_file(server, run, source, path)
    if own:
        os.unlink(source)


def store_file(server: Server, run: RunOnServer, source: str, path: str) -> None:
    """Store a file with a run: through the server, or in the folder that it shares with this machine."""
    import shutil
    from urllib.parse import unquote, urlsplit

    root = urlsplit(run.artifacts)
    if root.scheme == "mlflow-artifacts":
        server.put(root.path + "/" + path, source)
    elif root.scheme in ("", "file"):
        target = os.path.join(unquote(root.path), *path.split("/"))
        os.makedirs(os.path.dirname(target), exist_ok=True)
        fresh = f"{target}.{os.getpid()}.tmp"
        shutil.copyfile(source, fresh)
        os.rename(fresh, target)
    else:
        raise Rejected(f"the files of this run are kept at {root.scheme}: and cannot be stored from here")


def fetch_file(server: Server, run: RunOnServer, path: str) -> "bytes | None":
    """A file of a run; None where there is none.  Raises `Away` and `Rejected`."""
    from urllib.parse import unquote, urlsplit

    root = urlsplit(run.artifacts)
    if root.scheme == "mlflow-artifacts":
        return server.fetch(root.path + "/" + path)
    try:
        with open(os.path.join(unquote(root.path), *path.split("/")), "rb") as file:
            return file.read()
    except OSError:
        return None
