"""Page tokens of run searches: the place where the last page ended, and the question that it is a place in."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Sequence

from runproj.core.condition import Order
from runproj.core.ordering import MISSING, NAN, PRESENT, Place, Spot, numeric
from runproj.core.values import dataclass
from runproj.server.paging import offset_of
from runproj.server.protocol import Problem, invalid

_INT64 = 1 << 63


@dataclass(frozen=True)
class Start:
    """Where a page begins: after a place, or after a number of items for tokens that say no more."""

    after: Place | None = None
    offset: int = 0


def mark(*asked: object) -> str:
    """A short text that differs for different questions."""
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:16]


def token_after(place: Place, question: str) -> str:
    found = {"after": [*(list(spot) for spot in place.spots), place.start, place.id], "of": question}
    return base64.b64encode(json.dumps(found, separators=(",", ":")).encode()).decode()


def start_of(page_token: str | None, orders: Sequence[Order], question: str) -> Start:
    """Raises `Problem` for a token that no server made, or that belongs to another question."""
    if not page_token:
        return Start()
    try:
        found = json.loads(base64.b64decode(page_token, validate=True))
    except (ValueError, RecursionError):
        raise _no_token(page_token) from None
    if not isinstance(found, dict) or "after" not in found:
        return Start(offset=offset_of(page_token))
    if found.get("of") != question:
        raise invalid("The page token belongs to a search with another filter, order, view, or other experiments.")
    place = _place(found["after"], orders)
    if place is None:
        raise _no_token(page_token)
    return Start(place)


def _no_token(page_token: str) -> Problem:
    return invalid(f"Invalid page token {page_token[:200]!r}.")


def _place(raw: object, orders: Sequence[Order]) -> Place | None:
    match raw:
        case [*raw_spots, int() as start, str() as run_id] if len(raw_spots) == len(orders) and _storable(start):
            spots = [_spot(spot, order) for spot, order in zip(raw_spots, orders, strict=True)]
            found = [spot for spot in spots if spot is not None]
            return Place(tuple(found), start, run_id) if len(found) == len(spots) and _storable(run_id) else None
    return None


def _spot(raw: object, order: Order) -> Spot | None:
    match raw:
        case [0, str() as text] if not numeric(order) and _storable(text):
            return PRESENT, text
        case [0, int() | float() as number] if numeric(order) and _storable(number):
            return PRESENT, number
        case [1, None]:
            return NAN, None
        case [2, None]:
            return MISSING, None
    return None


def _storable(value: float | str) -> bool:
    """Whether a value can be bound: tokens come from outside."""
    match value:
        case bool():
            return False
        case str():
            return "\0" not in value and not any("\ud800" <= sign <= "\udfff" for sign in value)
        case int():
            return -_INT64 <= value < _INT64
        case _:
            return not math.isnan(value)
