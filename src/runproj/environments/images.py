"""Images from registries, through the docker SDK: it knows the user's credentials, helpers and contexts."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from runproj import dockersdk, proc
from runproj.core.environment import Progress
from runproj.engine import Where
from runproj.environments.dockerfiles import NAME, Recipe
from runproj.errors import EnvironmentFailure

if TYPE_CHECKING:
    import docker

_LINES = 30
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class Images:
    """The engine's images.  `environ` says where the user's configuration is."""

    def __init__(self, where: Where, environ: Mapping[str, str]) -> None:
        self._where = where
        self._environ = environ

    @cached_property
    def _client(self) -> docker.APIClient:
        with _explained("The Docker engine cannot be used"):
            return dockersdk.connected(self._where)

    def digest(self, name: str) -> str:
        """The digest that the registry of an image has for it now.  Raises `EnvironmentFailure`."""
        with _explained(f"The image {name} is not here, and its registry does not tell of it", f"docker pull {name}"):
            return str(self._client.inspect_distribution(name)["Descriptor"]["digest"])

    def pull(self, name: str, progress: Progress) -> None:
        """Have an image here.  Raises `EnvironmentFailure`."""
        with _explained(f"The image {name} cannot be pulled", "Check its name, the network, and `docker login`."):
            progress(f"pulling {name}")
            for text in _pulling(name, self._client.pull(name, stream=True, decode=True)):
                progress(text)

    def build(self, recipe: Recipe, name: str, progress: Progress) -> None:
        """Build an image and give it a name.  Raises `EnvironmentFailure`."""
        progress(f"building the image of {recipe.build.dockerfile}")
        with tempfile.TemporaryFile() as file:
            (self._named(recipe) if recipe.modern else recipe).archive(file)
            file.seek(0)
            if recipe.modern:
                _build_by_program(recipe, name, file.read(), progress, {**self._environ, "DOCKER_HOST": self._where.url})
                return
            said: list[str] = []
            with _explained("The image cannot be built", said=said):
                events = self._client.build(
                    fileobj=file,
                    custom_context=True,
                    dockerfile=NAME,
                    tag=name,
                    buildargs=dict(recipe.build.arguments),
                    target=recipe.build.target or None,
                    rm=True,
                    forcerm=True,
                    decode=True,
                )
                for text in _building(events):
                    said.append(text)
                    progress(text)

    def _named(self, recipe: Recipe) -> Recipe:
        """The recipe with names for base images that are known by their ids: BuildKit takes an id for a name."""
        bases = []
        for name, reference in recipe.bases:
            if "@" not in reference:
                tag = reference.removeprefix("sha256:")[:32]
                with _explained("The base image cannot be named"):
                    self._client.tag(reference, "runproj-pinned", tag)
                reference = f"runproj-pinned:{tag}"
            bases.append((name, reference))
        return replace(recipe, bases=tuple(bases))


def _build_by_program(recipe: Recipe, name: str, archive: bytes, progress: Progress, environ: Mapping[str, str]) -> None:
    """Build with BuildKit, which the engine's simple interface does not have: by the `docker` program, the first that can."""
    arguments = ["build", "--progress=plain", "-f", NAME, "-t", name]
    for key, value in recipe.build.arguments:
        arguments += ["--build-arg", f"{key}={value}"]
    if recipe.build.target:
        arguments += ["--target", recipe.build.target]
    said = "There is no program `docker`."
    for folder in environ.get("PATH", os.defpath).split(os.pathsep):
        program = shutil.which("docker", path=folder)
        if program is None:
            continue
        done = proc.stream([program, *arguments, "-"], progress, env={**environ, "DOCKER_BUILDKIT": "1"}, stdin=archive)
        if done.code == 0:
            return
        said = done.text
        if "buildx" not in said:
            break
    raise EnvironmentFailure("The image cannot be built", why="\n".join(said.splitlines()[-_LINES:]), fix=_advice(said))


def _advice(said: str) -> str:
    return "The Dockerfile needs BuildKit: install Docker's buildx plugin." if "buildx" in said else ""


@contextlib.contextmanager
def _explained(what: str, fix: str = "", said: Sequence[str] = ()) -> Iterator[None]:
    """The SDK's errors in the user's words, after the last of what was said before."""
    try:
        import docker.errors
        import requests
    except ImportError as error:
        raise EnvironmentFailure(
            f"{what}: pulling and building need the docker SDK, which is not installed", fix="pip install 'runproj[docker]'"
        ) from error

    try:
        yield
    except docker.errors.APIError as error:
        raise EnvironmentFailure(what, why="\n".join([*said[-_LINES:], str(error.explanation or error)]), fix=fix) from error
    except (docker.errors.DockerException, requests.RequestException, _Said) as error:
        raise EnvironmentFailure(what, why="\n".join([*said[-_LINES:], str(error)]), fix=fix) from error


class _Said(Exception):
    """An error in the engine's stream of progress."""


def _pulling(name: str, events: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Progress of all layers together."""
    done: dict[str, int] = {}
    sizes: dict[str, int] = {}
    for event in events:
        if problem := event.get("error"):
            raise _Said(problem)
        detail = event.get("progressDetail") or {}
        if event.get("status") == "Downloading" and detail.get("total"):
            sizes[event["id"]], done[event["id"]] = detail["total"], detail.get("current", 0)
            yield f"pulling {name}: {sum(done.values()) / 1e6:.0f} of {sum(sizes.values()) / 1e6:.0f} MB"
        elif event.get("status") == "Download complete" and event.get("id") in sizes:
            done[event["id"]] = sizes[event["id"]]


def _building(events: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """What the build says, line by line."""
    for event in events:
        if problem := event.get("error"):
            raise _Said(problem)
        said = _COLOUR.sub("", str(event.get("stream") or ""))
        yield from filter(None, (line.strip() for line in said.splitlines()))
