"""Ray's Jobs REST API: the calls that are needed, with its errors in our words.

Source: Ray's OpenAPI description of `/api/jobs/` (2.x); what it does beyond that was measured on Ray 2.60.  Ray's own client
would bring all of Ray, of the same version as the cluster's.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode, urlsplit

from runproj.core.values import dataclass
from runproj.errors import BackendError
from runproj.files import explained

if TYPE_CHECKING:
    from http.client import HTTPResponse

_TIMEOUT = 30.0
PACKAGE_LIMIT = 100 << 20
"""Bytes that the API takes as one package."""


@dataclass(frozen=True)
class RayJob:
    """A job as Ray tells of it.  status: PENDING, RUNNING, STOPPED, SUCCEEDED or FAILED;  `code`: of the entrypoint;

    submitted, ended: when, in seconds since 1970;  node: that it runs on, when that is decided.
    """

    id: str
    status: str
    message: str = ""
    code: int | None = None
    submitted: float = 0.0
    ended: float = 0.0
    node: str = ""


class _Refused(BackendError):
    """Ray's answer is an error."""

    def __init__(self, code: int, what: str, *, why: str = "", fix: str = "") -> None:
        super().__init__(what, why=why, fix=fix)
        self.code = code


class RayApi:
    """A Ray cluster's head.  address: that of its dashboard;  token: of a cluster that asks for one."""

    def __init__(self, address: str, token: str = "") -> None:
        self.address, self._token = _http(address), token

    def version(self) -> str:
        """The version of Ray."""
        return str(self._call("GET", "/api/version").get("ray_version", ""))

    def submit(self, job_id: str, body: Mapping[str, Any]) -> None:
        """Submit a job.  One that is there already is the same job."""
        try:
            self._call("POST", "/api/jobs/", {**body, "submission_id": job_id})
        except BackendError:
            if self.job(job_id) is None:
                raise

    def job(self, job_id: str) -> RayJob | None:
        """A job; None where Ray does not know it."""
        found = self._call("GET", f"/api/jobs/{quote(job_id, safe='')}", missing={})
        return _job(found) if found else None

    def jobs(self) -> list[RayJob]:
        """All jobs that were submitted, in one question."""
        found = self._call("GET", "/api/jobs/")
        return [_job(one) for one in found if one.get("submission_id")]

    def stop(self, job_id: str) -> None:
        """Have a running job stopped.  One that waits is not, whatever Ray answers."""
        self._call("POST", f"/api/jobs/{quote(job_id, safe='')}/stop", missing={})

    def has_file(self, node: str, name: str) -> bool:
        """Whether a node has a file below the folder of its logs."""
        return next(self.read(node, name), None) is not None

    def file(self, node: str, name: str, into: Path) -> bool:
        """Fetch a file below the folder of a node's logs; False where it is not there, or the node is not any more."""
        found = self.read(node, name)
        first = next(found, None)
        if first is None:
            return False
        with explained(into), into.open("wb") as file:
            file.write(first)
            file.writelines(found)
        return True

    def read(self, node: str, name: str, *, live: bool = False) -> Iterator[bytes]:
        """The bytes of a file below the folder of a node's logs, nothing where it is not there.

        live: what is written to it later too, for ever.
        """
        query = urlencode({"node_id": node, "filename": name, "lines": -1, "timeout": 3600})
        try:
            with self._open(
                "GET", f"/api/v0/logs/{'stream' if live else 'file'}?{query}", waits=None if live else _TIMEOUT
            ) as answer:
                while data := answer.read1(1 << 16):
                    yield data
        except _Refused as error:
            if error.code < 500 and error.code != 404:
                raise

    def upload(self, name: str, path: Path) -> str:
        """Store a package, if it is not there yet; returns its URI.  Raises `BackendError` for one that is too large."""
        size = path.stat().st_size
        if size > PACKAGE_LIMIT:
            raise BackendError(
                f"What the job needs has {size >> 20} MiB, and Ray takes {PACKAGE_LIMIT >> 20} MiB",
                why="The node does not see this home, so the code goes there as a package.",
                fix="Leave large files out of the repository, or run where the nodes see RUNPROJ_HOME.",
            )
        target = f"/api/packages/gcs/{quote(name)}"
        if self._call("GET", target, missing=None) is None:
            self._call("PUT", target, path.read_bytes())
        return f"gcs://{name}"

    def _call(self, method: str, target: str, body: Mapping[str, Any] | bytes | None = None, **missing: Any) -> Any:
        """The answer.  missing: what stands for one that is not there, where that is no error."""
        try:
            with self._open(method, target, body) as answer:
                content = answer.read()
        except _Refused as error:
            if error.code == 404 and missing:
                return missing["missing"]
            raise
        try:
            return json.loads(content or b"{}")
        except ValueError:
            return {}

    @contextlib.contextmanager
    def _open(
        self, method: str, target: str, body: Mapping[str, Any] | bytes | None = None, waits: float | None = _TIMEOUT
    ) -> Iterator[HTTPResponse]:
        """An answer, to be read.  waits: seconds between two parts of it.  Raises `BackendError`, also while it is read."""
        from http.client import HTTPException
        from urllib.error import HTTPError, URLError
        from urllib.request import Request, urlopen

        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        head = {"Content-Type": "application/octet-stream" if isinstance(body, bytes) else "application/json"}
        if self._token:
            head["Authorization"] = f"Bearer {self._token}"
        try:
            with urlopen(Request(self.address + target, data, head, method=method), timeout=waits) as answer:
                yield answer
        except HTTPError as error:
            said = error.read().decode(errors="replace")
            raise self._refused(error.code, said) from None
        except (URLError, HTTPException, OSError) as error:
            raise BackendError(
                f"There is no Ray at {self.address}",
                why=str(getattr(error, "reason", error)),
                fix='Start one (`ray start --head`), or name its dashboard: --backend-config \'{"address": "http://HOST:8265"}\'.',
            ) from error

    def _refused(self, code: int, said: str) -> _Refused:
        if code in (401, 403):
            return _Refused(
                code,
                f"Ray at {self.address} lets nobody in without its token",
                why=said.strip()[:300],
                fix="Set RAY_AUTH_TOKEN, or RAY_AUTH_TOKEN_PATH to a file that holds it (`ray get-auth-token` prints it).",
            )
        lines = [line for line in said.strip().splitlines() if line.strip()]
        return _Refused(code, f"Ray at {self.address} answered {code}", why=(lines[-1] if lines else "")[:1000])


def _job(found: Mapping[str, Any]) -> RayJob:
    code = found.get("driver_exit_code")
    return RayJob(
        id=str(found.get("submission_id") or ""),
        status=str(found.get("status") or ""),
        message=str(found.get("message") or ""),
        code=code if isinstance(code, int) else None,
        submitted=(found.get("start_time") or 0) / 1000,
        ended=(found.get("end_time") or 0) / 1000,
        node=str(found.get("driver_node_id") or ""),
    )


def _http(address: str) -> str:
    """The dashboard's address of what people write.  Raises `BackendError` for Ray's other protocols."""
    text = address if "://" in address else f"http://{address}"
    if urlsplit(text).scheme not in ("http", "https"):
        raise BackendError(
            f"{address!r} is not the address of a Ray dashboard",
            why="Jobs are submitted to its HTTP port, 8265 unless the cluster says otherwise.",
            fix='Name it: --backend-config \'{"address": "http://HOST:8265"}\'.',
        )
    return text.rstrip("/")
