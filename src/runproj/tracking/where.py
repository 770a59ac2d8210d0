"""A WHERE clause that grows condition by condition, with what is bound to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class Where:
    """Conditions, ANDed, with the values bound to them."""

    conditions: list[str] = field(default_factory=list)
    values: list[object] = field(default_factory=list)

    def add(self, condition: str, *values: object) -> None:
        self.conditions.append(condition)
        self.values.extend(values)

    def one_of(self, expression: str, values: Sequence[object]) -> None:
        self.add(f"{expression} IN ({', '.join('?' * len(values))})", *values)

    @property
    def sql(self) -> str:
        return f"WHERE {' AND '.join(self.conditions)}" if self.conditions else ""
