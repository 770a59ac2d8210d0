"""What a search asks for: conditions as a small tree, and the fields to sort by."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum

from runproj.core.values import dataclass


class Entity(Enum):
    ATTRIBUTE = "attribute"
    METRIC = "metric"
    PARAM = "param"
    TAG = "tag"
    DATASET = "dataset"


class Operator(Enum):
    EQUAL = "="
    UNEQUAL = "!="
    GREATER = ">"
    GREATER_EQUAL = ">="
    LESS = "<"
    LESS_EQUAL = "<="
    LIKE = "LIKE"
    ILIKE = "ILIKE"
    IN = "IN"
    NOT_IN = "NOT IN"
    IS_NULL = "IS NULL"
    IS_NOT_NULL = "IS NOT NULL"


Value = float | str | tuple[str, ...] | None


@dataclass(frozen=True)
class Clause:
    """One comparison.  `value` is a number, a text, several texts (IN), or None (IS [NOT] NULL).

    A parameter that is compared with a number is compared as a number.  A clause on something that is not there is false, except
    for IS NULL; so is every comparison of NaN, except for `!=`.
    """

    entity: Entity
    key: str
    operator: Operator
    value: Value


@dataclass(frozen=True)
class And:
    """All of the parts.  Without any, it is always true."""

    parts: tuple[Condition, ...]


@dataclass(frozen=True)
class Or:
    """At least one of the parts."""

    parts: tuple[Condition, ...]


@dataclass(frozen=True)
class Not:
    """Whatever the part is not: conditions are true or false, never unknown."""

    part: Condition


Condition = Clause | And | Or | Not

EVERYTHING = And(())
"""The condition of an empty filter."""


@dataclass(frozen=True)
class Order:
    entity: Entity
    key: str
    ascending: bool = True


def clauses_of(condition: Condition) -> Iterator[Clause]:
    """Every comparison in a condition, from left to right."""
    match condition:
        case Clause():
            yield condition
        case Not(part):
            yield from clauses_of(part)
        case And(parts) | Or(parts):
            for part in parts:
                yield from clauses_of(part)
