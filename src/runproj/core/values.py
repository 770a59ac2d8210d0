"""`dataclass` of the standard library, for frozen values: the same classes, defined at a tenth of the cost.

The standard decorator writes and compiles six methods for every class, used or not; for the hundred and more classes that a
command loads, this was two fifths of the time until it began. Here fields are known at once, and a class gets its methods when
it is first used.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

T = TypeVar("T")

_MADE = ("__init__", "__repr__", "__eq__", "__hash__")

if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass
else:

    def dataclass(cls: type[T] | None = None, /, **options: bool) -> Any:
        """As the standard decorator; what is more than frozen, or less, or has any of the methods itself, gets them at once."""
        if cls is None:
            return lambda given: dataclass(given, **options)
        own = any(name in cls.__dict__ for name in (*_MADE, "__setattr__", "__delattr__"))
        return _frozen(cls) if options == {"frozen": True} and not own else dataclasses.dataclass(**options)(cls)


def _frozen(cls: type[T]) -> type[T]:
    names = (*cls.__annotations__, "__module__", "__post_init__")
    given = {name: cls.__dict__[name] for name in names if name in cls.__dict__}  # before defaults are taken off the class
    cls.__doc__ = cls.__doc__ or f"{cls.__name__}({', '.join(cls.__annotations__)})"
    given |= {"__annotations__": cls.__annotations__, "__doc__": cls.__doc__, "__qualname__": cls.__qualname__}
    dataclasses.dataclass(init=False, repr=False, eq=False)(cls)

    def make(names: Sequence[str]) -> None:
        """Have the standard decorator make methods, for a class with the same fields; to do so twice does no harm."""
        used = "__init__" in names
        decorate = dataclasses.dataclass(frozen=True, init=used, repr=not used, eq=not used, match_args=False)
        twin: type = decorate(type(cls.__name__, (), dict(given)))
        for name in names:
            setattr(cls, name, getattr(twin, name))

    for names in (("__init__",), ("__repr__", "__eq__", "__hash__")):  # the others of most classes are never called
        for name in names:
            setattr(cls, name, _first(cls, name, functools.partial(make, names)))
    for name in ("__setattr__", "__delattr__"):
        setattr(cls, name, _refusing(cls, name))
    return cls


def _first(cls: type, name: str, make: Callable[[], None]) -> Callable[..., object]:
    """Stands for a method until it is called."""

    def call(self: object, *args: object, **kwargs: object) -> object:
        make()
        return getattr(cls, name)(self, *args, **kwargs)

    return call


def _refusing(cls: type, name: str) -> Callable[..., None]:
    """Refuses to change what is frozen, as the standard method does; a subclass may have attributes of its own."""
    verb = "assign to" if name == "__setattr__" else "delete"

    def refuse(self: object, attribute: str, *value: object) -> None:
        if type(self) is cls or attribute in cls.__dataclass_fields__:  # type: ignore[attr-defined]
            raise dataclasses.FrozenInstanceError(f"cannot {verb} field {attribute!r}")
        getattr(super(cls, self), name)(attribute, *value)

    return refuse
