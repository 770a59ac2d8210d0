"""Archives by what is in them: names, kinds and contents, without times, owners and order."""

from __future__ import annotations

import io
import tarfile
import zipfile
import zlib

from runproj.reproduce.unreadable import Unreadable


def zip_members(content: memoryview, limit: int) -> dict[str, tuple[str, bytes]]:
    """Name → (kind, content) of a zip archive's members."""
    found: dict[str, tuple[str, bytes]] = {}
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            _bounded(sum(info.file_size for info in archive.infolist()), limit)
            for info in archive.infolist():
                kind = "folder" if info.is_dir() else "program" if info.external_attr >> 16 & 0o100 else "file"
                with archive.open(info) as member:
                    found[_once(found, info.filename)] = (kind, member.read(info.file_size + 1))
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, zlib.error, EOFError, OSError) as error:
        raise Unreadable(f"it is a zip archive that cannot be read ({error})") from error
    return found


def tar_members(content: memoryview, limit: int) -> dict[str, tuple[str, bytes]]:
    """Name → (kind, content) of a tar archive's members, compressed or not."""
    found: dict[str, tuple[str, bytes]] = {}
    total = 0
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:*") as archive:
            for info in archive:
                _bounded(total := total + info.size, limit)
                name = _once(found, info.name)
                if info.isfile():
                    member = archive.extractfile(info)
                    found[name] = ("program" if info.mode & 0o100 else "file", member.read() if member else b"")
                else:
                    found[name] = (info.type.decode("latin-1"), info.linkname.encode(errors="surrogateescape"))
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        raise Unreadable(f"it is a tar archive that cannot be read ({error})") from error
    return found


def gunzip(content: memoryview, limit: int) -> bytes:
    """What a gzip file holds, all of its parts."""
    parts: list[bytes] = []
    rest, size = bytes(content), 0
    try:
        while rest:
            unpack = zlib.decompressobj(wbits=31)
            parts.append(unpack.decompress(rest, limit - size + 1))
            _bounded(size := size + len(parts[-1]), limit)
            if not unpack.eof:
                raise Unreadable("it is a gzip file without its end")
            rest = unpack.unused_data.lstrip(b"\0")
    except zlib.error as error:
        raise Unreadable(f"it is a gzip file that cannot be read ({error})") from error
    return b"".join(parts)


def _bounded(size: int, limit: int) -> None:
    if size > limit:
        raise Unreadable("unpacked, it is too large")


def _once(found: dict[str, tuple[str, bytes]], name: str) -> str:
    if name in found:
        raise Unreadable(f"the archive has {name!r} twice")
    return name
