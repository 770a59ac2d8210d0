"""What processes in a container logged and could not send, taken over as data that anybody may have written.

A spool is a folder of files that whoever sends it believes: where a file is, where it goes, which are locks.  A container's is
believed nothing.  Of its files, opened without following links, only what an event can say is copied into a spool of our own.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from runproj.client.values import Refused
from runproj.client.values import path as plain_path

_SPOOL = re.compile(r"[0-9A-Za-z][0-9A-Za-z_-]{0,99}")
_EVENTS = re.compile(r"events-\d{1,9}\.jsonl")
_RUN = re.compile(r"\d{1,9}\.json")
_FILE = re.compile(r"\d{1,9}")
_KEPT = re.compile(r"files/\d{1,9}")
_MADE_BY = re.compile(r"/([0-9A-Za-z][0-9A-Za-z_-]{0,99})/runs/(\d{1,9})")
_SMALL = 1 << 20
_LINE = 1 << 26


def salvage(source: Path, target: Path, about: dict[str, str], *, files: bool) -> None:
    """Make spools in `target` of those that a container left in `source`.

    about: whom they are for (`About` of the client's spools);  `files`: whether what was logged as files comes along.
    """
    for name in sorted(os.listdir(source)) if source.is_dir() else ():
        if not _SPOOL.fullmatch(name):
            continue
        with contextlib.suppress(OSError), _folder(source / name) as folder:
            fresh = target / f".new-{name}"
            shutil.rmtree(fresh, ignore_errors=True)
            for inner in ("runs", "files"):
                (fresh / inner).mkdir(parents=True, mode=0o700)
            _copy(folder, fresh, target, files=files)
            family = _text(_json(_read(folder, "about.json")), "family") or name
            (fresh / "about.json").write_text(json.dumps({**about, "family": family}))
            fresh.rename(target / name)


def _copy(folder: int, fresh: Path, target: Path, *, files: bool) -> None:
    for name in _names(folder, _EVENTS):
        with contextlib.suppress(OSError), _file(folder, name) as events, (fresh / name).open("wb") as ours:
            while (line := events.readline(_LINE)).endswith(b"\n"):
                nothing = b"[" + b" " * (len(line) - 3) + b"]\n"  # as long: positions hold
                ours.write(line if _harmless(line, files=files) or len(line) < 3 else nothing)
    if match := re.fullmatch(rb"\s*(\d{1,8})\s+(\d{1,16})\s*", _read(folder, "sent")):
        (fresh / "sent").write_bytes(b"%08d %016d\n" % (int(match[1]), int(match[2])))
    with contextlib.suppress(OSError), _folder("runs", folder) as runs:
        for name in _names(runs, _RUN):
            declared = _declared(_json(_read(runs, name)), target)
            (fresh / "runs" / name).write_text(json.dumps(declared))
            if _read(runs, name.replace(".json", ".creating")):
                (fresh / "runs" / name.replace(".json", ".creating")).write_text("true")
    with contextlib.suppress(OSError), _folder("files", folder) as kept:
        for name in _names(kept, _FILE) if files else ():
            with contextlib.suppress(OSError), _file(kept, name) as theirs, (fresh / "files" / name).open("wb") as mine:
                shutil.copyfileobj(theirs, mine, 1 << 20)


def _harmless(line: bytes, *, files: bool) -> bool:
    """Whether an event can be believed: one that names a file must name one of the spool's own, and a place in the run."""
    try:
        event = json.loads(line)
        if not isinstance(event, list) or not event or event[0] not in ("a", "b"):
            return isinstance(event, list)
        place = event[3] if event[0] == "a" else event[2]
        return files and plain_path(place) == place and (event[0] == "b" or _KEPT.fullmatch(event[2]) is not None)
    except (ValueError, IndexError, TypeError, KeyError, RecursionError, Refused):
        return False


def _declared(said: Any, target: Path) -> dict[str, object]:
    """What a run's declaration may say.  The place where its family made it is where that spool has come to."""
    found: dict[str, object] = {
        key: text for key in ("id", "experiment", "experiment_id", "user", "name") if (text := _text(said, key))
    }
    found["create"] = isinstance(said, dict) and said.get("create") is True
    start = said.get("start") if isinstance(said, dict) else 0
    found["start"] = start if isinstance(start, int) else 0
    tags = said.get("tags") if isinstance(said, dict) else None
    if isinstance(tags, dict):
        found["tags"] = {key: value for key, value in tags.items() if isinstance(value, str)}
    if match := _MADE_BY.search(_text(said, "made_by")):
        found["made_by"] = str(target / match[1] / "runs" / match[2])
    return found


def _text(said: Any, key: str) -> str:
    value = said.get(key) if isinstance(said, dict) else None
    return value[:5000] if isinstance(value, str) else ""


def _json(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


@contextlib.contextmanager
def _folder(path: Path | str, above: int | None = None) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _names(folder: int, pattern: re.Pattern[str]) -> list[str]:
    return sorted(name for name in os.listdir(folder) if pattern.fullmatch(name))


@contextlib.contextmanager
def _file(folder: int, name: str) -> Iterator[Any]:
    """A plain file of a folder, to be read.  Raises OSError for whatever is none: links lead anywhere, pipes wait for ever."""
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(f"{name} is no plain file")
        yield file


def _read(folder: int, name: str) -> bytes:
    """A small file; empty where there is none."""
    try:
        with _file(folder, name) as file:
            content: bytes = file.read(_SMALL)
            return content
    except OSError:
        return b""
