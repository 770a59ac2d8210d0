"""Which texts are numbers: what comparisons of parameters with numbers look at."""

from __future__ import annotations

import math
import re

_NUMBER = re.compile(r"\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*", re.ASCII)


def as_number(value: str) -> float | None:
    """The finite number that a parameter's text is; None where it is none."""
    if len(value) > 64 or not _NUMBER.fullmatch(value):
        return None
    number = float(value)
    return number if math.isfinite(number) else None
