"""Turns a shell command that needs no shell into words: plain text, quotes and placeholders, nothing that a shell expands."""

from __future__ import annotations

import re
from collections.abc import Sequence

from runproj.core.template import Hole, Piece

Word = tuple[Piece, ...]

_SPECIAL = set("$`*?[]~;&|<>()\n#!^{}")
_KEYWORDS = set(
    """
    . : [ alias bg bind break builtin caller case cd command compgen complete compopt continue coproc declare dirs disown do
    done echo elif else enable esac eval exec exit export false fc fg fi for function getopts hash help history if in jobs
    kill let local logout mapfile popd printf pushd pwd read readarray readonly return select set shift shopt source suspend
    test then time times trap true type typeset ulimit umask unalias unset until wait while
    """.split()  # noqa: SIM905 - a list of eighty literals is no easier to read
)
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*\+?=")


def words(pieces: Sequence[Piece]) -> tuple[Word, ...] | None:
    """The words of one simple command, or None where a shell has to read it."""
    reader = _Reader([char for piece in pieces for char in ([piece] if isinstance(piece, Hole) else piece)])
    found = reader.read()
    if not found or not found[0]:
        return None
    first = found[0][0]
    name = first if isinstance(first, str) else ""
    if name in _KEYWORDS or _ASSIGNMENT.match(name) or (len(found[0]) == 1 and "/" in name):
        return None  # a script named by its path may lack the `#!` line, and then only a shell runs it
    return found


class _Reader:
    def __init__(self, symbols: list[str | Hole]) -> None:
        while symbols and symbols[-1] in (" ", "\t", "\n"):
            symbols = symbols[:-1]
        while symbols and symbols[0] in (" ", "\t", "\n"):
            symbols = symbols[1:]
        self.symbols = symbols
        self.word: list[Piece] | None = None
        self.found: list[Word] = []

    def add(self, piece: Piece | None = None) -> None:
        """Begin a word or go on with it."""
        if self.word is None:
            self.word = []
        if isinstance(piece, str) and self.word and isinstance(self.word[-1], str):
            self.word[-1] += piece
        elif piece is not None:
            self.word.append(piece)

    def close(self) -> None:
        if self.word is not None:
            self.found.append(tuple(self.word))
            self.word = None

    def read(self) -> tuple[Word, ...] | None:
        symbols, at = self.symbols, 0
        while at < len(symbols):
            symbol = symbols[at]
            following = symbols[at + 1] if at + 1 < len(symbols) else None
            if isinstance(symbol, Hole):
                self.add(symbol)
            elif symbol in " \t":
                self.close()
            elif symbol == "{" and following == "}":
                self.add("{}")
                at += 1
            elif symbol in _SPECIAL:
                return None
            elif symbol == "\\":
                if isinstance(following, Hole):
                    return None
                if following not in ("\n", None):  # these go on with the line
                    self.add(following)
                at += 1
            elif symbol in "'\"":
                end = self.quoted(at + 1, symbol)
                if end is None:
                    return None
                at = end
            else:
                self.add(symbol)
            at += 1
        self.close()
        return tuple(self.found)

    def quoted(self, at: int, mark: str) -> int | None:
        """Read up to the closing mark; returns its place, or None where the shell would do more than quote."""
        self.add()
        while at < len(self.symbols):
            symbol = self.symbols[at]
            if symbol == mark:
                return at
            if mark == '"' and symbol in ("$", "`", "\\"):
                return None
            self.add(symbol)
            at += 1
        return None
