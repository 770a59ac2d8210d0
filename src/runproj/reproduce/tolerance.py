"""What a metric of a replay may come out as: by the descriptor, by how it varied before, or by a weak default."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence

from runproj.core.project import Expectation
from runproj.core.values import dataclass
from runproj.core.verdict import MetricCheck, Noise, Sameness
from runproj.stats import student_quantile

FEWEST = 3
"""Runs of one recipe from which a prediction interval is made."""
DEFAULT = 0.01
"""Relative tolerance where nothing says anything better."""


@dataclass(frozen=True)
class Tolerances:
    """expect: of the descriptor, by metric;  `noise`: how metrics varied over earlier runs of the recipe."""

    expect: Mapping[str, Expectation]
    noise: Mapping[str, Noise]

    def of(self, name: str, original: float | None) -> tuple[float, float, str]:
        """The least and the greatest value that is within tolerance, and why, in words."""
        if wanted := self.expect.get(name):
            return _expected(wanted)
        known = self.noise.get(name)
        if known is not None and known.n >= FEWEST and math.isfinite(known.mean) and math.isfinite(known.sd):
            return interval(known)
        if original is None or not math.isfinite(original):
            return math.nan, math.nan, "equal, as it is no finite number"
        width = abs(original) * DEFAULT
        return original - width, original + width, f"within {DEFAULT:.0%}, the weak default for metrics that nothing is known of"


def _expected(wanted: Expectation) -> tuple[float, float, str]:
    """As `numpy.isclose` has it: |x - value| <= atol + rtol * |value|; the default where neither is given."""
    rtol = DEFAULT if wanted.rtol is None and wanted.atol is None else wanted.rtol or 0.0
    width = (wanted.atol or 0.0) + rtol * abs(wanted.value)
    return wanted.value - width, wanted.value + width, f"expected {wanted.value:g} ± {width:.6g}"


def interval(known: Noise) -> tuple[float, float, str]:
    """Where the next run is in 95 of 100 cases, if the metric is normally distributed."""
    width = student_quantile(0.975, known.n - 1) * known.sd * math.sqrt(1 + 1 / known.n)
    return known.mean - width, known.mean + width, f"95 % prediction interval of {known.n} runs"


def noise_of(values: Mapping[str, Sequence[float]]) -> tuple[Noise, ...]:
    """How each metric varied; those with fewer than two values are left out."""
    return tuple(_noise(name, found) for name, found in sorted(values.items()) if len(found) > 1)


def _noise(name: str, values: Sequence[float]) -> Noise:
    if not all(map(math.isfinite, values)):
        return Noise(name, len(values), math.nan, math.nan)
    if len(set(values)) == 1:  # no rounding may make noise of it
        return Noise(name, len(values), values[0], 0.0, None if values[0] == 0 else 0.0, values[0], values[0])
    mean = math.fsum(values) / len(values)
    sd = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))
    return Noise(name, len(values), mean, sd, sd / abs(mean) if mean else None, min(values), max(values))


def same_bits(one: float, other: float) -> bool:
    """Equality of doubles bit by bit, but for NaN, of which there is one."""
    return (math.isnan(one) and math.isnan(other)) or struct.pack("<d", one) == struct.pack("<d", other)


def check_metrics(original: Mapping[str, float], replay: Mapping[str, float], allowed: Tolerances) -> tuple[MetricCheck, ...]:
    """Every metric of either run."""
    names = sorted({*original, *replay})
    return tuple(_check(name, original.get(name), replay.get(name), allowed) for name in names)


def _check(name: str, one: float | None, other: float | None, allowed: Tolerances) -> MetricCheck:
    if other is None:
        return MetricCheck(name, Sameness.MISSING, one)
    if one is not None and same_bits(one, other):
        return MetricCheck(name, Sameness.EXACT, one, other)
    low, high, why = allowed.of(name, one)
    if low <= other <= high:
        return MetricCheck(name, Sameness.WITHIN, one, other, why, low, high)
    kind = Sameness.NEW if one is None and name not in allowed.expect else Sameness.DIFFERENT
    bounds = (None, None) if math.isnan(low) else (low, high)
    return MetricCheck(name, kind, one, other, why if one is not None or name in allowed.expect else "", *bounds)
