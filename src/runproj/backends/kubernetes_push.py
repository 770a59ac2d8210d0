"""Images that only this machine's Docker engine has, in a registry that the cluster reaches: one for each environment."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from runproj import dockersdk
from runproj import engine as engines
from runproj.errors import BackendError

_NAME = "runproj-env"


def pushed(image: str, registry: str, environ: Mapping[str, str], tell: Callable[[str], None]) -> str:
    """The name by digest of an image after it has been pushed; layers that are there are not sent again.

    image: by the engine's id;  registry: with a path, if it has one: "registry.example.org/ml".  Raises `BackendError`.
    """
    where = engines.find(environ)
    try:
        import docker.errors
        import requests
    except ImportError:
        raise BackendError("Pushing an image needs the docker SDK", fix="pip install 'runproj[docker]'") from None
    repository, tag, digest = f"{registry.rstrip('/')}/{_NAME}", image.rpartition(":")[2][:32], ""
    tell(f"pushing the image of the environment to {repository}")
    try:
        client = dockersdk.connected(where)
        client.tag(image, repository, tag)
        for event in client.push(repository, tag, stream=True, decode=True):
            if "error" in event:
                raise docker.errors.DockerException(event["error"])
            digest = (event.get("aux") or {}).get("Digest") or digest
    except (docker.errors.DockerException, requests.RequestException) as error:
        fix = "Check its name, and `docker login`."
        raise BackendError(f"The image cannot be pushed to {repository}", why=str(error)[:1000], fix=fix) from error
    finally:
        tell("")
    if not digest:
        raise BackendError(
            f"The image was pushed to {repository}, and the engine does not say by which digest", fix="Push it by hand."
        )
    return f"{repository}@{digest}"
