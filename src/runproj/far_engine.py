"""Docker engines that do not see this machine's folders: on another machine, or in a virtual one that does not share them."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from runproj import engine as engines
from runproj.engine import Engine, EngineAway, EngineError, Where
from runproj.errors import BackendError, StartError
from runproj.files import atomic_write

_LOOPBACK = "127.0.0.1"


def sees(folder: Path, home: Path, probe: Mapping[str, object], name: str, where: Where) -> bool:
    """Whether an engine sees a folder of a home.  `probe`: image and labels of the container that is to tell; `name`: its name.

    It is asked for a container with a file that has just been made, which is never started; once, until it is another engine,
    or the same one started again.  An engine that is reached over a network is always asked: another may answer next time.
    """
    known = _known(home, where)
    if known is not None and known.exists():
        return known.read_text() == "yes"
    import tempfile

    engine = Engine(where)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=folder, prefix="seen-") as file:
        mount = {"Type": "bind", "Source": file.name, "Target": "/seen", "ReadOnly": True}
        body = {**probe, "Cmd": ["true"], "HostConfig": {"Mounts": [mount]}}
        found = certain = True
        try:
            engine.post("/containers/create", body, name=name)
        except EngineError as error:
            if error.status == 404:
                raise BackendError("The engine cannot make a container of the image", why=error.message) from error
            found, certain = False, error.status == 400  # "bind source path does not exist", not some trouble of the moment
        except EngineAway as error:
            raise engines.unreachable(where, error) from error
        finally:
            with contextlib.suppress(EngineError, EngineAway):
                engine.delete(f"/containers/{name}", force=1, v=1)
    if known is not None and certain:
        atomic_write(known, "yes" if found else "no")
    return found


def _known(home: Path, where: Where) -> Path | None:
    """Where it is noted what an engine sees, by its socket, which each start of an engine makes anew."""
    if not where.url.startswith("unix://"):
        return None
    try:
        socket = os.stat(where.url.removeprefix("unix://"))  # noqa: PTH116
    except OSError:
        return None
    mark = f"{where.url}\0{socket.st_dev}\0{socket.st_ino}\0{socket.st_ctime_ns}"
    return home / "cache" / "engines" / hashlib.sha256(mark.encode(errors="surrogateescape")).hexdigest()[:32]


def named(where: Where) -> str:
    """The engine, for people."""
    name = ""
    with contextlib.suppress(EngineError, EngineAway):
        name = str(Engine(where).get("/info").get("Name", ""))
    return f"engine of {name} ({where.url})" if name else f"engine at {where.url}"


def listening(reach: str) -> str:
    """The address of this machine to listen at for containers that reach it by a name or address of their own."""
    import ipaddress

    try:
        return str(ipaddress.ip_address(reach))
    except ValueError:
        return _LOOPBACK  # whoever has that name passes it on to here


def copied(mounts: Sequence[Mapping[str, object]], root: str) -> tuple[list[Mapping[str, object]], list[list[str]]]:
    """What is mounted all the same, and what is copied, each from where to where, into a volume at `root`.

    Raises `StartError` where something of this machine is to be at a place of its own choice, and stay what it is.
    """
    copies: list[list[str]] = []
    kept = [mount for mount in mounts if mount["Type"] != "bind"]
    for mount in mounts:
        if mount["Type"] == "bind":
            source, target = str(mount["Source"]), str(mount["Target"])
            if not target.startswith(f"{root}/"):
                raise StartError(
                    f"{source} cannot be mounted",
                    why="The Docker engine does not see the folders of this machine.",
                    fix=f"Use a volume of the engine (-A volume=NAME:{target}), an input, or a parameter that is a path.",
                )
            copies.append([source, target])
    return [*kept, {"Type": "volume", "Target": root}], copies
