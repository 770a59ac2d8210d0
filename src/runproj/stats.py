"""Statistics of small samples, with the standard library: coefficients, tests, and the tails of their distributions.

The incomplete beta and gamma functions are computed by series and continued fractions (Abramowitz and Stegun 6.5, 26.5; the
fractions by Lentz's method).  Tests compare all of it with SciPy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from runproj.core.correlation import Measure

FEWEST = 3
"""Runs below which a coefficient says nothing: through two points there is always a line."""
FEWEST_FOR_P = 4


def pearson(xs: Sequence[float], ys: Sequence[float]) -> Measure:
    """Pearson's coefficient, with p from Student's distribution.  Values are finite."""
    n = len(xs)
    if n < FEWEST or min(xs) == max(xs) or min(ys) == max(ys):
        return Measure()
    dx, dy = _centred(xs), _centred(ys)
    product = math.fsum(a * b for a, b in zip(dx, dy, strict=True))
    size = math.sqrt(math.fsum(a * a for a in dx)) * math.sqrt(math.fsum(b * b for b in dy))
    if not size:
        return Measure()
    r = max(-1.0, min(1.0, product / size))
    return Measure(r, p_of_r(r, n) if n >= FEWEST_FOR_P else None)


def _centred(values: Sequence[float]) -> list[float]:
    """Deviations from the mean in units of the greatest, so that squares neither vanish nor overflow."""
    largest = max(map(abs, values))
    scaled = [value / largest for value in values]
    mean = math.fsum(scaled) / len(scaled)
    deviations = [value - mean for value in scaled]
    widest = max(map(abs, deviations))
    return [deviation / widest for deviation in deviations] if widest else deviations


def p_of_r(r: float, n: int) -> float:
    """Probability of a coefficient at least as far from 0 in `n` unrelated pairs."""
    return _beta((n - 2) / 2, 0.5, (1 - r) * (1 + r))


def spearman(xs: Sequence[float], ys: Sequence[float]) -> Measure:
    """Spearman's coefficient: Pearson's of the ranks; equal values share the mean of their ranks."""
    return pearson(ranks(xs), ranks(ys))


def ranks(values: Sequence[float]) -> list[float]:
    """1 for the least; equal values get the mean of the ranks that they take up."""
    order = sorted(range(len(values)), key=values.__getitem__)
    found = [0.0] * len(values)
    start = 0
    while start < len(order):
        end = start
        while end < len(order) and values[order[end]] == values[order[start]]:
            end += 1
        for place in order[start:end]:
            found[place] = (start + end + 1) / 2
        start = end
    return found


def eta_squared(groups: Sequence[Sequence[float]]) -> float | None:
    """Share of the variance that lies between the groups; None where nothing varies."""
    everything = [value for group in groups for value in group]
    if min(everything) == max(everything):
        return None
    deviations = _centred(everything)
    total = math.fsum(value * value for value in deviations)
    between, start = [], 0
    for group in groups:
        part = deviations[start : start + len(group)]
        between.append(math.fsum(part) ** 2 / len(part))
        start += len(group)
    return min(1.0, math.fsum(between) / total)


def anova(groups: Sequence[Sequence[float]]) -> Measure:
    """F of the analysis of variance, and its p.  Undefined where no group has two values."""
    n, k = sum(map(len, groups)), len(groups)
    share = eta_squared(groups)
    if share is None or k < 2 or n <= k:
        return Measure()
    f = (share / (k - 1)) / ((1 - share) / (n - k)) if share < 1 else math.inf
    return Measure(f, _beta((n - k) / 2, (k - 1) / 2, 1 - share) if n >= FEWEST_FOR_P else None)


def kruskal(groups: Sequence[Sequence[float]]) -> Measure:
    """H of Kruskal and Wallis, corrected for equal values, and its p from the χ² distribution."""
    everything = [value for group in groups for value in group]
    n, k = len(everything), len(groups)
    if k < 2 or n <= k or min(everything) == max(everything):
        return Measure()
    ranked, start, total = ranks(everything), 0, 0.0
    for group in groups:
        total += sum(ranked[start : start + len(group)]) ** 2 / len(group)
        start += len(group)
    h = 12 * total / (n * (n + 1)) - 3 * (n + 1)
    counts: dict[float, int] = {}
    for value in everything:
        counts[value] = counts.get(value, 0) + 1
    h = max(0.0, h / (1 - sum(count**3 - count for count in counts.values()) / (n**3 - n)))
    return Measure(h, _upper_gamma((k - 1) / 2, h / 2) if n >= FEWEST_FOR_P else None)


def adjusted(ps: Sequence[float | None]) -> list[float | None]:
    """p-values adjusted for their number, so that of those below 5 % one in twenty is false (Benjamini and Hochberg 1995)."""
    order = sorted((place for place, p in enumerate(ps) if p is not None), key=lambda place: ps[place] or 0.0)
    found: list[float | None] = [None] * len(ps)
    least = 1.0
    for rank in range(len(order), 0, -1):
        place = order[rank - 1]
        least = min(least, (ps[place] or 0.0) * len(order) / rank)
        found[place] = least
    return found


def usual_by_chance(n: int) -> float:
    """How far from 0 a coefficient of `n` unrelated pairs is in one of twenty cases."""
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if p_of_r(middle, n) > 0.05 else (low, middle)
    return high


def _beta(a: float, b: float, x: float) -> float:
    """The regularised incomplete beta function I_x(a, b)."""
    if x <= 0:
        return 0.0
    if x >= 1:
        return 1.0
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x))
    if x > (a + 1) / (a + b + 2):
        return 1 - front * _fraction(*_beta_terms(b, a, 1 - x)) / b
    return front * _fraction(*_beta_terms(a, b, x)) / a


Term = Callable[[int], float]


def _beta_terms(a: float, b: float, x: float) -> tuple[float, Term, Term]:
    def numerator(step: int) -> float:
        if step == 1:
            return 1.0
        m, odd = divmod(step - 1, 2)
        if odd:
            return -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        return m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))

    return 0.0, numerator, lambda _: 1.0


def _upper_gamma(a: float, x: float) -> float:
    """The regularised upper incomplete gamma function Q(a, x)."""
    if x <= 0:
        return 1.0
    front = math.exp(a * math.log(x) - x - math.lgamma(a))
    if x < a + 1:
        term = total = 1 / a
        step = a
        while abs(term) > abs(total) * 1e-17:
            step += 1
            term *= x / step
            total += term
        return 1 - front * total
    return front * _fraction(0.0, lambda j: 1.0 if j == 1 else -(j - 1) * (j - 1 - a), lambda j: x + 2 * j - 1 - a)


def _fraction(first: float, numerator: Term, denominator: Term) -> float:
    """The value of first + numerator(1) / (denominator(1) + numerator(2) / (denominator(2) + …))."""
    tiny = 1e-300
    value = first or tiny
    c, d = value, 0.0
    for step in range(1, 10_000):
        above, below = numerator(step), denominator(step)
        d = 1 / ((below + above * d) or tiny)
        c = (below + above / c) or tiny
        value *= c * d
        if abs(c * d - 1) < 1e-16:
            break
    return value


def student_quantile(probability: float, freedom: int) -> float:
    """The value that Student's distribution stays below with a probability of at least one half, by bisection."""
    low, high = 0.0, 1.0
    while _student_tail(high, freedom) > 1 - probability:
        low, high = high, high * 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if _student_tail(middle, freedom) > 1 - probability else (low, middle)
    return high


def _student_tail(t: float, freedom: int) -> float:
    """Probability of more than `t` >= 0 (Abramowitz and Stegun 26.7.1)."""
    return _beta(freedom / 2, 0.5, freedom / (freedom + t * t)) / 2
