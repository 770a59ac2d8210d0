"""The cache around the builders: each request is locked once, each lock is built once, by whoever comes first."""

from __future__ import annotations

import builtins
import contextlib
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, assert_never

from runproj import codec
from runproj.core.environment import (
    Environment,
    EnvironmentBuilder,
    EnvLock,
    EnvManager,
    EnvPlace,
    EnvSpec,
    LockOptions,
    Progress,
)
from runproj.environments import requests
from runproj.environments.digests import lock_digest, platform_name
from runproj.environments.editable import Root, python_path, roots
from runproj.environments.folders import EnvironmentFolder, Manifest
from runproj.environments.pythons import Pythons
from runproj.environments.uvtool import Uv
from runproj.errors import EnvironmentFailure
from runproj.files import Lock, atomic_write, explained

if TYPE_CHECKING:
    from runproj.core.capsule import PackedEnvironment
    from runproj.core.views import EnvironmentView
    from runproj.environments.choosing import Conda
    from runproj.environments.docker import DockerBuilder
    from runproj.environments.inventory import Inventory
    from runproj.environments.system import SystemBuilder
    from runproj.environments.virtualenv import VirtualenvBuilder


_COMMITTED = ("runproj.lock", "pylock.toml")
"""What `runproj lock` writes."""


class EnvironmentCache:
    """Environments under `home` (see `runproj.core.environment.Environments`).

    environ: where PATH, index settings and the places of interpreters are read from;  offline: use only what is cached;
    progress: told what making a lock waits for.
    conda_places: where conda's channels are, by name;  conda_alias: the URL below which the others are; empty for the usual one.
    docker_base: the image that those of locks are made from (see `DockerBuilder`); empty for the usual one.
    """

    def __init__(
        self,
        home: Path,
        *,
        environ: Mapping[str, str] | None = None,
        offline: bool = False,
        progress: Progress = lambda _: None,
        conda_places: Mapping[str, str] | None = None,
        conda_alias: str = "",
        docker_base: str = "",
    ) -> None:
        self._home = home
        self._progress = progress
        self._conda_places = conda_places or {}
        self._conda_alias = conda_alias
        self._docker_base = docker_base
        self._environ = os.environ if environ is None else environ
        self._offline = offline
        self._leases: dict[str, Lock] = {}

    @cached_property
    def _uv(self) -> Uv:
        return Uv(self._home, self._environ)

    @cached_property
    def _pythons(self) -> Pythons:
        return Pythons(self._home / "cache/interpreters.json", self._home / "pythons", self._environ)

    @cached_property
    def _virtualenv(self) -> VirtualenvBuilder:
        from runproj.environments.virtualenv import VirtualenvBuilder

        return VirtualenvBuilder(self._uv, self._pythons, offline=self._offline)

    @cached_property
    def _system(self) -> SystemBuilder:
        from runproj.environments.system import SystemBuilder

        return SystemBuilder(self._home / "cache/system", self._environ)

    @cached_property
    def _conda(self) -> Conda:
        from runproj.environments.choosing import Conda, Places

        places = Places(self._conda_places, self._conda_alias)
        parts = (self._uv, self._virtualenv, self._progress)
        return Conda(self._home, self._environ, places, parts, offline=self._offline)

    @cached_property
    def _docker(self) -> DockerBuilder:
        from runproj.environments.docker import DockerBuilder

        return DockerBuilder(self._home, self._environ, self._progress, self._docker_base, offline=self._offline)

    def _builder(self, manager: EnvManager) -> EnvironmentBuilder:
        match manager:
            case EnvManager.VIRTUALENV:
                return self._virtualenv
            case EnvManager.SYSTEM:
                return self._system
            case EnvManager.CONDA:
                return self._conda.builder
            case EnvManager.DOCKER:
                return self._docker
            case _:
                assert_never(manager)

    def lock(self, spec: EnvSpec, project: Path, when: datetime | None, options: LockOptions) -> EnvLock:
        """Pin `spec`, or answer from the store of locks where the same request was pinned before.

        A lock that is committed with the project comes before both.  Raises `EnvironmentFailure`, and `UsageError` for a date
        that is none.
        """
        if not options.locked and not any((project / name).exists() for name in _COMMITTED):
            return self.pin(spec, project, when, options)
        from runproj.environments import committed

        found = committed.find(spec, project, options)
        if found.lock is not None:
            return committed.with_interpreter(found.lock, options, self._virtualenv.interpreter)
        lock = self.pin(spec, project, when, options)
        return replace(lock, notes=(*lock.notes, found.note)) if found.note else lock

    def pin(self, spec: EnvSpec, project: Path, when: datetime | None, options: LockOptions) -> EnvLock:
        """As `lock`, whatever lock the project has."""
        manager = chosen_manager(spec, options)
        if manager is EnvManager.DOCKER and spec.docker is None:
            packages = self.pin(spec, project, when, replace(options, manager=EnvManager.VIRTUALENV))
            return self._docker.image_of(packages, project, options)
        if manager in (EnvManager.SYSTEM, EnvManager.DOCKER):  # what they are is asked each time, and known at once
            return self._builder(manager).lock(spec, project, when, options)
        at = requests.moment(options.as_of, when, datetime.now(UTC))
        where: tuple[str, ...] = (manager.value, platform_name(), self._uv.configuration(project))
        if manager is EnvManager.CONDA:
            where += self._conda.where()
        file = self._home / "locks" / f"{requests.key(spec, project, at, options, where)}.json"
        stored = None if options.relock else _stored(file)
        if stored is not None and self._still_holds(stored):
            return replace(stored, installer=options.installer)
        lock = self._lock_anew(manager, spec, project, when, options)
        if stored is not None and stored.python is not None and stored.manager is not EnvManager.CONDA:
            gone = f"Python {stored.python.version}, which this project was locked to, is no longer here: it was locked anew."
            lock = replace(lock, notes=(*lock.notes, gone))
        atomic_write(file, codec.to_json(lock))
        return lock

    def _still_holds(self, stored: EnvLock) -> bool:
        """Whether a lock of before can be built here: its interpreter is there, or comes with it."""
        if stored.manager is EnvManager.CONDA:
            return True
        return stored.python is not None and self._pythons.unchanged(stored.python)

    def _lock_anew(
        self, manager: EnvManager, spec: EnvSpec, project: Path, when: datetime | None, options: LockOptions
    ) -> EnvLock:
        if manager is not EnvManager.CONDA or options.manager is not None:
            return self._builder(manager).lock(spec, project, when, options)
        virtualenv, conda = self._virtualenv, self._conda.builder
        return self._conda.lock_of_either(
            spec,
            options,
            lambda: conda.lock(spec, project, when, options),
            lambda: virtualenv.lock(spec, project, when, options),
        )

    def ensure(self, lock: EnvLock, project: Path, progress: Progress) -> Environment:
        """The environment of `lock`, built if it is not there, and leased to this process: until it ends, or `release`.

        Raises `EnvironmentFailure` or `StorageError`.
        """
        lock, builder = _own(lock), self._builder(lock.manager)
        if lock.manager is EnvManager.SYSTEM:
            if problem := builder.problem(lock, self._home):
                raise EnvironmentFailure(
                    "The system's environment is not the one that was recorded",
                    why=problem,
                    fix="Run it anew, or with --env-manager virtualenv, which can be made again.",
                )
            return builder.environment(lock, self._home)
        folder = self._folder(lock.digest)
        self._lease(folder)
        if lock.place is EnvPlace.IMAGE:  # kept by its engine; the folder only says that it has been used
            if builder.problem(lock, folder.environment):
                builder.build(lock, project, folder.environment, progress)
            folder.list_image(lock, requests.iso(datetime.now(UTC)))
            return builder.environment(lock, folder.environment)
        manifest = self._usable(folder, lock, builder)
        if manifest is None:
            manifest = self._build(folder, lock, project, builder, progress)
        with contextlib.suppress(OSError):
            os.utime(folder.used)
        return _with_sources(builder.environment(lock, folder.environment), manifest.roots, project)

    def _folder(self, digest: str) -> EnvironmentFolder:
        return EnvironmentFolder(self._home / "envs", digest)

    def _lease(self, folder: EnvironmentFolder) -> None:
        """Keep `prune` away while this process lives."""
        if folder.name not in self._leases:
            lease = Lock(folder.used)
            lease.acquire(shared=True)
            self._leases[folder.name] = lease

    def examine(self, lock: EnvLock, *, rebuild: bool = False) -> str | None:
        """Check every file of the environment of `lock` (see `Environments.examine`)."""
        if lock.manager is EnvManager.SYSTEM or lock.place is EnvPlace.IMAGE:
            return None  # `ensure` compares all that is known of it
        lock = _own(lock)
        folder = self._folder(lock.digest)
        manifest = folder.manifest()
        if manifest is None:
            return None
        problem = None
        if (stamp := folder.stamp()) != folder.checked():
            problem = self._builder(lock.manager).problem(lock, folder.environment, thorough=True)
        if problem or rebuild:
            folder.condemn(manifest)
        else:
            folder.remember_checked(stamp)
        return problem

    def release(self, lock: EnvLock) -> None:
        """Give back what `ensure` leased."""
        if lease := self._leases.pop(self._folder(_own(lock).digest).name, None):
            lease.release()

    @contextlib.contextmanager
    def hold(self, lock: EnvLock) -> Iterator[None]:
        """Keep the environment of `lock` from being pruned for a while."""
        with Lock(self._folder(_own(lock).digest).used) as lease:
            lease.release()
            lease.acquire(shared=True)
            yield

    @staticmethod
    def _usable(folder: EnvironmentFolder, lock: EnvLock, builder: EnvironmentBuilder) -> Manifest | None:
        """The manifest of an environment that is complete and looks sound."""
        manifest = folder.manifest()
        if manifest is None or manifest.digest != lock.digest or manifest.damaged:
            return None
        if builder.problem(lock, folder.environment) is not None or folder.entries() != manifest.entries:
            return None
        return manifest

    def _build(
        self, folder: EnvironmentFolder, lock: EnvLock, project: Path, builder: EnvironmentBuilder, progress: Progress
    ) -> Manifest:
        """Lock, look again, build, record last."""
        gate = Lock(folder.gate)
        gate.acquire(on_wait=lambda: progress(f"waiting for {folder.builder() or 'another process'}, which is building it"))
        try:
            manifest = self._usable(folder, lock, builder)
            if manifest is not None:
                return manifest
            present = folder.manifest()
            if present is not None and not self._take_down(folder, progress):
                if present.digest == lock.digest and not present.damaged and builder.problem(lock, folder.environment) is None:
                    progress("another run in this environment has added packages to it; it is used as it is")
                    return present
                raise _in_use(folder)
            folder.announce(gate.descriptor)
            make = partial(_make, folder, lock, project, builder, progress)
            if present is None or not present.damaged:
                return make()
            from runproj.environments import repair

            return repair.made_and_checked(folder, lock, builder, self._uv, make, progress)
        finally:
            gate.release()

    def _take_down(self, folder: EnvironmentFolder, progress: Progress) -> bool:
        """Remove an environment that is unfit; False where another run is in it."""
        if own := self._leases.pop(folder.name, None):
            own.release()
        try:
            with folder.alone() as free:
                if free:
                    progress("the environment is damaged and is built anew")
                    folder.clear()
                return free
        finally:
            self._lease(folder)

    def pack(self, lock: EnvLock, project: Path, into: Path, progress: Progress) -> PackedEnvironment:
        """Write to the empty folder `into` what `lock` can be made from without an index.  `project` is its checkout's.

        Raises `EnvironmentFailure` where something cannot be had any more, or such an environment cannot be carried.
        """
        from runproj.environments import packing

        builders = (lambda: self._conda.builder, lambda: self._docker)
        tools = packing.Tools(self._uv, self._pythons, progress, self._offline, *builders)
        return packing.pack(lock, project, into, tools)

    # What the `env` verbs show and do.

    @cached_property
    def _inventory(self) -> Inventory:
        from runproj.environments.inventory import Inventory

        return Inventory(self._home / "envs", self._builder, self._docker.forget)

    def list(self) -> tuple[EnvironmentView, ...]:
        """Every complete environment, the last used first."""
        return self._inventory.views()

    def show(self, reference: str) -> tuple[EnvironmentView, EnvLock]:
        """The environment whose digest begins with `reference`.  Raises `NotFoundError`."""
        return self._inventory.show(reference)

    def verify(self, reference: str | None = None) -> tuple[EnvironmentView, ...]:
        """Check every file against what was installed; `problem` says what differs.  Such an environment is rebuilt when used."""
        return self._inventory.verify(reference)

    def prune(self, *, days: float = 30, keep: int = 0, dry_run: bool = False) -> tuple[EnvironmentView, ...]:
        """Remove environments that no run has used for so many days, but the `keep` last used.  Never one that is in use."""
        return self._inventory.prune(days=days, keep=keep, dry_run=dry_run)

    def interpreters(self) -> builtins.list[str]:
        """The Pythons found on this machine, the newest first: "3.12.1 (/usr/bin/python3.12)"."""
        found: dict[str, str] = {}
        for pin in self._pythons.find(None):
            found.setdefault(os.path.realpath(pin.path), f"{pin.version} ({pin.path})")
        return [*found.values()]


def chosen_manager(spec: EnvSpec, options: LockOptions) -> EnvManager:
    """Who makes the environment, where it can be told from the request alone."""
    return options.manager or spec.manager


def _own(lock: EnvLock) -> EnvLock:
    """The lock under the digest of what it says.  A plan may come from anybody, and states a digest as it likes."""
    return replace(lock, digest=lock_digest(lock))


def _in_use(folder: EnvironmentFolder) -> EnvironmentFailure:
    return EnvironmentFailure(
        "The environment is damaged, and another run is using it",
        why=str(folder.environment),
        fix="Wait for that run to end, or stop it (`runproj runs stop`); then run this again.",
    )


def _stored(file: Path) -> EnvLock | None:
    try:
        return codec.from_json(EnvLock, file.read_bytes())
    except (OSError, codec.DocumentError):
        return None


def _make(folder: EnvironmentFolder, lock: EnvLock, project: Path, builder: EnvironmentBuilder, progress: Progress) -> Manifest:
    """Build in the final place, which does not count until the manifest is there."""
    started = time.monotonic()
    folder.clear()
    with explained(folder.root):
        folder.root.mkdir(parents=True)
    try:
        builder.build(lock, project, folder.environment, progress)
        with explained(folder.root):
            manifest = Manifest(
                digest=lock.digest,
                lock=lock,
                built_at=requests.iso(datetime.now(UTC)),
                seconds=round(time.monotonic() - started, 3),
                entries=folder.entries(),
                roots=roots(lock.local_packages, project, folder.environment),
            )
            folder.record(manifest)
    except BaseException:
        folder.clear()
        raise
    return manifest


def _with_sources(environment: Environment, found: tuple[Root, ...], project: Path) -> Environment:
    path = python_path(found, project)
    if not path:
        return environment
    return replace(environment, variables={**environment.variables, "PYTHONPATH": path})
