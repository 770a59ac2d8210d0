"""Small plots of characters: a scatter, and a strip for each group.  Axes end at the least and the greatest value."""

from __future__ import annotations

import math
from collections.abc import Sequence

from runproj.cli.output import clean, width
from runproj.core.values import dataclass

HEIGHT = 9
_BRAILLE = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""Bits of the dots of a braille sign (Unicode 2800), by row and column."""


@dataclass(frozen=True)
class Look:
    """How much room there is, and whether it may be other signs than ASCII's."""

    columns: int
    rich: bool = True

    @property
    def corner(self) -> str:
        return "└" if self.rich else "+"

    @property
    def across(self) -> str:
        return "─" if self.rich else "-"

    @property
    def down(self) -> str:
        return "│" if self.rich else "|"


def scatter(xs: Sequence[float], ys: Sequence[float], names: tuple[str, str], look: Look, *, log: bool = False) -> list[str]:
    """Lines with a dot for each pair.  Where there are no dots, `*` is one pair, a digit as many, `#` ten or more."""
    left = ends(min(ys), max(ys))
    margin = max(map(len, left)) + 1
    columns = max(10, look.columns - margin - 1)
    placed = [math.log10(x) for x in xs] if log else list(xs)
    draw = _dots if look.rich else _counts
    rows = draw(placed, ys, columns)
    labels = [left[1], *[""] * (HEIGHT - 2), left[0]]
    low, high = ends(min(xs), max(xs))
    x_name = cut(names[0] + (" (log)" if log else ""), columns - len(low) - len(high) - 2)
    gap = columns - len(low) - len(high) - width(x_name)
    return [
        cut(names[1], look.columns),
        *(f"{label:>{margin - 1}} {look.down}{row}".rstrip() for label, row in zip(labels, rows, strict=True)),
        f"{' ' * margin}{look.corner}{look.across * columns}",
        f"{' ' * (margin + 1)}{low}{' ' * (gap // 2)}{x_name}{' ' * (gap - gap // 2)}{high}",
    ]


def strips(groups: Sequence[tuple[str, Sequence[float]]], names: tuple[str, str], look: Look) -> list[str]:
    """A line for each group, its values from left to right; `|` is the mean."""
    values = [value for _, found in groups for value in found]
    labels = [cut(label, max(8, look.columns // 4)) for label, _ in groups]
    margin = max(map(width, labels)) + 1
    columns = max(10, look.columns - margin - 1)
    signs = " ·•●" if look.rich else " .o@"
    lines = [cut(names[0], look.columns)]
    for label, (_, found) in zip(labels, groups, strict=True):
        counts = [0] * columns
        for place in places(found, min(values), max(values), columns):
            counts[place] += 1
        row = [signs[0 if not count else 1 if count == 1 else 2 if count < 4 else 3] for count in counts]
        mean = places([math.fsum(value / len(found) for value in found)], min(values), max(values), columns)[0]
        row[mean] = look.down
        lines.append(f"{label}{' ' * (margin - width(label))}{look.down}{''.join(row)}".rstrip())
    low, high = ends(min(values), max(values))
    name = cut(names[1], columns - len(low) - len(high) - 2)
    gap = columns - len(low) - len(high) - width(name)
    lines.append(f"{' ' * margin}{look.corner}{look.across * columns}")
    lines.append(f"{' ' * (margin + 1)}{low}{' ' * (gap // 2)}{name}{' ' * (gap - gap // 2)}{high}")
    return lines


def beside(left: Sequence[str], right: Sequence[str], columns: int) -> list[str]:
    """Two plots next to each other, the first `columns` wide."""
    rows = max(len(left), len(right))
    padded = [[*lines, *[""] * (rows - len(lines))] for lines in (left, right)]
    return [f"{one}{' ' * (columns - width(one))}  {other}".rstrip() for one, other in zip(*padded, strict=True)]


def ends(low: float, high: float) -> tuple[str, str]:
    """The ends of an axis in as few digits as tell them apart to a hundredth of its length."""
    if low == high:
        return f"{low:.6g}", f"{high:.6g}"
    for digits in range(3, 17):
        shown = f"{low:.{digits}g}", f"{high:.{digits}g}"
        length = high / 2 - low / 2
        if all(abs(float(text) / 2 - value / 2) <= length / 100 for text, value in zip(shown, (low, high), strict=True)):
            return shown
    return repr(low), repr(high)


def places(values: Sequence[float], low: float, high: float, cells: int) -> list[int]:
    """In which of `cells` cells from `low` to `high` each value lies; in the middle where there is one value only."""
    length = high / 2 - low / 2  # halves: their difference is finite
    if length == 0:
        return [cells // 2] * len(values)
    return [min(cells - 1, max(0, int((value / 2 - low / 2) / length * cells))) for value in values]


def _dots(xs: Sequence[float], ys: Sequence[float], columns: int) -> list[str]:
    cells = [[0] * columns for _ in range(HEIGHT)]
    across = places(xs, min(xs), max(xs), columns * 2)
    up = places(ys, min(ys), max(ys), HEIGHT * 4)
    for x, y in zip(across, up, strict=True):
        y = HEIGHT * 4 - 1 - y
        cells[y // 4][x // 2] |= _BRAILLE[y % 4][x % 2]
    return ["".join(chr(0x2800 + bits) if bits else " " for bits in row) for row in cells]


def _counts(xs: Sequence[float], ys: Sequence[float], columns: int) -> list[str]:
    cells = [[0] * columns for _ in range(HEIGHT)]
    across, up = places(xs, min(xs), max(xs), columns), places(ys, min(ys), max(ys), HEIGHT)
    for x, y in zip(across, up, strict=True):
        cells[HEIGHT - 1 - y][x] += 1
    return ["".join(" *23456789"[count] if count < 10 else "#" for count in row) for row in cells]


def cut(text: str, columns: int) -> str:
    """A text on one line, at most as wide as that."""
    text = clean(text).replace("\n", " ")
    if width(text) <= columns:
        return text
    while text and width(text) >= columns:
        text = text[:-1]
    return text + "…" if columns > 0 else ""
