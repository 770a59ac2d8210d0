"""Runs as a table: which parameters, metrics and tags get a column, and what of it fits."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence

from runproj.cli import output
from runproj.core.run import Run
from runproj.core.search import Entity
from runproj.core.values import dataclass
from runproj.errors import UsageError

_WIDEST = 32
_PLURALS = {Entity.PARAM: "params", Entity.METRIC: "metrics", Entity.TAG: "tags"}


@dataclass(frozen=True)
class Column:
    """A parameter, metric or tag of runs."""

    entity: Entity
    key: str

    @property
    def full_name(self) -> str:
        return f"{_PLURALS[self.entity]}.{self.key}"

    def cell(self, facts: Facts) -> str:
        """What a run has there, for people."""
        value = facts.get(self)
        if value is None:
            return "-"
        if self.entity is Entity.METRIC:
            return f"{float(value):.6g}"
        return value if len(value) <= _WIDEST else value[: _WIDEST - 1] + "…"


Facts = Mapping[Column, str]
"""All that a run holds.  Numbers are exact."""


def facts_of(run: Run) -> Facts:
    found = {Column(Entity.PARAM, item.key): item.value for item in run.params}
    found |= {Column(Entity.METRIC, item.key): repr(item.value) for item in run.metrics}
    return found | {Column(Entity.TAG, item.key): item.value for item in run.tags}


def all_columns(facts: Iterable[Facts]) -> list[Column]:
    """Every parameter, metric and tag that any of the runs has."""
    found = {column: None for one in facts for column in one}
    return sorted(found, key=lambda column: (list(_PLURALS).index(column.entity), column.key))


def chosen(words: Sequence[str], facts: Sequence[Facts]) -> list[Column]:
    """The columns that the user names: `params.lr`, or `lr` where only one thing is called so."""
    known = all_columns(facts)
    columns = []
    for word in (part.strip() for text in words for part in text.split(",")):
        found = [column for column in known if word in (column.full_name, column.key)]
        if len(found) != 1:
            names = ", ".join(column.full_name for column in found or known if column.entity is not Entity.TAG or found)
            what = f"{word!r} means several things" if found else f"None of these runs has {word!r}"
            raise UsageError(what, fix=f"There are: {names}")
        columns += found
    return columns


def worth_showing(facts: Sequence[Facts], named: Iterable[tuple[Entity, str]]) -> list[Column]:
    """What the question names, then what differs between the runs: parameters before metrics."""
    values = {column: {one.get(column) for one in facts} for column in all_columns(facts)}
    asked = dict.fromkeys(Column(entity, key) for entity, key in named if entity in _PLURALS)
    differing = [column for column, found in values.items() if len(found) > 1]
    ours = [column for column in asked if column.entity is not Entity.TAG or column in differing]
    return [*ours, *(column for column in differing if column.entity is not Entity.TAG and column not in ours)]


def table(runs: Sequence[Run], facts: Sequence[Facts], columns: Sequence[Column]) -> list[Column]:
    """Print the runs with as many of the columns as the terminal is wide; returns those that were left out."""
    keys = [column.key for column in columns]
    names = [run.name if len(run.name) <= _WIDEST else run.name[: _WIDEST - 1] + "…" for run in runs]
    fixed = [["RUN", *(run.id[:8] for run in runs)], ["NAME", *names], ["STATUS", *(run.status.value for run in runs)]]
    values = [
        [column.full_name if keys.count(column.key) > 1 else column.key, *(column.cell(one) for one in facts)]
        for column in columns
    ]
    fitting = _fitting(fixed, values) if sys.stdout.isatty() else len(values)
    shown = [*fixed, *values[:fitting]]
    header, *rows = zip(*shown, strict=True)
    numeric = [index for index, cells in enumerate(shown) if index >= len(fixed) and all(map(_numeric, cells[1:]))]
    output.table(header, rows, right=numeric)
    return list(columns[fitting:])


def _fitting(fixed: Sequence[Sequence[str]], values: Sequence[Sequence[str]]) -> int:
    limit = shutil.get_terminal_size().columns
    used = sum(max(output.width(cell) for cell in cells) + 2 for cells in fixed) - 2
    for number, cells in enumerate(values):
        used += max(output.width(cell) for cell in cells) + 2
        if used > limit and number:
            return number
    return len(values)


def _numeric(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return cell == "-"
    return True
