"""The `runproj.yaml` that `runproj init` writes: short, commented, and fitted to what the folder holds."""

from __future__ import annotations

import json
import re
from pathlib import Path

from runproj.descriptor.environment_files import find_environment
from runproj.descriptor.script_arguments import Argument, arguments_of
from runproj.descriptor.scripts import scripts
from runproj.errors import DescriptorError

_FIRST = ("train.py", "main.py", "run.py", "app.py", "run.sh", "main.sh")

_TEXT = """\
# How to run this project with runproj.  Check this file with: runproj validate
# Run it with:  runproj run . -P name=value

runproj: 1
name: {name}

{environment}
entry_points:
  main:                       # run where -e names no other
    # Each parameter is an input of the command, checked before anything is built.
    # Types: string int float bool path uri choice list object secret
    {parameters}

    # A list of words, which no shell ever sees.  For a shell command, write one text: "python a.py && python b.py"
    command: {command}

    # env: {{OMP_NUM_THREADS: "1"}}
    # inputs:
    #   table: {{uri: "https://example.org/table.csv", sha256: "…"}}
    # outputs: ["models/**"]   # kept as artifacts
    # metrics:                 # for projects that make no logging calls
    #   - {{name: accuracy, pattern: 'accuracy: (\\S+)'}}
    #   - {{file: metrics.json}}
    # timeout: 2h
    # expect: {{accuracy: {{value: 0.95, atol: 0.01}}}}
"""


def starter(folder: Path) -> str:
    """The text of a starter; it is valid as it stands."""
    found = scripts(folder)
    script = next((name for name in (*_FIRST, *found) if name in found and name.endswith((".py", ".sh"))), None)
    if script is None:
        arguments: tuple[Argument, ...] = (_SEED,)
    else:
        arguments = arguments_of(folder / script) if script.endswith(".py") else ()
    examples = () if script and arguments else _EXAMPLES
    return _TEXT.format(
        name=_quoted(folder.resolve().name or "project"),
        environment=_environment(folder),
        parameters="\n      ".join(["parameters:" if arguments else "# parameters:", *map(_parameter, arguments), *examples]),
        command=_command(script or "train.py", arguments),
    )


def _parameter(argument: Argument) -> str:
    parts = [f"type: {argument.type}"]
    if argument.choices:
        parts.append(f"choices: [{', '.join(map(_value, argument.choices))}]")
    if argument.default is not None:
        parts.append(f"default: {_value(argument.default)}")
    if argument.help:
        parts.append(f"help: {_value(argument.help)}")
    return f"{_quoted(argument.name)}: {{{', '.join(parts)}}}"


def _command(script: str, arguments: tuple[Argument, ...]) -> str:
    word = script.replace("{", "{{").replace("}", "}}")
    words = ["bash" if script.endswith(".sh") else "python", _quoted(f"./{word}" if word.startswith("-") else word)]
    for argument in arguments:
        words += [f'"{argument.option}={{{argument.name}}}"' if argument.option.startswith("--") else argument.option]
        words += [] if argument.option.startswith("--") else [f'"{{{argument.name}}}"']
    return f"[{', '.join(filter(None, words))}]"


def _environment(folder: Path) -> str:
    try:
        spec = find_environment(folder)
    except DescriptorError:
        spec = None
    if spec is None or spec.origin == "nothing declared":
        return _NOTHING_DECLARED
    key = "lock" if spec.lock_file else "requirements" if spec.origin.endswith(".txt") else "conda"
    text = f"# What the commands need to run is found in {spec.origin}.  To name it here instead:\n# environment:\n"
    if spec.lock_file or spec.origin == "requirements.txt" or spec.conda:
        return f"{text}#   {key}: {spec.origin}\n"
    return f'{text}#   python: "3.12"\n#   dependencies: [numpy]\n'


def _value(text: str) -> str:
    """The text as a YAML scalar that stays what it is: numbers bare, all else as `_quoted`."""
    return text if re.fullmatch(r"-?\d+(\.\d+)?", text) else _quoted(text)


def _quoted(text: str) -> str:
    """The text as a YAML scalar."""
    return (
        text
        if re.fullmatch(r"[A-Za-z_][\w.-]*", text) and text.lower() not in _SPECIAL
        else json.dumps(text, ensure_ascii=any("\ud800" <= letter <= "\udfff" for letter in text))
    )


_NOTHING_DECLARED = """\
# What the commands need to run.
environment:
  python: "3.12"
  dependencies: []            # like numpy>=2, -r requirements.txt, -e .
"""
_EXAMPLES = (
    "# lr: {type: float, default: 0.1, min: 0, max: 1}",
    "# optimizer: {type: choice, choices: [adam, sgd], default: adam}",
    "# data: path            # without a default, a value has to be given: -P data=FILE",
)
_SEED = Argument("seed", "--seed", "seed", "0", (), "Seed of the random numbers")
_SPECIAL = {"true", "false", "yes", "no", "on", "off", "null", "y", "n"}
