"""Reads a shell command well enough to know, for each placeholder, how the shell will treat the text that stands there.

Only the quoting rules of bash are modelled (its manual, sections 3.1.2, 3.5 and 3.6), not its grammar.  Values reach the
script through shell variables, so a misreading could at worst split a value or print the name of a variable: text of a
value is never part of the script.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from runproj.core.scanner import HOLE, Quoting, Scanner, Slot
from runproj.core.template import Hole, Piece
from runproj.core.values import dataclass
from runproj.core.words import Meaning, Words
from runproj.errors import DescriptorError


@dataclass(frozen=True)
class Script:
    """A shell script with slots.

    tail: the index in `parts` where further words of the last command belong; what becomes of them is `tail_meaning`.
    """

    parts: tuple[str | Slot, ...]
    tail: int
    last_word: str
    tail_meaning: Meaning


CLOSERS = {"fi", "done", "esac", "}", "]]"}
"""Words that end a compound command: nothing may follow them."""

_NUMERIC_TESTS = {"-eq", "-ne", "-lt", "-le", "-gt", "-ge", "-v"}
_OPERATOR = re.compile(r"(:?[-=+?])")
_EXPANSION = re.compile(r"[!#]?(?:\w+|[@*#?$!-])")


@dataclass
class _Heredoc:
    delimiter: str
    quoted: bool
    strip_tabs: bool
    place: int  # index in `out` of the delimiter as written
    code: bool


def read(pieces: Sequence[Piece]) -> Script:
    """Find the quoting and meaning of every hole of a template.  Raises `DescriptorError` where that cannot be told."""
    lexer = _Lexer([char for piece in pieces for char in ([piece] if isinstance(piece, Hole) else piece)])
    lexer.command("")
    return Script(tuple(lexer.out), lexer.tail, lexer.last_word, lexer.tail_meaning)


class _Lexer(Scanner):
    """One pass over characters and holes.  Methods are entered after the opening mark and leave after the closing one."""

    def __init__(self, symbols: list[str | Hole], depth: int = 0) -> None:
        super().__init__(symbols, depth)
        self.pending: list[_Heredoc] = []
        self.tail = 0
        self.last_word = ""
        self.tail_meaning = Meaning.TEXT

    # -- contexts

    def command(self, end: str) -> None:
        _CommandReader(self, end).read()

    def double(self, kind: Meaning, quoting: Quoting = Quoting.DOUBLE, end: str = '"') -> None:
        """Inside double quotes, or the body of a here-document (which ends with the symbols)."""
        while self.at < len(self.symbols):
            if isinstance(self.symbols[self.at], Hole):
                self.slot(quoting, kind)
            elif end and self.look(end):
                self.take()
                return
            elif self.look("\\"):
                self.escape(kept=True)
            elif self.look("$"):
                self.dollar(quoting, kind)
            elif self.look("`"):
                self.backtick()
            else:
                self.take()

    def dollar(self, quoting: Quoting, kind: Meaning) -> None:
        self.deeper()
        if self.look("$(("):
            self.take(3)
            self.arithmetic("))")
        elif self.look("$["):
            self.take(2)
            self.arithmetic("]")
        elif self.look("$("):
            self.take(2)
            self.command(")")
        elif self.look("${"):
            self.take(2)
            self.expansion(quoting, kind)
        elif quoting is Quoting.BARE and self.look("$'"):
            self.take(2)
            self.ansi(kind)
        else:
            self.take()
        self.depth -= 1

    def arithmetic(self, end: str) -> None:
        """Bash evaluates what stands here, again and again: only numbers may come in."""
        brackets = 0
        while self.at < len(self.symbols):
            symbol = self.symbols[self.at]
            if isinstance(symbol, Hole):
                self.slot(Quoting.DOUBLE, Meaning.NUMBER)
            elif symbol == "$":
                self.dollar(Quoting.DOUBLE, Meaning.NUMBER)
            elif symbol == "`":
                self.backtick()
            elif not brackets and self.look(end):
                self.take(len(end))
                return
            else:
                brackets += (symbol in "([") - (symbol in ")]")
                self.take()

    def expansion(self, quoting: Quoting, kind: Meaning) -> None:
        """`${name…}`: words after `:-` and its kin are text, anything else (offsets, subscripts, patterns) takes numbers only."""
        ahead = "".join(s if isinstance(s, str) else HOLE for s in self.symbols[self.at : self.at + 300])
        name = _EXPANSION.match(ahead)
        self.take(name.end() if name else 0)
        operator = _OPERATOR.match(ahead, name.end() if name else 0)
        if operator:
            self.take(len(operator.group()))
        else:
            kind = Meaning.NUMBER
        while self.at < len(self.symbols):
            symbol = self.symbols[self.at]
            if isinstance(symbol, Hole):
                self.slot(quoting, kind)
            elif symbol == "}":
                self.take()
                return
            elif symbol == "\\":
                self.escape()
            elif symbol == "$":
                self.dollar(quoting, kind)
            elif symbol == "`":
                self.backtick()
            elif symbol == '"':
                self.take()
                self.double(kind)
            elif symbol == "'" and quoting is Quoting.BARE:
                self.take()
                self.single()
            else:
                self.take()

    def backtick(self) -> None:
        self.deeper()
        start = self.at
        self.take()
        self.command("`")
        inside = self.symbols[start : self.at]
        if any(isinstance(s, Hole) for s in inside) and "\\" in inside:
            raise DescriptorError(
                "The command has a parameter and a backslash inside backticks", fix="Write $(…) instead of `…` in the command."
            )
        self.depth -= 1

    # -- here-documents

    def heredoc_start(self, words: Words) -> None:
        self.take(2)
        strip = self.look("-")
        self.take(1 if strip else 0)
        while self.look(" ") or self.look("\t"):
            self.take()
        start = self.at
        delimiter, quoted = "", False
        mark = ""
        while self.at < len(self.symbols):
            symbol = self.symbols[self.at]
            if isinstance(symbol, Hole):
                raise DescriptorError("A parameter stands in the delimiter of a here-document")
            if not mark and symbol in " \t\n;&|<>()":
                break
            self.at += 1
            if symbol == mark or (not mark and symbol in "'\""):
                mark, quoted = ("" if mark else symbol), True
            elif symbol == "\\" and mark != "'":
                quoted = True
                delimiter += "".join(s for s in self.symbols[self.at : self.at + 1] if isinstance(s, str))
                self.at += 1
            else:
                delimiter += symbol
        written = "".join(s for s in self.symbols[start : self.at] if isinstance(s, str))
        self.pending.append(_Heredoc(delimiter, quoted, strip, len(self.out), words.stdin_is_program))
        self.out.append(written)

    def heredoc_bodies(self) -> None:
        """The lines after the line with `<<`.  Called after its newline."""
        for document in self.pending:
            body, closing = self.heredoc_lines(document)
            holes = any(isinstance(symbol, Hole) for symbol in body)
            kind = Meaning.CODE if document.code else Meaning.TEXT
            if document.quoted and holes:
                # The shell would not expand anything here: make it one where it does, and escape the text instead.
                lines = "".join(s if isinstance(s, str) else HOLE for s in body).split("\n")
                count = next(n for n in range(len(lines) + 1) if f"END_{n}" not in [line.lstrip("\t") for line in lines])
                self.out[document.place] = f"END_{count}"
                for symbol in body:
                    if isinstance(symbol, Hole):
                        self.out.append(Slot(symbol, Quoting.HEREDOC, kind))
                    else:
                        self.out.append(f"\\{symbol}" if symbol in "\\$`" else symbol)
                self.out.append(f"END_{count}\n" if closing.endswith("\n") or not closing else f"END_{count}")
            elif document.quoted:
                self.out += [symbol for symbol in body if isinstance(symbol, str)]
                self.out.append(closing)
            else:
                inner = _Lexer(body, self.depth)
                inner.double(kind, Quoting.HEREDOC, end="")
                self.out += inner.out
                self.out.append(closing)
        self.pending.clear()

    def heredoc_lines(self, document: _Heredoc) -> tuple[list[str | Hole], str]:
        body: list[str | Hole] = []
        while self.at < len(self.symbols):
            end = next((i for i in range(self.at, len(self.symbols)) if self.symbols[i] == "\n"), len(self.symbols))
            line = self.symbols[self.at : end]
            text = "".join(s if isinstance(s, str) else HOLE for s in line)
            bare = text.lstrip("\t") if document.strip_tabs else text
            self.at = min(end + 1, len(self.symbols))
            if bare == document.delimiter:
                return body, text + ("\n" if end < len(self.symbols) else "")
            body += [*line, "\n"] if end < len(self.symbols) else line
        return body, ""


class _CommandReader:
    """Reads commands up to `end` (")", "`", or the end of the symbols), knowing the words of the one it is in."""

    def __init__(self, lexer: _Lexer, end: str) -> None:
        self.lexer = lexer
        self.end = end
        self.words = Words()
        self.word_start: int | None = None
        self.parentheses = 0
        self.cases = 0
        self.test_start: int | None = None

    @property
    def word(self) -> str:
        return "" if self.word_start is None else self.lexer.text_since(self.word_start)

    @property
    def kind(self) -> Meaning:
        return self.words.meaning(_unquoted(self.word))

    def begin_word(self) -> None:
        if self.word_start is None:
            self.word_start = len(self.lexer.out)

    def end_word(self) -> None:
        if self.word_start is None:
            return
        word = self.word
        if word == "case" and not self.words.first:
            self.cases += 1
        elif word == "esac" and self.cases:
            self.cases -= 1
        elif word == "[[":
            self.test_start = self.word_start
        elif word == "]]" and self.test_start is not None:
            self.close_test(self.test_start)
        self.words.add(_unquoted(word))
        self.word_start = None
        if not self.end:
            self.lexer.tail = len(self.lexer.out)
            self.lexer.last_word = self.words.first if self.words.first in CLOSERS else word  # `done < file`
            self.lexer.tail_meaning = self.words.meaning("")

    def end_command(self) -> None:
        self.end_word()
        if self.test_start is None:  # `&&` and `||` inside [[ … ]] do not end it
            self.words = Words()

    def close_test(self, start: int) -> None:
        """`[[ … -eq … ]]` computes both sides: every slot in it takes numbers only."""
        out = self.lexer.out
        if _NUMERIC_TESTS & set(self.lexer.text_since(start).split()):
            out[start:] = [replace(part, meaning=Meaning.NUMBER) if isinstance(part, Slot) else part for part in out[start:]]
        self.test_start = None

    def read(self) -> None:
        lexer = self.lexer
        while lexer.at < len(lexer.symbols):
            symbol = lexer.symbols[lexer.at]
            if isinstance(symbol, Hole):
                kind = self.kind
                self.begin_word()
                lexer.slot(Quoting.BARE, kind)
            elif symbol == self.end and not (symbol == ")" and (self.parentheses or self.cases)):
                self.end_word()
                lexer.take()
                return
            elif symbol in " \t\n":
                self.blank(symbol)
            elif symbol == "#" and self.word_start is None:
                self.comment()
            elif symbol in ";&|()<>":
                self.operator(symbol)
            else:
                self.part_of_word(symbol)
        self.end_word()

    def blank(self, symbol: str) -> None:
        if symbol == "\n":
            self.end_command()
        else:
            self.end_word()
        self.lexer.take()
        if symbol == "\n" and self.lexer.pending:
            self.lexer.heredoc_bodies()

    def comment(self) -> None:
        lexer = self.lexer
        while lexer.at < len(lexer.symbols) and not lexer.look("\n") and not (self.end == "`" and lexer.look("`")):
            if isinstance(lexer.symbols[lexer.at], Hole):
                lexer.slot(Quoting.COMMENT)
            else:
                lexer.take()

    def operator(self, symbol: str) -> None:
        lexer = self.lexer
        if symbol == "(" and lexer.look("((") and self.word_start is None and self.words.last in ("", "for"):
            lexer.take(2)
            lexer.arithmetic("))")
        elif symbol in "<>":
            self.redirection()
        else:
            if self.word_start is not None and symbol == "(" and self.word.endswith("="):
                self.end_word()  # an array: its items are words
            self.end_command()
            self.parentheses += (symbol == "(") - (symbol == ")" and self.parentheses > 0)
            lexer.take()

    def redirection(self) -> None:
        lexer = self.lexer
        if lexer.look("<(") or lexer.look(">("):
            self.begin_word()
            lexer.take(2)
            lexer.deeper()
            lexer.command(")")
            lexer.depth -= 1
            return
        if not self.word.isdigit():
            self.end_word()
        self.word_start = None
        if lexer.look("<<<"):
            lexer.take(3)
        elif lexer.look("<<"):
            lexer.heredoc_start(self.words)
            if not self.end:
                lexer.tail, lexer.last_word = len(lexer.out), ""
        else:
            lexer.take(2 if lexer.look(">&") or lexer.look("<&") or lexer.look(">>") or lexer.look(">|") else 1)

    def part_of_word(self, symbol: str) -> None:
        lexer = self.lexer
        if symbol == "\\":
            if not lexer.look("\\\n"):
                self.begin_word()
            lexer.escape()
            return
        kind = self.kind if symbol in "'\"$" else Meaning.TEXT
        self.begin_word()
        start = len(lexer.out)
        if symbol == "'":
            lexer.take()
            lexer.single()
            lexer.out[start:] = [replace(p, meaning=kind) if isinstance(p, Slot) else p for p in lexer.out[start:]]
        elif symbol == '"':
            lexer.take()
            lexer.double(kind)
        elif symbol == "$":
            lexer.dollar(Quoting.BARE, kind)
        elif symbol == "`":
            lexer.backtick()
        else:
            lexer.take()


def _unquoted(word: str) -> str:
    return word.replace("'", "").replace('"', "").replace("\\\n", "").replace("\\", "")
