"""Parameter values as users write them: `name=value` on the command line, and files of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from runproj.core.call import Given
from runproj.errors import ParameterError

if TYPE_CHECKING:
    from runproj.descriptor.yaml_nodes import Node


def parse_given(text: str) -> Given:
    """The parameter in "name=value"; the first `=` splits.  Raises `ParameterError`."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise ParameterError(f"{text[:80]!r} is not a parameter", fix="Write it as -P name=value.")
    return Given(name, value)


def read_params_file(path: Path) -> tuple[Given, ...]:
    """The parameters in a YAML or JSON file: a mapping from names to values.  Raises `ParameterError`.

    Values travel as the text they are written as; lists and mappings as JSON.  A parameter left empty is not given.
    """
    from runproj.descriptor.yaml_nodes import Shape, YamlError, load, read_bounded

    try:
        content = read_bounded(path, str(path))
        if path.suffix.lower() == ".json":
            return _from_json(content, path)
        root = load(content, str(path))
    except YamlError as error:
        raise ParameterError(f"{path} cannot be used as a parameter file", why=str(error.problem)) from error
    if root is None:
        return ()
    if root.shape is not Shape.MAP:
        raise _not_a_mapping(path)
    return tuple(Given(key.text, _text(value), path.name) for key, value in root.entries if not value.is_null)


def _text(node: Node) -> str:
    from runproj.descriptor.yaml_nodes import Shape, json_ready

    return node.text if node.shape is Shape.SCALAR else json.dumps(json_ready(node), ensure_ascii=False)


class _Raw(str):
    """A number, as it is written in the file."""


def _from_json(content: bytes, path: Path) -> tuple[Given, ...]:
    def mapping(pairs: list[tuple[str, object]]) -> dict[str, object]:
        result = dict(pairs)
        if len(result) != len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"the key {twice!r} is there twice")
        return result

    try:
        values = json.loads(content, object_pairs_hook=mapping)
        raw = json.loads(content, parse_int=_Raw, parse_float=_Raw, parse_constant=_Raw)
    except (ValueError, RecursionError) as error:
        raise ParameterError(f"{path} cannot be used as a parameter file", why=str(error)) from error
    if not isinstance(values, dict):
        raise _not_a_mapping(path)
    given = []
    for name, value in values.items():
        if value is None:
            continue
        text = json.dumps(value, ensure_ascii=False) if isinstance(value, bool | dict | list) else str(raw[name])
        given.append(Given(name, text, path.name))
    return tuple(given)


def _not_a_mapping(path: Path) -> ParameterError:
    return ParameterError(f"{path} cannot be used as a parameter file", fix="It has to be a mapping, like `lr: 0.1`.")
