"""What differs between recorded runs, side by side: code, environment, parameters, surroundings, metrics, outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from runproj.core.differences import KINDS
from runproj.core.views import Comparison, Difference, RunView
from runproj.reproduce.facts import Fact, facts_of

_ORDER = (*KINDS, "metric", "output", "run")


def compare_runs(views: Sequence[RunView], *, everything: bool = False) -> Comparison:
    """Values that are not the same in all runs, in the order of kinds: code, what it ran with, what came of it."""
    facts = [{(fact.kind, fact.name): fact for fact in facts_of(view)} for view in views]
    keys = sorted(dict.fromkeys(key for one in facts for key in one), key=lambda key: _ORDER.index(key[0]))
    rows = [(key, [one.get(key) for one in facts]) for key in keys]
    different = [(key, row) for key, row in rows if len(set(row)) > 1]
    shown = rows if everything else different
    found = tuple(Difference(kind, name, _values(row)) for (kind, name), row in shown)
    return Comparison(tuple(view.run.id for view in views), found, 0 if everything else len(rows) - len(different))


def results_first(comparison: Comparison) -> Comparison:
    """The same, what somebody chose and what came of it before what it ran with."""
    first = ("parameter", "seed", "metric", "output")
    rank = {kind: number for number, kind in enumerate(first)}
    return replace(
        comparison, differences=tuple(sorted(comparison.differences, key=lambda item: rank.get(item.kind, len(first))))
    )


def is_package(difference: Difference) -> bool:
    """Whether it is about one of the many things that an environment holds."""
    return difference.kind == "lock" and difference.name != "manager"


def _values(row: Sequence[Fact | None]) -> tuple[str | None, ...]:
    """Values for people; where only their marks tell them apart, with these."""
    values = tuple(fact.value if fact else None for fact in row)
    if len(set(row)) > 1 and len(set(values)) == 1:
        return tuple(with_mark(fact) if fact else None for fact in row)
    return values


def with_mark(fact: Fact) -> str:
    """The value, and enough of what else makes it."""
    from runproj.files import sha256_text

    mark = fact.mark if len(fact.mark) == 64 else sha256_text(fact.mark)
    return f"{fact.value} ({mark[:12]})"
