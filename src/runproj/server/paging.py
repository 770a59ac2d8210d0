"""Pages of search results: how many, where they begin, and which states of things are looked at."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence

from runproj.core.run import Lifecycle
from runproj.server.fields import Fields
from runproj.server.protocol import invalid
from runproj.server.wire import compact

_VIEWS = {"ACTIVE_ONLY": Lifecycle.ACTIVE, "DELETED_ONLY": Lifecycle.DELETED, "ALL": None}
_VIEW_NUMBERS = {"1": "ACTIVE_ONLY", "2": "DELETED_ONLY", "3": "ALL"}


def view(fields: Fields, name: str) -> Lifecycle | None:
    """The lifecycle that is looked at; None for any.  A word that is unknown counts as absent, as with MLflow."""
    given = fields.word(name)
    return _VIEWS.get(_VIEW_NUMBERS.get(given, given), Lifecycle.ACTIVE)


def bounded(fields: Fields, default: int | None, most: int) -> int:
    """`max_results`.  Raises `Problem`; where there is no default, for an absent one, too."""
    limit = fields.integer("max_results")
    if limit is None:
        limit = default
    if limit is None or not 1 <= limit <= most:
        raise invalid(f"Invalid value {limit} for parameter 'max_results' supplied: it must be a whole number from 1 to {most}.")
    return limit


def page(name: str, items: Sequence[object], limit: int, offset: int) -> dict[str, object]:
    """A page of at most `limit` items; `items` holds one more where more follow."""
    more = len(items) > limit
    return compact({name: list(items[:limit]), "next_page_token": token(offset + limit) if more else None})


def token(offset: int) -> str:
    """The page token for what comes after `offset` items."""
    return base64.b64encode(json.dumps({"offset": offset}).encode()).decode()


def offset_of(page_token: str | None) -> int:
    """The number of items before the page.  Raises `Problem`."""
    if not page_token:
        return 0
    try:
        found = json.loads(base64.b64decode(page_token, validate=True))["offset"]
    except (ValueError, KeyError, TypeError):
        found = None
    if not isinstance(found, int) or isinstance(found, bool) or not 0 <= found < 1 << 62:
        raise invalid(f"Invalid page token {page_token!r}.")
    return found
