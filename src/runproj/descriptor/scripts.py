"""Entry points that nobody declared: `train.py`, `run.sh`, `fit.R` and notebooks of the project, run by their names."""

from __future__ import annotations

import itertools
import json
import re
import shlex
from dataclasses import replace
from pathlib import Path, PurePosixPath

from runproj.core.environment import EnvSpec
from runproj.core.project import Command, EntryPoint
from runproj.core.template import suggestion
from runproj.errors import DescriptorError

SUFFIXES = (".py", ".sh", ".R", ".ipynb")
_LARGEST_NOTEBOOK = 64 << 20
_MOST_NAMES = 30


def is_script(name: str) -> bool:
    return name.endswith(SUFFIXES)


def script_entry_point(project: Path, name: str) -> EntryPoint:
    """The entry point that a script is.  Undeclared parameters become `--name value` (notebooks: are injected).

    Raises `DescriptorError` where the script does not exist or is not the project's.
    """
    path = project / name
    if not path.is_file():
        raise DescriptorError(
            f"The project has no file {name!r}",
            why=suggestion(name, found := scripts(project)) or (f"Scripts: {', '.join(found)}." if found else ""),
        )
    if PurePosixPath(name).is_absolute() or not path.resolve().is_relative_to(project.resolve()):
        raise DescriptorError(f"{name} is outside of the project")
    word = f"./{name}" if name.startswith("-") else name
    match PurePosixPath(name).suffix:
        case ".py":
            command = _words("python", word)
        case ".sh":
            command = _words("bash", word)
        case ".R":
            text = word.replace("\\", "\\\\").replace("'", "\\'")
            command = _words("Rscript", "-e", f"mlflow::mlflow_source('{text}')", "--args")
        case _:
            return _notebook(project, name, word)
    return EntryPoint(name, command)


def scripts(project: Path) -> list[str]:
    """Names of the scripts at the top of the project, for messages."""
    return sorted(path.name for path in project.iterdir() if path.suffix in SUFFIXES and path.is_file())[:_MOST_NAMES]


def script_of(command: Command) -> str | None:
    """The Python script that a command runs, where that is plain to see (`python train.py …`)."""
    words: list[str] = list(command.argv)
    if command.shell is not None:
        try:
            words = shlex.split(command.shell.strip().split("\n", 1)[0])
        except ValueError:
            return None
    for first, second in itertools.pairwise(words):
        if re.fullmatch(r"(?:.*/)?python[\d.]*", first):
            return second if second.endswith(".py") and "{" not in second else None
    return None


def with_notebook_tools(spec: EnvSpec) -> EnvSpec:
    """The environment of a notebook: papermill and a kernel beside what the project asks for."""
    names = {re.split(r"[^\w.-]", line, maxsplit=1)[0].lower() for line in spec.requirements}
    added = tuple(name for name in ("papermill", "ipykernel") if name not in names)
    if spec.docker or not added:
        return spec
    note = f"Added to the environment, for the notebook: {', '.join(added)}."
    return replace(spec, requirements=(*spec.requirements, *added), notes=(*spec.notes, note))


def output_notebook(name: str) -> str:
    """Where the executed notebook is written, relative to the project."""
    path = PurePosixPath(name)
    return str(path.with_name(f"{path.stem}.output.ipynb"))


def _notebook(project: Path, name: str, word: str) -> EntryPoint:
    """papermill injects each parameter as a variable: numbers, True, False and None by their kind, all else as text."""
    kernel = ("-k", "python3", "-l", "python") if _language(project / name, name) == "python" else ()
    output = output_notebook(name)
    target = f"./{output}" if output.startswith("-") else output
    streams = ("--stdout-file", "-", "--stderr-file", "/dev/stderr")
    argv = ("python", "-m", "papermill", word, target, "--no-progress-bar", *streams, *kernel)
    command = _words(*argv, extra=("-p", "{name}", "{value}"))
    return EntryPoint(name, command, outputs=(_literal(output),))


def _language(path: Path, name: str) -> str:
    """The language of a notebook's kernel.  The kernel's own name is of the machine it was written on, and not used."""
    with path.open("rb") as file:
        content = file.read(_LARGEST_NOTEBOOK + 1)
    if len(content) > _LARGEST_NOTEBOOK:
        raise DescriptorError(f"{name} is larger than {_LARGEST_NOTEBOOK >> 20} MB", fix="Clear the outputs of the notebook.")
    try:
        notebook = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DescriptorError(f"{name} is not a notebook", why=str(error)) from error
    for keys in (("kernelspec", "language"), ("language_info", "name")):
        value = notebook.get("metadata") if isinstance(notebook, dict) else None
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        if isinstance(value, str):
            return value.lower()
    return "python"


def _words(*words: str, extra: tuple[str, ...] = Command.extra) -> Command:
    """A command of fixed words: braces in file names are no placeholders."""
    return Command(argv=tuple(word.replace("{", "{{").replace("}", "}}") for word in words), extra=extra)


def _literal(path: str) -> str:
    """A pattern that matches just this path."""
    return re.sub(r"([*?\[])", r"[\1]", path)
