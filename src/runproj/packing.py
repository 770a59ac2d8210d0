"""The record of a job as few files, for engines that bring single files back."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path
from typing import IO

from runproj.errors import StorageError
from runproj.files import atomic_write, explained

PACKED = "packed.zip"
REST = "rest.zip"
"""What an executor left that is gone without a complete record."""
_LAST = "ended.json"
LOGS = "logs"
HERE = "here"
"""Says that an executor has begun, and which process it is."""
_LEFT = ("active", "snapshot.db", PACKED, REST, LOGS, HERE)


def announce(record: Path, logs: Path) -> None:
    """Say that an executor has begun, and have the logs of the run found in its record while it runs."""
    (record / HERE).write_text(f"{os.uname().nodename} {os.getpid()}\n")
    link = record / LOGS
    link.unlink(missing_ok=True)
    link.symlink_to(logs)


def pack(record: Path, name: str = PACKED) -> None:
    """Put a record that nobody writes to any more into one file in its folder, which is there as a whole or not at all."""
    fresh = record / f".{name}"
    with zipfile.ZipFile(fresh, "w", zipfile.ZIP_STORED, strict_timestamps=False) as archive:
        for path in sorted(record.rglob("*")):
            inside = path.relative_to(record)
            if path.is_file() and inside.parts[0] not in _LEFT and not inside.parts[0].startswith("."):
                archive.write(path, inside)
    fresh.replace(record / name)


def fold(folder: Path, file: Path | IO[bytes]) -> None:
    """Put everything in a folder into one file, compressed a little: a parcel on its way.  `python -m zipfile -e` unfolds it."""
    with explained(folder), zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1, strict_timestamps=False) as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, path.relative_to(folder))


def folded(folder: Path) -> bytes:
    """The same, in memory."""
    content = io.BytesIO()
    fold(folder, content)
    return content.getvalue()


def unpack(path: Path, record: Path) -> None:
    """Lay it out; what says that the record is complete comes last.  The file itself goes.

    Raises `StorageError` where it is broken, or nothing can be written; it may be repeated.
    """
    try:
        with explained(record), zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            archive.extractall(record, [name for name in names if name != _LAST])
            if _LAST in names:
                atomic_write(record / _LAST, archive.read(_LAST))
    except zipfile.BadZipFile as error:
        raise StorageError("The record that was fetched is broken", why=str(error), fix="It is fetched again.") from error
    finally:
        path.unlink(missing_ok=True)
