"""Whether a conda project is built from conda's packages or from the Python package index, where the user leaves it open."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from runproj.core.environment import EnvLock, EnvSpec, LockOptions, Progress
from runproj.core.values import dataclass
from runproj.environments import conda_child
from runproj.environments.channels import ALIAS, Channels, Unmapped
from runproj.environments.conda import CondaBuilder
from runproj.environments.uvtool import Uv
from runproj.environments.virtualenv import VirtualenvBuilder
from runproj.errors import EnvironmentFailure

_DRIVER = Path("/proc/driver/nvidia/version")


@dataclass(frozen=True)
class Places:
    """Where conda's channels are, by name; `alias`: the URL below which the others are, empty for the usual one."""

    channels: Mapping[str, str]
    alias: str = ""


class Conda:
    """All that belongs to conda, made when it is first needed."""

    def __init__(
        self,
        home: Path,
        environ: Mapping[str, str],
        places: Places,
        parts: tuple[Uv, VirtualenvBuilder, Progress],
        *,
        offline: bool,
    ) -> None:
        self._environ = environ
        self._offline = offline
        self._channels = Channels(places.channels, places.alias or ALIAS)
        self._library = conda_child.Rattler(home, environ)
        self._parts = parts

    @cached_property
    def builder(self) -> CondaBuilder:
        return CondaBuilder(self._library, self._channels, *self._parts, offline=self._offline)

    def where(self) -> tuple[str, ...]:
        """What decides, beside the request, which packages of conda's fit: part of the key of a lock.  Starts nothing."""
        overrides = sorted(f"{name}={value}" for name, value in self._environ.items() if name.startswith("CONDA_OVERRIDE_"))
        try:
            driver = hashlib.sha256(_DRIVER.read_bytes()).hexdigest()
        except OSError:
            driver = ""
        return (*self._channels.described(), *overrides, driver, "library" if conda_child.installed() else "no library")

    def lock_of_either(
        self, spec: EnvSpec, options: LockOptions, by_conda: Callable[[], EnvLock], by_index: Callable[[], EnvLock]
    ) -> EnvLock:
        """conda's lock where its library is there and its channels answer, else one of the package index that says why."""
        reason = self._hindrance(spec, offline=self._offline or options.offline)
        if not reason:
            try:
                return by_conda()
            except conda_child.Unreachable as error:
                reason = f"its channels cannot be read ({' '.join(error.why.split())[:200]})"
        if options.strict:
            raise EnvironmentFailure(
                f"Conda cannot be used for {spec.origin}",
                why=f"{reason[0].upper()}{reason[1:]}.",
                fix="Use `--env-manager virtualenv` to take the packages from the Python package index.",
            )
        lock = by_index()
        return replace(lock, notes=(f"Conda is not used for {spec.origin}: {reason}.", *lock.notes))

    def _hindrance(self, spec: EnvSpec, *, offline: bool) -> str:
        """Why conda cannot be used; empty where it can."""
        if not conda_child.installed():
            return "py-rattler is not installed (pip install 'runproj[conda]')"
        try:
            urls = {self._channels.url(name): name for name in self._channels.names(spec.channels)}
        except Unmapped:
            return "it names Anaconda's channel `defaults`, and no setting says what to take instead (RUNPROJ_CONDA_CHANNELS)"
        if offline:
            return ""
        silent = self._library.silent(tuple(urls))
        return "; ".join(f"the channel {urls[url]} does not answer ({why})" for url, why in silent.items())
