"""What a project asks of this machine beyond a container of its own: it gets it where the user trusts it, at one commit."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

from runproj.core import container
from runproj.core.call import Call
from runproj.core.environment import DockerSpec
from runproj.core.plan import Plan
from runproj.core.project import EntryPoint, ParameterType
from runproj.core.source import Pin
from runproj.errors import TrustError
from runproj.files import atomic_write

_NOWHERE = Path("/nowhere/checkout")
"""Stands for a checkout that is not laid out: what leads out of it leads out of any."""


def require(plan: Plan, home: Path, project: Path | None = None) -> None:
    """Raise `TrustError`, which lists what the project asks for, unless it asks for nothing special or the user trusts it.

    project: its folder, where it is laid out: then links are followed.
    """
    asked = list(_asked(plan, project))
    if asked and not _file(home, plan.code).exists():
        commit = (plan.code.commit or plan.code.tree)[:12]
        raise TrustError(
            "The project asks for more than a container of its own",
            why="\n".join(f"- {words}" for words in asked),
            fix=f"If you trust it with that, add --trust. It is remembered for {plan.code.uri} at {commit}.",
        )


def _asked(plan: Plan, project: Path | None) -> Iterator[str]:
    if plan.lock.image is None:
        return
    below = plan.code.subdirectory
    place = project or _NOWHERE / below
    root = Path(*place.parts[: len(place.parts) - len(Path(below).parts)])
    yield from _of_image(plan.lock.image.asked, place, root)
    yield from _of_paths(plan.call)
    yield from _of_inputs(plan.entry_point, place, root)


def is_strangers(run_id: str, home: Path) -> bool:
    """Whether a run came in a capsule: its plan says what somebody else gave it, and need not be what its commit asks for."""
    return (home / "capsules" / "runs" / f"{run_id}.json").exists()


def require_word(plan: Plan, *, granted: bool, typed: Collection[str] = ()) -> None:
    """As `require`, for the plan of a stranger: what was granted to that URL and commit does not count for it.

    typed: the parameters that the user has given now; all others are the stranger's, whatever the plan says of them.
    """
    values = tuple(replace(value, source="default") for value in plan.call.values if value.name not in typed)
    foreign = replace(plan, call=replace(plan.call, values=values))
    asked = [*_asked(foreign, None), *(f"what its maker gave to the container: -A {text}" for text in plan.options.docker_args)]
    if asked and not granted:
        raise TrustError(
            "The run came in a capsule, and asks for more than a container of its own",
            why="\n".join(f"- {words}" for words in asked),
            fix="If you trust its maker with that, add --trust. It is asked again each time.",
        )


def grant(pin: Pin, home: Path) -> None:
    """Trust a project from now on, at this URL and commit."""
    atomic_write(_file(home, pin), f"{pin.uri} {pin.commit or pin.tree}\n")


def _file(home: Path, pin: Pin) -> Path:
    stated = "\0".join([pin.uri, pin.subdirectory, pin.commit or "", pin.tree])
    return home / "trusted" / hashlib.sha256(stated.encode(errors="surrogateescape")).hexdigest()


def _of_image(asked: DockerSpec, project: Path, root: Path) -> Iterator[str]:
    for text in asked.volumes:
        wanted = container.volume(text)
        how = "to write" if wanted.writable else "to read"
        if wanted.named:
            yield f"the engine's volume {wanted.source!r}, {how}"
            continue
        path = os.path.realpath(project / Path(wanted.source).expanduser())
        if not Path(path).is_relative_to(os.path.realpath(root)):
            yield f"{path} of this machine, {how}, as {wanted.target}"
    for name, value in asked.environment:
        if value is None:
            yield f"your variable {name}"
    if asked.network not in ("", "bridge", "none"):
        yield f"the network {asked.network!r}, where it reaches more than the world outside"
    if asked.user and asked.user != f"{os.getuid()}:{os.getgid()}":
        yield f"to be user {asked.user!r}"


def _of_inputs(point: EntryPoint, project: Path, root: Path) -> Iterator[str]:
    """Inputs that are files of this machine."""
    for spec in point.inputs:
        path = unquote(urlsplit(spec.uri).path) if spec.uri.startswith("file:") else spec.uri
        if not spec.uri.startswith("file:") and "://" in spec.uri:
            continue
        real = Path(os.path.realpath(project / path))
        if not real.is_relative_to(os.path.realpath(root)):
            yield f"{real} of this machine, to read, as the input {spec.name!r}"


def _of_paths(call: Call) -> Iterator[str]:
    """Defaults that name files of this machine: whoever runs the project has not named them."""
    for value in call.values:
        text = value.resolved or value.value or ""
        if value.type is ParameterType.PATH and value.source == "default" and text.startswith("/"):
            yield f"{text} of this machine, to read, as the parameter {value.name!r}"
