"""Choosing runs by the search language: the options for it, and what is named in a filter."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from runproj.cli import complete
from runproj.errors import RefusedError, UsageError

if TYPE_CHECKING:
    from runproj.core.run import Run
    from runproj.core.search import Entity
    from runproj.wiring import Wiring

Filter = Annotated[
    str, typer.Argument(metavar="[FILTER]", help='Which runs: "metrics.accuracy > 0.9 and params.lr < 0.1"; all without one.')
]
Experiments = Annotated[
    list[str] | None,
    typer.Option(
        "--experiment-name",
        "--experiment",
        metavar="NAME",
        help="Only of this experiment (may be repeated).",
        autocompletion=complete.active_experiments,
    ),
]
_DIRECTION = re.compile(r"^(.*?)(?:\s*:\s*|\s+)(asc|desc)$", re.IGNORECASE | re.DOTALL)


def order_texts(sort: Sequence[str]) -> tuple[str, ...]:
    """`metrics.accuracy:desc` as the search language says it: `metrics.accuracy DESC`."""
    found = (_DIRECTION.match(text.strip()) for text in sort)
    return tuple(f"{match[1]} {match[2].upper()}" if match else text for match, text in zip(found, sort, strict=True))


def select(
    wiring: Wiring, text: str, *, limit: int, sort: Sequence[str] = (), experiments: Sequence[str] | None = None
) -> Sequence[Run]:
    """The runs that a filter finds.  Raises `UsageError` that shows where the filter goes wrong."""
    from runproj.core.finding import RunSearch
    from runproj.core.search import RUNS, parse_filter, parse_order

    order = order_texts(sort)
    _understood(lambda: parse_filter(text, RUNS), "metrics.accuracy > 0.9 and params.model = 'xgb' and tags.`my tag` LIKE '%x%'")
    _understood(lambda: parse_order(order, RUNS), "--sort metrics.accuracy:desc")
    numbers = tuple(wiring.tracking.experiment(name, make=False).id for name in experiments or ())
    return wiring.find_runs(RunSearch(text, order, numbers, limit))


def _understood(parse: Callable[[], object], example: str) -> None:
    try:
        parse()
    except RefusedError as error:
        raise UsageError(error.what, why=error.why, fix=error.fix or f"Write it like: {example}") from None


def named(text: str, sort: Sequence[str]) -> Iterator[tuple[Entity, str]]:
    """What a filter and an order speak of, in the order in which they do."""
    from runproj.core.search import RUNS, clauses_of, parse_filter, parse_order

    for clause in clauses_of(parse_filter(text, RUNS)):
        yield clause.entity, clause.key
    for order in parse_order(order_texts(sort), RUNS):
        yield order.entity, order.key
