"""Large files to and from a server: a download goes on where its connection broke off, an upload goes in parts where it can."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import time
from base64 import b64decode
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote, urlsplit

from runproj.artifacts.files import CHUNK
from runproj.errors import DamagedError, RunprojError, TrackingError
from runproj.files import explained
from runproj.remote import Remote, UnreachableError

LARGE = 64 << 20
"""Bytes from which a file is sent in parts."""

_PART = 8 << 20
_AT_ONCE = 4
_PAUSES = (0.25, 1.0, 3.0, 10.0)  # seconds before a further attempt; from the start again when bytes have arrived
_MPU = "/api/2.0/mlflow-artifacts/mpu"


class _Download:
    """A file as far as it has arrived."""

    def __init__(self, remote: Remote, path: str, target: BinaryIO) -> None:
        self.remote, self.path, self.target = remote, path, target
        self.have = 0
        self._tag = ""
        self._expected = b""
        self._digest = hashlib.sha256()

    def attempt(self) -> bool:
        """Fetch what is missing; whether that is the whole file now.  Raises `UnreachableError` where the connection breaks."""
        headers = {"Range": f"bytes={self.have}-", "If-Range": self._tag} if self.have and self._tag else {}
        with self.remote.download(self.path, headers) as answer:
            if answer.status != 206:
                self._begin_again()
            self._tag = _strong(answer.headers.get("ETag", ""))
            self._expected = told_sha256(answer.headers.get("Repr-Digest", ""))
            length = answer.headers.get("Content-Length")
            total = None if length is None else self.have + int(length)
            while data := answer.read(CHUNK):
                with explained(Path(str(self.target.name))):
                    self.target.write(data)
                self._digest.update(data)
                self.have += len(data)
        return total is None or self.have == total

    def check(self) -> None:
        """Raises `DamagedError` where the file is not what the server says it is."""
        if self._expected and self._digest.digest() != self._expected:
            raise DamagedError(
                f"The artifact {self.path!r} is damaged",
                why=f"Its sha256 is {self._digest.hexdigest()}, not {self._expected.hex()}.",
                fix="Fetch it again; if that does not help, it is damaged on the server.",
            )

    def _begin_again(self) -> None:
        self.target.seek(0)
        self.target.truncate()
        self.have = 0
        self._digest = hashlib.sha256()


def fetch(remote: Remote, path: str, target: BinaryIO) -> None:
    """Write the file at `path` of the server's artifact store to `target`, as a whole."""
    download = _Download(remote, path, target)
    failures = 0
    while True:
        before = download.have
        broken: TrackingError
        try:
            if download.attempt():
                download.check()
                return
            broken = TrackingError(f"The server {remote.shown} ended its answer before the end of {path!r}")
        except UnreachableError as error:
            broken = error
        failures = 1 if download.have > before else failures + 1
        if failures > len(_PAUSES):
            raise broken
        time.sleep(_PAUSES[failures - 1])


def send_in_parts(remote: Remote, file: BinaryIO, size: int, path: str) -> bool:
    """Store an open file at `path`, several parts at once; one that fails is repeated.  False where the server takes no parts."""
    folder, _, name = path.rpartition("/")
    step = max(_PART, -(-size // 9_000))
    place, message = quote(folder), {"path": name}
    try:
        created = remote.call("POST", f"{_MPU}/create/{place}", {**message, "num_parts": -(-size // step)})
    except TrackingError:
        return False
    upload = {**message, "upload_id": str(created.get("upload_id"))}
    targets = _targets(created.get("credentials"))
    if not targets:
        remote.call("POST", f"{_MPU}/abort/{place}", upload)
        return False
    try:
        tags = _send_all(remote, file.fileno(), targets, step)
        parts = [{"part_number": number, "etag": tag} for number, tag in enumerate(tags, start=1)]
        remote.call("POST", f"{_MPU}/complete/{place}", {**upload, "parts": parts})
    except BaseException:
        with contextlib.suppress(RunprojError):
            remote.call("POST", f"{_MPU}/abort/{place}", upload)
        raise
    return True


def _send_all(remote: Remote, file: int, targets: list[str], step: int) -> list[str]:
    from concurrent.futures import ThreadPoolExecutor

    def send(index: int) -> str:
        return remote.put(targets[index], os.pread(file, step, index * step))

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        try:
            return list(pool.map(send, range(len(targets))))
        except RunprojError:
            pool.shutdown(cancel_futures=True)
            raise


def _targets(credentials: object) -> list[str]:
    """Where the parts go, on the server itself; empty where they would go elsewhere, with credentials that are not ours."""
    found = []
    for item in credentials if isinstance(credentials, list) else ():
        path = urlsplit(str(item.get("url"))).path
        if f"{_MPU}/parts/" not in path:
            return []
        found.append(f"{_MPU}/parts/{path.partition(f'{_MPU}/parts/')[2]}")
    return found


def _strong(tag: str) -> str:
    return "" if tag.startswith("W/") else tag


def told_sha256(header: str) -> bytes:
    """The hash in a `Repr-Digest` header; empty where there is none."""
    found = re.search(r"sha-256=:([A-Za-z0-9+/=]+):", header)
    return b64decode(found.group(1)) if found else b""
