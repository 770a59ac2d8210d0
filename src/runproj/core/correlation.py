"""What goes with a metric: the document that `runs correlate` prints."""

from __future__ import annotations

from enum import Enum

from runproj.core.numbers import as_number
from runproj.core.values import dataclass


class Scale(Enum):
    """What a parameter's values were measured on before a line was laid through them."""

    LINEAR = "linear"
    LOG = "log"


@dataclass(frozen=True)
class Measure:
    """A coefficient or a test statistic.

    value: None where it is not defined: fewer than three runs, or nothing varies.
    p:     of both directions, None below four runs: the probability of a value at least as far out where nothing is related.
    """

    value: float | None = None
    p: float | None = None


@dataclass(frozen=True)
class NumericEffect:
    """A parameter whose values are numbers.

    n:              runs that have both a number there and the metric.
    scale:          linear, or logarithmic where positive values span two decades and are more evenly spread there.
    pearson:        how well a line fits, on `scale`;  `pearson_linear` the same without logarithms, `pearson_log` with them,
                    None where positive values do not span two decades.
    spearman:       how well any monotone curve fits; does not depend on the scale.
    p_adjusted:     p of `spearman`, adjusted for the number of parameters looked at (Benjamini and Hochberg 1995).
    texts:          further runs whose value is no number; they are left out here.
    """

    name: str
    n: int
    least: float
    greatest: float
    scale: Scale
    pearson: Measure
    pearson_linear: Measure
    pearson_log: Measure | None
    spearman: Measure
    p_adjusted: float | None = None
    texts: int = 0

    @property
    def other(self) -> tuple[Scale, Measure] | None:
        """Pearson's coefficient on the scale that was not chosen, where there are two."""
        if self.pearson_log is None:
            return None
        return (Scale.LINEAR, self.pearson_linear) if self.scale is Scale.LOG else (Scale.LOG, self.pearson_log)


@dataclass(frozen=True)
class Group:
    """The runs that share a value.  `deviation` is the standard deviation, None for one run."""

    value: str
    n: int
    mean: float
    median: float
    deviation: float | None = None


@dataclass(frozen=True)
class CategoryEffect:
    """A parameter whose values are words.  `groups` have the greatest mean first.

    eta_squared: share of the metric's variance that lies between the groups.
    by_chance:   the share that is to be expected where the groups do not matter, (groups - 1) / (n - 1).
    anova:       F and its p;  `kruskal` is the test of Kruskal and Wallis, by ranks.
    p_adjusted:  p of `kruskal`, adjusted as above.
    """

    name: str
    n: int
    groups: tuple[Group, ...]
    eta_squared: float | None
    by_chance: float
    anova: Measure
    kruskal: Measure
    p_adjusted: float | None = None


TestedEffect = NumericEffect | CategoryEffect


@dataclass(frozen=True)
class ConstantParameter:
    """A parameter that has one value in all its `n` runs: nothing can be said of it."""

    name: str
    value: str
    n: int


@dataclass(frozen=True)
class LeftOut:
    """A parameter that was not looked at."""

    name: str
    why: str


@dataclass(frozen=True)
class Together:
    """Two numeric parameters that vary together, so that what goes with one goes with the other.  Spearman's coefficient."""

    names: tuple[str, str]
    spearman: float


@dataclass(frozen=True)
class Correlation:
    """`runs correlate`.  `found` runs fit the filter, `n` of them have the metric as a finite number.

    Parameters are sorted by how strongly they go with the metric, unless the command was told otherwise.
    """

    metric: str
    filter: str
    found: int
    n: int
    numeric: tuple[NumericEffect, ...]
    categories: tuple[CategoryEffect, ...]
    constants: tuple[ConstantParameter, ...]
    left_out: tuple[LeftOut, ...]
    together: tuple[Together, ...]
    notes: tuple[str, ...]

    @property
    def tested(self) -> tuple[TestedEffect, ...]:
        """Numbers, then words."""
        return (*self.numeric, *self.categories)


@dataclass(frozen=True)
class Sample:
    """What is looked at: the metric of some runs, and their parameters.  All tuples are as long as `runs`."""

    metric: str
    runs: tuple[str, ...]
    names: tuple[str, ...]
    values: tuple[float, ...]
    params: tuple[tuple[str, tuple[str | None, ...]], ...]

    def texts(self, name: str) -> tuple[str | None, ...]:
        """The values of a parameter; None where a run lacks it."""
        return next(texts for known, texts in self.params if known == name)

    def numbers(self, name: str) -> list[tuple[int, float]]:
        """Where in the sample a parameter is a number, and which."""
        read = ((place, as_number(text)) for place, text in enumerate(self.texts(name)) if text is not None)
        return [(place, number) for place, number in read if number is not None]

    def groups(self, name: str) -> dict[str, list[int]]:
        """Where in the sample a parameter has which text."""
        found: dict[str, list[int]] = {}
        for place, text in enumerate(self.texts(name)):
            if text is not None:
                found.setdefault(text, []).append(place)
        return found


def p_text(p: float | None) -> str:
    """A p-value as it is printed: 0.031, 2e-09, or - where there is none."""
    return "-" if p is None else f"{p:.3f}" if p >= 0.001 else "0" if p == 0 else f"{p:.0e}"


def r_text(value: float | None) -> str:
    """A coefficient as it is printed, with its sign."""
    return "-" if value is None else f"{value:+.3f}"
