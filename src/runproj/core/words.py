"""What becomes of a value in a command besides being a word: some programs and builtins run or compute what they are given."""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import Enum


class Meaning(Enum):
    """What becomes of the text: used as it is, computed (bash evaluates it), or run as code by a program that is named."""

    TEXT = "text"
    NUMBER = "number"
    CODE = "code"


ASSIGNMENT = re.compile(r"[A-Za-z_]\w*(\[[^\]]*\])?\+?=")
WRAPPERS = {"exec", "command", "builtin", "env", "nohup", "time", "then", "do", "else", "if", "while", "until", "!", "{", "elif"}
"""Words that a command can follow."""

_SHELLS = {"bash", "sh", "dash", "zsh", "ksh", "ash"}
_INTERPRETER = re.compile(r"(?:ba|da|z|k|a)?sh|python[\d.]*|perl|ruby|node|Rscript|R")
_PROGRAM_OPTION = {
    "shell": re.compile(r"-[A-Za-z]*c[A-Za-z]*"),
    "python": re.compile(r"-[A-Za-z]*c"),
    "other": re.compile(r"-[A-Za-z]*[eE]|-p|--eval|--print"),
}
_OPTION_WITH_VALUE = {"-o", "+o", "-O", "+O", "-W", "-X", "-I", "-r"}
_OTHER_SOURCE = re.compile(r"-[A-Za-z]*[cem]")
_RUNS_ITS_WORDS = {"eval", "trap", "alias", "ssh", "su", "watch", "parallel", "make"}
_TAKES_NAMES = {"unset", "read", "mapfile", "readarray", "getopts"}  # and computes subscripts in them
_DECLARES = {"declare", "typeset", "local", "export", "readonly"}
_SUBSCRIPT = re.compile(r"([A-Za-z_]\w*)?\[[^\]]*")
_INTEGER_OPTION = re.compile(r"-\w*i\w*")


class Words:
    """The words of one command so far.  A word with a hole in it counts as it stands, with some character for the hole."""

    def __init__(self, words: Iterable[str] = ()) -> None:
        self.first = ""
        self.last = ""
        self.count = 0
        self._integer = False
        self._option: re.Pattern[str] | None = None  # of the interpreter named last, while only options follow it
        self._program = False
        self._value_follows = False
        self._only_options = True
        for word in words:
            self.add(word)

    def add(self, word: str) -> None:
        self.count += 1
        if not self.first and (ASSIGNMENT.match(word) or word in WRAPPERS):
            return
        self._integer |= self.first in _DECLARES and bool(_INTEGER_OPTION.fullmatch(word))
        self._only_options &= not self.first or (word.startswith("-") and not _OTHER_SOURCE.fullmatch(word))
        self.first = self.first or word
        self.last = word
        self._follow_interpreter(word)

    def _follow_interpreter(self, word: str) -> None:
        name = word.rpartition("/")[2]
        if self._option is None or not self._value_follows:
            if _INTERPRETER.fullmatch(name):
                kind = "shell" if name in _SHELLS else "python" if name.startswith("python") else "other"
                self._option, self._program = _PROGRAM_OPTION[kind], False
            elif self._option is not None and not word.startswith(("-", "+")):
                self._option, self._program = None, False
            elif self._option is not None and self._option.fullmatch(word):
                self._program = True
            else:
                self._value_follows = self._option is not None and word in _OPTION_WITH_VALUE
        else:
            self._value_follows = False

    @property
    def stdin_is_program(self) -> bool:
        """Whether the command is an interpreter that reads its program from standard input."""
        return bool(_INTERPRETER.fullmatch(self.first.rpartition("/")[2])) and self._only_options

    def program_meaning(self, word: str) -> Meaning:
        """What a program does with a value in the next word, which reads `word` so far: `bash -c …`, `ssh host …`."""
        if self._option is not None and (self._program or self._option.match(word)):
            return Meaning.CODE
        return Meaning.CODE if self.first.rpartition("/")[2] in _RUNS_ITS_WORDS else Meaning.TEXT

    def meaning(self, word: str) -> Meaning:
        """The same, where bash reads the command: some of its builtins compute what they are given."""
        if _SUBSCRIPT.fullmatch(word) or self.first == "let" or self._integer:
            return Meaning.NUMBER
        if self.first in _DECLARES:
            return Meaning.TEXT if ASSIGNMENT.match(word) else Meaning.CODE
        if self.first in _TAKES_NAMES or (self.first in {"test", "[", "printf"} and self.last == "-v"):
            return Meaning.CODE
        return self.program_meaning(word)
