"""Which backends there are: ours, and those that other packages offer as entry points of the group `runproj.backends`.

An entry point names a function of a `BackendContext` that returns a `Backend`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path

from runproj.core.backend import Backend
from runproj.core.template import suggestion
from runproj.core.values import dataclass
from runproj.errors import BackendError, UsageError

GROUP = "runproj.backends"

OURS: Mapping[str, str] = {
    "kubernetes": "runproj.backends.kubernetes:make",
    "queue": "runproj.backends.queue:make",
    "ray": "runproj.backends.ray:make",
    "slurm": "runproj.backends.slurm:make",
    "ssh": "runproj.backends.ssh:make",
}
"""Name → module and function."""


@dataclass(frozen=True)
class BackendContext:
    """What a backend is made with.

    home: where runproj keeps its things;  environ: variables of the user's shell;  tracking_uri: of the store;
    tell: says in a few words what takes long; nothing, when it is over.
    """

    home: Path
    environ: Mapping[str, str]
    tracking_uri: str = ""
    tell: Callable[[str], None] = lambda _: None


Make = Callable[[BackendContext], Backend]


class Catalogue:
    """The backends of a home.  `built_in`: those that are made otherwise."""

    def __init__(self, context: BackendContext, built_in: Mapping[str, Callable[[], Backend]]) -> None:
        self._context = context
        self._makers = dict(built_in)
        self._made: dict[str, Backend] = {}

    def names(self) -> list[str]:
        """All there are, sorted."""
        return sorted({*self._makers, *OURS, *_offered()})

    def open(self, name: str) -> Backend:
        """The backend of that name.  Raises `UsageError` where there is none, `BackendError` for one that cannot be loaded."""
        if name not in self._made:
            self._made[name] = self._make(name)
        return self._made[name]

    def _make(self, name: str) -> Backend:
        if name in self._makers:
            return self._makers[name]()
        if name in OURS:
            module, _, function = OURS[name].partition(":")
            make: Make = getattr(importlib.import_module(module), function)
            return make(self._context)
        offered = _offered()
        if name not in offered:
            names = self.names()
            fix = f"Backends: {', '.join(names)}; `runproj backends` lists them, and profiles of config.toml."
            raise UsageError(f"There is no backend {name!r}", why=suggestion(name, names), fix=fix)
        try:
            return offered[name]()(self._context)
        except Exception as error:  # anything may be wrong with somebody else's package
            raise BackendError(f"The backend {name!r} cannot be loaded", why=f"{type(error).__name__}: {error}") from error


def _offered() -> dict[str, Callable[[], Make]]:
    """Name → what loads the function that makes it."""
    from importlib.metadata import entry_points

    return {entry.name: entry.load for entry in entry_points(group=GROUP)}
