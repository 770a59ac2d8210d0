"""A .zip → a folder: fetched in pieces, and nothing of it can land outside the folder or fill the disk."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING
from urllib.parse import unquote, urlsplit, urlunsplit

from runproj.core.values import dataclass
from runproj.errors import SourceError
from runproj.files import Lock, atomic_write, explained
from runproj.source.uris import Address, scrub_text

if TYPE_CHECKING:
    import zipfile

MAX_ENTRIES = 200_000
MAX_RATIO = 200
"""Unpacked to packed size; above it, only small archives are taken."""
_SMALL = 50 * 1024 * 1024
_CHUNK = 1 << 20
_TIMEOUT = 60.0


@dataclass(frozen=True)
class Archives:
    """cache: where downloads are kept;  `limit`: bytes, packed or unpacked, above which an archive is refused."""

    cache: Path
    limit: int
    offline: bool
    progress: Callable[[str], None]

    def open(self, address: Address) -> tuple[Path, str]:
        """The archive on disk and a note on where it came from.  Raises `SourceError`."""
        if address.path is not None:
            if not address.path.is_file():
                raise SourceError(f"There is no archive {address.path}", fix="Check the path.")
            return address.path, ""
        name = hashlib.sha256(address.shown.encode()).hexdigest()
        target = self.cache / "archives" / f"{name}.zip"
        with Lock(target.with_suffix(".lock")):
            if self.offline:
                if not target.exists():
                    raise SourceError(
                        f"{address.shown} is not in the cache", why="runproj is offline.", fix="Run it once without --offline."
                    )
                return target, f"Offline: {address.shown} as it was downloaded last."
            self._download(address, target)
            return target, ""

    def _download(self, address: Address, target: Path) -> None:
        """Bring `target` up to date; nothing is sent again where the server says that it has not changed."""
        import http.client
        import urllib.error
        import urllib.request

        parts = urlsplit(address.url)
        plain = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
        request = urllib.request.Request(plain, headers={"User-Agent": "runproj", "Accept-Encoding": "identity"})
        if parts.username is not None:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
            request.add_unredirected_header("Authorization", f"Basic {base64.b64encode(pair).decode()}")
        tag = target.with_suffix(".etag")
        if target.exists() and tag.exists():
            request.add_header("If-None-Match", tag.read_text())
        self.progress(f"downloading {address.shown}")
        beside = target.with_suffix(f".{os.getpid()}.part")
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer, explained(beside):
                self._save(answer, beside, address.shown)
                tag.unlink(missing_ok=True)
                os.replace(beside, target)
                if etag := answer.headers.get("ETag"):
                    atomic_write(tag, etag)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code != 304:
                raise self._failure(address, f"The server answered {error.code} {error.reason}.") from None
        except (urllib.error.URLError, OSError, http.client.HTTPException) as error:
            raise self._failure(address, str(getattr(error, "reason", error))) from None
        finally:
            beside.unlink(missing_ok=True)

    def _save(self, answer: IO[bytes], beside: Path, name: str) -> None:
        size = 0
        with beside.open("wb") as file:
            while chunk := answer.read(_CHUNK):
                size += len(chunk)
                if size > self.limit:
                    raise _refused(name, f"It is larger than the limit of {self.limit:,} bytes (RUNPROJ_CAPTURE_LIMIT).")
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())

    def _failure(self, address: Address, why: str) -> SourceError:
        return SourceError(
            f"Cannot download {address.shown}", why=scrub_text(why, address.url), fix="Check the URL and the connection."
        )

    def unpack(self, archive: Path, into: Path, name: str) -> tuple[str, ...]:
        """Write the archive's files below `into`, which is empty; returns notes.  Raises `SourceError`."""
        import zipfile
        import zlib

        skipped: list[str] = []
        try:
            with zipfile.ZipFile(archive) as source:
                self._vet(source, name)
                budget, links = self.limit, list[tuple[Path, str]]()
                for info in source.infolist():
                    parts = [part for part in info.filename.split("/") if part not in ("", ".")]
                    if parts[:1] == [".git"] or not parts:
                        skipped += parts[:1]
                        continue
                    target = into.joinpath(*parts)
                    if info.is_dir():
                        target.mkdir(parents=True, exist_ok=True)
                        continue
                    target.parent.mkdir(parents=True, exist_ok=True)
                    if stat.S_ISLNK(info.external_attr >> 16):
                        links.append((target, _link_target(source, info, name)))
                        continue
                    budget = _write(source, info, target, budget, name)
                for target, place in links:  # last, so that no file is ever written through one
                    target.symlink_to(place)
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, UnicodeError) as error:
            raise _refused(name, f"It cannot be unpacked: {error}") from None
        except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
            raise _refused(name, f"Two entries have the same name: {Path(error.filename2 or error.filename).name}") from None
        return (f"The folder .git in {name} was left out.",) if skipped else ()

    def _vet(self, source: zipfile.ZipFile, name: str) -> None:
        infos = source.infolist()
        if len(infos) > MAX_ENTRIES:
            raise _refused(name, f"It has {len(infos):,} entries; {MAX_ENTRIES:,} are the limit.")
        unpacked = sum(info.file_size for info in infos)
        packed = sum(info.compress_size for info in infos) or 1
        if unpacked > self.limit or (unpacked > _SMALL and unpacked / packed > MAX_RATIO):
            raise _refused(name, f"{packed:,} bytes would unpack to {unpacked:,} (RUNPROJ_CAPTURE_LIMIT raises the limit).")
        for info in infos:
            kind = stat.S_IFMT(info.external_attr >> 16)
            parts = info.filename.replace("\\", "/").split("/")
            if info.filename.startswith(("/", "\\")) or ".." in parts or (len(parts[0]) == 2 and parts[0][1] == ":"):
                raise _refused(name, f"The entry {info.filename!r} leads out of it.")
            if any(part.lower() == ".git" for part in parts[1:]) or (parts[0] != ".git" and parts[0].lower() == ".git"):
                raise _refused(name, f"The entry {info.filename!r} would be taken for git's own folder.")
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK):
                raise _refused(name, f"The entry {info.filename!r} is no regular file.")
            if info.flag_bits & 1:
                raise _refused(name, "It is encrypted.")


def _link_target(source: zipfile.ZipFile, info: zipfile.ZipInfo, name: str) -> str:
    if info.file_size > 4096:
        raise _refused(name, f"The link {info.filename!r} has no sensible target.")
    return os.fsdecode(source.read(info))


def _write(source: zipfile.ZipFile, info: zipfile.ZipInfo, target: Path, budget: int, name: str) -> int:
    """Write one file, whatever its header says of its size; returns what is left of the budget."""
    mode = 0o755 if (info.external_attr >> 16) & 0o111 else 0o644
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    with os.fdopen(descriptor, "wb") as file, source.open(info) as content:
        while chunk := content.read(_CHUNK):
            budget -= len(chunk)
            if budget < 0:
                raise _refused(name, "It unpacks to more than its directory says.")
            file.write(chunk)
    return budget


def single_folder(top: Path) -> str:
    """The one folder that everything in an archive is in, as forges make them; "" where there is none."""
    found = sorted(os.listdir(top))
    with contextlib.suppress(OSError):
        if len(found) == 1 and (top / found[0]).is_dir() and not (top / found[0]).is_symlink():
            return found[0]
    return ""


def _refused(name: str, why: str) -> SourceError:
    return SourceError(f"The archive {name} is refused", why=why, fix="Unpack it yourself and run the folder.")
