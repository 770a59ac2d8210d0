"""Ray's Jobs REST API: the calls that are needed, with its errors in our words.

Source: Ray's OpenAPI description of `/api/jobs/` (2.x); what it does beyond that was measured on Ray 2.60.  Ray's own client
would bring all of Ray, of the same version as the cluster's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from runproj.errors import BackendError

_TIMEOUT = 30.0
PACKAGE_LIMIT = 100 << 20
"""Bytes that the API takes as one package."""


@dataclass(frozen=True)
class RayJob:
    """A job as Ray tells of it.  status: PENDING, RUNNING, STOPPED, SUCCEEDED or FAILED;  `code`: of the entrypoint;

    submitted: when, in seconds since 1970.
    """

    id: str
    status: str
    message: str = ""
    code: int | None = None
    submitted: float = 0.0


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

    def log(self, job_id: str) -> str:
        """All that a job wrote by now."""
        return str(self._call("GET", f"/api/jobs/{quote(job_id, safe='')}/logs", missing={}).get("logs", ""))

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
        from http.client import HTTPException
        from urllib.error import HTTPError, URLError
        from urllib.request import Request, urlopen

        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        head = {"Content-Type": "application/octet-stream" if isinstance(body, bytes) else "application/json"}
        if self._token:
            head["Authorization"] = f"Bearer {self._token}"
        try:
            with urlopen(Request(self.address + target, data, head, method=method), timeout=_TIMEOUT) as answer:
                content = answer.read()
        except HTTPError as error:
            said = error.read().decode(errors="replace")
            if error.code == 404 and missing:
                return missing["missing"]
            raise self._refused(error.code, said) from None
        except (URLError, HTTPException, OSError) as error:
            raise BackendError(
                f"There is no Ray at {self.address}",
                why=str(getattr(error, "reason", error)),
                fix='Start one (`ray start --head`), or name its dashboard: --backend-config \'{"address": "http://HOST:8265"}\'.',
            ) from error
        try:
            return json.loads(content or b"{}")
        except ValueError:
            return {}

    def _refused(self, code: int, said: str) -> BackendError:
        if code in (401, 403):
            return BackendError(
                f"Ray at {self.address} lets nobody in without its token",
                why=said.strip()[:300],
                fix="Set RAY_AUTH_TOKEN, or RAY_AUTH_TOKEN_PATH to a file that holds it (`ray get-auth-token` prints it).",
            )
        lines = [line for line in said.strip().splitlines() if line.strip()]
        return BackendError(f"Ray at {self.address} answered {code}", why=(lines[-1] if lines else "")[:1000])


def _job(found: Mapping[str, Any]) -> RayJob:
    code = found.get("driver_exit_code")
    return RayJob(
        id=str(found.get("submission_id") or ""),
        status=str(found.get("status") or ""),
        message=str(found.get("message") or ""),
        code=code if isinstance(code, int) else None,
        submitted=(found.get("start_time") or 0) / 1000,
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
