"""Whether a conda project is built from conda's packages or from the Python package index, where the user leaves it open."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from runproj.core.environment import EnvLock, EnvSpec
from runproj.environments import conda_child
from runproj.environments.channels import Channels, Unmapped

_DRIVER = Path("/proc/driver/nvidia/version")


def where(channels: Channels, environ: Mapping[str, str]) -> tuple[str, ...]:
    """What decides, beside the request, which packages of conda's fit: part of the key of a lock.  Starts nothing."""
    overrides = sorted(f"{name}={value}" for name, value in environ.items() if name.startswith("CONDA_OVERRIDE_"))
    try:
        driver = hashlib.sha256(_DRIVER.read_bytes()).hexdigest()
    except OSError:
        driver = ""
    return (*channels.described(), *overrides, driver, "library" if conda_child.installed() else "no library")


def lock_of_either(
    spec: EnvSpec,
    channels: Channels,
    conda: conda_child.Conda,
    by_conda: Callable[[], EnvLock],
    by_index: Callable[[], EnvLock],
    *,
    offline: bool,
) -> EnvLock:
    """conda's lock where its library is there and its channels answer, else one of the package index that says why."""
    reason = _hindrance(spec, channels, conda, offline=offline)
    if not reason:
        try:
            return by_conda()
        except conda_child.Unreachable as error:
            reason = f"its channels cannot be read ({' '.join(error.why.split())[:200]})"
    lock = by_index()
    return replace(lock, notes=(f"Conda is not used for {spec.origin}: {reason}.", *lock.notes))


def _hindrance(spec: EnvSpec, channels: Channels, conda: conda_child.Conda, *, offline: bool) -> str:
    """Why conda cannot be used; empty where it can."""
    if not conda_child.installed():
        return "py-rattler is not installed (pip install 'runproj[conda]')"
    try:
        urls = {channels.url(name): name for name in channels.names(spec.channels)}
    except Unmapped:
        return "it names Anaconda's channel `defaults`, and no setting says what to take instead (RUNPROJ_CONDA_CHANNELS)"
    if offline:
        return ""
    silent = conda.silent(tuple(urls))
    return "; ".join(f"the channel {urls[url]} does not answer ({why})" for url, why in silent.items())
