"""Any filter, order and page: the database finds what the plain evaluator says; conditions are read as they were written."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runproj.core.condition import EVERYTHING, And, Clause, Condition, Entity, Not, Operator, Or, Order
from runproj.core.evaluate import ATTRIBUTES, fits, like
from runproj.core.filter_text import filter_text, order_text
from runproj.core.finding import RunPage
from runproj.core.languages import ORDERED, PRESENT, RUNS, Kind
from runproj.core.models import Dataset, DatasetInput, Lineage
from runproj.core.ordering import ordered, place
from runproj.core.run import Lifecycle, Metric, NewRun, Param, Run, RunChanges, RunStatus, Tag
from runproj.core.search import parse_filter, parse_order
from runproj.errors import RefusedError
from runproj.tracking import open_full_store
from runproj.tracking.finding import Question, find
from runproj.tracking.full import FullStore
from runproj.tracking.rows import load_runs

TEXTS = (
    "",
    "a",
    "A",
    "ab",
    "aB%",
    "_",
    "[a]",
    "*",
    "ä",
    "Ä",
    "1",
    "01",
    "1.0",
    " 2 ",
    "-3e1",
    "0.5",
    "nan",
    "inf",
    "1e999",
    "x" * 65,
)
NUMBERS = (0.0, -0.0, 1.0, 0.5, -30.0, 2.0, 2.0**53 + 2, 5e-324, math.inf, -math.inf)
KEYS = ("a", "b", "val/loss x", "mlflow.prompt.is_prompt")


def fill(store: FullStore, seed: int) -> tuple[list[Run], dict[str, Lineage], list[str]]:
    """Some runs of every sort, with many ties."""
    dice = random.Random(seed)
    experiments = [store.experiments.create(f"e{number}").id for number in range(3)]
    for _ in range(30):
        params = tuple(Param(key, dice.choice(TEXTS)) for key in dice.sample(KEYS, dice.randrange(4)))
        tags = tuple(Tag(key, dice.choice(TEXTS)) for key in dice.sample(KEYS, dice.randrange(4)))
        start, name = dice.choice((0, 5, 86_400_000)), dice.choice(("a", "A", "b"))
        run = store.create_run(
            NewRun(dice.choice(experiments), start, None, name, dice.choice(TEXTS), RunStatus.RUNNING, params, tags)
        )
        metrics = [Metric(key, dice.choice((*NUMBERS, math.nan)), 1) for key in dice.sample(KEYS, dice.randrange(4))]
        changes = RunChanges(metrics=tuple(metrics), end=dice.choice((None, 7, 9)), status=dice.choice(list(RunStatus)))
        store.update(run.id, replace(changes, lifecycle=dice.choice((None, None, Lifecycle.DELETED))))
        used = [Dataset(dice.choice("ab"), dice.choice("xy"), "s", "", "", "") for _ in range(dice.randrange(3))]
        context = (Tag("mlflow.data.context", dice.choice(("train", "test"))),) if dice.random() < 0.5 else ()
        store.lineages.add(run.id, Lineage(tuple(DatasetInput(data, context) for data in dict.fromkeys(used))))
    runs = store.find(RunPage(experiments, EVERYTHING, (), None, 1000))
    return runs, dict(store.lineages.of([run.id for run in runs])), experiments


texts = st.sampled_from(TEXTS)
patterns = st.text("aAb%_[]*?äÄ1", max_size=4)


@st.composite
def clauses(draw: st.DrawFn) -> Clause:
    entity = draw(st.sampled_from(Entity))
    match entity:
        case Entity.ATTRIBUTE:
            key = draw(st.sampled_from(sorted(ATTRIBUTES)))
        case Entity.DATASET:
            key = draw(st.sampled_from(sorted(RUNS.datasets)))
        case _:
            key = draw(st.sampled_from(KEYS))
    operator = draw(st.sampled_from(sorted(RUNS.operators(entity, key), key=lambda item: item.value)))
    return Clause(entity, key, operator, draw(values(entity, key, operator)))


def values(entity: Entity, key: str, operator: Operator) -> st.SearchStrategy[float | str | tuple[str, ...] | None]:
    some = texts if entity is not Entity.ATTRIBUTE else texts | st.sampled_from([status.value for status in RunStatus])
    some = some if entity is not Entity.DATASET else st.sampled_from(["a", "x", "train"])
    if operator in PRESENT:
        return st.none()
    if operator in (Operator.LIKE, Operator.ILIKE):
        return patterns
    if operator in (Operator.IN, Operator.NOT_IN):
        return st.lists(some, min_size=1, max_size=3).map(tuple)
    if RUNS.kind(entity, key) is Kind.TIME:
        return st.sampled_from([-1, 0, 5, 7, 7.5, 9, 86_400_000, 10**18])
    if entity is Entity.METRIC:
        return st.sampled_from(NUMBERS)
    if entity is Entity.PARAM and operator in ORDERED:
        exact = operator in (Operator.EQUAL, Operator.UNEQUAL)
        return st.sampled_from(NUMBERS) | texts if exact else st.sampled_from(NUMBERS)
    return some


conditions: st.SearchStrategy[Condition] = st.recursive(
    clauses(),
    lambda inner: (
        st.lists(inner, min_size=2, max_size=3).map(lambda parts: And(tuple(parts)))
        | st.lists(inner, min_size=2, max_size=3).map(lambda parts: Or(tuple(parts)))
        | inner.map(Not)
    ),
    max_leaves=5,
)


@st.composite
def order(draw: st.DrawFn) -> Order:
    entity = draw(st.sampled_from([Entity.ATTRIBUTE, Entity.METRIC, Entity.METRIC, Entity.PARAM, Entity.TAG]))
    return Order(entity, draw(st.sampled_from(sorted(ATTRIBUTES) if entity is Entity.ATTRIBUTE else KEYS)), draw(st.booleans()))


orders = st.lists(order(), max_size=3, unique_by=lambda item: (item.entity, item.key)).map(tuple)


def pages(store: FullStore, asked: Question) -> list[str]:
    """The ids of all that fits, asked for page by page."""
    found: list[Run] = []
    while True:
        with store.database.reading() as connection:
            page = load_runs(connection, find(connection, asked))
        found += page
        if len(page) < asked.limit:
            return [run.id for run in found]
        asked = replace(asked, after=place(page[-1], asked.orders))


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_database_finds_what_the_evaluator_says(request, isolated: Path, database: str, seed: int):
    uri = request.getfixturevalue("postgres") if database == "postgresql" else f"sqlite:///{isolated}/runs.db"
    store = open_full_store(uri, home=isolated)
    runs, lineages, experiments = fill(store, seed)

    @settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
    @given(conditions | st.just(EVERYTHING), orders, st.sampled_from([0, 1, 2000]), st.sampled_from([1, 4, 100]), st.data())
    def agrees(condition: Condition, orders: tuple[Order, ...], few: int, limit: int, data: st.DataObject) -> None:
        lifecycle = data.draw(st.sampled_from([Lifecycle.ACTIVE, None]))
        chosen: Sequence[str] = data.draw(
            st.sampled_from([experiments, experiments[:1], [*experiments, *map(str, range(50, 70))]])
        )
        asked = Question(tuple(map(int, chosen)), lifecycle, condition, orders, limit, few=few)
        fitting = [
            run
            for run in runs
            if run.experiment_id in chosen
            and lifecycle in (None, run.lifecycle)
            and fits(condition, run, lineages.get(run.id, Lineage()))
        ]
        assert pages(store, asked) == [run.id for run in ordered(fitting, orders)]

    agrees()


names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)


def written(text: str) -> bool:
    return not text.endswith("\\") and any(quote not in text for quote in "\"'")


@given(conditions, names, names.filter(written))
def test_conditions_are_read_as_they_were_written(condition: Condition, key: str, value: str):
    condition = And((condition, Clause(Entity.TAG, key, Operator.EQUAL, value))) if written(key) else condition
    assert parse_filter(filter_text(condition), RUNS) == condition


@given(orders)
def test_orders_are_read_as_they_were_written(orders: tuple[Order, ...]):
    assert parse_order([order_text(item) for item in orders], RUNS) == orders


def test_what_cannot_be_written_is_refused():
    for value in ("'\"", "\\"):
        with pytest.raises(RefusedError, match="cannot be written"):
            filter_text(Clause(Entity.TAG, "a", Operator.EQUAL, value))


@given(patterns, st.text("aAb[]*?ä1\n", max_size=6))
def test_like_is_what_its_definition_says(pattern: str, text: str):
    def matches(pattern: str, text: str) -> bool:
        if not pattern:
            return not text
        if pattern[0] == "%":
            return any(matches(pattern[1:], text[start:]) for start in range(len(text) + 1))
        return bool(text) and pattern[0] in ("_", text[0]) and matches(pattern[1:], text[1:])

    assert like(text, pattern) == matches(pattern, text)
