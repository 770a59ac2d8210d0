"""What commands print with `--json`: published documents, each with a schema."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from enum import Enum

from runproj.core.backend import Option
from runproj.core.pipeline import StepView
from runproj.core.plan import Plan
from runproj.core.record import RunRecord
from runproj.core.run import Run
from runproj.core.tracking import ArtifactInfo
from runproj.core.values import dataclass
from runproj.core.verdict import Verdict


@dataclass(frozen=True)
class RunModel:
    """A model that a run logged, or only registered: `id` is empty then.  `versions`: what it is registered as ("churn/3")."""

    id: str
    name: str
    status: str = ""
    versions: tuple[str, ...] = ()


@dataclass(frozen=True)
class RunView:
    """A run with what is stored beside it (`run`, `rerun`, `wait`, `runs show`).  `plan` is None for a run made elsewhere.

    steps: of a run that stands for a pipeline, those that are settled;
    experiment, models: told by `runs show` alone; the experiment's name, and the models that the run logged.
    """

    run: Run
    exit_code: int | None = None
    reason: str | None = None
    plan: Plan | None = None
    record: RunRecord | None = None
    artifacts: tuple[ArtifactInfo, ...] = ()
    experiment: str | None = None
    models: tuple[RunModel, ...] = ()
    steps: tuple[StepView, ...] = ()


@dataclass(frozen=True)
class ArtifactList:
    """`runs artifacts`, `models artifacts`.  `run` is the id of whose they are: a run, or a logged model (`m-…`).

    folder, fetched: where they were fetched to, and how many were not there before.
    """

    run: str
    artifacts: tuple[ArtifactInfo, ...]
    folder: str | None = None
    fetched: int = 0


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


@dataclass(frozen=True)
class ProblemView:
    """Something wrong in a descriptor.  `line` and `column` count from 1; `severity` is "error" or "warning"."""

    file: str
    line: int
    column: int
    severity: str
    message: str
    hint: str = ""


@dataclass(frozen=True)
class ValidationReport:
    """`validate`."""

    valid: bool
    problems: tuple[ProblemView, ...]


@dataclass(frozen=True)
class EnvironmentView:
    """An environment on disk.  `size` in bytes, `used` in milliseconds since the epoch; `problem` where it is unfit."""

    digest: str
    manager: str
    python: str
    origin: str
    packages: int
    path: str
    size: int | None = None
    used: int | None = None
    problem: str | None = None


@dataclass(frozen=True)
class EnvironmentList:
    """`env list`, `env show`, `env prune` (those removed) and `env verify`."""

    environments: tuple[EnvironmentView, ...]


class LockState(Enum):
    """How a project's lock is.  `own`: a lock of another tool, used as it is."""

    WRITTEN = "written"
    CURRENT = "current"
    MISSING = "missing"
    STALE = "stale"
    OWN = "own"


@dataclass(frozen=True)
class LockReport:
    """`lock`.  `why`: what was wrong with the lock that was there, or is."""

    file: str
    state: LockState
    manager: str
    python: str = ""
    packages: int = 0
    digest: str = ""
    as_of: str | None = None
    why: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class GcReport:
    """`gc`.  `freed` in bytes; `removed` says what, in words."""

    removed: tuple[str, ...]
    freed: int
    dry_run: bool = False


@dataclass(frozen=True)
class Check:
    """One thing that `doctor` looked at.  `state`: "ok", "warning" or "error"."""

    name: str
    state: str
    found: str
    fix: str = ""


@dataclass(frozen=True)
class Checkup:
    """`doctor`."""

    checks: tuple[Check, ...]


@dataclass(frozen=True)
class SyncedSpool:
    """What became of one spool, in events.  `left` says how many it still holds, `problem` why; `refused` ones are kept."""

    folder: str
    uri: str
    sent: int
    refused: int
    left: int
    problem: str = ""


@dataclass(frozen=True)
class BackendView:
    """A place where runs can be.  problem: why it cannot be used here; empty where it can."""

    name: str
    problem: str
    options: tuple[Option, ...]


@dataclass(frozen=True)
class BackendList:
    """`backends`.  profiles: name → backend."""

    backends: tuple[BackendView, ...]
    profiles: Mapping[str, str]


@dataclass(frozen=True)
class SyncReport:
    """`sync`."""

    spools: tuple[SyncedSpool, ...]
    runs: tuple[str, ...] = ()
    failed: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class CiView:
    """`ci`.  `verdict` is None where the run failed, or was not to be repeated; `exit_code` is that of the command."""

    run: RunView
    verdict: Verdict | None
    exit_code: int
