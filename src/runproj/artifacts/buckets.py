"""The one door to fsspec: a few operations on the objects below a URL, with errors in the user's words."""

from __future__ import annotations

import contextlib
import datetime
import errno
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runproj.core.values import dataclass
from runproj.errors import NotFoundError, RunprojError, StorageError, UsageError

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

EXTRAS = {"s3": "s3", "gs": "gcs", "gcs": "gcs", "az": "azure", "abfs": "azure", "abfss": "azure"}
"""Schemes of URLs, and the extra of this package that each needs."""

_PIECE = 8 << 20
"""Bytes of a request when a large object is read or written in pieces."""

_TIMES = ("LastModified", "mtime", "updated", "last_modified", "created")
"""How the libraries call the time of an object."""


@dataclass(frozen=True)
class ObjectInfo:
    """An object: its key below the root, size in bytes, and seconds since it was stored; None where that is not known."""

    key: str
    size: int
    age: float | None


class Bucket:
    """Objects below `root`, which is `BUCKET/PREFIX`.  Keys are relative to it."""

    def __init__(self, system: AbstractFileSystem, scheme: str, root: str) -> None:
        self._system = system
        self._scheme = scheme
        self._root = root.strip("/")

    def list(self, folder: str) -> tuple[Sequence[str], Sequence[str]]:
        """Names of the folders and of the objects directly below a folder, whose key ends with `/`."""
        try:
            with self._told(folder, "list"):
                found = self._system.ls(self._full(folder).rstrip("/"), detail=True)
        except NotFoundError:
            return [], []
        names = [(str(entry["name"]).rstrip("/").rpartition("/")[2], entry["type"]) for entry in found]
        return [name for name, kind in names if kind == "directory"], [name for name, kind in names if kind == "file"]

    def find(self, prefix: str) -> Sequence[ObjectInfo]:
        """Every object whose key begins with `prefix`."""
        above, _, beginning = self._full(prefix).rpartition("/")
        given = {"prefix": beginning} if beginning else {}
        try:
            with self._told(prefix, "list"):
                found = self._system.find(above, detail=True, **given)
        except NotFoundError:
            return []
        infos = [self._info(entry) for entry in found.values() if entry["type"] == "file"]
        return [info for info in infos if info.key.startswith(prefix)]

    def info(self, key: str) -> ObjectInfo | None:
        try:
            with self._told(key, "look at"):
                return self._info(self._system.info(self._full(key)))
        except NotFoundError:
            return None

    def read(self, key: str, first: int, end: int) -> Iterator[bytes]:
        """The bytes from `first` up to `end`, in pieces.  Raises `NotFoundError`."""
        while first < end:
            with self._told(key, "read"):
                try:
                    data: bytes = self._system.cat_file(self._full(key), start=first, end=min(first + _PIECE, end))
                except OSError as error:
                    if error.errno != errno.EINVAL:  # "the range is not satisfiable": the object is shorter
                        raise
                    return
            if not data:
                return
            yield data
            first += len(data)

    def upload(self, source: Path, key: str, size: int) -> None:
        """Store a local file, in several pieces at once where it is large."""
        given: dict[str, object] = {}
        if self._scheme == "s3":
            given = {"chunksize": max(_PIECE, size // 9000), "max_concurrency": 4, "ContentType": "application/octet-stream"}
        elif self._scheme in ("gs", "gcs"):
            given = {"chunksize": _PIECE}
        with self._told(key, "write", StorageError):
            self._system.put_file(str(source), self._full(key), **given)

    def touch(self, key: str) -> None:
        """Store an empty object."""
        with self._told(key, "write", StorageError):
            self._system.pipe_file(self._full(key), b"")

    def remove(self, keys: Sequence[str]) -> None:
        """Remove objects; those that are gone already do not matter."""
        if keys:
            with contextlib.suppress(NotFoundError), self._told(keys[0], "remove"):
                self._system.rm([self._full(key) for key in keys])

    def drop_uploads(self, age: float) -> None:
        """Give up uploads in pieces that were begun longer than `age` seconds ago.  Only S3 keeps them until somebody does."""
        if self._scheme != "s3":
            return
        system: Any = self._system
        bucket, _, prefix = self._root.partition("/")
        with self._told(prefix, "list uploads of"):
            found = system.call_s3("list_multipart_uploads", Bucket=bucket, Prefix=prefix)
            for upload in found.get("Uploads", ()):
                if _age(upload["Initiated"]) > age:
                    system.call_s3("abort_multipart_upload", Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])

    def _full(self, key: str) -> str:
        return f"{self._root}/{key}"

    def _info(self, entry: Mapping[str, Any]) -> ObjectInfo:
        times = [entry[name] for name in _TIMES if entry.get(name)]
        key = str(entry["name"]).removeprefix(self._root + "/")
        return ObjectInfo(key, int(entry["size"] or 0), _age(times[0]) if times else None)

    @contextlib.contextmanager
    def _told(self, key: str, doing: str, missing: type[RunprojError] = NotFoundError) -> Iterator[None]:
        """Every library has errors of its own for the same few things that go wrong."""
        place = f"{self._scheme}://{self._full(key)}"
        try:
            yield
        except FileNotFoundError as error:
            raise missing(f"Cannot {doing} {place}", why=str(error) or "There is no such bucket or object.") from error
        except Exception as error:
            why = str(error).strip() or type(error).__name__
            raise StorageError(
                f"Cannot {doing} {place}", why=why, fix="Check the URL, the credentials and the connection."
            ) from error


def open_bucket(url: str, environ: Mapping[str, str]) -> Bucket:
    """The objects below a URL.  Raises `UsageError` where what its scheme needs is not installed."""
    scheme, _, root = url.partition("://")
    extra = EXTRAS[scheme]
    try:
        import fsspec

        system = fsspec.filesystem(scheme, skip_instance_cache=True, use_listings_cache=False, **_options(scheme, environ))
    except ImportError as error:
        raise UsageError(
            f"Artifacts at {scheme}:// need a package that is not installed",
            why=str(error),
            fix=f"pip install 'runproj[{extra}]'",
        ) from error
    return Bucket(system, scheme, root)


def _options(scheme: str, environ: Mapping[str, str]) -> dict[str, object]:
    """What the libraries do not read from the environment themselves."""
    if scheme != "s3":
        return {}
    named = ("MLFLOW_S3_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
    endpoint = next((environ[name] for name in named if environ.get(name)), None)
    verify = {"verify": False} if environ.get("MLFLOW_S3_IGNORE_TLS", "").lower() in ("1", "true") else {}
    return {"endpoint_url": endpoint, "client_kwargs": verify}


def _age(moment: datetime.datetime | str) -> float:
    if isinstance(moment, str):
        moment = datetime.datetime.fromisoformat(moment)
    return (_now() - moment.astimezone(datetime.UTC)).total_seconds()


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
