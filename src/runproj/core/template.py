"""The brace language of command templates: `{name}` is a parameter, `{{` and `}}` are braces, all other braces are text."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

from runproj.core.values import dataclass
from runproj.errors import DescriptorError

_PLACE = re.compile(r"\{(\w[\w.-]*?)(\.\.\.)?\}")
_IDENTIFIER = re.compile(r"[^\W\d][\w-]*(\.[\w-]+)*")
_RANGE = re.compile(r"\{\w+\.\.\w*(\.\.\w*)?\}")


@dataclass(frozen=True)
class Hole:
    """Where a value goes.  `spread`: written `{name...}`, a list becomes one word for each of its items."""

    name: str
    spread: bool = False


Piece = str | Hole


def parse(template: str, names: Collection[str]) -> tuple[Piece, ...]:
    """Split a template into text and holes.  Raises `DescriptorError` for a placeholder that names no parameter.

    `${name}` is a variable of the shell; `{}`, `{a,b}`, `{1..9}`, `{print $1}` and JSON are text.
    """
    pieces: list[Piece] = []
    text: list[str] = []
    for piece in _scan(template, names):
        if isinstance(piece, Hole):
            if text:
                pieces.append("".join(text))
                text.clear()
            pieces.append(piece)
        else:
            text.append(piece)
    if text:
        pieces.append("".join(text))
    return tuple(pieces)


def _scan(template: str, names: Collection[str]) -> Iterator[Piece]:
    """A `}}` closes what is open: one escaped brace, or two braces of text (as at the end of JSON); alone it is an escape."""
    open_braces: list[str] = []
    at = 0
    while at < len(template):
        char = template[at]
        if char == "{":
            match = _PLACE.match(template, at)
            shell_variable = at > 0 and template[at - 1] == "$"
            if template.startswith("{{", at):
                open_braces.append("escaped")
                yield "{"
                at += 2
                continue
            if match and not shell_variable and (hole := _hole(match, names)):
                yield hole
                at = match.end()
                continue
            open_braces.append("text")
        elif char == "}":
            kind = open_braces.pop() if open_braces else "escaped"
            if kind == "escaped" and template.startswith("}}", at):
                at += 1
        yield char
        at += 1


def _hole(match: re.Match[str], names: Collection[str]) -> Hole | None:
    name, spread = match.group(1), bool(match.group(2))
    if name in names:
        return Hole(name, spread)
    if _RANGE.fullmatch(match.group()) or not _IDENTIFIER.fullmatch(name):
        return None
    raise DescriptorError(
        f"The command uses {match.group()}, but there is no parameter {name!r}",
        why=suggestion(name, names) or (f"Parameters: {', '.join(names)}." if names else "The entry point has no parameters."),
        fix=f"Declare {name!r} under `parameters`, or write {{{match.group()}}} if the braces are meant as text.",
    )


def suggestion(word: str, known: Collection[str]) -> str:
    """ "Did you mean …?" for the known word that is nearest, or nothing."""
    import difflib

    folded = {item.lower().replace("-", "_"): item for item in known}
    near = difflib.get_close_matches(word.lower().replace("-", "_"), list(folded), n=1, cutoff=0.6)
    return f"Did you mean {folded[near[0]]!r}?" if near else ""
