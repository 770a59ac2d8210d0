"""The zip around a capsule: written in one pass with a sha256 for each file, and read as what it is, a file from a stranger."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import zipfile
import zlib
from collections.abc import Iterator
from glob import escape
from pathlib import Path
from typing import IO

from runproj import proc
from runproj.codec import DocumentError, from_json, to_json
from runproj.core.capsule import CAPSULE_VERSION, MANIFEST, Manifest, PackedFile
from runproj.errors import DamagedError, StorageError, UsageError
from runproj.files import explained, sync_folder

CHUNK = 1 << 20
PROVENANCE = "provenance.json"
ENVELOPE = "provenance.dsse.json"
OUTSIDE = frozenset((MANIFEST, PROVENANCE, ENVELOPE))
"""Files that the manifest cannot name: itself, and what is said about it."""

_WHEN = (1980, 1, 1, 0, 0, 0)
_MOST_FILES = 1_000_000
_MOST_TEXT = 256 * 1024 * 1024
"""Bytes of a document that is read at once."""
_RATIO = 200
_SMALL = 64 * 1024 * 1024
"""Bytes that a capsule may always unpack to; more only up to `_RATIO` times its size."""
_PACKED = (".json", ".jsonl", ".toml", ".log", ".patch", ".html", ".md", ".txt", ".csv")
_SQUEEZED = 16 * 1024 * 1024
"""Bytes above which nothing is compressed: it costs more time than a disk does."""


class Writer:
    """Writes a capsule beside its place, and moves it there when it is complete."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._beside = path.with_name(f".{path.name}.{os.getpid()}.part")
        self.files: list[PackedFile] = []

    def __enter__(self) -> Writer:
        with explained(self.path):
            for left in self.path.parent.glob(f".{escape(self.path.name)}.*.part"):  # of exporters that were killed
                owner = left.name.split(".")[-2]
                if owner.isdigit() and proc.start_time(int(owner)) is None:
                    left.unlink(missing_ok=True)
            self._zip = zipfile.ZipFile(self._beside, "x", allowZip64=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            with explained(self.path):
                self._zip.close()
                if kind is None:
                    with self._beside.open("rb") as file:
                        os.fsync(file.fileno())
                    os.replace(self._beside, self.path)
                    sync_folder(self.path.parent)
        finally:
            self._beside.unlink(missing_ok=True)

    def add(self, name: str, source: Path) -> PackedFile:
        """Take in a file, in bounded memory."""
        with explained(source, "read"), source.open("rb") as content:
            return self._add(name, content, os.fstat(content.fileno()).st_size)

    def text(self, name: str, text: str | bytes) -> PackedFile:
        """Take in a text."""
        import io

        data = text.encode() if isinstance(text, str) else text
        return self._add(name, io.BytesIO(data), len(data))

    def _add(self, name: str, content: IO[bytes], size: int) -> PackedFile:
        info = zipfile.ZipInfo(name, _WHEN)
        info.external_attr = (stat.S_IFREG | 0o644) << 16
        info.compress_type = zipfile.ZIP_DEFLATED if name.endswith(_PACKED) and size < _SQUEEZED else zipfile.ZIP_STORED
        info.file_size = size
        whole, written = hashlib.sha256(), 0
        with explained(self.path), self._zip.open(info, "w", force_zip64=size >= 1 << 31) as target:
            while data := content.read(CHUNK):
                whole.update(data)
                written += len(data)
                target.write(data)
        packed = PackedFile(name, written, whole.hexdigest())
        if name not in OUTSIDE:
            self.files.append(packed)
        return packed


class Reader:
    """An opened capsule whose names, kinds and sizes have been looked at; nothing of it has been believed yet."""

    def __init__(self, path: Path, file: IO[bytes], archive: zipfile.ZipFile) -> None:
        self.path = path
        self._file = file
        self._zip = archive
        self._infos = {info.filename: info for info in archive.infolist()}
        text = self.read(MANIFEST)
        self.sha256 = hashlib.sha256(text).hexdigest()
        self.manifest = _manifest(text, path)
        self.files = {packed.path: packed for packed in self.manifest.files}
        self._agree()

    def _agree(self) -> None:
        """The directory of the zip and the manifest name the same files of the same sizes."""
        if len(self.files) != len(self.manifest.files) or set(self.files) != set(self._infos) - OUTSIDE:
            odd = sorted(set(self.files) ^ (set(self._infos) - OUTSIDE))
            raise _refused(self.path, f"The manifest does not agree with what is there: {', '.join(odd[:5]) or 'double names'}.")
        for packed in self.files.values():
            if packed.size != self._infos[packed.path].file_size:
                raise _refused(self.path, f"{packed.path} does not have the size that the manifest says.")

    def has(self, name: str) -> bool:
        return name in self._infos

    def read(self, name: str) -> bytes:
        """A document, whole.  Raises `StorageError`."""
        if name not in self._infos:
            raise _refused(self.path, f"It has no {name}.")
        size = self._infos[name].file_size
        if size > _MOST_TEXT:
            raise _refused(self.path, f"{name} is too large for what it is.")
        return b"".join(self.chunks(name))

    def chunks(self, name: str) -> Iterator[bytes]:
        """The content of a file, no more of it than its size says.  A file of the manifest is checked when it ends."""
        info = self._infos[name]
        left, whole = info.file_size, hashlib.sha256()
        with _readable(self.path), self._zip.open(info) as content:
            while data := content.read(CHUNK):
                left -= len(data)
                if left < 0:
                    raise _refused(self.path, f"{name} unpacks to more than the directory says.")
                whole.update(data)
                yield data
        expected = self.files[name].sha256 if name not in OUTSIDE else whole.hexdigest()
        if left or whole.hexdigest() != expected:
            raise DamagedError(
                f"{name} of {self.path} is not what was packed",
                why=f"Its sha256 is {whole.hexdigest()}, the manifest says {expected}.",
                fix="Get the capsule again.",
            )

    def extract(self, name: str, into: Path) -> None:
        """Write a file of the manifest to `into`, which does not exist; checked."""
        with explained(into):
            into.parent.mkdir(parents=True, exist_ok=True)
            with into.open("xb") as file:
                for data in self.chunks(name):
                    file.write(data)

    def verify(self) -> None:
        """Read everything once.  Raises `DamagedError` for the first file that is not what the manifest says."""
        for name in self.files:
            for _ in self.chunks(name):
                pass


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Reader]:
    """A capsule to be read.  Raises `UsageError` where there is none, `StorageError` for one that no exporter made."""
    if not path.is_file():
        raise UsageError(f"There is no {path}", fix="Check the path.")
    with explained(path, "read"), path.open("rb") as file, _readable(path), zipfile.ZipFile(file) as archive:
        _vet(archive, os.fstat(file.fileno()).st_size, path)
        yield Reader(path, file, archive)


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, UnicodeError) as error:
        raise _refused(path, f"It cannot be read as a zip file: {error}") from None


def _vet(archive: zipfile.ZipFile, size: int, path: Path) -> None:
    """Look at every entry before any is read."""
    infos = archive.infolist()
    if len(infos) > _MOST_FILES:
        raise _refused(path, f"It has {len(infos):,} entries; {_MOST_FILES:,} are the limit.")
    if len({info.filename for info in infos}) != len(infos):
        raise _refused(path, "Two entries have the same name.")
    packed, unpacked = sum(info.compress_size for info in infos), sum(info.file_size for info in infos)
    if packed > size:
        raise _refused(path, "Its entries overlap.")
    if unpacked > max(_SMALL, size * _RATIO):
        raise _refused(path, f"{size:,} bytes would unpack to {unpacked:,}.")
    for info in infos:
        if info.file_size > max(_SQUEEZED, info.compress_size * _RATIO):
            raise _refused(path, f"{info.compress_size:,} bytes would unpack to {info.file_size:,}.")
        kind = stat.S_IFMT(info.external_attr >> 16)
        parts = info.filename.split("/")
        if any(part in ("", ".", "..") for part in parts) or any(
            not 32 < ord(c) < 127 or c in '\\:*?"<>|' for c in info.filename
        ):
            raise _refused(path, f"{info.filename[:200]!r} is not a name that a file of a capsule has.")
        if kind not in (0, stat.S_IFREG) or info.is_dir():
            raise _refused(path, f"{info.filename!r} is no regular file.")
        if info.flag_bits & 1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise _refused(path, f"{info.filename!r} is encrypted, or packed in an unusual way.")


def _manifest(text: bytes, path: Path) -> Manifest:
    try:
        manifest = from_json(Manifest, text)
    except DocumentError as error:
        raise _refused(path, f"Its manifest cannot be read: {error}") from None
    if manifest.version > CAPSULE_VERSION:
        raise StorageError(
            f"{path} is a capsule of version {manifest.version}; this runproj knows {CAPSULE_VERSION}",
            fix="Bring runproj up to date.",
        )
    return manifest


def document(value: object) -> str:
    return to_json(value, pretty=True) + "\n"


def _refused(path: Path, why: str) -> StorageError:
    return StorageError(f"{path} is refused as a capsule", why=why, fix="Get it again from whoever made it.")
