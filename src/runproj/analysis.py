"""What goes with a metric: for each parameter of some runs, how strongly, and how easily by chance."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import replace
from enum import Enum

from runproj import stats
from runproj.core.correlation import (
    CategoryEffect,
    ConstantParameter,
    Correlation,
    Group,
    LeftOut,
    Measure,
    NumericEffect,
    Sample,
    Scale,
    TestedEffect,
    Together,
)
from runproj.core.run import Run, RunStatus
from runproj.core.values import dataclass
from runproj.errors import NotFoundError

FEW = 10
_DECADES = 2
_TOGETHER = 0.8
_MOST_PAIRED = 40  # parameters that are compared with each other

Effect = NumericEffect | CategoryEffect | ConstantParameter | LeftOut


class Sort(Enum):
    """How parameters are sorted: by strength, by p-value, or by name."""

    STRENGTH = "strength"
    P = "p"
    NAME = "name"


@dataclass(frozen=True)
class Question:
    """What is asked.  `params` restricts to those parameters; a parameter in fewer than `least` runs is left out."""

    filter: str = ""
    params: tuple[str, ...] = ()
    least: int = stats.FEWEST
    sort: Sort = Sort.STRENGTH


def sample(runs: Sequence[Run], metric: str, only: Sequence[str] = ()) -> Sample:
    """The metric of the runs that have it as a finite number, and their parameters.

    Raises `NotFoundError` where no run has the metric or one of the parameters `only`, naming those there are.
    """
    valued = [(run, value) for run in runs if math.isfinite(value := _metric(run, metric))]
    if not valued:
        known = ", ".join(sorted({item.key for run in runs for item in run.metrics})) or "none"
        what = "NaN or infinite in every run" if any(_has(run, metric) for run in runs) else "in none of these runs"
        raise NotFoundError(f"The metric {metric!r} is {what}", fix=f"Metrics of these {len(runs)} runs: {known}")
    params = [{item.key: item.value for item in run.params} for run, _ in valued]
    known_params = sorted({name for one in params for name in one})
    if missing := [name for name in only if name not in known_params]:
        raise NotFoundError(
            f"None of these runs has the parameter {missing[0]!r}", fix=f"Parameters: {', '.join(known_params) or 'none'}"
        )
    return Sample(
        metric=metric,
        runs=tuple(run.id for run, _ in valued),
        names=tuple(run.name for run, _ in valued),
        values=tuple(value for _, value in valued),
        params=tuple((name, tuple(one.get(name) for one in params)) for name in only or known_params),
    )


def _metric(run: Run, key: str) -> float:
    return next((item.value for item in run.metrics if item.key == key), math.nan)


def _has(run: Run, key: str) -> bool:
    return any(item.key == key for item in run.metrics)


def correlate(runs: Sequence[Run], given: Sample, question: Question) -> Correlation:
    """What goes with the metric of `given`, a sample of `runs`."""
    effects = [_effect(given, name, question.least) for name, _ in given.params]
    tested = [effect for effect in effects if isinstance(effect, NumericEffect | CategoryEffect)]
    ps = [effect.spearman.p if isinstance(effect, NumericEffect) else effect.kruskal.p for effect in tested]
    tested = [replace(effect, p_adjusted=p) for effect, p in zip(tested, stats.adjusted(ps), strict=True)]
    numeric = [effect for effect in tested if isinstance(effect, NumericEffect)]
    categories = [effect for effect in tested if isinstance(effect, CategoryEffect)]
    return Correlation(
        metric=given.metric,
        filter=question.filter,
        found=len(runs),
        n=len(given.runs),
        numeric=tuple(sorted(numeric, key=lambda effect: _place(effect, question.sort))),
        categories=tuple(sorted(categories, key=lambda effect: _place(effect, question.sort))),
        constants=tuple(effect for effect in effects if isinstance(effect, ConstantParameter)),
        left_out=tuple(effect for effect in effects if isinstance(effect, LeftOut)),
        together=tuple(_together(given, [effect.name for effect in numeric])),
        notes=tuple(_notes(runs, given)),
    )


def strength(effect: TestedEffect) -> float:
    """From 0 to 1, as a coefficient of correlation; 0 where nothing can be said.  Chance is taken off what groups explain."""
    if isinstance(effect, NumericEffect):
        return abs(effect.spearman.value or 0.0)
    return math.sqrt(max(0.0, (effect.eta_squared or 0.0) - effect.by_chance))


def _place(effect: TestedEffect, sort: Sort) -> tuple[float, str]:
    match sort:
        case Sort.STRENGTH:
            return -strength(effect), effect.name
        case Sort.P:
            p = effect.spearman.p if isinstance(effect, NumericEffect) else effect.kruskal.p
            return 2.0 if p is None else p, effect.name
        case Sort.NAME:
            return 0.0, effect.name


def _effect(given: Sample, name: str, least: int) -> Effect:
    """Numbers where all values are, or where at least half are and three differ; groups of equal texts otherwise."""
    read, texts = given.numbers(name), given.groups(name)
    count = sum(map(len, texts.values()))
    if len(texts) == 1 or (len(read) == count and len({number for _, number in read}) == 1):
        return ConstantParameter(name, next(iter(texts)), count)
    if count < least:
        return LeftOut(name, f"only {count} of these runs have it")
    if len(read) == count or (len(read) >= max(least, count / 2) and len({number for _, number in read}) >= 3):
        return _numeric(given, name, read, count - len(read))
    if len(texts) > count / 2:
        return LeftOut(name, f"{len(texts)} different texts in {count} runs")
    return _category(given, name, texts)


def _numeric(given: Sample, name: str, read: Sequence[tuple[int, float]], texts: int) -> NumericEffect:
    xs = [number for _, number in read]
    ys = [given.values[place] for place, _ in read]
    linear, log = stats.pearson(xs, ys), stats.pearson([math.log10(x) for x in xs], ys) if _wide(xs) else None
    scale = scale_of(xs)
    return NumericEffect(
        name=name,
        n=len(xs),
        least=min(xs),
        greatest=max(xs),
        scale=scale,
        pearson=log if log and scale is Scale.LOG else linear,
        pearson_linear=linear,
        pearson_log=log,
        spearman=stats.spearman(xs, ys),
        texts=texts,
    )


def _wide(xs: Sequence[float]) -> bool:
    return min(xs) > 0 and math.log10(max(xs)) - math.log10(min(xs)) >= _DECADES - 1e-9


def scale_of(xs: Sequence[float]) -> Scale:
    """Logarithmic where positive values span two decades and their median lies nearer to the middle of the logarithms."""
    if not _wide(xs):
        return Scale.LINEAR
    logs = [math.log10(x) for x in xs]
    return Scale.LOG if _off_centre(logs) <= _off_centre(xs) else Scale.LINEAR


def _off_centre(values: Sequence[float]) -> float:
    """How far the median is from the middle, as a share of the range."""
    low, high = min(values), max(values)
    middle = statistics.median_low(values) / 2 + statistics.median_high(values) / 2
    return abs((middle / 2 - low / 2) / (high / 2 - low / 2) - 0.5)


def _category(given: Sample, name: str, texts: dict[str, list[int]]) -> CategoryEffect:
    values = {text: [given.values[place] for place in places] for text, places in texts.items()}
    described = [_group(text, found) for text, found in values.items()]
    n = sum(map(len, values.values()))
    return CategoryEffect(
        name=name,
        n=n,
        groups=tuple(sorted(described, key=lambda group: (-group.mean, group.value))),
        eta_squared=stats.eta_squared(list(values.values())),
        by_chance=(len(values) - 1) / (n - 1),
        anova=stats.anova(list(values.values())),
        kruskal=stats.kruskal(list(values.values())),
    )


def _group(text: str, values: Sequence[float]) -> Group:
    largest = max(map(abs, values)) or 1.0
    scaled = [value / largest for value in values]  # so that no square overflows
    mean = math.fsum(scaled) / len(scaled)
    deviation = statistics.stdev(scaled, mean) * largest if len(values) > 1 else None
    if deviation is not None and not math.isfinite(deviation):  # beyond what a double can hold
        deviation = None
    median = statistics.median_low(values) / 2 + statistics.median_high(values) / 2
    return Group(text, len(values), mean * largest, median, deviation)


def _together(given: Sample, names: Sequence[str]) -> Iterable[Together]:
    """Pairs of parameters that vary together so closely that their effects cannot be told apart."""
    read = {name: dict(given.numbers(name)) for name in names[:_MOST_PAIRED]}
    for number, one in enumerate(read):
        for other in list(read)[number + 1 :]:
            both = read[one].keys() & read[other].keys()
            if len(both) < FEW:
                continue
            found: Measure = stats.spearman([read[one][place] for place in both], [read[other][place] for place in both])
            if found.value is not None and abs(found.value) >= _TOGETHER:
                yield Together((one, other), found.value)


def _notes(runs: Sequence[Run], given: Sample) -> Iterable[str]:
    """What a reader has to know of the sample."""
    n, metric = len(given.runs), given.metric
    without = sum(not _has(run, metric) for run in runs)
    infinite = len(runs) - without - n
    if without:
        yield f"{_runs(without)} without {metric}: left out."
    if infinite:
        yield f"{_runs(infinite)} with NaN or an infinity as {metric}: left out, though that is a result, too."
    chosen = set(given.runs)
    if unfinished := sum(run.status is not RunStatus.FINISHED for run in runs if run.id in chosen):
        yield f"{_runs(unfinished)} that did not finish: counted with the last value of {metric}."
    if n > 1 and min(given.values) == max(given.values):
        yield f"{metric} is {given.values[0]!r} in all {n} runs: nothing can go with it."
    if n < stats.FEWEST:
        yield f"{_runs(n)}: too few to say anything; {stats.FEWEST} are needed for a coefficient, {stats.FEWEST_FOR_P} for p."
    elif n < stats.FEWEST_FOR_P:
        yield f"{_runs(n)}: no p-value is given below {stats.FEWEST_FOR_P}."
    elif n < FEW:
        chance = stats.usual_by_chance(n)
        yield f"Only {n} runs: among so few, one unrelated parameter in twenty has a coefficient beyond ±{chance:.2f}."


def _runs(count: int) -> str:
    return "1 run" if count == 1 else f"{count} runs"
