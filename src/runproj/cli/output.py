"""How things are said: results on standard output, words about them on standard error; plain lines where nobody watches."""

from __future__ import annotations

import os
import re
import shutil
import sys
import time
import unicodedata
from collections.abc import Sequence

from runproj.codec import to_json
from runproj.errors import RunprojError

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_NOTE = "\x1b[33m"
_BAD = "\x1b[31;1m"
_GOOD = "\x1b[32m"
_DIM = "\x1b[2m"
_OFF = "\x1b[0m"
_PATIENCE = 2.0
"""Seconds after which a reader of plain lines, a CI log say, wants to know what takes so long."""

_ENOUGH = 40
"""Letters of a table's last column that are worth leaving others out for."""

_MOVING: dict[str, bool] = {}
"""Whether the terminal's last line is one that moves: whoever writes next wipes it first."""


def clean(text: str) -> str:
    """Text of others without control characters: a name or a reason must not steer the terminal."""
    return _CONTROL.sub("", text)


def coloured(stream: object) -> bool:
    """Whether escape sequences make sense there."""
    isatty = getattr(stream, "isatty", None)
    return bool(isatty and isatty()) and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"


def paint(text: str, colour: str, stream: object = None) -> str:
    return f"{colour}{text}{_OFF}" if coloured(sys.stdout if stream is None else stream) else text


def good(text: str) -> str:
    return paint(text, _GOOD)


def bad(text: str) -> str:
    return paint(text, _BAD)


def dim(text: str) -> str:
    return paint(text, _DIM)


def write(text: str) -> None:
    """A line of the result; it takes the place of the line that moves, if there is one."""
    if _MOVING.pop("line", False):
        _tell("\r\x1b[K")
    sys.stdout.write(text + "\n")


def write_now(text: str) -> None:
    """As `write`, for a line that somebody waits for while the command goes on."""
    write(text)
    sys.stdout.flush()


def write_json(value: object) -> None:
    """The result as one JSON document."""
    sys.stdout.write(to_json(value, pretty=True) + "\n")
    sys.stdout.flush()


def say(text: str) -> None:
    """A line about what happens, for people; it takes the place of the line that moves, if there is one."""
    _tell(("\r\x1b[K" if _MOVING.pop("line", False) else "") + text + "\n")


def move(text: str) -> None:
    """A line that the next one takes the place of, for a terminal; an empty one takes it away."""
    if text:
        _tell(f"\r\x1b[K{text[: shutil.get_terminal_size().columns - 1]}")
        _MOVING["line"] = True
    elif _MOVING.pop("line", False):
        _tell("\r\x1b[K")


def _tell(text: str) -> None:
    """To whoever watches; a run does not end because nobody does any more (a closed terminal, `2>&1 | head`)."""
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except OSError:
        sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115 - what is still to be said, at exit too, goes there


def show_error(error: RunprojError, *, as_json: bool = False) -> None:
    """What failed, why, and how to fix it."""
    if as_json:
        document = {"error": {"kind": error.kind, "what": error.what, "why": error.why, "fix": error.fix}}
        sys.stdout.write(to_json(document, pretty=True) + "\n")
    say(f"{paint('error:', _BAD, sys.stderr)} {clean(error.what)}")
    for line in error.why.splitlines():
        say(f"  {clean(line)}")
    for line in error.fix.splitlines():
        say(f"{paint('fix:', _GOOD, sys.stderr)} {clean(line)}")


def width(text: str) -> int:
    """Columns that `text` takes on a terminal."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = (), spare: Sequence[int] = ()) -> None:
    """Columns as wide as their content; the last one is cut to the terminal's width where somebody watches.

    spare: columns that are left out there, the first of them first, for as long as too little of the last one would be seen.
    """
    cells = [[clean(cell).replace("\n", " ") for cell in row] for row in rows]
    widths = [max(map(width, column)) for column in zip(header, *cells, strict=True)]
    limit = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    shown = list(range(len(header)))
    for index in spare if limit else ():
        if sum(widths[column] + 2 for column in shown[:-1]) + min(widths[-1], _ENOUGH) > (limit or 0):
            shown.remove(index)
    for number, row in enumerate([list(header), *cells]):
        parts = []
        for index, cell in ((column, row[column]) for column in shown):
            gap = " " * (widths[index] - width(cell))
            parts.append(gap + cell if index in right else cell + gap)
        line = "  ".join(parts).rstrip()
        if limit and width(line) > limit:
            while width(line) >= limit:
                line = line[:-1]
            line += "…"
        write(dim(line) if number == 0 else line)


def count(number: int, noun: str) -> str:
    """A number of things: 1 package, 2 packages."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def seconds(value: float) -> str:
    """A duration for people: 0.42s, 12.3s, 4m05s, 2h03m."""
    if value < 10:
        return f"{value:.2f}s"
    if value < 100:
        return f"{value:.1f}s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes}m{rest:02d}s" if minutes < 60 else f"{minutes // 60}h{minutes % 60:02d}m"


class TerminalReporter:
    """Says what happens on standard error: one line a phase, and, on a terminal, a line that moves while it lasts."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self.live = sys.stderr.isatty() and os.environ.get("TERM") != "dumb" and not os.environ.get("CI")
        self._name = ""
        self._begun = 0.0
        self._seen: set[str] = set()
        self._told = 0.0

    def phase(self, name: str, text: str) -> None:
        self._wipe()
        self._name, self._begun = name, time.monotonic()
        self._told = self._begun
        if name in ("run", "start"):
            self._line(name, text)
        elif self.live:
            self._show(text)

    def progress(self, text: str) -> None:
        if self.quiet or not text.strip():
            self._wipe()
        elif self.live:
            self._show(text)
        elif time.monotonic() - self._told > _PATIENCE:
            self._line(self._name, text)

    def done(self, text: str) -> None:
        self._wipe()
        took = paint(f"({seconds(time.monotonic() - self._begun)})", _DIM, sys.stderr)
        self._line(self._name, text, after=f"  {took}")

    def note(self, text: str) -> None:
        self._wipe()
        if text not in self._seen:
            self._seen.add(text)
            self._line("note", text, _NOTE)

    def _line(self, name: str, text: str, colour: str = _DIM, after: str = "") -> None:
        self._told = time.monotonic()
        if not self.quiet or colour == _NOTE:
            say(f"{paint(f'{name:<12}', colour, sys.stderr)}{clean(text)}{after}")

    def _show(self, text: str) -> None:
        if self.quiet:
            return
        columns = shutil.get_terminal_size().columns - 14
        _tell(f"\r\x1b[K{_DIM}{self._name:<12}{_OFF}{clean(text)[:columns]}")
        _MOVING["line"] = True

    def _wipe(self) -> None:
        if _MOVING.pop("line", False):
            _tell("\r\x1b[K")
