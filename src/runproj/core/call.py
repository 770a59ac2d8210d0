"""EntryPoint + parameters → Call: the one place where values meet a command line."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence

from runproj.core import shell, simple, template
from runproj.core.project import Command, ParameterType
from runproj.core.scanner import Quoting, Slot
from runproj.core.template import Hole, Piece
from runproj.core.values import dataclass
from runproj.core.words import Meaning, Words
from runproj.errors import DescriptorError, ParameterError

LONGEST = 128 * 1024 - 1
"""Bytes that Linux takes in one argument (MAX_ARG_STRLEN), without its end mark."""

_NUMBER = re.compile(r"[-+]?(?:[0-9]+|[0-9]*\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?")
_HARMLESS = re.compile(r"[\w@%+=:,./-]*")
_MASK = "***"


@dataclass(frozen=True)
class Given:
    """A parameter value as the user gave it, and where ("-P", "params.yaml", the run it was taken from)."""

    name: str
    value: str
    source: str = "-P"


@dataclass(frozen=True)
class BoundValue:
    """A parameter with its value.  `value` is None for a secret, which is never held in a record.

    source:   "default", or where the user gave it.
    declared: False for a value that the entry point does not declare; it is appended as `--name value`.
    resolved: what the command gets instead of `value` (a path made absolute); `value` is what is recorded.
    sha256:   of what a path leads to, where a replay must find the same there.
    """

    name: str
    value: str | None
    type: ParameterType = ParameterType.STRING
    source: str = "default"
    declared: bool = True
    resolved: str | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class Call:
    """An entry point bound to values, ready to become an argv."""

    entry_point: str
    command: Command
    values: tuple[BoundValue, ...] = ()

    def argv(self, secrets: Mapping[str, str]) -> tuple[str, ...]:
        """What to execute.  Every value arrives byte-identical in the argv of the command, and none is ever executed.

        A template that one program with plain words is becomes its argv.  Any other is given to `bash -c`, with the values as
        arguments of the script, which puts them into variables: no value is ever part of the script's text.
        Raises `DescriptorError` for a template that names no parameter, `ParameterError` for a value the place cannot take.
        """
        words = _render(self, self._texts(secrets))
        for word in words:
            if len(word.encode(errors="surrogateescape")) > LONGEST:
                raise ParameterError(
                    f"The command of {self.entry_point!r} has an argument of more than 128 KiB",
                    why="The operating system takes no longer ones.",
                    fix="Put the value into a file, and pass its path.",
                )
        return words

    def shown(self) -> str:
        """The command for people: as it would be typed into a shell, secrets masked."""
        masked = {value.name: _MASK for value in self.values if value.value is None}
        texts = self._texts(masked)
        names = list(texts)
        if self.command.shell is None:
            return shlex.join(_render(self, texts, checked=False))
        pieces = template.parse(self.command.shell, names)
        if simple.words(pieces) is not None:
            return shlex.join(_render(self, texts, checked=False))
        script = shell.read(pieces)
        parts = [part if isinstance(part, str) else _as_typed(part, texts[part.hole.name]) for part in script.parts]
        extras = "".join(f" {shlex.quote(word)}" for word in self.extra_words(pieces, texts))
        parts.insert(script.tail, extras)
        return "".join(parts).strip()

    def _texts(self, secrets: Mapping[str, str]) -> dict[str, str]:
        texts = {}
        for value in self.values:
            text = value.resolved if value.resolved is not None else value.value
            if text is None:
                if value.name not in secrets:
                    raise ParameterError(f"No value given for secret parameter {value.name!r}", fix=f"-P {value.name}=…")
                text = secrets[value.name]
            texts[value.name] = text
        return texts

    def extra_words(self, pieces: Iterable[Piece], texts: Mapping[str, str]) -> list[str]:
        """The words that undeclared values become at the end of the command, where it has no place for them."""
        placed = {piece.name for piece in pieces if isinstance(piece, Hole)}
        names = [value.name for value in self.values if not value.declared and value.name not in placed]
        return [word for name in names for word in extra_words(self.command, name, texts[name])]


def items(text: str) -> tuple[str, ...]:
    """The items of a list value: a JSON array, or words between commas.  Empty for an empty text."""
    if text.lstrip().startswith("["):
        try:
            content = json.loads(text)
        except (ValueError, RecursionError):
            content = None
        if isinstance(content, list):
            return tuple(item if isinstance(item, str) else json.dumps(item, ensure_ascii=False) for item in content)
    return tuple(text.split(",")) if text else ()


def _render(call: Call, texts: Mapping[str, str], *, checked: bool = True) -> tuple[str, ...]:
    names = list(texts)
    if call.command.shell is None:
        words: Sequence[simple.Word] | None = [template.parse(word, names) for word in call.command.argv]
    else:
        words = simple.words(pieces := template.parse(call.command.shell, names))
    if words is None:
        return _script(call, shell.read(pieces), texts, call.extra_words(pieces, texts), checked=checked)
    if not words:
        raise DescriptorError(f"The entry point {call.entry_point!r} has no command")
    argv: list[str] = []
    before = Words()
    for word in words:
        holes = [piece for piece in word if isinstance(piece, Hole)]
        text = "".join(piece if isinstance(piece, str) else "\0" for piece in word)
        for hole in holes if checked else ():
            _check(hole, before.program_meaning(text), texts[hole.name])
        argv += _word(call, word, texts)
        before.add(text)
    extras = call.extra_words((piece for word in words for piece in word), texts)
    for extra in extras if checked else ():
        _check_extra(call, before.program_meaning(""), extra)
    return (*argv, *extras)


def _word(call: Call, word: Sequence[Piece], texts: Mapping[str, str]) -> list[str]:
    if len(word) == 1 and isinstance(word[0], Hole) and word[0].spread:
        return list(_spread(call, word[0], texts))
    return ["".join(piece if isinstance(piece, str) else _joined(piece, texts) for piece in word)]


def _joined(hole: Hole, texts: Mapping[str, str]) -> str:
    if hole.spread:
        raise DescriptorError(f"{{{hole.name}...}} has to be a word of its own in the command")
    return texts[hole.name]


def _spread(call: Call, hole: Hole, texts: Mapping[str, str]) -> tuple[str, ...]:
    kind = next(value.type for value in call.values if value.name == hole.name)
    text = texts[hole.name]
    return items(text) if kind is ParameterType.LIST else ((text,) if text else ())


def extra_words(command: Command, name: str, value: str) -> list[str]:
    """The words that an undeclared parameter becomes."""
    values = {"{name}": name, "{value}": value}
    return [re.sub(r"\{name\}|\{value\}", lambda match: values[match.group()], word) for word in command.extra]


def _check(hole: Hole, meaning: Meaning, text: str) -> None:
    """Refuse a text that the place it goes to would run or compute.  The text is not shown: it may be a secret."""
    match meaning:
        case Meaning.NUMBER if not _NUMBER.fullmatch(text):
            raise ParameterError(
                f"Parameter {hole.name!r} stands where the shell computes, so its value must be a plain number",
                why="Bash evaluates any other text there, as a name or even as a command.",
                fix="Give a number, or compute in the program instead of the command line.",
            )
        case Meaning.CODE if not _HARMLESS.fullmatch(text):
            raise ParameterError(
                f"Parameter {hole.name!r} is part of program text in the command, so its value must be a plain word",
                why="The command hands that text to an interpreter, which would run what the value says.",
                fix="Pass the parameter as an argument of the program instead (sys.argv, $1).",
            )
        case _:
            pass


def _check_extra(call: Call, meaning: Meaning, word: str) -> None:
    if meaning is not Meaning.TEXT and not _HARMLESS.fullmatch(word):
        raise ParameterError(
            f"The entry point {call.entry_point!r} takes no undeclared parameter with such a value",
            why="Its command runs the words it is given, so they must be plain words.",
        )


def _script(
    call: Call, script: shell.Script, texts: Mapping[str, str], extras: Sequence[str], *, checked: bool
) -> tuple[str, ...]:
    """`bash -c SCRIPT bash VALUE…`: the script starts by taking its arguments into variables that are not exported."""
    variables: list[str] = []

    def variable(text: str) -> str:
        variables.append(text)
        return f"_rp_{len(variables)}"

    known: dict[str, str] = {}
    parts: list[str] = []
    for part in script.parts:
        if isinstance(part, str):
            parts.append(part)
            continue
        if checked:
            _check(part.hole, part.meaning, texts[part.hole.name])
        if part.hole.spread:
            if part.quoting is not Quoting.BARE:
                raise DescriptorError(f"{{{part.hole.name}...}} has to be a word of its own in the command")
            parts.append(" ".join(f'"${{{variable(text)}}}"' for text in _spread(call, part.hole, texts)))
            continue
        if part.hole.name not in known:
            known[part.hole.name] = variable(texts[part.hole.name])
        parts.append(_reference(part, known[part.hole.name]))
    for word in extras if checked else ():
        _check_extra(call, script.tail_meaning, word)
    if extras and script.last_word in shell.CLOSERS:
        raise ParameterError(
            f"The entry point {call.entry_point!r} takes no undeclared parameters",
            why=f"Its command ends in `{script.last_word}`, which takes no arguments.",
            fix="Declare the parameter and place it in the command.",
        )
    parts.insert(script.tail, "".join(f' "${{{variable(word)}}}"' for word in extras))
    preamble = " ".join(f"_rp_{n}=${{{n}}}" for n in range(1, len(variables) + 1))
    start = f"{preamble}; set --; " if variables else ""
    return ("bash", "-c", start + "".join(parts), "bash", *variables)


_REFERENCES: Mapping[Quoting, Callable[[str], str]] = {
    Quoting.BARE: lambda name: f'"${{{name}}}"',
    Quoting.DOUBLE: lambda name: f"${{{name}}}",
    Quoting.HEREDOC: lambda name: f"${{{name}}}",
    Quoting.SINGLE: lambda name: f"'\"${{{name}}}\"'",
    Quoting.ANSI: lambda name: f"'\"${{{name}}}\"$'",
    Quoting.COMMENT: lambda name: name,
}


def _reference(slot: Slot, variable: str) -> str:
    return _REFERENCES[slot.quoting](variable)


_TYPED: Mapping[Quoting, Callable[[str], str]] = {
    Quoting.BARE: shlex.quote,
    Quoting.DOUBLE: lambda text: re.sub(r'([\\$`"])', r"\\\1", text),
    Quoting.HEREDOC: lambda text: re.sub(r"([\\$`])", r"\\\1", text),
    Quoting.SINGLE: lambda text: text.replace("'", "'\\''"),
    Quoting.ANSI: lambda text: text.replace("\\", "\\\\").replace("'", "\\'"),
    Quoting.COMMENT: lambda text: text.replace("\n", " "),
}


def _as_typed(slot: Slot, text: str) -> str:
    return _TYPED[slot.quoting](text)
