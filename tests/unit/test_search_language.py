"""The search language: what it understands, what it refuses, and what it finds."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runproj.core.run import Metric, NewRun, Param, RunChanges, Tag
from runproj.core.search import (
    EXPERIMENTS,
    MODEL_VERSIONS,
    REGISTERED_MODELS,
    RUNS,
    Clause,
    Entity,
    Operator,
    Order,
    parse_filter,
    parse_order,
)
from runproj.errors import RefusedError
from runproj.tracking.full import FullStore

M, P, T, A, D = Entity.METRIC, Entity.PARAM, Entity.TAG, Entity.ATTRIBUTE, Entity.DATASET


@pytest.mark.parametrize(
    ("text", "clauses"),
    [
        ("", ()),
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
        ("params.AND = 'x'", (Clause(P, "AND", Operator.EQUAL, "x"),)),
    ],
)
def test_what_filters_mean(text, clauses):
    assert parse_filter(text, RUNS) == clauses


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
        "params.a = 1",
        "params.a = x",
        "params.a > 'x'",
        "params.a IN ('x')",
        "params.a == 'x'",
        "params.a <> 'x'",
        "params.a-b = 'x'",
        "params.a = 'x' OR params.b = 'y'",
        "NOT params.a = 'x'",
        "(params.a = 'x')",
        "params.a = 'x' AND",
        "params.a = 'x';",
        "Params.a = 'x'",
        "nothing.a = 'x'",
        "unknown = 'x'",
        "run_id IN ()",
        "run_id IN ('a' 'b')",
        "run_id IN ('a'",
        "status IN ('a')",
        "status > 'a'",
        "status IS NULL",
        "start_time = '5'",
        "params.`a = 'x'",
        "params.a = 'x' AND AND",
        "params.a = 'it''s",
    ],
)
def test_what_is_no_filter(text):
    with pytest.raises(RefusedError, match="Invalid filter"):
        parse_filter(text, RUNS)


def test_other_things_have_other_fields():
    assert parse_filter("version_number = '2'", MODEL_VERSIONS) == (Clause(A, "version_number", Operator.EQUAL, 2),)
    assert parse_filter("name ILIKE 'x' AND tag.`k` != 'true'", REGISTERED_MODELS)[1] == Clause(T, "k", Operator.UNEQUAL, "true")
    for text in ("attributes.name = 'x'", "metrics.a = 1"):
        with pytest.raises(RefusedError):
            parse_filter(text, EXPERIMENTS)


def test_orders():
    texts = ["metrics.`a b` DESC", "start_time", "params.x asc", "params.x DESC"]
    assert parse_order(texts, RUNS) == (Order(M, "a b", False), Order(A, "start_time"), Order(P, "x"))
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
        ("run_name IN ('a')", None),
        ("run_name LIKE '_'", "dcba"),
        ("start_time > 98", "dc"),
        ("end_time < 10", "a"),
        ("status = 'RUNNING'", "dcba"),
        ('params.p = "\'; DROP TABLE runs; --"', ""),
    ],
)
def test_what_filters_find(store, text, names):
    if names is None:
        with pytest.raises(RefusedError):
            parse_filter(text, RUNS)
        return
    found = store.find(["0"], parse_filter(text, RUNS), (), None, 10, 0)
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
    found = store.find(["0"], (), parse_order([text], RUNS), None, 10, 0)
    assert "".join(run.name for run in found) == names
