"""Write the reference pages that are made from the code: `python docs/generate.py`; with `--check`, say which are stale."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol, cast

from typer.main import get_command

from runproj import errors
from runproj.backends import catalogue
from runproj.cli.main import STARTING, build
from runproj.core.verdict import Level
from runproj.server import openapi

REFERENCE = Path(__file__).parent / "reference"
NOTE = "<!-- Made by docs/generate.py from the code; do not edit. -->\n"


class Parameter(Protocol):
    """What is used of an argument or option, whichever library Typer builds it from."""

    name: str
    param_type_name: str
    opts: Sequence[str]
    secondary_opts: Sequence[str]
    metavar: str | None
    help: str | None
    default: object
    envvar: str | None
    nargs: int
    required: bool
    is_flag: bool


class Command(Protocol):
    """What is used of a command."""

    help: str | None
    hidden: bool
    params: Sequence[Parameter]


def command_line() -> str:
    """Every command with its arguments and options."""
    root = cast(Command, get_command(build()))
    lines = [NOTE, "# Command line", ""]
    lines += ["Results go to standard output, words about them to standard error. Every command knows `--help`.", ""]
    for path, command in sorted(_leaves("runproj", root), key=lambda leaf: leaf[0]):
        lines += _command(path, command)
    return "\n".join(lines).rstrip() + "\n"


def _leaves(path: str, command: Command) -> Iterator[tuple[str, Command]]:
    if command.hidden:
        return
    below: Mapping[str, Command] = getattr(command, "commands", {})
    for name, child in below.items():
        yield from _leaves(f"{path} {name}", child)
    if not below:
        yield path, command


def _command(path: str, command: Command) -> list[str]:
    params = [param for param in command.params if not getattr(param, "hidden", False)]
    arguments = [param for param in params if param.param_type_name == "argument"]
    options = [param for param in params if param.param_type_name == "option" and param.name != "help"]
    usage = " ".join([path, *(["[OPTIONS]"] if options else []), *(_argument(param) for param in arguments)])
    lines = [f"## {path}", "", _paragraphs(command.help or ""), "", "```", usage, "```", ""]
    described = [param for param in arguments if getattr(param, "help", None)]
    if described or options:
        lines += ["| | |", "| --- | --- |"]
        lines += [f"| `{_argument(param)}` | {_cell(param.help)} |" for param in described]
        lines += [f"| {_names(param)} | {_option(param)} |" for param in options]
        lines.append("")
    return lines


def _paragraphs(text: str) -> str:
    return "\n\n".join(" ".join(part.split()) for part in inspect.cleandoc(text).split("\n\n"))


def _argument(param: Parameter) -> str:
    name = (param.metavar or param.name.upper()).strip("[]")
    dots = "…" if param.nargs == -1 and not name.endswith("…") else ""
    return f"{name}{dots}" if param.required else f"[{name}{dots}]"


def _names(param: Parameter) -> str:
    names = ", ".join(f"`{name}`" for name in sorted([*param.opts, *param.secondary_opts], key=_short_first))
    if param.is_flag:
        return names
    value = param.metavar or ("NUMBER" if isinstance(param.default, (int, float)) else "TEXT")
    return f"{names} `{value}`".replace("|", "\\|")


def _short_first(name: str) -> tuple[bool, str]:
    return name.startswith("--"), name


def _option(param: Parameter) -> str:
    text = _cell(param.help or "")
    default = param.default
    if isinstance(default, (int, float, str)) and not isinstance(default, bool) and default != "":
        text += f" Default: `{default:g}`." if isinstance(default, float) else f" Default: `{default}`."
    variable = param.envvar
    return text + (f" Variable: `{variable}`." if variable else "")


def _cell(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|")


def error_list() -> str:
    """The kinds of error and their exit codes."""
    kinds = [
        kind
        for kind in vars(errors).values()
        if inspect.isclass(kind) and issubclass(kind, errors.RunprojError) and kind is not errors.RunprojError
    ]
    lines = [NOTE, "# Errors and exit codes", ""]
    lines += [
        "Each error says what failed, why, and how to fix it. With `--json` the same comes on standard output as",
        '`{"error": {"kind": …, "what": …, "why": …, "fix": …}}`.',
        "",
        "| kind | exit code | meaning |",
        "| --- | --- | --- |",
    ]
    lines += [f"| `{kind.kind}` | {kind.exit_code} | {_cell(inspect.getdoc(kind))} |" for kind in _first_of_each(kinds)]
    starting = ", ".join(f"`{name}`" for name in sorted(STARTING - {"execute-job", "execute-parcel"}))
    lines += [
        "",
        f"125 is for commands that start a project or decide how it would be started: {starting}.",
        "Every other command ends with 1 instead: where `runproj runs list` cannot reach its server, there is no commit to skip.",
        "",
        "## Exit codes of `runproj run` and `runproj rerun`",
        "",
        "| code | meaning |",
        "| --- | --- |",
        "| 0 | the command ended with 0 |",
        "| 1 … | the command's own exit code |",
        "| 2 | the command line has no meaning, or a parameter does not fit its type |",
        "| 124 | the run took longer than its timeout |",
        "| 125 | the project could not be started: source, descriptor, environment, inputs, store |",
        "| 128 + n | the command was ended by signal n, or the run was stopped by it (130: Ctrl-C) |",
        "",
        "A command can itself end with 2, 124 or 125; the record tells the difference (`runproj runs show RUN`).",
        "",
        "## Exit codes of `runproj reproduce`",
        "",
        "| code | level | meaning |",
        "| --- | --- | --- |",
        *(f"| {level.exit_code} | {level.value} | {level.words} |" for level in Level),
        "",
        "With `--at-least LEVEL` that level and those above it end with 0. With 1, 2 and 125 there was nothing to judge.",
        "[Verdicts](verdicts.md) says what each level demands.",
    ]
    return "\n".join(lines) + "\n"


def _first_of_each(kinds: list[type[errors.RunprojError]]) -> list[type[errors.RunprojError]]:
    seen: dict[str, type[errors.RunprojError]] = {}
    for kind in kinds:
        seen.setdefault(kind.kind, kind)
    return list(seen.values())


def backend_list() -> str:
    """The options of our backends."""
    lines = [NOTE, "# Backends", ""]
    lines += [
        "What `--backend-config`, `[backends.NAME]` and profiles may hold, beside the names of `resources:` and `queue`.",
        "",
    ]
    for name in sorted(catalogue.OURS):
        module, _, function = catalogue.OURS[name].partition(":")
        backend = getattr(importlib.import_module(module), function)(catalogue.BackendContext(Path(), {}))
        lines += [f"## {name}", "", "| option | kind | meaning |", "| --- | --- | --- |"]
        lines += [f"| `{option.name}` | {option.kind.value} | {_cell(option.help)} |" for option in backend.options]
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


PAGES = {"backends.md": backend_list, "cli.md": command_line, "errors.md": error_list, "openapi.json": openapi.text}


def main(arguments: list[str]) -> int:
    stale = []
    for name, make in PAGES.items():
        path, text = REFERENCE / name, make()
        if path.exists() and path.read_text() == text:
            continue
        stale.append(name)
        if "--check" not in arguments:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    for name in stale:
        sys.stdout.write(
            f"docs/reference/{name} {'is stale: run python docs/generate.py' if '--check' in arguments else 'written'}\n"
        )
    return 1 if stale and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
