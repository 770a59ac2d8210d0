"""The Docker engine's own protocol, as far as running a container needs it: requests over its socket, in some 5 ms of import.

The engine speaks HTTP.  Requests here are HTTP/1.0, whose answers end with their connection, so that nothing needs decoding.
Credentials, pulling and building belong to the docker SDK (`environments/images.py`), which takes 0.14 s to import.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket

TYPE_CHECKING = False  # what the container's guard imports, each run pays for
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import IO, Any

    from runproj.errors import RunprojError

DEFAULT = "unix:///var/run/docker.sock"
_KEPT_ALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 6),
)
"""Of a connection over a network: an engine whose machine vanishes without a word is away after 90 s, not for ever."""


class Where:
    """How the engine is reached.  `certificates`: folder with ca.pem, cert.pem and key.pem, for `tcp://` with TLS."""

    def __init__(self, url: str = DEFAULT, certificates: str = "") -> None:
        self.url = url
        self.certificates = certificates

    @property
    def rootless(self) -> bool:
        """Whether the engine runs as the caller: then root in a container is the caller outside."""
        try:
            owner = os.stat(self.url.removeprefix("unix://")).st_uid  # noqa: PTH116 - pathlib is not worth its import
        except OSError:
            return False
        return owner != 0 and owner == os.getuid()


class EngineError(Exception):
    """The engine answered no.  `status` is HTTP's; `message` the engine's own words."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class EngineAway(Exception):
    """Nobody answers."""


def find(environ: Mapping[str, str]) -> Where:
    """The engine that `docker` would use: DOCKER_HOST, else the context that was chosen, else the socket of this machine."""
    config = environ.get("DOCKER_CONFIG") or os.path.join(environ.get("HOME", ""), ".docker")  # noqa: PTH118
    if url := environ.get("DOCKER_HOST"):
        certificates = environ.get("DOCKER_CERT_PATH") or config
        return _known(Where(url, certificates if environ.get("DOCKER_TLS_VERIFY") else ""))
    name = environ.get("DOCKER_CONTEXT") or _read(config, "config.json").get("currentContext") or "default"
    if name == "default":
        return Where()
    import hashlib

    digest = hashlib.sha256(name.encode()).hexdigest()
    endpoint = (_read(config, "contexts", "meta", digest, "meta.json").get("Endpoints") or {}).get("docker") or {}
    if not endpoint.get("Host"):
        from runproj.errors import BackendError

        raise BackendError(f"There is no Docker context {name!r}", fix="`docker context ls` shows those there are.")
    keys = os.path.join(config, "contexts", "tls", digest, "docker")  # noqa: PTH118
    return _known(Where(endpoint["Host"], keys if os.path.isdir(keys) else ""))  # noqa: PTH112


def _known(where: Where) -> Where:
    if not where.url.startswith(("unix://", "tcp://")):
        from runproj.errors import BackendError

        raise BackendError(
            f"The Docker engine at {where.url} cannot be used",
            why="runproj speaks to engines by unix:// and tcp:// only.",
            fix=_forwarded(where.url.removeprefix("ssh://")) if where.url.startswith("ssh://") else "",
        )
    return where


def _forwarded(host: str) -> str:
    """How to have the socket of an engine that is reached by ssh on this machine."""
    port = ""
    if ":" in host:
        host, _, number = host.rstrip("/").rpartition(":")
        port = f"-p {number} "
    line = f"ssh -fNT -o ExitOnForwardFailure=yes -L $HOME/docker.sock:/var/run/docker.sock {port}{host}"
    return f"Bring its socket here: `{line}`, then export DOCKER_HOST=unix://$HOME/docker.sock"


def _read(*path: str) -> dict[str, Any]:
    try:
        with open(os.path.join(*path), encoding="utf-8") as file:  # noqa: PTH118, PTH123
            found = json.load(file)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


class Engine:
    """Requests to one engine, each with a connection of its own."""

    PATIENCE = 60.0
    """Seconds that the engine may be silent."""

    def __init__(self, where: Where) -> None:
        self.where = where

    def get(self, path: str, **query: object) -> Any:
        return self.ask("GET", path, query)

    def post(self, path: str, body: object = None, **query: object) -> Any:
        return self.ask("POST", path, query, body)

    def delete(self, path: str, **query: object) -> Any:
        return self.ask("DELETE", path, query)

    def ask(self, method: str, path: str, query: Mapping[str, object], body: object = None) -> Any:
        """The engine's answer, parsed; None for an empty one.  Raises `EngineError`, `EngineAway`."""
        with self.send(method, path, query, body) as link:
            return self.answer(link)

    def send(self, method: str, path: str, query: Mapping[str, object], body: object = None) -> socket.socket:
        """A connection on which the answer to a request will come.  Raises `EngineAway`."""
        content = b"" if body is None else json.dumps(body).encode()
        link = self.connect(self.PATIENCE)
        try:
            link.sendall(_head(method, path, query, len(content)) + content)
        except OSError as error:
            link.close()
            raise EngineAway(str(error)) from error
        return link

    @staticmethod
    def answer(link: socket.socket) -> Any:
        """What comes on a connection until it ends.  Raises `EngineError`, `EngineAway`."""
        try:
            whole = b"".join(iter(lambda: link.recv(1 << 16), b""))
        except OSError as error:
            raise EngineAway(str(error)) from error
        head, _, rest = whole.partition(b"\r\n\r\n")
        if (status := _status(head)) >= 400:
            raise EngineError(status, _message(rest))
        return json.loads(rest) if rest.strip() else None

    @staticmethod
    def head(link: socket.socket) -> None:
        """Read the head of an answer, and nothing of what follows it.  Raises `EngineError`, `EngineAway`."""
        found = b""
        while not found.endswith(b"\r\n\r\n"):
            byte = link.recv(1)
            if not byte:
                raise EngineAway("the connection ended")
            found += byte
        if (status := _status(found)) >= 400:
            raise EngineError(status, _message(link.recv(1 << 16)))

    def upload(
        self, link: socket.socket, path: str, query: Mapping[str, object], file: IO[bytes], length: int, method: str = "POST"
    ) -> None:
        """Send a file on a connection, and read the head of the answer.  Raises `EngineError`, `EngineAway`."""
        link.sendall(_head(method, path, query, length))
        with contextlib.suppress(BrokenPipeError):  # an answer that came before all was sent says why
            link.sendfile(file)
        self.head(link)

    def attach(self, container: str) -> socket.socket:
        """A connection on which the container's output comes, in frames: stream, 3 zeros, 4 bytes of length, data."""
        query = {"stream": 1, "stdout": 1, "stderr": 1}
        upgrade = "Connection: Upgrade\r\nUpgrade: tcp\r\n"
        link = self.connect(self.PATIENCE)
        try:
            link.sendall(_head("POST", f"/containers/{container}/attach", query, 0, "1.1", upgrade))
            self.head(link)
            link.settimeout(None)
        except BaseException as error:
            link.close()
            if isinstance(error, OSError):
                raise EngineAway(str(error)) from error
            raise
        return link

    def connect(self, wait: float | None) -> socket.socket:
        """A connection to the engine.  Raises `EngineAway`."""
        try:
            if self.where.url.startswith("unix://"):
                link = socket.socket(socket.AF_UNIX)
                link.settimeout(wait)
                link.connect(self.where.url.removeprefix("unix://"))
                return link
            host, _, port = self.where.url.removeprefix("tcp://").rstrip("/").rpartition(":")
            plain = socket.create_connection((host.strip("[]"), int(port)), timeout=wait)
            for level, option, value in _KEPT_ALIVE:
                plain.setsockopt(level, option, value)
            return self._secured(plain, host) if self.where.certificates else plain
        except (OSError, ValueError) as error:
            raise EngineAway(getattr(error, "strerror", None) or str(error)) from error

    def _secured(self, plain: socket.socket, host: str) -> socket.socket:
        import ssl

        folder = self.where.certificates
        context = ssl.create_default_context(cafile=f"{folder}/ca.pem")
        context.load_cert_chain(f"{folder}/cert.pem", f"{folder}/key.pem")
        return context.wrap_socket(plain, server_hostname=host.strip("[]"))


def segment(name: str) -> str:
    """An image's name as part of a path, its slashes kept."""
    return "/".join(_quoted(part) for part in name.split("/"))


def _head(method: str, path: str, query: Mapping[str, object], length: int, version: str = "1.0", extra: str = "") -> bytes:
    text = "&".join(f"{name}={_quoted(str(value))}" for name, value in query.items())
    return (
        f"{method} {path}{'?' if text else ''}{text} HTTP/{version}\r\nHost: docker\r\nContent-Type: application/json\r\n"
        f"Content-Length: {length}\r\n{extra}\r\n"
    ).encode()


def _quoted(text: str) -> str:
    """A value for a URL's query (`urllib.parse.quote`, without its import)."""
    return "".join(chr(byte) if chr(byte).isalnum() and byte < 128 else f"%{byte:02X}" for byte in text.encode())


def _status(head: bytes) -> int:
    words = head.split(None, 2)
    if len(words) < 2 or not words[0].startswith(b"HTTP/") or not words[1].isdigit():
        raise EngineAway("whoever answers is no Docker engine")
    return int(words[1])


def _message(body: bytes) -> str:
    try:
        return str(json.loads(body)["message"]).strip()
    except (ValueError, KeyError, TypeError):
        return body.decode(errors="replace").strip()


def filters(**wanted: Iterable[str]) -> str:
    """The engine's way to say which of many."""
    return json.dumps({name: list(values) for name, values in wanted.items()})


def unreachable(where: Where, error: EngineAway) -> RunprojError:
    """Why there is no engine, and what to do, for people."""
    from runproj.errors import BackendError

    why = f"{where.url}: {error}"
    if "Permission denied" in str(error):
        return BackendError(
            "The Docker engine does not let you in",
            why=why,
            fix="Have yourself added to the group of its socket (`sudo usermod -aG docker $USER`, then log in anew), "
            "or use rootless Docker.",
        )
    return BackendError(
        "There is no Docker engine",
        why=why,
        fix="Start it (`sudo systemctl start docker`), or say where it is with DOCKER_HOST.",
    )
