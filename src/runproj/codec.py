"""The one door between frozen values and JSON documents; every published schema is generated from the same types."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class DocumentError(ValueError):
    """A document does not have the shape of its type.  The message names the place (`$.lock.digest`)."""


def to_json(value: object, *, pretty: bool = False) -> str:
    """A JSON text of `value`; keys in the order of the type's fields, so that equal values are equal texts.

    What JSON cannot say is a string: "NaN", "Infinity" and "-Infinity" as in MLflow's protocol; bytes of a file name that
    are no Unicode are written like `\\udcff`.
    """
    text = msgspec.json.encode(_sayable(msgspec.to_builtins(value, order="deterministic")))
    return (msgspec.json.format(text, indent=2) if pretty else text).decode()


def _sayable(plain: object) -> object:
    match plain:
        case float() if not math.isfinite(plain):
            return "NaN" if math.isnan(plain) else "Infinity" if plain > 0 else "-Infinity"
        case str() if not plain.isascii():
            return plain.encode("utf-8", "backslashreplace").decode()
        case dict():
            return {_sayable(key): _sayable(inner) for key, inner in plain.items()}
        case list() | tuple():
            return [_sayable(inner) for inner in plain]
        case _:
            return plain


def from_json(kind: type[T], text: str | bytes, *, words: bool = False) -> T:
    """The value of type `kind` that `text` describes.  Raises `DocumentError`.

    words: numbers may be strings, as `to_json` writes those that JSON cannot say.
    """
    try:
        return msgspec.json.decode(text, type=kind, strict=not words)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise DocumentError(str(error)) from error


def to_plain(value: object) -> Any:  # JSON has no narrower type
    """Dicts, lists and scalars, as a JSON parser would give them."""
    return msgspec.to_builtins(value)


def from_plain(kind: type[T], value: object) -> T:
    """The inverse of `to_plain`.  Raises `DocumentError`."""
    try:
        return msgspec.convert(value, type=kind)
    except msgspec.ValidationError as error:
        raise DocumentError(str(error)) from error


def json_schema(kind: type[object], schema_hook: Callable[[type], dict[str, object]] | None = None) -> dict[str, object]:
    """The JSON Schema (2020-12) of a type."""
    return msgspec.json.schema(kind, schema_hook=schema_hook)
