"""What can be checked before anything is sent: names, numbers, texts."""

import json
import math
import posixpath
import re
from typing import Any

_NAME = re.compile(r"[/\w.\- :]*")
_LONGEST = 250
_INT64 = 1 << 63
_WORDS = {"nan": '"NaN"', "inf": '"Infinity"', "-inf": '"-Infinity"'}


class Refused(ValueError):
    """What was given cannot be recorded: a name with odd characters, a number that is none, a parameter that changes."""


def name(given: object) -> str:
    """The name of a metric, parameter or tag, as every server accepts it.  Raises `Refused`."""
    text = str(given)
    if not _NAME.fullmatch(text):
        raise Refused(f"{text!r} cannot be a name: letters, digits, and _ - . : / and blanks make one")
    if text in ("", ".") or text.startswith(("/", "..")) or posixpath.normpath(text) != text:
        raise Refused(f"{text!r} cannot be a name: it is no path in its simplest form")
    if len(text) > _LONGEST:
        raise Refused(f"a name has at most {_LONGEST} characters, not {len(text)}: {text[:50]!r}…")
    return text


def text(given: object) -> str:
    """`str(given)` as it can be stored: bytes that are no UTF-8, as file names may hold, are written as `\\udcff`."""
    found = str(given)
    try:
        found.encode()
    except UnicodeEncodeError:
        return found.encode("utf-8", "backslashreplace").decode()
    return found


def number(given: Any) -> str:
    """A double as JSON; NaN and the infinities, which JSON lacks, as words.  Raises `Refused` for what is no number."""
    try:
        found = repr(float(given))
    except OverflowError:
        raise Refused(f"{given!r:.60} is too large for a double") from None
    except (TypeError, ValueError) as error:
        raise Refused(f"{given!r:.60} is not a number: {error}") from None
    return _WORDS.get(found, found)


def whole(given: Any, what: str, least: int = -_INT64) -> int:
    """A whole number of 64 bits.  Raises `Refused`."""
    try:
        found = int(given)
        fits = found == given
    except (TypeError, ValueError, OverflowError) as error:
        raise Refused(f"{given!r:.60} is not a {what}: {error}") from None
    if not fits or not least <= found < _INT64:
        raise Refused(f"{given!r:.60} is not a {what}: whole numbers from {least} to {_INT64 - 1} are")
    return found


def path(given: object) -> str:
    """A place among the files of a run.  Raises `Refused` for one that leads out of it."""
    found = text(given).strip("/")
    parts = found.split("/")
    if not found or "\\" in found or "\0" in found or any(part in ("", ".", "..") for part in parts):
        raise Refused(f"{found!r} cannot be the place of a file in a run: it is no plain relative path")
    return found


def plain(given: Any) -> Any:
    """What JSON can say of a value: not a number is null, and whatever is neither number nor text is its text."""
    if given is None or isinstance(given, (bool, str, int)):
        return given
    if isinstance(given, float):
        return given if math.isfinite(given) else None
    if isinstance(given, dict):
        return {str(key): plain(inner) for key, inner in given.items()}
    if isinstance(given, (list, tuple)):
        return [plain(inner) for inner in given]
    if hasattr(given, "tolist"):  # arrays and scalars of numpy and its kin
        return plain(given.tolist())
    return text(given)


def line(event: Any) -> bytes:
    """An event as one line of a spool."""
    return (json.dumps(event, separators=(",", ":"), allow_nan=False) + "\n").encode()
