"""A question in the search language, as any store can be asked it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from runproj.core.run import Run


@dataclass(frozen=True)
class RunSearch:
    """Which runs, and in which order.

    filter:      a filter of the search language; empty fits every run.
    order:       texts like `metrics.loss DESC`; newest first where there is none.
    experiments: ids; empty means all that are not deleted.
    """

    filter: str = ""
    order: tuple[str, ...] = ()
    experiments: tuple[str, ...] = ()
    limit: int = 100


class RunFinder(Protocol):
    """A store that understands the search language."""

    def find_runs(self, search: RunSearch) -> Sequence[Run]:
        """Active runs that fit.  Raises `RefusedError` for a filter or an order that the store does not understand."""
