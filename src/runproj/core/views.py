"""What commands print with `--json`: published documents, each with a schema."""

from __future__ import annotations

from dataclasses import dataclass

from runproj.core.plan import Plan
from runproj.core.record import RunRecord
from runproj.core.run import Run
from runproj.core.tracking import ArtifactInfo


@dataclass(frozen=True)
class RunView:
    """A run with what is stored beside it (`run`, `rerun`, `wait`, `runs show`).  `plan` is None for a run made elsewhere."""

    run: Run
    exit_code: int | None = None
    reason: str | None = None
    plan: Plan | None = None
    record: RunRecord | None = None
    artifacts: tuple[ArtifactInfo, ...] = ()


@dataclass(frozen=True)
class RunList:
    """`runs list`."""

    runs: tuple[Run, ...]


@dataclass(frozen=True)
class Difference:
    """One thing that is not the same in all compared runs.  `values` in the order of the runs; None where a run lacks it."""

    kind: str
    name: str
    values: tuple[str | None, ...]


@dataclass(frozen=True)
class Comparison:
    """`runs compare`."""

    runs: tuple[str, ...]
    differences: tuple[Difference, ...]
    same: int = 0
