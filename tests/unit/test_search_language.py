"""The search language: what it understands, what it refuses, and what it finds."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runproj.core.finding import RunPage
from runproj.core.run import Metric, NewRun, Param, RunChanges, Tag
from runproj.core.search import (
    EVERYTHING,
    EXPERIMENTS,
    LOGGED_MODELS,
    MODEL_VERSIONS,
    REGISTERED_MODELS,
    RUNS,
    And,
    Clause,
    Entity,
    Not,
    Operator,
    Or,
    Order,
    parse_filter,
    parse_order,
)
from runproj.errors import RefusedError
from runproj.tracking.full import FullStore

DAY = 86_400_000
M, P, T, A, D = Entity.METRIC, Entity.PARAM, Entity.TAG, Entity.ATTRIBUTE, Entity.DATASET


@pytest.mark.parametrize(
    ("text", "clauses"),
    [
        ("metrics.loss < 0.5", (Clause(M, "loss", Operator.LESS, 0.5),)),
        ("metric.loss>=-1e-3", (Clause(M, "loss", Operator.GREATER_EQUAL, -1e-3),)),
        ("metrics.a = .5 and metrics.b != 1.", (Clause(M, "a", Operator.EQUAL, 0.5), Clause(M, "b", Operator.UNEQUAL, 1.0))),
        ("metrics.`val/loss x` = 1", (Clause(M, "val/loss x", Operator.EQUAL, 1),)),
        ("tags.mlflow.runName = 'x'", (Clause(T, "mlflow.runName", Operator.EQUAL, "x"),)),
        ("params.\"a b\" LIKE '%x_'", (Clause(P, "a b", Operator.LIKE, "%x_"),)),
        ("parameters.größe ilike 'Ä%'", (Clause(P, "größe", Operator.ILIKE, "Ä%"),)),
        ('params.a = "it\'s"', (Clause(P, "a", Operator.EQUAL, "it's"),)),
        ("status = 'FINISHED'", (Clause(A, "status", Operator.EQUAL, "FINISHED"),)),
        ("attributes.`Run Name` = 'x'", (Clause(A, "run_name", Operator.EQUAL, "x"),)),
        ("attr.created > 5", (Clause(A, "start_time", Operator.GREATER, 5),)),
        ("run_id IN ('a', \"b\",)", (Clause(A, "run_id", Operator.IN, ("a", "b")),)),
        ("run_id not in ('a')", (Clause(A, "run_id", Operator.NOT_IN, ("a",)),)),
        (
            "tags.a IS NULL AND params.b IS NOT NULL",
            (Clause(T, "a", Operator.IS_NULL, None), Clause(P, "b", Operator.IS_NOT_NULL, None)),
        ),
        ("params.a='1' params.b='2'", (Clause(P, "a", Operator.EQUAL, "1"), Clause(P, "b", Operator.EQUAL, "2"))),
        ("dataset.digest = 'x'", (Clause(D, "digest", Operator.EQUAL, "x"),)),
        ("params.a = 'x AND y'", (Clause(P, "a", Operator.EQUAL, "x AND y"),)),
        ("params.a = 'x' AND", (Clause(P, "a", Operator.EQUAL, "x"),)),
        ("and params.a = 'x' AND AND ", (Clause(P, "a", Operator.EQUAL, "x"),)),
        ("params.AND = 'x'", (Clause(P, "AND", Operator.EQUAL, "x"),)),
        (
            "params.a = 'it''s' and params.b='a\\'b'",
            (Clause(P, "a", Operator.EQUAL, "it''s"), Clause(P, "b", Operator.EQUAL, "a\\'b")),
        ),
        ("params.lr < 0.1 and params.n != -2", (Clause(P, "lr", Operator.LESS, 0.1), Clause(P, "n", Operator.UNEQUAL, -2.0))),
        (
            "params.a IN ('1', '2') AND status NOT IN ('FAILED')",
            (Clause(P, "a", Operator.IN, ("1", "2")), Clause(A, "status", Operator.NOT_IN, ("FAILED",))),
        ),
        ("metrics.a IS NULL", (Clause(M, "a", Operator.IS_NULL, None),)),
        ("end_time IS NOT NULL", (Clause(A, "end_time", Operator.IS_NOT_NULL, None),)),
        ("start_time >= '1970-01-02'", (Clause(A, "start_time", Operator.GREATER_EQUAL, DAY),)),
        ("start_time < '1970-01-02T01:00+01:00'", (Clause(A, "start_time", Operator.LESS, DAY),)),
        ('start_time < "1970-01-02 00:00:00.5Z"', (Clause(A, "start_time", Operator.LESS, DAY + 500),)),
        ("created > -6h", (Clause(A, "start_time", Operator.GREATER, DAY // 4 * 3),)),
        ("start_time > -7", (Clause(A, "start_time", Operator.GREATER, -7),)),
    ],
)
def test_what_filters_mean(text, clauses):
    found = parse_filter(text, RUNS, now=DAY)
    assert found == (clauses[0] if len(clauses) == 1 else And(clauses))


@pytest.mark.parametrize(
    "text",
    [
        "   ",
        "metrics.loss",
        "metrics.loss <",
        "metrics.loss < 'x'",
        "metrics.loss LIKE 'x'",
        "metrics.loss = inf",
        "metrics.loss = +1",
        "params.a = x",
        "params.a > 'x'",
        "params.a == 'x'",
        "params.a <> 'x'",
        "params.a-b = 'x'",
        "params.a = 'x';",
        "Params.a = 'x'",
        "nothing.a = 'x'",
        "unknown = 'x'",
        "run_id IN ()",
        "run_id IN ('a' 'b')",
        "run_id IN ('a'",
        "status > 'a'",
        "status IS NULL",
        "start_time = '5'",
        "params.`a = 'x'",
        "AND",
        "(params.a = 'x' AND)",
        "params.a = 'x' AND OR params.b = 'x'",
        "params.a = 'x' OR",
        "OR params.a = 'x'",
        "NOT",
        "NOT params.a",
        "()",
        "(params.a = 'x'",
        "params.a = 'x')",
        "params.a = 'x' (params.b = 'y')",
        "params.a = 'x' NOT params.b = 'y'",
        "params.a NOT LIKE 'x'",
        "params.a = 'x' OR AND params.b = 'x'",
        "params.a < '1'",
        "tags.a = 1",
        "start_time > '2026-02-30'",
        "start_time > '12:00'",
        "start_time = '2026-01-31'",
        "start_time > -7y",
        "metrics.a IN ('x')",
        "params.a = 'a\0b'",
        "params.a = '\ud800'",
        "(" * 10_000,
        "(" * 10_000 + "metrics.a = 1" + ")" * 10_000,
        "NOT " * 10_000 + "metrics.a = 1",
        " AND ".join(["metrics.a = 1"] * 5_000),
        "run_id = '" + "x" * 200_000 + "'",
        "run_id LIKE '" + "%" * 6_000 + "'",
        "params.a = 'it''s",
    ],
)
def test_what_is_no_filter(text):
    with pytest.raises(RefusedError, match="Invalid filter"):
        parse_filter(text, RUNS)


def test_other_things_have_other_fields():
    assert parse_filter("version_number = '2'", MODEL_VERSIONS) == Clause(A, "version_number", Operator.EQUAL, 2)
    found = parse_filter("name ILIKE 'x' AND tag.`k` != 'true'", REGISTERED_MODELS)
    assert found == And((Clause(A, "name", Operator.ILIKE, "x"), Clause(T, "k", Operator.UNEQUAL, "true")))
    for text in ("attributes.name = 'x'", "metrics.a = 1"):
        with pytest.raises(RefusedError):
            parse_filter(text, EXPERIMENTS)
    with pytest.raises(RefusedError):
        parse_filter("params.lr < 1", LOGGED_MODELS)


a, b, c = (Clause(P, key, Operator.EQUAL, "1") for key in "abc")


@pytest.mark.parametrize(
    ("text", "condition"),
    [
        ("params.a='1' OR params.b='1' AND params.c='1'", Or((a, And((b, c))))),
        ("params.a='1' params.b='1' or params.c='1'", Or((And((a, b)), c))),
        ("(params.a='1' OR params.b='1')AND(params.c='1')", And((Or((a, b)), c))),
        ("not params.a='1' and params.b='1'", And((Not(a), b))),
        ("NOT(params.a='1' and params.b='1')", Not(And((a, b)))),
        ("NOT NOT params.a='1'", Not(Not(a))),
        ("((params.a='1')OR params.b='1'OR params.c='1')", Or((a, b, c))),
        ("(metrics.a=1)", Clause(M, "a", Operator.EQUAL, 1.0)),
        ("(params.a IS NULL)", Clause(P, "a", Operator.IS_NULL, None)),
    ],
)
def test_conditions_are_a_tree(text, condition):
    assert parse_filter(text, RUNS) == condition


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "metrics.a = 1 AND params.lr < 'x'",
            """Invalid filter: a number is expected
  metrics.a = 1 AND params.lr < 'x'
                                ^
Parameters are compared by < and > as numbers: params.lr < 0.1""",
        ),
        (
            "params.größe\t= '指标' AND tag.x == '1'",
            """Invalid filter: an operator (=, !=, <, LIKE, …) is expected
  params.größe = '指标' AND tag.x == '1'
                                  ^
Write = for equal.""",
        ),
        (
            "metrics.val/loss < 1",
            """Invalid filter: an operator (=, !=, <, LIKE, …) is expected
  metrics.val/loss < 1
             ^
Put names with other characters than letters, digits, _ and . into backticks: metrics.`val/loss`""",
        ),
        (
            "state = 'x'",
            """Invalid filter: 'state' is not one of run_id, run_name, status, user_id, artifact_uri, start_time, end_time
  state = 'x'
  ^
Did you mean status?""",
        ),
        ("params.a = x1", "Invalid filter: a text in quotes is expected\n  params.a = x1\n             ^\nWrite 'x1'."),
    ],
)
def test_errors_point_at_the_character(text, message):
    with pytest.raises(RefusedError) as caught:
        parse_filter(text, RUNS)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("metrics.r2 == 0.5", "Write = for equal."),
        ("metrics.r2 <> 0.5", "Write != for unequal."),
        ("start_time > yesterday", "Write milliseconds since 1970, '2026-01-31', '2026-01-31T12:00+01:00', or -7d."),
        ("r2 > 0.5", "Did you mean metrics.r2 or params.r2?"),
        ("`val/loss` < 1", "Did you mean metrics.`val/loss` or params.`val/loss`?"),
        ("dataset.x = 'a'", ""),
    ],
)
def test_errors_say_what_may_have_been_meant(text, hint):
    with pytest.raises(RefusedError) as caught:
        parse_filter(text, RUNS)
    assert caught.value.fix == hint


def test_long_texts_are_shown_around_the_place():
    with pytest.raises(RefusedError) as caught:
        parse_filter(f"params.a = '{'x' * 500}' ! {'y' * 500}", RUNS)
    shown, caret = caught.value.why.splitlines()
    assert len(shown) < 110
    assert shown[len(caret) - 1] == "!"


def test_orders():
    texts = ["metrics.`a b` DESC", "start_time", "params.x asc", "params.x DESC"]
    assert parse_order(texts, RUNS) == (Order(M, "a b", False), Order(A, "start_time"), Order(P, "x"))
    assert parse_order(["metrics.a:desc", "metrics.`b:desc`:ASC"], RUNS) == (Order(M, "a", False), Order(M, "b:desc"))
    with pytest.raises(RefusedError, match=r"Write it like metrics.r2:desc or 'metrics.r2 DESC'"):
        parse_order(["metrics.r2:down"], RUNS)
    for text in ("metrics.a NULLS LAST", "dataset.name", "", "unknown DESC", "metrics.a, metrics.b"):
        with pytest.raises(RefusedError):
            parse_order([text], RUNS)


@given(st.text(max_size=60))
def test_no_text_does_harm(text):
    for language in (RUNS, EXPERIMENTS, MODEL_VERSIONS):
        try:
            parse_filter(text, language)
            parse_order([text], language)
        except RefusedError:
            pass


@pytest.fixture
def store(isolated: Path) -> FullStore:
    store = FullStore(isolated / "runs.db")
    for name, loss, tag in (("a", 0.5, "x"), ("b", 0.1, "X"), ("c", math.nan, None), ("d", None, "x[y")):
        tags = () if tag is None else (Tag("t", tag),)
        run = store.create_run(NewRun("0", ord(name), name=name, params=(Param("p", name * 2),) if loss else (), tags=tags))
        if loss is not None:
            store.update(run.id, RunChanges(metrics=(Metric("loss", loss, 1),), end=7 if name == "a" else None))
    return store


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", "dcba"),
        ("metrics.loss < 1", "ba"),
        ("metrics.loss != 0.5", "cb"),
        ("metrics.loss = 0", ""),
        ("metrics.loss > 0.2 AND metrics.loss < 0.6", "a"),
        ("tags.t = 'x'", "a"),
        ("tags.t != 'x'", "db"),
        ("tags.t LIKE 'x%'", "da"),
        ("tags.t LIKE 'x[_'", "d"),
        ("tags.t ILIKE 'X'", "ba"),
        ("tags.t IS NULL", "c"),
        ("tags.t IS NOT NULL", "dba"),
        ("params.p IS NULL", "d"),
        ("run_name IN ('a', 'c')", "ca"),
        ("NOT tags.t = 'x'", "dcb"),
        ("NOT metrics.loss < 0.2", "dca"),
        ("metrics.loss IS NULL", "d"),
        ("metrics.loss IS NOT NULL AND NOT (metrics.loss <= 0 OR metrics.loss > 0)", "c"),
        ("end_time IS NULL", "dcb"),
        ("NOT end_time > 9", "dcba"),
        ("run_name = 'a' OR metrics.loss = 0.1", "ba"),
        ("tags.t NOT IN ('x')", "db"),
        ("run_name LIKE '_'", "dcba"),
        ("start_time > 98", "dc"),
        ("end_time < 10", "a"),
        ("status = 'RUNNING'", "dcba"),
        ('params.p = "\'; DROP TABLE runs; --"', ""),
    ],
)
def test_what_filters_find(store, text, names):
    found = store.find(RunPage(["0"], parse_filter(text, RUNS), (), None, 10, 0))
    assert "".join(run.name for run in found) == names


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("metrics.loss ASC", "bacd"),  # NaN, then what is missing, last in either direction
        ("metrics.loss DESC", "abcd"),
        ("attributes.end_time ASC", "adcb"),
        ("attributes.run_name ASC", "abcd"),
        ("tags.t DESC", "dabc"),
        ("params.p DESC", "cbad"),
    ],
)
def test_what_orders_do(store, text, names):
    found = store.find(RunPage(["0"], EVERYTHING, parse_order([text], RUNS), None, 10, 0))
    assert "".join(run.name for run in found) == names
