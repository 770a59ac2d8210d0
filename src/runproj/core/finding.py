"""A question in the search language, as any store can be asked it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from runproj.core.condition import Condition, Order
from runproj.core.ordering import Place
from runproj.core.run import Lifecycle, Run
from runproj.core.values import dataclass


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


@dataclass(frozen=True)
class RunPage:
    """A page of the runs that a condition fits, as a database is asked for it.

    orders: newest first where there are none.
    limit:  how many runs, after `offset` of them.
    after:  the place of the last run of the page before; better than an offset, which has to count.
    """

    experiments: Sequence[str]
    condition: Condition
    orders: Sequence[Order] = ()
    lifecycle: Lifecycle | None = None
    limit: int = 100
    offset: int = 0
    after: Place | None = None


class RunFinder(Protocol):
    """A store that understands the search language."""

    def find_runs(self, search: RunSearch) -> Sequence[Run]:
        """Active runs that fit.  Raises `RefusedError` for a filter or an order that the store does not understand."""
