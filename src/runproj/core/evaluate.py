"""What a condition means for one run: the specification of the search language, which every store must agree with."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, assert_never

from runproj.core.condition import And, Clause, Condition, Entity, Not, Operator, Or
from runproj.core.models import Lineage
from runproj.core.numbers import as_number
from runproj.core.run import Run

_NOTHING = Lineage()
_CONTEXT = "mlflow.data.context"

_COMPARISONS: Mapping[Operator, Callable[[Any, Any], bool]] = {
    Operator.EQUAL: operator.eq,
    Operator.UNEQUAL: operator.ne,
    Operator.GREATER: operator.gt,
    Operator.GREATER_EQUAL: operator.ge,
    Operator.LESS: operator.lt,
    Operator.LESS_EQUAL: operator.le,
}

ATTRIBUTES: Mapping[str, Callable[[Run], float | str | None]] = {
    "run_id": lambda run: run.id,
    "run_name": lambda run: run.name,
    "status": lambda run: run.status.value,
    "user_id": lambda run: run.user,
    "artifact_uri": lambda run: run.artifact_uri,
    "start_time": lambda run: run.start,
    "end_time": lambda run: run.end,
}


def fits(condition: Condition, run: Run, lineage: Lineage = _NOTHING) -> bool:
    """Whether a run with its inputs is what the condition asks for.  Two values only: what is not true is false."""
    match condition:
        case And(parts):
            return all(fits(part, run, lineage) for part in parts)
        case Or(parts):
            return any(fits(part, run, lineage) for part in parts)
        case Not(part):
            return not fits(part, run, lineage)
        case Clause():
            return _meets(condition, values(condition.entity, condition.key, run, lineage))
        case _:
            assert_never(condition)


def values(entity: Entity, key: str, run: Run, lineage: Lineage = _NOTHING) -> Sequence[float | str]:
    """What the run has under a key: nothing or one value; for the fields of datasets, one for each of them."""
    match entity:
        case Entity.ATTRIBUTE:
            value = ATTRIBUTES[key](run)
            return () if value is None else (value,)
        case Entity.METRIC:
            return [metric.value for metric in run.metrics if metric.key == key]
        case Entity.PARAM:
            return [param.value for param in run.params if param.key == key]
        case Entity.TAG:
            return [tag.value for tag in run.tags if tag.key == key]
        case Entity.DATASET if key == "context":
            return [tag.value for used in lineage.datasets for tag in used.tags if tag.key == _CONTEXT]
        case Entity.DATASET:
            return [used.dataset.name if key == "name" else used.dataset.digest for used in lineage.datasets]


def _meets(clause: Clause, found: Sequence[float | str]) -> bool:
    match clause.operator:
        case Operator.IS_NULL:
            return not found
        case Operator.IS_NOT_NULL:
            return bool(found)
    return any(_compare(value, clause) for value in found)


def _compare(value: float | str, clause: Clause) -> bool:
    wanted = clause.value
    match clause.operator:
        case Operator.LIKE:
            return like(str(value), str(wanted))
        case Operator.ILIKE:
            return like(lower(str(value)), lower(str(wanted)))
        case Operator.IN:
            return isinstance(wanted, tuple) and value in wanted
        case Operator.NOT_IN:
            return isinstance(wanted, tuple) and value not in wanted
    if isinstance(value, str) and isinstance(wanted, float | int):
        number = as_number(value)
        if number is None:  # a text that is no number differs from every number
            return clause.operator is Operator.UNEQUAL
        value = number
    return _COMPARISONS[clause.operator](value, wanted)  # NaN differs from everything, and compares with nothing


def lower(text: str) -> str:
    """ASCII letters in lower case: what ILIKE looks over."""
    return "".join(chr(ord(sign) + 32) if "A" <= sign <= "Z" else sign for sign in text)


def like(text: str, pattern: str) -> bool:
    """SQL's LIKE without an escape: `%` stands for any characters, `_` for one.  Takes len(text) * len(pattern) steps at most."""
    first, *others = (re.escape(part).replace("_", ".") for part in pattern.split("%"))
    if not others:
        return re.fullmatch(first, text, re.DOTALL) is not None
    *middle, last = others
    atoms = "".join(f"(?>.*?{part})" for part in middle if part)  # the leftmost place is as good as any other
    return re.fullmatch(f"{first}{atoms}.*{last}", text, re.DOTALL) is not None
