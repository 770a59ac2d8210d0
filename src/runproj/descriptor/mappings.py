"""YAML files of other programs, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from runproj.descriptor.yaml_nodes import Shape, YamlError, load, plain, read_bounded
from runproj.errors import TrackingError

_LARGEST = 64 << 20
"""Bytes: MLflow keeps the profile of a dataset in such a file, of up to 16 MB."""


def read_mapping(path: Path) -> Mapping[str, object]:
    """The mapping in a file.  Raises `TrackingError` where it holds anything else, or cannot be read."""
    try:
        node = load(read_bounded(path, str(path), _LARGEST), str(path), _LARGEST)
        if node is None or node.shape is not Shape.MAP:
            raise TrackingError(f"{path} does not hold a mapping")
        found = plain(node)
    except YamlError as error:
        raise TrackingError(f"{path} cannot be read", why=str(error.problem)) from error
    except ValueError as error:
        raise TrackingError(f"{path} holds a value that is none", why=str(error)) from error
    assert isinstance(found, dict)
    return found
