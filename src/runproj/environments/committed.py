"""Locks that are committed with a project: `pylock.toml` for Python packages, `runproj.lock` for everything else.

Such a lock holds a digest of the request it was made from, so that it is known when the project asks for something else by now.
"""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, assert_never

from runproj import codec
from runproj.core.environment import (
    EnvLock,
    EnvManager,
    EnvPlace,
    EnvSpec,
    LocalPackage,
    LockFile,
    LockOptions,
    PythonPin,
)
from runproj.core.values import dataclass
from runproj.environments import pylock, requests
from runproj.environments.digests import lock_digest, platform_name
from runproj.environments.pythons import Choice
from runproj.environments.trees import digest_of
from runproj.errors import EnvironmentFailure, UsageError

PYLOCK = "pylock.toml"
OURS = "runproj.lock"
_TABLE = "\n[tool.runproj]\n"
_TAIL = 64 * 1024


@dataclass(frozen=True)
class Committed:
    """A lock of the project's.  `name`: of its file;  `request`: the digest of what it was made from."""

    name: str
    request: str
    lock: EnvLock


def name_for(manager: EnvManager) -> str:
    """The file that keeps the locks of a manager."""
    match manager:
        case EnvManager.VIRTUALENV:
            return PYLOCK
        case EnvManager.CONDA | EnvManager.DOCKER:
            return OURS
        case EnvManager.SYSTEM:
            raise EnvironmentFailure(
                "The system's environment is what is installed on this machine, and cannot be locked",
                fix="Use another --env-manager.",
            )
        case _:
            assert_never(manager)


def written_by_us(file: Path) -> bool:
    """Whether a `pylock.toml` was made by `runproj lock`.  Cheap, also for a large file."""
    try:
        with file.open("rb") as content:
            content.seek(max(0, file.stat().st_size - _TAIL))
            return _TABLE.encode() in content.read()
    except OSError:
        return False


def read(project: Path) -> Committed | None:
    """The lock of a project, or None.  Raises `EnvironmentFailure` for one that cannot be read."""
    for name in (OURS, PYLOCK):
        file = project / name
        if file.is_file() and (name == OURS or written_by_us(file)):
            try:
                text = file.read_text()
                return _from_json(text) if name == OURS else _from_pylock(text)
            except (OSError, UnicodeDecodeError, codec.DocumentError, KeyError, TypeError) as error:
                raise EnvironmentFailure(
                    f"{name} cannot be read", why=str(error), fix="Make it anew: runproj lock --upgrade."
                ) from error
    return None


def text_of(lock: EnvLock, request: str) -> str:
    """The content of the file that keeps `lock`: the same for equal locks, with nothing of this machine in it."""
    python = replace(lock.python, path="", build="") if lock.python else None
    local = tuple(replace(package, digest="") for package in lock.local_packages)
    image = replace(lock.image, id="") if lock.image and "@" in lock.image.reference else lock.image
    bare = replace(lock, digest="", platform=_platform(lock.platform), python=python, local_packages=local, image=image)
    bare = replace(bare, resolved_at=None, installer="uv")
    if lock.manager is EnvManager.VIRTUALENV:
        return _to_pylock(bare, request)
    return codec.to_json(LockFile(request=request, lock=bare), pretty=True) + "\n"


def here(lock: EnvLock, project: Path) -> EnvLock:
    """A lock from a file, for this machine and the packages of this checkout."""
    local = tuple(replace(package, digest=digest_of(project / package.path)) for package in lock.local_packages)
    platform = lock.platform if lock.image else platform_name()
    fresh = replace(lock, platform=platform, local_packages=local)
    return replace(fresh, digest=lock_digest(fresh))


def misfit(committed: Committed, spec: EnvSpec, project: Path, options: LockOptions) -> str:
    """Why the lock is not that of this request; empty where it is."""
    wanted = options.manager or spec.manager
    either = options.manager is None and wanted is EnvManager.CONDA and committed.lock.manager is EnvManager.VIRTUALENV
    if committed.lock.manager is not wanted and not either:
        return f"it was made for {committed.lock.manager.value}, and {wanted.value} is asked for"
    if committed.request != request_of(spec, project, options):
        return f"{spec.origin} asks for something else than when it was made"
    if committed.lock.image is None and committed.lock.platform != _platform(platform_name()):
        return f"it was made for {committed.lock.platform}, and this is {_platform(platform_name())}"
    return ""


def request_of(spec: EnvSpec, project: Path, options: LockOptions) -> str:
    """The digest of what a project asks for, whenever and wherever: of a local package, what says what it needs."""
    stated = replace(spec, notes=(), origin="")
    return requests.digest(stated, project, options.extra, {"version": 1}, _needs)


def _needs(package: Path) -> str:
    if package.is_file():
        return digest_of(package)
    content = hashlib.sha256()
    for name in ("pyproject.toml", "setup.py", "setup.cfg"):
        if (package / name).is_file():
            content.update(f"{name}\0".encode() + (package / name).read_bytes() + b"\0")
    return content.hexdigest()


def _platform(name: str) -> str:
    """System and processor, without the C library: what was resolved on one Linux is meant for another."""
    return "-".join(name.split("-")[:2])


# -- runproj.lock


def _from_json(text: str) -> Committed:
    file = codec.from_json(LockFile, text)
    if file.version > LockFile.version:
        raise EnvironmentFailure(
            f"{OURS} was written by a newer runproj (format {file.version})", fix="Update runproj, or make the lock anew."
        )
    return Committed(OURS, file.request, file.lock)


# -- pylock.toml


def _to_pylock(lock: EnvLock, request: str) -> str:
    """PEP 751's text with a table of our own, which other tools pass over."""
    python = lock.python or PythonPin("", "", "")
    stated: dict[str, Any] = {  # TOML knows the same values as JSON
        "version": 1,
        "request": request,
        "origin": lock.origin,
        "platform": lock.platform,
        "python": python.version,
        "implementation": python.implementation,
        "as-of": lock.as_of or "",
        "variables": [list(pair) for pair in lock.variables],
        "local": [package.path for package in lock.local_packages if not package.editable],
        "editable": [package.path for package in lock.local_packages if package.editable],
        "notes": list(lock.notes),
    }
    lines = (f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in stated.items() if value)
    return (lock.pylock or "").rstrip("\n") + "\n" + _TABLE + "".join(lines)


def _from_pylock(text: str) -> Committed:
    packages, _, _ = text.rpartition(_TABLE)
    table = pylock.parse(text)["tool"]["runproj"]
    local = [LocalPackage(path, "") for path in table.get("local", ())]
    editable = [LocalPackage(path, "", True) for path in table.get("editable", ())]
    lock = EnvLock(
        manager=EnvManager.VIRTUALENV,
        place=EnvPlace.HOST,
        digest="",
        origin=str(table["origin"]),
        platform=str(table["platform"]),
        python=PythonPin(str(table["python"]), str(table["implementation"]), ""),
        pylock=packages.rstrip("\n") + "\n",
        local_packages=(*local, *editable),
        as_of=table.get("as-of"),
        notes=tuple(table.get("notes", ())),
        variables=tuple((str(name), str(value)) for name, value in table.get("variables", ())),
    )
    pylock.require_hashes(packages, PYLOCK)
    return Committed(PYLOCK, str(table["request"]), lock)


# -- use


@dataclass(frozen=True)
class Found:
    """What there is for a request: the lock to use, or None, and what there is to say about one that does not fit."""

    lock: EnvLock | None = None
    note: str = ""


def find(spec: EnvSpec, project: Path, options: LockOptions) -> Found:
    """The committed lock for a request.  Raises `EnvironmentFailure` where `locked` leaves no other way."""
    if options.locked:
        _check_options(spec, options)
    if spec.lock_file is not None:
        return Found()  # used as it is
    committed = read(project)
    if committed is None:
        if options.locked:
            raise _refusal("The project has no lock", "")
        return Found()
    if (options.as_of != "commit" or options.relock) and not options.locked:
        return Found(note=f"{committed.name} of the project is left aside, since another time was asked for.")
    why = misfit(committed, spec, project, options)
    if not why:
        return Found(here(committed.lock, project))
    if options.locked:
        raise _refusal(f"{committed.name} is not what the environment would be", why)
    return Found(note=f"{committed.name} is left aside: {why} (`runproj lock` brings it up to date).")


def _check_options(spec: EnvSpec, options: LockOptions) -> None:
    if options.relock or options.as_of != "commit":
        raise UsageError("--locked leaves nothing to resolve", fix="Leave out --relock and --as-of, or --locked.")
    if EnvManager.SYSTEM in (options.manager, options.manager or spec.manager):
        name_for(EnvManager.SYSTEM)


def _refusal(what: str, why: str) -> EnvironmentFailure:
    return EnvironmentFailure(what, why=why, fix="Write it with `runproj lock FOLDER` and commit it, or run without --locked.")


FindInterpreter = Callable[[str | None, datetime.date, str, LockOptions], Choice]


def with_interpreter(lock: EnvLock, options: LockOptions, find_interpreter: FindInterpreter) -> EnvLock:
    """A committed lock with the interpreter that is here: the same, or, where that is not asked for, its neighbour."""
    if lock.manager is not EnvManager.VIRTUALENV or lock.python is None:
        return lock
    exact = replace(options, strict=options.strict or options.locked)
    choice = find_interpreter(lock.python.version, datetime.datetime.now(datetime.UTC).date(), lock.origin, exact)
    lock = replace(lock, python=choice.python, notes=(*lock.notes, *choice.notes), installer=options.installer)
    return replace(lock, digest=lock_digest(lock))
