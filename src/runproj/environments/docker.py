"""The docker builder: pins an image by its digest, has it pulled or built, and finds it again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from runproj import engine as engines
from runproj.core.environment import (
    DockerSpec,
    Environment,
    EnvLock,
    EnvManager,
    EnvPlace,
    EnvSpec,
    ImageFacts,
    ImagePin,
    LockOptions,
    Progress,
)
from runproj.engine import Engine, EngineAway, EngineError
from runproj.environments.digests import lock_digest
from runproj.environments.requests import iso
from runproj.errors import EnvironmentFailure

BUILT_FROM = "runproj.inputs"
"""Label of an image that was built: the digest of what it was built from."""


class DockerBuilder:
    """Environments that are images of the Docker engine.  The engine keeps them; there is nothing on disk of ours."""

    def __init__(self, environ: Mapping[str, str], progress: Progress, *, offline: bool = False) -> None:
        self._environ = environ
        self._progress = progress
        self._offline = offline

    @cached_property
    def _engine(self) -> Engine:
        return Engine(engines.find(self._environ))

    def lock(self, spec: EnvSpec, project: Path, when: datetime | None, options: LockOptions) -> EnvLock:
        """Pin the image (see `EnvironmentBuilder.lock`): one that is here is taken as it is, unless `relock` asks its registry.

        An image with a Dockerfile is built, unless one of the same inputs is here already.
        """
        del when
        asked = spec.docker
        if asked is None:
            raise EnvironmentFailure(
                "The project names no image to run in",
                fix="Leave out --env-manager docker, or name one (docker_env, or docker under environment in runproj.yaml).",
            )
        offline = self._offline or options.offline
        pin = self._built(asked, project, offline=offline) if asked.build else self._pinned(asked, options, offline=offline)
        lock = EnvLock(
            manager=EnvManager.DOCKER,
            place=EnvPlace.IMAGE,
            digest="",
            origin=spec.origin,
            platform=self._platform(pin),
            image=pin,
            resolved_at=iso(datetime.now(UTC)),
            notes=spec.notes,
        )
        return replace(lock, digest=lock_digest(lock))

    def _pinned(self, asked: DockerSpec, options: LockOptions, *, offline: bool) -> ImagePin:
        if found := None if options.relock and not offline else self._inspect(asked.image):
            return ImagePin(_registry_digest(found, asked.image) or found["Id"], found["Id"], asked)
        if "@sha256:" in asked.image:
            return ImagePin(_without_tag(asked.image), "", asked)
        if offline:
            raise EnvironmentFailure(
                f"The image {asked.image} is not here", why="Offline, no registry is asked.", fix=f"docker pull {asked.image}"
            )
        from runproj.environments.images import Images

        digest = Images(self._engine.where, self._environ).digest(asked.image)
        return ImagePin(f"{_repository(asked.image)}@{digest}", "", asked)

    def _built(self, asked: DockerSpec, project: Path, *, offline: bool) -> ImagePin:
        raise NotImplementedError

    def _platform(self, pin: ImagePin) -> str:
        found = self._inspect(pin.id) if pin.id else None
        if found is None:
            found = {"Os": "linux", "Architecture": self._ask("/version")["Arch"]}
        return f"{found['Os']}/{found['Architecture']}"

    def build(self, lock: EnvLock, project: Path, into: Path, progress: Progress) -> None:
        """Have the image here: pulled by its digest, or built again from the same inputs."""
        del into
        pin = _pin(lock)
        name = pin.asked.image
        if pin.inputs:
            raise NotImplementedError(project)
        if "@" not in pin.reference:
            raise EnvironmentFailure(
                f"The image {name} that was recorded is gone",
                why=f"{pin.reference} is not here, and it was in no registry.",
                fix="Run the project anew with an image that exists. Images in a registry can be had again.",
            )
        if self._offline:
            raise EnvironmentFailure(
                f"The image {name} is not here", why="Offline, it is not pulled.", fix=f"docker pull {pin.reference}"
            )
        from runproj.environments.images import Images

        Images(self._engine.where, self._environ).pull(pin.reference, progress)

    def environment(self, lock: EnvLock, path: Path) -> Environment:
        """The image, by its id."""
        del path
        found = self._here(_pin(lock))
        if found is None:
            raise EnvironmentFailure("The image has just been removed", why=_pin(lock).reference, fix="Run it again.")
        pairs = (text.partition("=") for text in (found.get("Config") or {}).get("Env") or ())
        return Environment(lock=lock, image=ImageFacts(found["Id"], tuple((name, value) for name, _, value in pairs)))

    def problem(self, lock: EnvLock, path: Path, *, thorough: bool = False) -> str | None:
        """Whether the image is not here."""
        del path, thorough
        return None if self._here(_pin(lock)) else f"the image {_pin(lock).reference} is not here"

    def _here(self, pin: ImagePin) -> dict[str, Any] | None:
        """What the engine knows of the pinned image: by id, by digest, or as another build of the same inputs."""
        for name in filter(None, (pin.id, pin.reference)):
            if found := self._inspect(name):
                return found
        if pin.inputs:
            for entry in self._ask("/images/json", filters=engines.filters(label=[f"{BUILT_FROM}={pin.inputs}"])):
                return self._inspect(entry["Id"])
        return None

    def _inspect(self, name: str) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = self._ask(f"/images/{engines.segment(name)}/json")
        except EngineError as error:
            if error.status == 404:
                return None
            raise EnvironmentFailure(f"The Docker engine cannot look at the image {name}", why=error.message) from error
        return found

    def _ask(self, path: str, **query: object) -> Any:
        try:
            return self._engine.get(path, **query)
        except EngineAway as error:
            raise engines.unreachable(self._engine.where, error) from error


def _pin(lock: EnvLock) -> ImagePin:
    if lock.image is None:
        raise EnvironmentFailure("The lock names no image", fix="Run the project anew.")
    return lock.image


def _repository(name: str) -> str:
    """An image's name without its tag or digest."""
    bare = name.partition("@")[0]
    head, colon, tag = bare.rpartition(":")
    return head if colon and "/" not in tag else bare


def _without_tag(name: str) -> str:
    return f"{_repository(name)}@{name.partition('@')[2]}"


def _registry_digest(found: Mapping[str, Any], name: str) -> str:
    """The name by which a registry has the image; of several, that of the repository it was asked for by."""
    digests = [str(digest) for digest in found.get("RepoDigests") or () if not str(digest).startswith("<none>")]
    mine = [digest for digest in digests if _repository(digest) == _repository(name)]
    return next(iter([*mine, *digests]), "")
