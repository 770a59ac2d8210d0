"""A lock with one package as another lock has it, to find out which package decides a result."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

from runproj.core.environment import EnvLock
from runproj.environments import pylock
from runproj.environments.digests import lock_digest

T = TypeVar("T")


def with_package(lock: EnvLock, other: EnvLock, name: str) -> EnvLock:
    """`lock`, but with the package `name` (or local package, by its path) as it is in `other`: another, one more, or one less.

    Whether it fits together is for the trial to show.
    """
    mixed = replace(
        lock,
        conda=_swapped(lock.conda, other.conda, name, "name"),
        local_packages=_swapped(lock.local_packages, other.local_packages, name, "path"),
        pylock=_with_block(lock.pylock, other.pylock, name),
    )
    return replace(mixed, digest=lock_digest(mixed))


def _swapped(mine: tuple[T, ...], others: tuple[T, ...], name: str, key: str) -> tuple[T, ...]:
    kept = [item for item in mine if getattr(item, key) != name]
    taken = [item for item in others if getattr(item, key) == name]
    return tuple(sorted([*kept, *taken], key=lambda item: str(getattr(item, key))))


def _with_block(mine: str | None, others: str | None, name: str) -> str | None:
    if mine is None or others is None:
        return mine
    head, blocks = pylock.split(mine)
    kept = [block for block in blocks if pylock.name_of(block) != name]
    taken = [block for block in pylock.split(others)[1] if pylock.name_of(block) == name]
    return pylock.joined(head, sorted([*kept, *taken], key=pylock.name_of))
