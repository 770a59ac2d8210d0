"""Everything that differs between two runs: the code line by line, the lock, parameters, surroundings, and the results."""

from __future__ import annotations

from runproj.core.differences import Diff
from runproj.core.run import Run
from runproj.core.services import Services
from runproj.core.source import CodeDifference
from runproj.errors import SourceError
from runproj.reproduce.comparison import compare_runs
from runproj.reproduce.why import Pair

_SHOWN_ELSEWHERE = ("metric", "output")


def diff(first: Run, second: Run, use: Services) -> Diff:
    """The differences of two runs.  Raises `NotFoundError` for a run that runproj did not make."""
    pair = Pair(first, second, use)
    codes = [plan.code for plan in pair.plans]
    notes: tuple[str, ...] = ()
    code = CodeDifference()
    if codes[0].tree != codes[1].tree or codes[0].submodules != codes[1].submodules:
        try:
            code = use.sources.compare(*codes)
        except SourceError as error:
            notes = (f"The code cannot be compared: {error.what}.",)
    results = pair.results()
    found = compare_runs(pair.views).differences
    return Diff(
        runs=(first.id, second.id),
        files=code.files,
        patch=code.patch,
        differences=tuple(item for item in found if item.kind not in _SHOWN_ELSEWHERE),
        metrics=results.metrics,
        outputs=results.outputs,
        notes=notes,
    )
