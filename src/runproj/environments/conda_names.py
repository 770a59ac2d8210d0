"""conda's names and versions → PyPI's."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mapped:
    """Dependencies in pip's words, the interpreter wish that was among them, and what has no counterpart."""

    requirements: tuple[str, ...] = ()
    python: str | None = None
    notes: tuple[str, ...] = ()


def translate(dependencies: tuple[str, ...]) -> Mapped:
    return Mapped(dependencies)
