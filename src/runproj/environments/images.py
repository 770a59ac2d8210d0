"""Images from registries, through the docker SDK: it knows the user's credentials, helpers and contexts."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from runproj.core.environment import Progress
from runproj.engine import Where
from runproj.errors import EnvironmentFailure

if TYPE_CHECKING:
    import docker


class Images:
    """The engine's images.  `environ` says where the user's configuration is."""

    def __init__(self, where: Where, environ: Mapping[str, str]) -> None:
        self._where = where
        self._environ = environ

    @cached_property
    def _client(self) -> docker.APIClient:
        try:
            import docker
        except ImportError as error:
            raise EnvironmentFailure(
                "Pulling and building images needs the docker SDK, which is not installed", fix="pip install 'runproj[docker]'"
            ) from error
        tls: Any = False
        if folder := self._where.certificates:
            pair = (f"{folder}/cert.pem", f"{folder}/key.pem")
            tls = docker.tls.TLSConfig(client_cert=pair, ca_cert=f"{folder}/ca.pem", verify=True)
        with _explained("The Docker engine cannot be used"):
            return docker.APIClient(base_url=self._where.url, tls=tls, version="auto", timeout=600)

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


@contextlib.contextmanager
def _explained(what: str, fix: str = "") -> Iterator[None]:
    """The SDK's errors in the user's words."""
    import docker.errors
    import requests

    try:
        yield
    except docker.errors.APIError as error:
        raise EnvironmentFailure(what, why=str(error.explanation or error), fix=fix) from error
    except (docker.errors.DockerException, requests.RequestException, _Said) as error:
        raise EnvironmentFailure(what, why=str(error), fix=fix) from error


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
