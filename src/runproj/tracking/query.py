"""Conditions of the search language → SQL.  Every value is bound; names come from the tables below only."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import assert_never

from runproj.core.condition import And, Clause, Condition, Entity, Not, Operator, Or, Order
from runproj.core.evaluate import lower
from runproj.core.values import dataclass
from runproj.tracking.sql import Dialect
from runproj.tracking.where import NOTHING, Sql, joined


@dataclass(frozen=True)
class Target:
    """Where the fields of one kind of thing are.

    columns:     attribute → SQL expression.
    collections: entity → a query of `value` (and `kind`, for metrics; `number`, for parameters of runs) for one thing and one
                 key, which is bound.
    bound:       entity → what else its query binds, before the key.
    datasets:    dataset field → a query of `value`.
    absent:      columns that may be NULL.
    lenient:     tags that differ from a text also where they are not there.
    """

    columns: Mapping[str, str]
    collections: Mapping[Entity, str] = field(default_factory=dict)
    datasets: Mapping[str, str] = field(default_factory=dict)
    absent: frozenset[str] = frozenset()
    lenient: frozenset[str] = frozenset()
    bound: Mapping[Entity, tuple[object, ...]] = field(default_factory=dict)


_PROMPTS = frozenset({"mlflow.prompt.is_prompt"})
"""Clients ask that this tag differs from 'true' for everything that is no prompt, and mean what lacks it, too."""


def _runs(number: str) -> Target:
    """Runs, whose number is that expression."""
    dataset = f"FROM run_datasets rd JOIN datasets d ON d.id = rd.dataset WHERE rd.run = {number}"
    return Target(
        columns={
            "run_id": "r.id",
            "run_name": "r.name",
            "status": "r.status",
            "user_id": 'r."user"',
            "artifact_uri": "r.artifact_uri",
            "start_time": "r.started",
            "end_time": "r.ended",
        },
        collections={
            Entity.PARAM: f"SELECT value, number FROM params WHERE run = {number} AND key = ?",
            Entity.TAG: f"SELECT value FROM tags WHERE run = {number} AND key = ?",
            Entity.METRIC: f"SELECT value, kind FROM latest_metrics WHERE run = {number}"
            " AND key = (SELECT id FROM metric_keys WHERE key = ?)",
        },
        datasets={
            "name": f"SELECT d.name AS value {dataset}",
            "digest": f"SELECT d.digest AS value {dataset}",
            "context": f"SELECT value FROM run_dataset_tags WHERE run = {number} AND key = 'mlflow.data.context'",
        },
        absent=frozenset({"end_time"}),
    )


RUNS = _runs("r.seq")
RUNS_AMONG = _runs("w.run")
"""The same, known from a table `w` that names them, so that a run that does not fit need not be read."""

EXPERIMENTS = Target(
    columns={
        "name": "e.name",
        "experiment_id": "CAST(e.id AS TEXT)",
        "creation_time": "e.created",
        "last_update_time": "e.updated",
    },
    collections={Entity.TAG: "SELECT value FROM experiment_tags WHERE experiment = e.id AND key = ?"},
)
REGISTERED_MODELS = Target(
    columns={"name": "m.name", "last_updated_timestamp": "m.updated"},
    collections={Entity.TAG: "SELECT value FROM registered_model_tags WHERE model = m.id AND key = ?"},
    lenient=_PROMPTS,
)
MODEL_VERSIONS = Target(
    columns={
        "name": "m.name",
        "run_id": "v.run_id",
        "source_path": "v.source",
        "version_number": "v.version",
        "creation_timestamp": "v.created",
        "last_updated_timestamp": "v.updated",
    },
    collections={Entity.TAG: "SELECT value FROM model_version_tags WHERE model = v.model AND version = v.version AND key = ?"},
    lenient=_PROMPTS,
)
LOGGED_MODELS = Target(
    columns={
        "name": "m.name",
        "model_id": "m.id",
        "model_type": "m.model_type",
        "status": "m.status",
        "source_run_id": "m.source_run",
        "experiment_id": "CAST(m.experiment AS TEXT)",
        "artifact_uri": "m.artifact_uri",
        "creation_timestamp": "m.created",
        "last_updated_timestamp": "m.updated",
    },
    collections={
        Entity.PARAM: "SELECT value FROM model_params WHERE model = m.seq AND key = ?",
        Entity.TAG: "SELECT value FROM model_tags WHERE model = m.seq AND key = ?",
        Entity.METRIC: "SELECT value, kind FROM model_metrics WHERE model = m.seq AND key = ?"
        " ORDER BY step DESC, timestamp DESC, value DESC LIMIT 1",
    },
)


def condition_sql(condition: Condition, target: Target, dialect: Dialect) -> Sql:
    """A condition that is true or false, never NULL, about the thing that the target's queries name."""
    match condition:
        case And(()):
            return Sql("1 = 1")
        case Or(()):
            return Sql("1 = 0")
        case And(parts):
            return joined(" AND ", [condition_sql(part, target, dialect) for part in parts])
        case Or(parts):
            return joined(" OR ", [condition_sql(part, target, dialect) for part in parts])
        case Not(part):
            inner = condition_sql(part, target, dialect)
            return Sql(f"NOT ({inner.text})", inner.values)
        case Clause():
            return _clause(condition, target, dialect)
        case _:
            assert_never(condition)


def _clause(clause: Clause, target: Target, dialect: Dialect) -> Sql:
    match clause.entity:
        case Entity.ATTRIBUTE:
            return _attribute(clause, target, dialect)
        case Entity.DATASET:
            return _exists(target.datasets[clause.key], NOTHING, _compare("value", clause, dialect))
        case Entity.METRIC | Entity.PARAM | Entity.TAG:
            collection, key = target.collections[clause.entity], Sql("", (*target.bound.get(clause.entity, ()), clause.key))
            if clause.operator is Operator.IS_NULL:
                return _exists(collection, key, NOTHING, absent=True)
            if clause.key in target.lenient and clause.operator is Operator.UNEQUAL:
                return _exists(collection, key, Sql("value = ?", (clause.value,)), absent=True)
            return _exists(collection, key, _value(clause, dialect))
        case other:
            assert_never(other)


def _attribute(clause: Clause, target: Target, dialect: Dialect) -> Sql:
    column = target.columns[clause.key]
    if clause.operator in (Operator.IS_NULL, Operator.IS_NOT_NULL):
        return Sql(f"{column} {clause.operator.value}")
    compared = _compare(column, clause, dialect)
    return Sql(f"({column} IS NOT NULL AND {compared.text})", compared.values) if clause.key in target.absent else compared


def _exists(query: str, key: Sql, condition: Sql, *, absent: bool = False) -> Sql:
    restricted = f"({query})" if not condition.text else f"(SELECT 1 FROM ({query}) AS c WHERE {condition.text})"
    return Sql(f"{'NOT ' * absent}EXISTS {restricted}", (*key.values, *condition.values))


def _value(clause: Clause, dialect: Dialect) -> Sql:
    """What is asked of the value under a key."""
    unequal = clause.operator is Operator.UNEQUAL
    if clause.operator is Operator.IS_NOT_NULL:
        return NOTHING
    if clause.entity is Entity.METRIC:
        # NaN is stored as 0 beside its mark: it differs from every number, and compares with none
        return Sql(f"({'kind = 1 OR' if unequal else 'kind <> 1 AND'} value {clause.operator.value} ?)", (clause.value,))
    if clause.entity is Entity.PARAM and isinstance(clause.value, int | float):
        # `number` is NULL where the text is no number
        return Sql(f"({'number IS NULL OR ' if unequal else ''}number {clause.operator.value} ?)", (clause.value,))
    return _compare("value", clause, dialect)


def _compare(expression: str, clause: Clause, dialect: Dialect) -> Sql:
    """A comparison of one expression."""
    value = clause.value
    match clause.operator:
        case Operator.LIKE:
            return _like(expression, str(value), dialect)
        case Operator.ILIKE:
            return _like(f"lower({expression})", lower(str(value)), dialect)
        case Operator.IN | Operator.NOT_IN:
            listed = "(SELECT value FROM json_each(?) AS texts)"
            return Sql(f"{expression} {clause.operator.value} {listed}", (json.dumps(value),))
        case _:
            return Sql(f"{expression} {clause.operator.value} ?", (value,))


def _like(expression: str, pattern: str, dialect: Dialect) -> Sql:
    """LIKE without an escape, and minding the case, which SQLite's own does not."""
    if dialect is Dialect.POSTGRESQL:
        return Sql(f"{expression} LIKE ? ESCAPE ''", (pattern,))
    signs = {"%": "*", "_": "?", "*": "[*]", "?": "[?]", "[": "[[]"}
    return Sql(f"{expression} GLOB ?", ("".join(signs.get(sign, sign) for sign in pattern),))


def order_sql(orders: Sequence[Order], target: Target, ties: str) -> tuple[str, tuple[object, ...]]:
    """An ORDER BY and what is bound to it.  What is missing comes last in either direction, NaN before it."""
    terms: list[str] = []
    values: list[object] = []
    for order in orders:
        direction = "ASC" if order.ascending else "DESC"
        if order.entity is Entity.ATTRIBUTE:
            terms.append(f"{target.columns[order.key]} {direction}")
            continue
        collection = target.collections[order.entity]
        absent = "coalesce((SELECT CASE WHEN kind = 1 THEN 1 ELSE 0 END FROM ({}) AS c), 2)"
        if order.entity is not Entity.METRIC:
            absent = "CASE WHEN EXISTS ({}) THEN 0 ELSE 1 END"
        terms += [absent.format(collection), f"(SELECT value FROM ({collection}) AS c) {direction}"]
        values += [*target.bound.get(order.entity, ()), order.key] * 2
    return "ORDER BY " + ", ".join([*terms, ties]), tuple(values)
