"""Clauses of the search language → SQL conditions.  Every value is bound; names come from the tables below only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import assert_never

from runproj.core.search import Clause, Entity, Operator, Order
from runproj.tracking.where import Where


@dataclass(frozen=True)
class Target:
    """Where the fields of one kind of thing are.

    columns:     attribute → SQL expression.
    collections: entity → a query of `value` (and `kind`, for metrics) for one thing and one key, which is bound.
    datasets:    dataset field → a query of `value`.
    """

    columns: Mapping[str, str]
    collections: Mapping[Entity, str] = field(default_factory=dict)
    datasets: Mapping[str, str] = field(default_factory=dict)


_OF_RUN = "SELECT d.{column} AS value FROM run_datasets rd JOIN datasets d ON d.id = rd.dataset WHERE rd.run = r.seq"

RUNS = Target(
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
        Entity.PARAM: "SELECT value FROM params WHERE run = r.seq AND key = ?",
        Entity.TAG: "SELECT value FROM tags WHERE run = r.seq AND key = ?",
        Entity.METRIC: "SELECT value, kind FROM latest_metrics WHERE run = r.seq"
        " AND key = (SELECT id FROM metric_keys WHERE key = ?)",
    },
    datasets={
        "name": _OF_RUN.format(column="name"),
        "digest": _OF_RUN.format(column="digest"),
        "context": "SELECT value FROM run_dataset_tags WHERE run = r.seq AND key = 'mlflow.data.context'",
    },
)
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


def add_clauses(where: Where, clauses: Sequence[Clause], target: Target) -> None:
    """The conditions of a filter."""
    for clause in clauses:
        match clause.entity:
            case Entity.ATTRIBUTE:
                condition, values = _compare(target.columns[clause.key], clause)
                where.add(condition, *values)
            case Entity.DATASET:
                condition, values = _compare("value", clause)
                where.add(f"EXISTS (SELECT 1 FROM ({target.datasets[clause.key]}) WHERE {condition})", *values)
            case Entity.METRIC:
                # NaN is stored as 0 beside its mark: it differs from every number, and compares with none
                guard = "kind = 1 OR" if clause.operator is Operator.UNEQUAL else "kind <> 1 AND"
                query = f"SELECT 1 FROM ({target.collections[clause.entity]}) WHERE {guard} value {clause.operator.value} ?"
                where.add(f"EXISTS ({query})", clause.key, clause.value)
            case Entity.PARAM | Entity.TAG:
                _add_text(where, clause, target.collections[clause.entity])
            case other:
                assert_never(other)


_PROMPT_TAG = "mlflow.prompt.is_prompt"


def _add_text(where: Where, clause: Clause, collection: str) -> None:
    if clause.operator is Operator.IS_NULL:
        where.add(f"NOT EXISTS ({collection})", clause.key)
    elif clause.operator is Operator.IS_NOT_NULL:
        where.add(f"EXISTS ({collection})", clause.key)
    elif clause.key == _PROMPT_TAG and clause.operator is Operator.UNEQUAL:
        # clients ask so for everything that is no prompt, and mean what lacks the tag, too
        where.add(f"NOT EXISTS (SELECT 1 FROM ({collection}) WHERE value = ?)", clause.key, clause.value)
    else:
        condition, values = _compare("value", clause)
        where.add(f"EXISTS (SELECT 1 FROM ({collection}) WHERE {condition})", clause.key, *values)


def _compare(expression: str, clause: Clause) -> tuple[str, tuple[object, ...]]:
    """A condition on one expression, and what is bound to it."""
    value = clause.value
    match clause.operator:
        case Operator.LIKE:
            return f"{expression} GLOB ?", (_as_glob(str(value)),)
        case Operator.ILIKE:
            return f"{expression} LIKE ?", (value,)
        case Operator.IN | Operator.NOT_IN:
            items = value if isinstance(value, tuple) else ()
            return f"{expression} {clause.operator.value} ({', '.join('?' * len(items))})", items
        case _:
            return f"{expression} {clause.operator.value} ?", (value,)


def _as_glob(pattern: str) -> str:
    """LIKE's pattern in the language of GLOB, which minds the case."""
    signs = {"%": "*", "_": "?", "*": "[*]", "?": "[?]", "[": "[[]"}
    return "".join(signs.get(sign, sign) for sign in pattern)


def order_sql(orders: Sequence[Order], target: Target, ties: str) -> tuple[str, list[object]]:
    """An ORDER BY and what is bound to it.  What is missing comes last in either direction, NaN before it."""
    terms: list[str] = []
    values: list[object] = []
    for order in orders:
        direction = "ASC" if order.ascending else "DESC"
        if order.entity is Entity.ATTRIBUTE:
            column = target.columns[order.key]
            terms += [f"{column} IS NULL", f"{column} {direction}"]
            continue
        collection = target.collections[order.entity]
        if order.entity is Entity.METRIC:
            terms.append(f"coalesce((SELECT kind = 1 FROM ({collection})), 2)")
        else:
            terms.append(f"(SELECT value FROM ({collection})) IS NULL")
        terms.append(f"(SELECT value FROM ({collection})) {direction}")
        values += [order.key, order.key]
    return "ORDER BY " + ", ".join([*terms, ties]), values
