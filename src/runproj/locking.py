"""`runproj lock`: a project's environment pinned into a file to commit, or the one that is there compared with the project."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, assert_never

from runproj.core.environment import EnvLock, EnvManager, LockOptions
from runproj.core.project import Project
from runproj.core.source import Source, Sources
from runproj.core.views import LockReport, LockState
from runproj.environments import committed
from runproj.errors import EnvironmentFailure
from runproj.files import atomic_write

if TYPE_CHECKING:
    from runproj.environments import EnvironmentCache


def lock_project(
    folder: Path,
    project: Project,
    sources: Sources,
    environments: EnvironmentCache,
    options: LockOptions,
    *,
    upgrade: bool = False,
    check: bool = False,
) -> LockReport:
    """Write the lock of a project, unless the one that is there fits; `upgrade`: anew in any case, `check`: write nothing."""
    spec = project.environment
    if spec.lock_file is not None:
        why = f"The project's own {spec.lock_file} is used as it is."
        return LockReport(spec.lock_file, LockState.OWN, options.manager.value if options.manager else "virtualenv", why=why)
    manager = options.manager or spec.manager
    committed.name_for(manager)  # refuses what cannot be locked
    found = committed.read(folder)
    why = committed.misfit(found, spec, folder, options) if found else ""
    if found and not why and not upgrade:
        return _report(found.name, LockState.CURRENT, committed.here(found.lock, folder))
    if check:
        name = found.name if found else committed.name_for(manager)
        state = LockState.STALE if found else LockState.MISSING
        return LockReport(name, state, manager.value, why=why or f"There is no {name}.")
    when = _commit_time(folder, sources) if options.as_of == "commit" else None
    anew = replace(options, relock=upgrade or manager is not EnvManager.DOCKER)  # an image that is here need not be asked for
    lock = environments.pin(spec, folder, when, anew)
    _require_for_everybody(lock)
    name = committed.name_for(lock.manager)
    atomic_write(folder / name, committed.text_of(lock, committed.request_of(spec, folder, options)))
    _remove_other(folder, lock.manager)
    return _report(name, LockState.WRITTEN, lock, why)


def _require_for_everybody(lock: EnvLock) -> None:
    """Refuse an image that only this machine has."""
    if lock.image and lock.image.asked.build:
        raise EnvironmentFailure(
            "An image that is built from a Dockerfile cannot be locked: what it is made of is in the project already",
            fix="Name its base image by digest: FROM NAME@sha256:….",
        )
    if lock.image and "@" not in lock.image.reference:
        raise EnvironmentFailure(
            f"The image {lock.image.asked.image} cannot be locked: it is in no registry, so nobody else can have it",
            fix="Push it (`docker push`), then lock it.",
        )


def _commit_time(folder: Path, sources: Sources) -> datetime | None:
    """When the commit was made that is checked out in `folder`."""
    checkout = sources.fetch(Source(str(folder)))
    try:
        text = checkout.pin.committed_at
        return datetime.fromisoformat(text) if text else None
    finally:
        sources.discard(checkout)


def _report(name: str, state: LockState, lock: EnvLock, why: str = "") -> LockReport:
    return LockReport(
        file=name,
        state=state,
        manager=lock.manager.value,
        python=lock.python.version if lock.python else "",
        packages=lock.package_count,
        digest=lock.digest,
        as_of=lock.as_of,
        why=why,
        notes=lock.notes,
    )


def _remove_other(folder: Path, manager: EnvManager) -> None:
    """A project that went from one manager to another has one lock."""
    match manager:
        case EnvManager.VIRTUALENV:
            with contextlib.suppress(FileNotFoundError):
                (folder / committed.OURS).unlink()
        case EnvManager.CONDA | EnvManager.DOCKER:
            if committed.written_by_us(folder / committed.PYLOCK):
                (folder / committed.PYLOCK).unlink()
        case EnvManager.SYSTEM:
            pass
        case _:
            assert_never(manager)
