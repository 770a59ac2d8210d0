"""Pieces of SQL with what is bound to them, and a WHERE clause that grows condition by condition."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field

from runproj.core.values import dataclass


@dataclass(frozen=True)
class Sql:
    """A piece of a statement, and the values of its placeholders."""

    text: str
    values: tuple[object, ...] = ()


NOTHING = Sql("")


def joined(word: str, parts: Sequence[Sql]) -> Sql:
    """The parts with a word between them, in parentheses where there are several; nothing where there are none."""
    text = word.join(part.text for part in parts)
    return Sql(f"({text})" if len(parts) > 1 else text, tuple(value for part in parts for value in part.values))


@dataclass
class Where:
    """Conditions, ANDed, with the values bound to them."""

    conditions: list[str] = field(default_factory=list)
    values: list[object] = field(default_factory=list)

    def add(self, condition: str, *values: object) -> None:
        self.conditions.append(condition)
        self.values.extend(values)

    def add_sql(self, part: Sql) -> None:
        """A condition that may be empty."""
        if part.text:
            self.add(part.text, *part.values)

    def extend(self, other: Where) -> None:
        self.conditions += other.conditions
        self.values += other.values

    def one_of(self, expression: str, values: Sequence[object]) -> None:
        """The expression is one of the values; never, where there are none."""
        if not values:
            self.add("1 = 0")
            return
        self.add(f"{expression} IN ({', '.join('?' * len(values))})", *values)

    @property
    def sql(self) -> str:
        return f"WHERE {' AND '.join(self.conditions)}" if self.conditions else ""
