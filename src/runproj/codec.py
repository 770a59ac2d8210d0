"""The one door between frozen values and JSON documents; every published schema is generated from the same types."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class DocumentError(ValueError):
    """A document does not have the shape of its type.  The message names the place (`$.lock.digest`)."""


def to_json(value: object, *, pretty: bool = False) -> str:
    """A JSON text of `value`; keys in the order of the type's fields, so that equal values are equal texts."""
    try:
        text = msgspec.json.encode(value, order="deterministic")
    except UnicodeEncodeError:  # a file name that is no Unicode
        text = msgspec.json.encode(_readable(msgspec.to_builtins(value)), order="deterministic")
    return (msgspec.json.format(text, indent=2) if pretty else text).decode()


def _readable(value: object) -> object:
    """Plain data with bytes that are no text written as `\\udcff`."""
    match value:
        case str():
            return value.encode("utf-8", "backslashreplace").decode()
        case dict():
            return {_readable(key): _readable(inner) for key, inner in value.items()}
        case list() | tuple():
            return [_readable(inner) for inner in value]
        case _:
            return value


def from_json(kind: type[T], text: str | bytes) -> T:
    """The value of type `kind` that `text` describes.  Raises `DocumentError`."""
    try:
        return msgspec.json.decode(text, type=kind)
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
