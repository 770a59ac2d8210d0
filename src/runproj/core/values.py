"""`dataclass` of the standard library for frozen values, which has a method of a class made when it is first called.

The standard decorator writes and compiles six for every class, used or not; for the price see `docs/explanation/decisions.md`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

T = TypeVar("T")

_MADE = (("__init__",), ("__repr__", "__eq__", "__hash__"))
"""Made together; those of the second kind are never called of most classes."""
_REFUSING = ("__setattr__", "__delattr__")

if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass
else:

    def dataclass(cls: type[T] | None = None, /, **options: bool) -> Any:
        """As the standard decorator; what is not just frozen, or inherits, or has one of the methods, gets them at once."""
        if cls is None:
            return lambda given: dataclass(given, **options)
        plain = cls.__bases__ == (object,) and not cls.__dict__.keys() & {*_MADE[0], *_MADE[1], *_REFUSING}
        return _frozen(cls) if options == {"frozen": True} and plain else dataclasses.dataclass(**options)(cls)


def _frozen(cls: type[T]) -> type[T]:
    kept = (*cls.__annotations__, "__module__", "__post_init__")
    given = {name: cls.__dict__[name] for name in kept if name in cls.__dict__}  # before defaults are taken off the class
    cls.__doc__ = cls.__doc__ or f"{cls.__name__}({', '.join(cls.__annotations__)})"  # so schemas see that nobody wrote it
    given |= {"__annotations__": cls.__annotations__, "__doc__": cls.__doc__, "__qualname__": cls.__qualname__}
    dataclasses.dataclass(init=False, repr=False, eq=False)(cls)
    cls.__dataclass_params__.frozen = True  # type: ignore[attr-defined]  # the decorator has made it; whoever inherits looks

    def make(names: Sequence[str]) -> None:
        """Have the standard decorator make methods, for a class with the same fields; to do so twice does no harm."""
        init = "__init__" in names
        decorate = dataclasses.dataclass(frozen=True, init=init, repr=not init, eq=not init, match_args=False)
        twin: type = decorate(type(cls.__name__, (), dict(given)))
        for name in names:
            setattr(cls, name, getattr(twin, name))

    for names in _MADE:
        for name in names:
            setattr(cls, name, _first(cls, name, functools.partial(make, names)))
    for name in _REFUSING:
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
    fields = {field.name for field in dataclasses.fields(cls)}

    def refuse(self: object, attribute: str, *value: object) -> None:
        if type(self) is cls or attribute in fields:
            raise dataclasses.FrozenInstanceError(f"cannot {verb} field {attribute!r}")
        getattr(super(cls, self), name)(attribute, *value)

    return refuse
