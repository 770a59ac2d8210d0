"""Where a search text goes wrong, and what its author may have meant."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

_BEFORE, _AFTER = 60, 40
_SLIPS = (
    (r"==", "Write = for equal."),
    (r"<>", "Write != for unequal."),
    (r"=>", "Write >=."),
    (r"=<", "Write <=."),
    (r"&&|&", "Write AND."),
    (r"\|\||\|", "Write OR."),
    (r"!(?!=)", "Write NOT."),
    (r"(?i)NOT\s+I?LIKE\b", "Write NOT in front of the field: NOT params.model LIKE 'x%'"),
    (r"(?i)BETWEEN\b", "Write metrics.a >= 1 AND metrics.a <= 2."),
    (r"(?i)IS\b", "Write IS NULL or IS NOT NULL."),
    (r"[-/:]", "Put names with other characters than letters, digits, _ and . into backticks: metrics.`val/loss`"),
)


def pointed(text: str, at: int) -> str:
    """The text around a place, and a `^` under it."""
    start, end = max(0, at - _BEFORE), at + _AFTER
    before = ("…" if start else "") + _printable(text[start:at])
    after = _printable(text[at:end]) + ("…" if end < len(text) else "")
    return f"  {before}{after}\n  {' ' * _width(before)}^"


def _printable(text: str) -> str:
    return "".join(sign if sign.isprintable() else " " for sign in text)


def _width(text: str) -> int:
    """The columns that a text takes in a terminal."""
    return sum(0 if unicodedata.combining(sign) else 1 + (unicodedata.east_asian_width(sign) in "WF") for sign in text)


def hint_for(rest: str) -> str:
    """What to write instead of what other languages have at this place."""
    return next((hint for pattern, hint in _SLIPS if re.match(pattern, rest)), "")


def hint_for_operator(operator: str, entity: str, *, numeric: bool) -> str:
    if operator in ("<", "<=", ">", ">="):
        if entity == "tag" and numeric:
            return "Tags are texts; record what is to be compared as a parameter or a metric."
        return "Only numbers can be compared by < and >."
    if operator in ("LIKE", "ILIKE", "IN", "NOT IN"):
        return "Only texts can be compared so."
    return "It is never absent." if operator.startswith("IS") else ""


def hint_for_field(key: str, names: Sequence[str], entities: Sequence[str] = ()) -> str:
    """entities: what a name that is like none of `names` may be the name of."""
    from difflib import get_close_matches

    if key.endswith("."):
        return f"Write a name after the point: {key}NAME."
    close = get_close_matches(key[:100].lower(), names, 1)
    quoted = key if re.fullmatch(r"\w[\w.]*", key) else f"`{key}`"
    meant = close or ([f"{entity}.{quoted}" for entity in entities] if len(key) <= 100 and "`" not in key else [])
    return f"Did you mean {' or '.join(meant)}?" if meant else ""


def hint_for_text(rest: str) -> str:
    if rest[:1] in ("'", '"'):
        return "The quote is not closed."
    word = re.match(r"[\w.-]{1,50}", rest)
    return f"Write '{word.group()}'." if word else ""
