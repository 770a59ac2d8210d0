"""The docker SDK: it knows the user's credentials for registries.  An extra, slow to import, and so used for nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runproj.engine import Where

if TYPE_CHECKING:
    import docker


def connected(where: Where) -> docker.APIClient:
    """A client of an engine.  Raises `ImportError`, and errors of docker's and requests'."""
    import docker

    tls: Any = False
    if folder := where.certificates:
        pair = (f"{folder}/cert.pem", f"{folder}/key.pem")
        tls = docker.tls.TLSConfig(client_cert=pair, ca_cert=f"{folder}/ca.pem", verify=True)
    return docker.APIClient(base_url=where.url, tls=tls, version="auto", timeout=600)
