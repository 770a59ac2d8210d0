"""The grammar of search spaces: what a value says, what does not fit, and what is drawn from it."""

from __future__ import annotations

import math

import pytest

from runproj.core.project import Command, EntryPoint, Parameter, ParameterType
from runproj.core.space import Choices, Range, Space, axis, check_rows, count, drawn, endless, grid, rows_of
from runproj.errors import ParameterError

T = ParameterType
POINT = EntryPoint(
    "main",
    Command(argv=("x",)),
    (
        Parameter("lr", T.FLOAT, minimum=0, maximum=10),
        Parameter("depth", T.INT),
        Parameter("name", T.STRING),
        Parameter("columns", T.LIST),
        Parameter("options", T.OBJECT),
        Parameter("kind", T.CHOICE, choices=("a", "b", "c")),
        Parameter("data", T.PATH),
        Parameter("key", T.SECRET),
        Parameter("on", T.BOOL),
    ),
    open=False,
)


@pytest.mark.parametrize(
    ("name", "text", "meant"),
    [
        ("lr", "0.1,0.01", Choices("lr", ("0.1", "0.01"))),
        ("lr", "0.1", "0.1"),
        ("lr", "0.3..1.0", Range("lr", 0.3, 1.0)),
        ("lr", "1e-4..1:log", Range("lr", 1e-4, 1, log=True)),
        ("lr", "0.1..0.9:0.2", Range("lr", 0.1, 0.9, 0.2)),
        ("depth", "2..8", Range("depth", 2, 8, whole=True)),
        ("depth", "2..8:3", Range("depth", 2, 8, 3, whole=True)),
        ("name", "a,b", Choices("name", ("a", "b"))),
        ("name", '"a,b"', "a,b"),
        ("name", '"a,b","say ""c"""', Choices("name", ("a,b", 'say "c"'))),
        ("name", '"2..8"', "2..8"),
        ("name", "2..8", Range("name", 2, 8, whole=True)),
        ("columns", "a,b", "a,b"),
        ("columns", '"a,b","c"', Choices("columns", ("a,b", "c"))),
        ("columns", '["a", "b"]', '["a", "b"]'),
        ("options", '{"a": 1, "b": 2}', '{"a": 1, "b": 2}'),
        ("kind", "a,c", Choices("kind", ("a", "c"))),
        ("data", "../data", "../data"),
        ("on", "true,false", Choices("on", ("true", "false"))),
        ("key", "x,y", "x,y"),
    ],
)
def test_what_a_value_says(name: str, text: str, meant: object) -> None:
    assert axis(POINT, name, text) == meant


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("lr", "0.1,fast", ["lr", "fast", "float"]),
        ("lr", "0.1..11", ["lr", "11", "more than the greatest"]),
        ("lr", "1..0.1", ["not less", "lr=0.1..1"]),
        ("lr", "0..1:log", ["above 0"]),
        ("lr", "0..1:lgo", ["'lgo'", "LOW..HIGH:STEP"]),
        ("lr", "0..1:2", ["step 2"]),
        ("lr", "0.1,0.1", ["twice"]),
        ("depth", "2..8.5", ["depth", "8.5", "int"]),
        ("depth", "2..8:0.5", ["whole number"]),
        ("depth", "1,2..4", ["2..4", "int"]),
        ("kind", "a,d", ["kind", "'d'", "a, b, c"]),
        ("name", '"a', ["double quotes"]),
    ],
)
def test_what_does_not_fit_is_explained(name: str, text: str, words: list[str]) -> None:
    with pytest.raises(ParameterError) as caught:
        axis(POINT, name, text)
    assert all(word in str(caught.value) + caught.value.fix for word in words), caught.value


def test_a_grid_goes_through_everything_once() -> None:
    space = Space((Choices("kind", ("a", "b")),), (Range("lr", 0.1, 0.7, 0.1), Range("depth", 1, 3, whole=True)))
    assert count(space) == 2 * 7 * 3
    trials = [grid(space, number) for number in range(42)]
    assert len(set(trials)) == 42
    assert trials[0] == (("kind", "a"), ("lr", "0.1"), ("depth", "1"))
    assert {dict(trial)["lr"] for trial in trials} == {"0.1", "0.2", "0.3", "0.4", "0.5", "0.6", "0.7"}
    assert endless(space) is None
    assert endless(Space((), (Range("lr", 0, 1),))) == "lr"


def test_random_trials_depend_on_seed_and_number_alone() -> None:
    space = Space(
        (Choices("kind", ("a", "b", "c")),),
        (Range("lr", 1e-4, 1, log=True), Range("depth", 2, 8, 2, whole=True), Range("wide", 1, 1000, log=True, whole=True)),
    )
    trials = [dict(drawn(space, 7, number)) for number in range(400)]
    assert trials == [dict(drawn(space, 7, number)) for number in range(400)]
    assert trials != [dict(drawn(space, 8, number)) for number in range(400)]
    assert {trial["depth"] for trial in trials} == {"2", "4", "6", "8"}
    assert {trial["kind"] for trial in trials} == {"a", "b", "c"}
    rates = sorted(float(trial["lr"]) for trial in trials)
    assert rates[0] >= 1e-4 and rates[-1] <= 1
    assert math.log10(rates[200]) == pytest.approx(-2, abs=0.4)
    assert all(1 <= int(trial["wide"]) <= 1000 for trial in trials)


def test_rows_of_a_file() -> None:
    rows = rows_of('\ufefflr,name\n0.1,"a,b"\n0.2,\n', "trials.csv")
    assert rows == ((("lr", "0.1"), ("name", "a,b")), (("lr", "0.2"),))
    check_rows(POINT, rows, "trials.csv")
    for text in ("lr\n", "lr,lr\n1,2\n", "lr,name\n1\n", "l r\n1\n"):
        with pytest.raises(ParameterError):
            rows_of(text, "trials.csv")
    with pytest.raises(ParameterError, match=r"Trial 2 of trials\.csv"):
        check_rows(POINT, rows_of("lr\n0.1\nx\n", "trials.csv"), "trials.csv")
    with pytest.raises(ParameterError, match="secret"):
        check_rows(POINT, rows_of("key\nx\n", "trials.csv"), "trials.csv")
