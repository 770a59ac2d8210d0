"""Frozen values are those of the standard library, whatever comes first in a process."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import threading
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, FrozenInstanceError, field
from functools import cached_property
from typing import Any, ClassVar

import msgspec
import pytest

from runproj.core.values import dataclass


def made(decorator: Callable[..., Any]) -> type:
    """The same class by one decorator or another."""

    @decorator(frozen=True)
    class Point:
        """Where."""

        x: int
        names: Sequence[str] = ()
        LEAST: ClassVar[int] = 1
        _: KW_ONLY
        tags: dict[str, str] = field(default_factory=dict, compare=False)
        hidden: int = field(default=7, repr=False)

        def __post_init__(self) -> None:
            if self.x < self.LEAST:
                raise ValueError("too small")

        @cached_property
        def double(self) -> int:
            return 2 * self.x

    return Point


FIRST: dict[str, Callable[[type], object]] = {
    "made": lambda kind: kind(1, ("a",)),
    "with names": lambda kind: kind(x=1, tags={"a": "b"}),
    "two factories": lambda kind: kind(1).tags is kind(1).tags,
    "shown": lambda kind: repr(kind(2)).rpartition(".")[2],
    "equal": lambda kind: (kind(1) == kind(1, tags={"a": "b"}), kind(1) == kind(2), kind(1) == 1),
    "hashed": lambda kind: (len({kind(1), kind(1), kind(2)}), hash(kind(1)) == hash(kind(1))),
    "replaced": lambda kind: dataclasses.replace(kind(1), x=3),
    "as a dict": lambda kind: dataclasses.asdict(kind(1)),
    "its fields": lambda kind: [(item.name, item.type, item.default, item.kw_only) for item in dataclasses.fields(kind)],
    "matched": lambda kind: kind.__match_args__,
    "documented": lambda kind: kind.__doc__,
    "missing": lambda kind: kind(),
    "too many": lambda kind: kind(1, (), {}),
    "checked": lambda kind: kind(0),
    "set": lambda kind: setattr(kind(1), "x", 2),
    "set to more": lambda kind: setattr(kind(1), "more", 2),
    "deleted": lambda kind: delattr(kind(1), "x"),
    "deleted more": lambda kind: delattr(kind(1), "more"),
    "cached": lambda kind: kind(4).double,
    "copied": lambda kind: copy.deepcopy(kind(1, ("a",))),
    "read": lambda kind: msgspec.convert({"x": 5, "names": ["a"]}, kind),
    "read, hashed first": lambda kind: hash(msgspec.convert({"x": 5}, kind)),
    "read, set first": lambda kind: setattr(msgspec.convert({"x": 5}, kind), "x", 1),
    "written": lambda kind: msgspec.json.encode(msgspec.convert({"x": 5}, kind)),
    "a subclass": lambda kind: type("Sub", (kind,), {})(1, ("a",)).names,
    "a subclass's own": lambda kind: setattr(type("Sub", (kind,), {})(1), "more", 2),
    "a subclass's field": lambda kind: setattr(type("Sub", (kind,), {})(1), "x", 2),
}


def outcome(use: Callable[[type], object], kind: type) -> object:
    """What it gives, or how it fails, in words that do not tell the two classes apart."""
    try:
        found = use(kind)
    except Exception as error:
        return type(error), str(error)
    return vars(found) if dataclasses.is_dataclass(found) else found


@pytest.mark.parametrize("name", FIRST)
def test_it_is_the_standard_one(name):
    ours, theirs = made(dataclass), made(dataclasses.dataclass)
    assert outcome(FIRST[name], ours) == outcome(FIRST[name], theirs)
    assert outcome(FIRST[name], ours) == outcome(FIRST[name], theirs), "once more, with methods made"


@dataclass(frozen=True)
class Kept:
    """Found again by its name."""

    x: int = 1


def test_pickled_before_anything_else():
    fresh = pickle.loads(pickle.dumps(object.__new__(Kept)))
    assert (type(fresh), pickle.loads(pickle.dumps(Kept(3)))) == (Kept, Kept(3))


def test_threads_that_use_it_first_at_the_same_time():
    for _ in range(50):
        kind, found, begin = made(dataclass), [], threading.Barrier(4)

        def use(kind: type = kind, found: list[object] = found, begin: threading.Barrier = begin) -> None:
            begin.wait()
            found.append(kind(1) == kind(1))

        threads = [threading.Thread(target=use) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == [True] * 4


def test_inherited():
    @dataclass(frozen=True)
    class Base:
        x: int = 1

    @dataclass(frozen=True)
    class Ours(Base):
        y: int = 2

    @dataclasses.dataclass(frozen=True)
    class Theirs(Base):
        y: int = 2

    assert (Ours(3, 4).x, Ours(3, 4).y, Theirs(3, 4).x, Ours(3) == Ours(3)) == (3, 4, 3, True)
    with pytest.raises(TypeError, match="frozen"):

        @dataclasses.dataclass
        class Open(Base):
            y: int = 2


def test_what_is_not_frozen_or_has_methods_of_its_own_is_made_at_once():
    @dataclass
    class Open:
        x: int = 1

    @dataclass(frozen=True, slots=True)
    class Slim:
        x: int = 1

    @dataclass(frozen=True)
    class Own:
        x: int = 1

        def __repr__(self) -> str:
            return "own"

    changed = Open()
    changed.x = 2
    assert (changed == Open(2), Own(1) == Own(1), repr(Own()), hasattr(Slim(), "__dict__")) == (True, True, "own", False)
    with pytest.raises(FrozenInstanceError):
        Own().x = 3  # type: ignore[misc]
