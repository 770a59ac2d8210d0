"""The docker builder: pins an image by its digest, has it pulled or built, and finds it again."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runproj import engine as engines
from runproj.core.environment import (
    DockerSpec,
    Environment,
    EnvLock,
    EnvManager,
    EnvPlace,
    EnvSpec,
    ImageBuild,
    ImageFacts,
    ImagePin,
    LockOptions,
    Progress,
)
from runproj.engine import Engine, EngineAway, EngineError
from runproj.environments import brought, dockerfiles, locked_image
from runproj.environments.digests import lock_digest
from runproj.environments.requests import iso
from runproj.errors import EnvironmentFailure

if TYPE_CHECKING:
    from runproj.core.capsule import PackedImage
    from runproj.environments.images import Images
    from runproj.kept import Kept, SavedImage

BUILT = "runproj-built"
"""Repository of the images that were built here; their tags are the digests of what they were built from."""


class DockerBuilder:
    """Environments that are images of the Docker engine.  The engine keeps them; there is nothing on disk of ours."""

    def __init__(
        self, home: Path, environ: Mapping[str, str], progress: Progress, base: str = "", *, offline: bool = False
    ) -> None:
        """home: where capsules left what they brought;
        base: the image that those of locks are made from; `{python}` in it is replaced by the version ("3.11").
        """
        self._home = home
        self._environ = environ
        self._base = base or locked_image.DEFAULT_BASE
        self._progress = progress
        self._offline = offline
        self._seen: dict[str, dict[str, Any]] = {}

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
        pin = (
            self._built(asked, project, options, offline=offline)
            if asked.build
            else self._pinned(asked, options, offline=offline)
        )
        lock = EnvLock(
            manager=EnvManager.DOCKER,
            place=EnvPlace.IMAGE,
            digest="",
            origin=spec.origin,
            platform=self._platform(pin),
            image=pin,
            resolved_at=iso(datetime.now(UTC)),
            notes=(*spec.notes, *_notes(asked)),
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
        digest = self._images.digest(asked.image)
        return ImagePin(f"{_repository(asked.image)}@{digest}", "", asked)

    def _built(self, asked: DockerSpec, project: Path, options: LockOptions, *, offline: bool) -> ImagePin:
        assert asked.build is not None  # as the caller has seen

        def pin(name: str) -> str:
            base = self._pinned(DockerSpec(name), options, offline=offline)
            self._have(base.reference)
            return base.reference

        recipe = dockerfiles.read(asked.build, project, pin)
        found = self._inspect(f"{BUILT}:{recipe.inputs[:32]}") or self._make(recipe, self._progress)
        return ImagePin(found["Id"], found["Id"], asked, recipe.inputs, recipe.bases)

    def image_of(self, lock: EnvLock, project: Path, options: LockOptions) -> EnvLock:
        """The lock of an image that has what a virtualenv's lock says; it is built unless there is one."""
        called = self._base.replace("{python}", locked_image.minor(lock))
        offline = self._offline or options.offline
        with _on_a_base(""):
            base = (called, self._pinned(DockerSpec(called), options, offline=offline).reference)
        inputs = locked_image.inputs(lock, base)
        found = self._inspect(f"{BUILT}:{inputs[:32]}")
        if found is None:
            with _on_a_base(locked_image.WRONG_PYTHON):
                found = self._make_of_lock(lock, base, inputs, project, self._progress)
        pin = ImagePin(found["Id"], found["Id"], DockerSpec(), inputs, (base,))
        made = replace(lock, manager=EnvManager.DOCKER, place=EnvPlace.IMAGE, image=pin, installer="pip")
        return replace(made, digest=lock_digest(made))

    def _make_of_lock(
        self, lock: EnvLock, base: tuple[str, str], inputs: str, project: Path, progress: Progress
    ) -> dict[str, Any]:
        self._have(base[1])
        with locked_image.recipe(lock, base, project) as recipe:
            return self._make(recipe, progress, inputs)

    def _make(self, recipe: dockerfiles.Recipe, progress: Progress, inputs: str = "") -> dict[str, Any]:
        """Build the image of a recipe, under a name that says so."""
        name = f"{BUILT}:{(inputs or recipe.inputs)[:32]}"
        self._images.build(recipe, name, progress)
        found = self._inspect(name)
        if found is None:
            raise EnvironmentFailure("The image that was built has been removed", why=name, fix="Run it again.")
        return found

    def _have(self, reference: str) -> None:
        """Have a base image here.  Raises `EnvironmentFailure`."""
        if self._inspect(reference) is None:
            if "@" not in reference:
                raise EnvironmentFailure(
                    "A base image that the image was built from is gone",
                    why=f"{reference} is not here, and it was in no registry.",
                )
            self._images.pull(reference, self._progress)

    @cached_property
    def _images(self) -> Images:
        from runproj.environments.images import Images

        return Images(self._engine.where, self._environ)

    def _platform(self, pin: ImagePin) -> str:
        found = self._inspect(pin.id) if pin.id else None
        if found is None:
            found = {"Os": "linux", "Architecture": self._ask("/version")["Arch"]}
        return f"{found['Os']}/{found['Architecture']}"

    def build(self, lock: EnvLock, project: Path, into: Path, progress: Progress) -> None:
        """Have the image here: pulled by its digest, or built again from the same inputs."""
        del into
        pin = _pin(lock)
        if self._here(pin) is not None or self._load(pin, progress):
            return
        name = pin.asked.image
        if pin.asked.build:
            self._make_again(pin, pin.asked.build, project, progress)
            return
        if pin.inputs:
            self._make_of_lock(lock, pin.bases[0], pin.inputs, project, progress)
            return
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
        self._images.pull(pin.reference, progress)

    def _load(self, pin: ImagePin, progress: Progress) -> bool:
        """Have the image from a capsule, if one brought it."""
        found = self._brought(pin)
        if found is None:
            return False
        from runproj.environments import image_archive

        kept, image = found
        progress(f"loading the image {image.id[:19]} as the capsule brought it")
        image_archive.load(self._engine, kept.objects.path(image.sha256))
        return self._inspect(image.id) is not None

    def _brought(self, pin: ImagePin) -> tuple[Kept, SavedImage] | None:
        """The image that a capsule brought."""
        kept = brought.brought(self._home)
        images = (kept.image(name) for name in (pin.id, pin.reference) if name) if kept else ()
        image = next((image for image in images if image), None)
        return (kept, image) if kept and image else None

    def save(self, lock: EnvLock, into: Path, progress: Progress) -> PackedImage:
        """Write the image of a lock, which is had if it is not here, to the folder `into`."""
        from runproj.core.capsule import PackedImage
        from runproj.environments import image_archive

        pin = _pin(lock)
        found = self._here(pin)
        if found is None:
            self.build(lock, into, into, progress)
            found = self._here(pin)
        if found is None:
            raise EnvironmentFailure("The image has just been removed", why=pin.reference, fix="Export the run again.")
        progress(f"saving the image {pin.reference[:80]}")
        image_archive.save(self._engine, found["Id"], into / "image.tar")
        return PackedImage("image.tar", found["Id"], pin.reference)

    def _make_again(self, pin: ImagePin, build: ImageBuild, project: Path, progress: Progress) -> None:
        bases = dict(pin.bases)
        recipe = dockerfiles.read(build, project, lambda name: bases.get(name, ""))
        if recipe.inputs != pin.inputs:
            raise EnvironmentFailure(
                "The image cannot be built as it was",
                why=f"{pin.reference} is gone, and what it was built from is not the same any more.",
                fix="Run the project anew instead of this run.",
            )
        for reference in bases.values():
            self._have(reference)
        self._make(recipe, progress)

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
        if (kept := self._brought(pin)) and (found := self._inspect(kept[1].id)):
            return found
        return self._inspect(f"{BUILT}:{pin.inputs[:32]}") if pin.inputs else None

    def forget(self, lock: EnvLock) -> None:
        """Give up an image that was built here.  Those that others made stay."""
        pin = _pin(lock)
        if pin.inputs:
            with contextlib.suppress(EngineError):  # it is gone, or somebody uses it
                self._engine.delete(f"/images/{BUILT}:{pin.inputs[:32]}")

    def _inspect(self, name: str) -> dict[str, Any] | None:
        """What the engine knows of an image; asked once for one that is here."""
        if name in self._seen:
            return self._seen[name]
        try:
            found: dict[str, Any] = self._ask(f"/images/{engines.segment(name)}/json")
        except EngineError as error:
            if error.status == 404:
                return None
            raise EnvironmentFailure(f"The Docker engine cannot look at the image {name}", why=error.message) from error
        self._seen[name] = found
        return found

    def _ask(self, path: str, **query: object) -> Any:
        try:
            return self._engine.get(path, **query)
        except EngineAway as error:
            raise engines.unreachable(self._engine.where, error) from error


@contextlib.contextmanager
def _on_a_base(sign: str) -> Iterator[None]:
    """Errors that are the base image's, as `sign` in them shows, say how to have another one."""
    try:
        yield
    except EnvironmentFailure as error:
        if sign in error.why:
            other = "Set RUNPROJ_DOCKER_BASE to an image that is here and has the Python of the lock."
            error.fix = "\n".join(filter(None, (error.fix, other)))
        raise


def _notes(asked: DockerSpec) -> tuple[str, ...]:
    if asked.network != "none":
        return ()
    return (
        "The container has no network: mlflow calls in it fail; what `import runproj` logs is sent when the command has ended.",
    )


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
