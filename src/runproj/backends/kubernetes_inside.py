"""A pod that runs the image of a project: what its containers run and share.  Pure functions.

The executor runs in that image, with a copy of runproj (see `runproj.portable`) that a container before it has made, out of the
image that has runproj.  That one lays out the code too: git is not to be expected in a project's image.
"""

from __future__ import annotations

import math
import shlex
from typing import Any

from runproj import portable
from runproj.core.backend import Demand, Engine
from runproj.core.container import size
from runproj.core.environment import DockerSpec
from runproj.errors import BackendError
from runproj.settings import parse_duration

_TOOL, _ROOM = "/runproj/tool", "/runproj/room"
"""Where the copy of runproj is, and what else the containers share."""


def check(asked: DockerSpec) -> None:
    """Raise `BackendError` where a project asks for what a pod does not give it."""
    wrong, fix = "", ""
    if asked.volumes:
        wrong, fix = f"volumes of this machine ({', '.join(asked.volumes)})", "Have the pod's volumes in a `template`."
    elif copied := [name for name, value in asked.environment if value is None]:
        wrong = f"variables of this machine's shell ({', '.join(copied)})"
        fix = "Name them with their values in `variables`, or a Secret that has them in `env_secrets`."
    elif asked.gpus and not asked.gpus.isdigit():
        wrong, fix = f"GPUs as {asked.gpus!r}", "Say how many: --backend-config '{\"gpus\": 1}' beside `gpus: 1` of the project."
    elif asked.network not in ("", "bridge"):
        wrong, fix = f"the network {asked.network!r}", "Networks are the cluster's: see NetworkPolicy."
    elif asked.user and not all(part.isdigit() for part in asked.user.split(":")):
        wrong, fix = f"the user {asked.user!r}", "Name it by its number."
    if wrong:
        raise BackendError(f"On Kubernetes a container is not given {wrong}", fix=fix)


def words(folder: str) -> tuple[str, ...]:
    """The executor.  `folder`: the parcel, on a volume that holds the home; empty where it came in Secrets.

    Neither the image's working directory nor its PYTHON… variables have anything for it (-I).
    """
    rest = (folder,) if folder else (f"{_ROOM}/parcel", "--tee")
    return (*portable.command(_TOOL), "-I", "-m", "runproj", "execute-parcel", *rest)


def variables(demand: Demand, folder: str) -> dict[str, Any]:
    """Variables of its container."""
    found: dict[str, Any] = {Engine.INSIDE: "1"}
    if not folder:
        found["RUNPROJ_HOME"] = f"{_ROOM}/home"
    if demand.resources.time:
        found[Engine.LASTS] = math.ceil(parse_duration(demand.resources.time))
    own = demand.asked.environment if demand.asked else ()
    return found | {name: value for name, value in own if value is not None}


def security(demand: Demand) -> dict[str, Any]:
    """Who the command is, where the project says so."""
    user, _, group = (demand.asked.user if demand.asked else "").partition(":")
    if not user:
        return {}
    return {"securityContext": {"runAsUser": int(user), **({"runAsGroup": int(group)} if group else {})}}


def preparation(demand: Demand, folder: str, parcel: str) -> str:
    """The script of the container before it.  `parcel`: where the pieces of a parcel are that came in Secrets."""
    python, lines = shlex.quote(str(demand.options.get("python", "python3"))), []
    if not folder:
        lines = [
            f"export RUNPROJ_HOME={_ROOM}/home; cd {_ROOM} || exit 97",
            f"cat {parcel}/part-* >parcel.zip && {python} -m zipfile -e parcel.zip parcel && rm parcel.zip || exit 97",
        ]
    lines.append(f"{python} -P -m runproj prepare-parcel {shlex.quote(folder or f'{_ROOM}/parcel')} {_TOOL} || exit")
    if not folder:
        lines.append(f"chmod -R a+rwX {_ROOM}")  # the image may have a user of its own
    return "\n".join(lines)


def volumes(demand: Demand) -> list[dict[str, Any]]:
    """What the containers share."""
    found: list[dict[str, Any]] = [{"name": "runproj-tool", "emptyDir": {}}, {"name": "runproj-room", "emptyDir": {}}]
    if demand.asked and demand.asked.shm_size:
        limit = {"medium": "Memory", "sizeLimit": str(size(demand.asked.shm_size))}
        found.append({"name": "runproj-shm", "emptyDir": limit})
    return found


def mounts(demand: Demand) -> list[dict[str, Any]]:
    """Where they see it."""
    found = [{"name": "runproj-tool", "mountPath": _TOOL}, {"name": "runproj-room", "mountPath": _ROOM}]
    if demand.asked and demand.asked.shm_size:
        found.append({"name": "runproj-shm", "mountPath": "/dev/shm"})
    return found
