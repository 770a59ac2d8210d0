"""The first floor of reading shell commands: characters and holes one by one, and the two quotes in which nothing nests."""

from __future__ import annotations

from enum import Enum

from runproj.core.template import Hole
from runproj.core.values import dataclass
from runproj.core.words import Meaning
from runproj.errors import DescriptorError

HOLE = "\0"
"""Stands for a hole in texts that are kept for looking back; cannot occur in a template."""

_DEEPEST = 60


class Quoting(Enum):
    BARE = "bare"
    DOUBLE = "double"
    SINGLE = "single"
    ANSI = "ansi"  # $'…'
    HEREDOC = "heredoc"
    COMMENT = "comment"


@dataclass(frozen=True)
class Slot:
    """A hole, and how the shell treats the place it stands in."""

    hole: Hole
    quoting: Quoting
    meaning: Meaning = Meaning.TEXT


class Scanner:
    """A place in the symbols of a template, and what was read of them.

    Methods are entered after the opening mark of what they read, and leave after the closing one.
    """

    def __init__(self, symbols: list[str | Hole], depth: int = 0) -> None:
        self.symbols = symbols
        self.at = 0
        self.out: list[str | Slot] = []
        self.depth = depth

    # -- small steps

    def look(self, text: str) -> bool:
        return self.symbols[self.at : self.at + len(text)] == list(text)

    def take(self, count: int = 1) -> None:
        """Copy symbols, which are not holes, to the output."""
        for symbol in self.symbols[self.at : self.at + count]:
            assert isinstance(symbol, str)
            self.out.append(symbol)
        self.at += count

    def slot(self, quoting: Quoting, meaning: Meaning = Meaning.TEXT) -> None:
        hole = self.symbols[self.at]
        assert isinstance(hole, Hole)
        self.out.append(Slot(hole, quoting, meaning))
        self.at += 1

    def escape(self, *, kept: bool = False) -> None:
        """A backslash and what follows.  Before a hole it must not escape our quote: dropped, or a backslash where `kept`."""
        if self.at + 1 < len(self.symbols) and isinstance(self.symbols[self.at + 1], str):
            self.take(2)
            return
        self.at += 1
        if kept:
            self.out.append("\\\\")

    def deeper(self) -> None:
        self.depth += 1
        if self.depth > _DEEPEST:
            raise DescriptorError("The command is nested too deeply", why=f"More than {_DEEPEST} levels of substitutions.")

    def single(self) -> str:
        start = len(self.out)
        while self.at < len(self.symbols):
            if isinstance(self.symbols[self.at], Hole):
                self.slot(Quoting.SINGLE)
            elif self.look("'"):
                self.take()
                break
            else:
                self.take()
        return self.text_since(start)

    def ansi(self, kind: Meaning) -> None:
        while self.at < len(self.symbols):
            if isinstance(self.symbols[self.at], Hole):
                self.slot(Quoting.ANSI, kind)
            elif self.look("\\"):
                self.escape()
            elif self.look("'"):
                self.take()
                return
            else:
                self.take()

    def text_since(self, start: int) -> str:
        return "".join(part if isinstance(part, str) else HOLE for part in self.out[start:])
