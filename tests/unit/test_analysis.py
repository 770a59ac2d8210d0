"""The statistics of `runs correlate` against SciPy, and what becomes of values that are no clean numbers."""

from __future__ import annotations

import math
import warnings

import pytest
import scipy.stats
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from runproj import stats
from runproj.analysis import Question, Sort, correlate, sample
from runproj.core.correlation import Correlation, Scale
from runproj.core.numbers import as_number
from runproj.core.run import Metric, Param, Run, RunStatus
from runproj.errors import NotFoundError

NUMBERS = st.one_of(
    st.floats(-1e6, 1e6).map(lambda value: round(value, 6)),
    st.integers(-3, 3).map(float),  # many ties
)
PAIRS = st.lists(st.tuples(NUMBERS, NUMBERS), min_size=4, max_size=60)
GROUPS = st.lists(st.lists(NUMBERS, min_size=1, max_size=12), min_size=2, max_size=6)


def runs_of(values: list[float], status: RunStatus = RunStatus.FINISHED, **params: list[str | None]) -> list[Run]:
    return [
        Run(
            id=f"{number:032x}",
            experiment_id="0",
            name=f"run {number}",
            status=status,
            start=0,
            params=tuple(Param(name, text) for name, texts in params.items() if (text := texts[number]) is not None),
            metrics=(Metric("accuracy", value, 0),),
        )
        for number, value in enumerate(values)
    ]


def asked(runs: list[Run], **question: object) -> Correlation:
    return correlate(runs, sample(runs, "accuracy"), Question(**question))  # type: ignore[arg-type]  # fields of Question


def same(ours: float | None, theirs: float, tolerance: float = 1e-7) -> bool:
    return ours is not None and math.isclose(ours, theirs, rel_tol=tolerance, abs_tol=1e-12)


@settings(deadline=None)
@given(PAIRS)
def test_coefficients_are_scipys(pairs: list[tuple[float, float]]) -> None:
    xs, ys = zip(*pairs, strict=True)
    if min(xs) == max(xs) or min(ys) == max(ys):
        assert stats.pearson(xs, ys) == stats.spearman(xs, ys) == stats.Measure()
        return
    assert stats.ranks(xs) == list(scipy.stats.rankdata(xs))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        line, curve = scipy.stats.pearsonr(xs, ys), scipy.stats.spearmanr(xs, ys)
    for ours, theirs in ((stats.pearson(xs, ys), line), (stats.spearman(xs, ys), curve)):
        assert ours.value is not None
        assert math.isclose(ours.value, theirs.statistic, abs_tol=1e-9)
        if abs(ours.value) < 0.999999:  # p of a nearly perfect line hangs on the last bits of the coefficient
            assert same(ours.p, theirs.pvalue, 1e-6)


@settings(deadline=None)
@given(GROUPS)
def test_tests_of_groups_are_scipys(groups: list[list[float]]) -> None:
    everything = [value for group in groups for value in group]
    assume(min(everything) < max(everything) and len(everything) > max(3, len(groups)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        f, h = scipy.stats.f_oneway(*groups), scipy.stats.kruskal(*groups)
    share = stats.eta_squared(groups)
    assert share is not None
    if 1e-9 < share < 1 - 1e-9:
        assert same(stats.anova(groups).value, f.statistic, 1e-5)
        assert same(stats.anova(groups).p, f.pvalue, 1e-5)
    ours = stats.kruskal(groups)
    assert ours.value is not None
    assert math.isclose(ours.value, h.statistic, rel_tol=1e-8, abs_tol=1e-8)
    assert ours.p is not None
    assert math.isclose(ours.p, h.pvalue, rel_tol=1e-6, abs_tol=1e-8)


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=40))
def test_adjusted_p_values_are_scipys(ps: list[float]) -> None:
    assert stats.adjusted(ps) == pytest.approx(list(scipy.stats.false_discovery_control(ps)))


@settings(deadline=None)
@given(st.floats(0.5, 5000), st.floats(0.5, 50), st.floats(0, 1))
def test_the_beta_function_is_scipys(a: float, b: float, x: float) -> None:
    assert same(stats._beta(a, b, x), float(scipy.special.betainc(a, b, x)), 1e-8)


@settings(deadline=None)
@given(st.floats(0.5, 200), st.floats(0, 2000))
def test_the_gamma_function_is_scipys(a: float, x: float) -> None:
    assert same(stats._upper_gamma(a, x), float(scipy.special.gammaincc(a, x)), 1e-8)


def test_known_values() -> None:
    """Anscombe's first quartet (1973), and Student's table: r of 10 pairs is significant at 5 % from 0.632 on."""
    xs = [10.0, 8, 13, 9, 11, 14, 6, 4, 12, 7, 5]
    ys = [8.04, 6.95, 7.58, 8.81, 8.33, 9.96, 7.24, 4.26, 10.84, 4.82, 5.68]
    assert stats.pearson(xs, ys).value == pytest.approx(0.81642, abs=1e-5)
    assert stats.pearson(xs, ys).p == pytest.approx(0.00217, abs=1e-5)
    assert stats.usual_by_chance(10) == pytest.approx(0.632, abs=5e-4)
    assert stats.pearson([1, 2, 3, 4], [2, 4, 6, 8]) == stats.Measure(1.0, 0.0)
    assert stats.adjusted([0.01, None, 0.04, 0.03]) == pytest.approx([0.03, None, 0.04, 0.04])


@settings(deadline=None)
@given(PAIRS, st.sampled_from([1e-300, 1e300, 5e-310]))
def test_no_size_of_numbers_breaks_it(pairs: list[tuple[float, float]], size: float) -> None:
    xs, ys = zip(*pairs, strict=True)
    huge = [x / 1e6 * size for x in xs]
    found = stats.pearson(huge, ys)
    assert found.value is None or abs(found.value) <= 1
    share = stats.eta_squared([huge, huge[:2]])
    assert share is None or 0 <= share <= 1


@pytest.mark.parametrize("text", ["1e-3", "1", "-.5", "+2.", " 7 ", "1E+5"])
def test_numbers_are_numbers(text: str) -> None:
    assert as_number(text) == float(text)


@pytest.mark.parametrize("text", ["0x10", "nan", "inf", "-Infinity", "True", "1_000", "", "1e999", "1,5", "٣", "1 2", "9" * 65])
def test_words_are_words(text: str) -> None:
    assert as_number(text) is None


def test_each_parameter_is_taken_for_what_it_is() -> None:
    values = [0.5, 0.6, 0.7, 0.8, 0.9, 0.95]
    found = asked(
        runs_of(
            values,
            rate=["1e-3", "0.01", "0.1", "1", "10", "100"],
            depth=["3", "None", "5", "6", "7", "None"],
            flag=["True", "False", "True", "True", "False", "True"],
            code=["0x10", "0x11", "0x12", "0x13", "0x14", "0x15"],
            broken=["nan", "nan", "inf", "nan", "inf", "nan"],
            same=["1", "1.0", "1", "1e0", "1", "1"],
            word=["a"] * 6,
            rare=["1", None, None, "2", None, None],
        )
    )
    numeric = {effect.name: effect for effect in found.numeric}
    assert {name: (effect.n, effect.texts, effect.scale) for name, effect in numeric.items()} == {
        "rate": (6, 0, Scale.LOG),
        "depth": (4, 2, Scale.LINEAR),
    }
    assert numeric["rate"].spearman.value == pytest.approx(1)
    assert (numeric["rate"].pearson.value or 0) > (numeric["rate"].pearson_linear.value or 1)
    assert {effect.name: {group.value: group.n for group in effect.groups} for effect in found.categories} == {
        "flag": {"True": 4, "False": 2},
        "broken": {"nan": 4, "inf": 2},
    }
    assert {item.name: item.value for item in found.constants} == {"same": "1", "word": "a"}
    assert {item.name: item.why for item in found.left_out} == {
        "code": "6 different texts in 6 runs",
        "rare": "only 2 of these runs have it",
    }


def test_both_scales_are_told_where_there_are_two() -> None:
    uniform = [str(value / 1000) for value in (1, *range(50, 1000, 50))]
    decades = [f"1e{value % 5}" for value in range(20)]
    narrow = [str(value + 1) for value in range(20)]
    found = asked(runs_of([float(value) for value in range(20)], uniform=uniform, decades=decades, narrow=narrow))
    effects = {effect.name: effect for effect in found.numeric}
    assert {name: effect.scale for name, effect in effects.items()} == {
        "uniform": Scale.LINEAR,
        "decades": Scale.LOG,
        "narrow": Scale.LINEAR,
    }
    assert effects["uniform"].pearson == effects["uniform"].pearson_linear
    assert effects["uniform"].other == (Scale.LOG, effects["uniform"].pearson_log)
    assert effects["decades"].pearson == effects["decades"].pearson_log
    assert effects["decades"].other == (Scale.LINEAR, effects["decades"].pearson_linear)
    assert effects["narrow"].other is None


def test_groups_are_described() -> None:
    [effect] = asked(runs_of([1.0, 2.0, 3.0, 7.0, 8.0, 9.0], kind=list("aaabbb"))).categories
    assert [(group.value, group.n, group.mean, group.median, group.deviation) for group in effect.groups] == [
        ("b", 3, 8.0, 8.0, 1.0),
        ("a", 3, 2.0, 2.0, 1.0),
    ]
    assert effect.eta_squared == pytest.approx(54 / 58)
    assert effect.by_chance == pytest.approx(1 / 5)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 9, 10])
def test_small_samples_are_said_to_be_small(count: int) -> None:
    values = [float(value * value) for value in range(count)]
    found = asked(runs_of(values, lr=[str(value + 1) for value in range(count)]), least=1)
    measures = [(effect.spearman.value is None, effect.spearman.p is None) for effect in found.numeric]
    assert measures == ([] if count == 1 else [(count < 3, count < 4)])
    assert bool(found.notes) == (count < 10)


def test_what_is_not_finite_is_left_out_and_counted() -> None:
    values = [0.1, math.nan, 0.3, math.inf, -math.inf, 0.2, 0.5, 0.9]
    runs = runs_of(values, lr=[str(value) for value in range(8)])
    found = asked([*runs, Run("f" * 32, "0", "no metric", RunStatus.FINISHED, 0)])
    assert (found.found, found.n, found.numeric[0].n) == (9, 5, 5)
    assert found.notes[:2] == (
        "1 run without accuracy: left out.",
        "3 runs with NaN or an infinity as accuracy: left out, though that is a result, too.",
    )


def test_nothing_goes_with_what_does_not_vary() -> None:
    found = asked(runs_of([0.5] * 12, lr=[str(value) for value in range(12)], kind=list("ab" * 6)))
    assert (found.numeric[0].spearman, found.numeric[0].p_adjusted) == (stats.Measure(), None)
    assert (found.categories[0].eta_squared, found.categories[0].kruskal) == (None, stats.Measure())
    assert found.notes == ("accuracy is 0.5 in all 12 runs: nothing can go with it.",)


def test_parameters_that_go_together_are_named() -> None:
    counted = [str(value) for value in range(12)]
    found = asked(runs_of([float(value) for value in range(12)], a=counted, b=counted, c=list("112345123456")))
    assert [item.names for item in found.together] == [("a", "b")]


def test_effects_are_sorted() -> None:
    runs = runs_of([1.0, 2, 3, 4, 5, 6], a=list("135246"), c=list("654312"), b=list("123456"))
    order = {sort: [effect.name for effect in asked(runs, sort=sort).numeric] for sort in Sort}
    assert order == {
        Sort.STRENGTH: ["b", "c", "a"],
        Sort.P: ["b", "c", "a"],
        Sort.NAME: ["a", "b", "c"],
    }


def test_unknown_names_are_errors_that_name_the_known() -> None:
    runs = runs_of([1.0, math.nan], lr=["1", "2"])
    for metric, only in (("loss", ()), ("accuracy", ("depth",))):
        with pytest.raises(NotFoundError, match=r"accuracy|lr"):
            sample(runs, metric, only)
    with pytest.raises(NotFoundError, match="NaN or infinite"):
        sample(runs[1:], "accuracy")
    with pytest.raises(NotFoundError, match="none"):
        sample([], "accuracy")


def test_runs_that_did_not_finish_are_counted() -> None:
    found = asked(runs_of([1.0, 2, 3] * 4, RunStatus.FAILED, lr=[str(value) for value in range(12)]))
    assert found.notes == ("12 runs that did not finish: counted with the last value of accuracy.",)
