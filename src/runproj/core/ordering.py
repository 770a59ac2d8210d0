"""The order of runs, and places in it: where one page of results ends and the next begins."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from runproj.core.condition import Entity, Order
from runproj.core.evaluate import values
from runproj.core.run import Run
from runproj.core.values import dataclass

PRESENT, NAN, MISSING = 0, 1, 2
"""In either direction values come first, then NaN, then what is not there."""

Spot = tuple[int, float | str | None]
"""One of the three above, and the value, if there is one to compare."""


@dataclass(frozen=True)
class Place:
    """Where a run stands: by each field of the order, then newest first, then by id."""

    spots: tuple[Spot, ...]
    start: int
    id: str


def place(run: Run, orders: Sequence[Order]) -> Place:
    return Place(tuple(_spot(run, order) for order in orders), run.start, run.id)


def _spot(run: Run, order: Order) -> Spot:
    found = values(order.entity, order.key, run)
    if not found:
        return MISSING, None
    if isinstance(found[0], float) and math.isnan(found[0]):
        return NAN, None
    return PRESENT, found[0]


def ordered(runs: Iterable[Run], orders: Sequence[Order]) -> list[Run]:
    """The runs in order.  The specification of what stores do."""
    found = sorted(sorted(runs, key=lambda run: run.id), key=lambda run: -run.start)
    for number, order in reversed(list(enumerate(orders))):
        spots = {run.id: place(run, orders).spots[number] for run in found}
        present = sorted(
            (run for run in found if spots[run.id][0] == PRESENT),
            key=lambda run: spots[run.id][1],  # type: ignore[arg-type,return-value]  # all numbers, or all texts
            reverse=not order.ascending,
        )
        found = present + [run for rank in (NAN, MISSING) for run in found if spots[run.id][0] == rank]
    return found


def numeric(order: Order) -> bool:
    """Whether the values of the field are numbers."""
    return order.entity is Entity.METRIC or (order.entity is Entity.ATTRIBUTE and order.key in ("start_time", "end_time"))
