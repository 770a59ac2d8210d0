"""What a Python script takes on its command line, read from its `argparse` calls: the parameters that `runproj init` writes."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from runproj.core.values import dataclass

_MOST = 1_000_000
_SEEDS = ("seed", "random_seed", "random_state")
"""What an int is called that decides the random numbers."""


@dataclass(frozen=True)
class Argument:
    """One `add_argument` with values that are plain to see.  `option` is empty for a positional one."""

    name: str
    option: str
    type: str
    default: str | None
    choices: tuple[str, ...]
    help: str


def arguments_of(script: Path) -> tuple[Argument, ...]:
    """The arguments that always take one value.  Empty where the script has none, or has commands of its own."""
    try:
        with script.open("rb") as file:
            tree = ast.parse(file.read(_MOST))
    except (OSError, ValueError, SyntaxError, RecursionError):
        return ()
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)]
    names = {call.func.attr for call in calls if isinstance(call.func, ast.Attribute)}
    if names & {"add_subparsers", "add_mutually_exclusive_group"}:
        return ()
    wanted = [call for call in calls if isinstance(call.func, ast.Attribute) and call.func.attr == "add_argument"]
    found = {argument.name: argument for call in sorted(wanted, key=lambda call: call.lineno) for argument in _argument(call)}
    return tuple(found.values())


def _argument(call: ast.Call) -> Iterator[Argument]:
    flags = [text for node in call.args if isinstance(text := _literal(node), str)]
    given = {keyword.arg: keyword.value for keyword in call.keywords}
    if not flags or None in given or given.keys() & {"action", "nargs", "const"}:
        return
    flag = max(flags, key=lambda text: text.startswith("--"))
    option = flag if flag.startswith("-") else ""
    if not re.fullmatch(r"-{0,2}[A-Za-z_][\w-]*", flag):
        return
    listed = _literal(given.get("choices"))
    choices = tuple(map(str, listed)) if isinstance(listed, (list, tuple)) else ()
    kind = given.get("type")
    word = "choice" if choices else kind.id if isinstance(kind, ast.Name) and kind.id in ("int", "float") else "string"
    default = _default(_literal(given.get("default")), word, choices)
    if option and default is None and _literal(given.get("required")) is not True:
        return  # an option without a default says by its absence what no value can say
    name = flag.lstrip("-").replace("-", "_")
    if word == "int" and name in _SEEDS:
        word = "seed"
    yield Argument(name, option, word, default, choices, _help(_literal(given.get("help"))))


def _default(value: object, word: str, choices: tuple[str, ...]) -> str | None:
    fits = {"int": (int,), "float": (int, float)}.get(word, (str, int, float))
    return (
        str(value) if isinstance(value, fits) and not isinstance(value, bool) and (not choices or str(value) in choices) else None
    )


def _help(value: object) -> str:
    text = re.sub(r"\s*[(\[]?default[:=]? *%\(default\)\w[)\]]?", "", value) if isinstance(value, str) else ""
    return " ".join(text.replace("%%", "%").split())


def _literal(node: ast.expr | None) -> object:
    try:
        return None if node is None else ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None
