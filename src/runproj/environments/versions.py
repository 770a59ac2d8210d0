"""Python versions: what a project's wish for an interpreter means, and which Python was current at a date."""

from __future__ import annotations

import datetime
import re

from runproj.core.values import dataclass

Version = tuple[int, ...]

RELEASED: dict[tuple[int, int], datetime.date] = {
    (3, 5): datetime.date(2015, 9, 13),
    (3, 6): datetime.date(2016, 12, 23),
    (3, 7): datetime.date(2018, 6, 27),
    (3, 8): datetime.date(2019, 10, 14),
    (3, 9): datetime.date(2020, 10, 5),
    (3, 10): datetime.date(2021, 10, 4),
    (3, 11): datetime.date(2022, 10, 24),
    (3, 12): datetime.date(2023, 10, 2),
    (3, 13): datetime.date(2024, 10, 7),
    (3, 14): datetime.date(2025, 10, 7),
    (3, 15): datetime.date(2026, 10, 1),
}
"""First release of each minor version of CPython (PEPs 478, 494, 537, 569, 596, 619, 664, 693, 719, 745, 790)."""

SETTLING = datetime.timedelta(days=183)
"""How long after its release a Python counts as the one people used: it takes about half a year until the
scientific packages offer wheels for it, so that a project of that time was hardly written for it."""


def parse(text: str) -> Version | None:
    """(3, 8, 2) of "3.8.2"; None where the text is not a plain version."""
    return tuple(map(int, text.split("."))) if re.fullmatch(r"\d+(\.\d+){0,2}", text) else None


def settled(minor: Version, on: datetime.date) -> bool:
    """Whether that minor version had been out for long enough on that day."""
    released = RELEASED.get((minor[0], minor[1]))
    return released is not None and released + SETTLING <= on


@dataclass(frozen=True)
class Wish:
    """Which interpreters a project accepts.

    exact: a full X.Y.Z;  minor: X.Y, where the wish names one;  clauses: (operator, version, wildcard) that must all hold.
    """

    text: str
    exact: Version | None = None
    minor: Version | None = None
    clauses: tuple[tuple[str, Version, bool], ...] = ()

    def accepts(self, version: Version) -> bool:
        """Whether a full version fulfils the wish."""
        if self.exact is not None:
            return version == self.exact
        if self.minor is not None:
            return version[: len(self.minor)] == self.minor
        return all(_holds(version, *clause) for clause in self.clauses)


def parse_wish(text: str) -> Wish | None:
    """The meaning of "3.8.2", "3.8", "python3.8", ">=3.8,<3.11", "~=3.9", "^3.8", "3.8.*"; None where it has none."""
    bare = re.sub(r"^(cpython|python)[-@ ]?(?=\d)", "", text.strip().lower())
    bare = re.sub(r"^={1,3}\s*(?=\d+\.\d+\.\d+$)", "", bare)
    if (version := parse(bare.removesuffix(".*"))) is not None:
        if len(version) == 3 and not bare.endswith(".*"):
            return Wish(text, exact=version)
        return Wish(text, minor=version[:2])
    clauses: list[tuple[str, Version, bool]] = []
    for part in filter(None, (piece.strip() for piece in bare.split(","))):
        found = re.fullmatch(r"(===?|!=|~=|>=|<=|>|<|=|\^|~)?\s*v?(\d+(?:\.\d+){0,2})(\.\*)?(?:\.?(?:dev|a|b|rc)\d+)?", part)
        if not found:
            return None
        version = tuple(map(int, found[2].split(".")))
        clauses.append((found[1] or "==", version, bool(found[3])))
    return Wish(text, clauses=tuple(clauses)) if clauses else None


def _holds(version: Version, operator: str, bound: Version, wildcard: bool) -> bool:
    padded = (*bound, 0, 0)[:3]
    prefix = version[: len(bound)] == bound
    match operator:
        case "==" | "===" | "=":
            return prefix if wildcard or len(bound) < 3 or operator == "=" else version == padded
        case "!=":
            return not (prefix if wildcard or len(bound) < 3 else version == padded)
        case ">=":
            return version >= padded
        case "<=":
            return version <= padded or (len(bound) < 3 and prefix)
        case ">":
            return version > padded and not (len(bound) < 3 and prefix)
        case "<":
            return version < padded
        case "^":
            return version >= padded and version[0] == bound[0]
        case _:  # "~=3.8.2", "~3.8": at least this, and the same release series
            series = bound[:-1] if operator == "~=" and len(bound) > 1 else bound[:2]
            return version >= padded and version[: len(series)] == series


def show(version: Version) -> str:
    """ "3.8.2" of (3, 8, 2)."""
    return ".".join(map(str, version))
