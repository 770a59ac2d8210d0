"""Everything that differs between two runs: the code line by line, the lock, parameters, surroundings, and the results."""

from __future__ import annotations

from runproj.core.differences import Diff
from runproj.core.run import Run
from runproj.core.services import Services
from runproj.reproduce.comparison import compare_runs
from runproj.reproduce.why import Pair

_SHOWN_ELSEWHERE = ("metric", "output")


def diff(first: Run, second: Run, use: Services) -> Diff:
    """The differences of two runs.  Raises `NotFoundError` for a run that runproj did not make."""
    pair = Pair(first, second, use)
    code = pair.code()
    results = pair.results()
    found = compare_runs(pair.views).differences
    return Diff(
        runs=(first.id, second.id),
        files=tuple(change for change in code.files if change.path),
        patch=code.patch,
        differences=tuple(item for item in found if item.kind not in _SHOWN_ELSEWHERE),
        metrics=results.metrics,
        outputs=results.outputs,
        notes=tuple(pair.notes),
    )
