"""Points in time as a search may write them: dates, and times ago."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

_DATE = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})(?:[T ]([0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,6})?)?))?\s?(Z|[-+][0-9]{2}:?[0-9]{2})?"
)
_UNITS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def moment(text: str) -> int | None:
    """The milliseconds since the epoch of a date or time, in UTC unless it has a zone; None where it is none.

    A date is its first moment: `2026-01-31`, `2026-01-31T12:00`, `2026-01-31 12:00:30.5Z`, `2026-01-31T12:00+02:00`.
    """
    found = _DATE.fullmatch(text)
    if not found:
        return None
    date, time, zone = found.groups()
    try:
        when = datetime.fromisoformat(f"{date}T{time or '00:00'}{zone or 'Z'}")
        return (when - _EPOCH) // timedelta(milliseconds=1)
    except (ValueError, OverflowError):
        return None


def ago(count: int, unit: str, now: int) -> int:
    """The moment `count` units (s, m, h, d, w) before `now`; all in milliseconds since the epoch."""
    return now - count * _UNITS[unit]
