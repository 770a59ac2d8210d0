"""Artifacts behind a server that speaks MLflow's protocol: through its proxy, or in the folder it shares with this machine."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from urllib.parse import quote, urlsplit

from runproj.artifacts.direct import PROXIED, local_path
from runproj.artifacts.files import inside, put, split
from runproj.artifacts.folder import Folder
from runproj.artifacts.large import LARGE, fetch, send_in_parts
from runproj.core.run import Run
from runproj.core.tracking import ArtifactInfo
from runproj.errors import NotFoundError, StorageError, TrackingError
from runproj.files import explained
from runproj.remote import Document, Remote


class HttpArtifacts:
    """An `ArtifactStore` of the runs on a server."""

    def __init__(self, remote: Remote) -> None:
        self.remote = remote

    def put(self, run: Run, source: Path, path: str) -> None:
        inside(path)
        if folder := _shared(run):
            put(folder, source, path)
            return
        target = f"{self._prefix(run)}/{path}"
        with explained(source, "read"), source.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size < LARGE or not self._takes_parts or not send_in_parts(self.remote, file, size, target):
                self.remote.upload(target, file, size)

    def adopt(self, run: Run, source: Path, path: str) -> None:
        if folder := _shared(run):
            folder.adopt(source, path)
            return
        self.put(run, source, path)
        source.unlink(missing_ok=True)

    def get(self, run: Run, path: str, into: Path) -> None:
        inside(path)
        temporary = into.with_name(f".{os.urandom(8).hex()}.tmp")
        try:
            with explained(into), temporary.open("wb") as target:
                if folder := _shared(run):
                    with folder.reading(path) as source:
                        for data in source.chunks():
                            target.write(data)
                else:
                    fetch(self.remote, f"{self._prefix(run)}/{path}", target)
            temporary.replace(into)
        finally:
            temporary.unlink(missing_ok=True)

    def list(self, run: Run, path: str = "") -> Sequence[ArtifactInfo]:
        split(path)
        if folder := _shared(run):
            return folder.list(path)
        found: list[ArtifactInfo] = []
        token = None
        while True:
            page = self._page(run, path, token)
            files = page.get("files")
            for item in files if isinstance(files, list) else ():
                size = None if item.get("is_dir") else int(item.get("file_size") or 0)
                found.append(ArtifactInfo(str(item.get("path")), size))
            token = str(page.get("next_page_token") or "") or None
            if token is None:
                return sorted((info for info in found if info.path != path), key=lambda info: info.path)

    def _page(self, run: Run, path: str, token: str | None) -> Document:
        return self.remote.get("artifacts/list", run_id=run.id, path=path or None, page_token=token)

    @cached_property
    def _takes_parts(self) -> bool:
        """Whether the server takes files in parts; one that is asked in vain does not."""
        try:
            return bool(self.remote.call("GET", "/api/3.0/mlflow/server-info").get("multipart_uploads_enabled"))
        except (TrackingError, NotFoundError):
            return False

    def _prefix(self, run: Run) -> str:
        """Where the run's files are in the server's proxied store.  Raises `StorageError` where they are not in it."""
        parts = urlsplit(run.artifact_uri)
        if run.artifact_uri.startswith(PROXIED) and parts.netloc in (
            "",
            self.remote.host,
            f"{self.remote.host}:{self.remote.port}",
        ):
            return parts.path.strip("/")
        raise StorageError(
            f"The artifacts of run {run.id} are kept at {parts.scheme}://{parts.hostname or ''}, which runproj cannot reach",
            fix="Let the server proxy them (`mlflow server --serve-artifacts`), or record locally (unset MLFLOW_TRACKING_URI).",
        )


class HttpModelArtifacts(HttpArtifacts):
    """As `HttpArtifacts`, of logged models: a "run" here has the id and the place of one."""

    def _page(self, run: Run, path: str, token: str | None) -> Document:
        call = f"logged-models/{quote(run.id, safe='')}/artifacts/directories"
        return self.remote.get(call, artifact_directory_path=path or None, page_token=token)


def _shared(run: Run) -> Folder | None:
    """The run's folder, where the server keeps artifacts in a file system and this machine has it too."""
    path = local_path(run.artifact_uri)
    return None if path is None else Folder(path)
