"""Conditions → the text that states them, for the parser to read back."""

from __future__ import annotations

import math
import re
from typing import assert_never

from runproj.core.condition import And, Clause, Condition, Entity, Not, Or, Order, Value
from runproj.errors import RefusedError

_WORD = re.compile(r"\w[\w.]*")


def filter_text(condition: Condition) -> str:
    """The filter of a condition.  Raises `RefusedError` where it holds a text for which the language has no quotes."""
    match condition:
        case And(parts):
            return " AND ".join(_part(part) for part in parts)
        case Or(parts):
            return " OR ".join(_part(part) for part in parts)
        case Not(part):
            return f"NOT {_part(part)}"
        case Clause(entity, key, operator, value):
            return " ".join(filter(None, (_field(entity, key), operator.value, _value(value))))
        case _:
            assert_never(condition)


def order_text(order: Order) -> str:
    return f"{_field(order.entity, order.key)} {'ASC' if order.ascending else 'DESC'}"


def _part(condition: Condition) -> str:
    text = filter_text(condition)
    return f"({text})" if isinstance(condition, And | Or) else text


def _field(entity: Entity, key: str) -> str:
    if entity is Entity.ATTRIBUTE:
        return key
    return f"{entity.value}.{key if _WORD.fullmatch(key) else _quoted(key, '`')}"


def _value(value: Value) -> str:
    match value:
        case None:
            return ""
        case str():
            return _quoted(value, "'")
        case tuple():
            return f"({', '.join(_quoted(item, chr(39)) for item in value)})"
        case _ if math.isinf(value):
            return "1e999" if value > 0 else "-1e999"
        case _:
            return repr(value)


def _quoted(text: str, first: str) -> str:
    """The text between quotes that do not occur in it."""
    for quote in (first, '"', "'"):
        if quote not in text and not text.endswith("\\"):
            return f"{quote}{text}{quote}"
    raise RefusedError(
        f"{text[:200]!r} cannot be written in a filter", why="It holds every kind of quote, or ends in a backslash."
    )
