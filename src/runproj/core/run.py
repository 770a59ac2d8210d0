"""Plan → Run: what is recorded.  The words are MLflow's, because they are the field's."""

from __future__ import annotations

from dataclasses import field
from enum import Enum

from runproj.core.values import dataclass


class RunStatus(Enum):
    """MLflow's states.  The last three are final."""

    SCHEDULED = "SCHEDULED"
    RUNNING = "RUNNING"
    FINISHED = "FINISHED"
    FAILED = "FAILED"
    KILLED = "KILLED"

    @property
    def final(self) -> bool:
        return self in (RunStatus.FINISHED, RunStatus.FAILED, RunStatus.KILLED)


class Phase(Enum):
    """What the executor is doing; on a failed run, where it failed (tag `runproj.phase`)."""

    START = "start"
    SOURCE = "source"
    ENVIRONMENT = "environment"
    INPUTS = "inputs"
    RUN = "run"
    COLLECT = "collect"
    DONE = "done"


class Lifecycle(Enum):
    ACTIVE = "active"
    DELETED = "deleted"


@dataclass(frozen=True)
class Param:
    key: str
    value: str


@dataclass(frozen=True)
class Tag:
    key: str
    value: str


@dataclass(frozen=True)
class Metric:
    """A measured value.  `timestamp` in milliseconds since the epoch."""

    key: str
    value: float
    timestamp: int
    step: int = 0


@dataclass(frozen=True)
class Experiment:
    id: str
    name: str
    artifact_location: str
    lifecycle: Lifecycle = Lifecycle.ACTIVE
    created: int = 0
    updated: int = 0
    tags: tuple[Tag, ...] = ()


@dataclass(frozen=True)
class Run:
    """A recorded run.  `start` and `end` in milliseconds since the epoch; `metrics` holds the latest of each key."""

    id: str
    experiment_id: str
    name: str
    status: RunStatus
    start: int
    end: int | None = None
    artifact_uri: str = ""
    user: str = ""
    lifecycle: Lifecycle = Lifecycle.ACTIVE
    params: tuple[Param, ...] = ()
    metrics: tuple[Metric, ...] = ()
    tags: tuple[Tag, ...] = ()

    def tag(self, key: str) -> str | None:
        return next((tag.value for tag in self.tags if tag.key == key), None)

    @property
    def over(self) -> bool:
        """Whether it has ended, and whoever sees to its end has said so: on a tracking server, a project's own `mlflow.end_run`
        gives it a final status while its command still works."""
        ours = self.tag(TagName.ATTEMPT) is not None
        told = self.tag(TagName.EXIT_CODE) is not None or self.tag(TagName.LOST) is not None
        return self.status.final and (told or not ours)


@dataclass(frozen=True)
class NewRun:
    """What a run starts with.  `id` is None where the store chooses it (a remote server)."""

    experiment_id: str
    start: int
    id: str | None = None
    name: str | None = None
    user: str = ""
    status: RunStatus = RunStatus.RUNNING
    params: tuple[Param, ...] = ()
    tags: tuple[Tag, ...] = ()


@dataclass(frozen=True)
class RunChanges:
    """What to add to a run, in one transaction where the store has them.  None leaves a field as it is."""

    status: RunStatus | None = None
    end: int | None = None
    name: str | None = None
    lifecycle: Lifecycle | None = None
    params: tuple[Param, ...] = ()
    metrics: tuple[Metric, ...] = ()
    tags: tuple[Tag, ...] = ()
    deleted_tags: tuple[str, ...] = ()


@dataclass(frozen=True)
class RunQuery:
    """Which runs, newest first.  `prefix` matches the beginning of an id; empty `experiments` means all."""

    experiments: tuple[str, ...] = ()
    lifecycle: Lifecycle | None = Lifecycle.ACTIVE
    statuses: tuple[RunStatus, ...] = ()
    prefix: str | None = None
    name: str | None = None
    tags: tuple[Tag, ...] = field(default_factory=tuple)
    limit: int = 100
    offset: int = 0


class TagName:
    """MLflow's tag names where one exists, ours where none does."""

    USER = "mlflow.user"
    RUN_NAME = "mlflow.runName"
    NOTE = "mlflow.note.content"
    PARENT = "mlflow.parentRunId"
    SOURCE_NAME = "mlflow.source.name"
    SOURCE_TYPE = "mlflow.source.type"
    COMMIT = "mlflow.source.git.commit"
    REPO_URL = "mlflow.source.git.repoURL"
    BRANCH = "mlflow.source.git.branch"
    DIRTY = "mlflow.source.git.dirty"
    ENTRY_POINT = "mlflow.project.entryPoint"
    PROJECT_ENV = "mlflow.project.env"
    PROJECT_BACKEND = "mlflow.project.backend"
    IMAGE_URI = "mlflow.docker.image.uri"
    IMAGE_ID = "mlflow.docker.image.id"
    PHASE = "runproj.phase"
    REASON = "runproj.reason"
    EXIT_CODE = "runproj.exit_code"
    SIGNAL = "runproj.signal"
    LOST = "runproj.lost"
    INCOMPLETE = "runproj.incomplete"
    WAITS = "runproj.waits"
    JOB_IMAGE = "runproj.job_image"
    RESTARTS = "runproj.restarts"
    SPOOL = "runproj.spool"
    ATTEMPT = "runproj.attempt"
    LOCK = "runproj.lock"
    TREE = "runproj.tree"
    PATCH = "runproj.patch"
    RERUN_OF = "runproj.rerun_of"
    RECIPE = "runproj.recipe"
    VERDICT = "runproj.verdict"
    DURATIONS = "runproj.durations"
    HANDLE = "runproj.handle"
    SWEEP = "runproj.sweep"
    TRIAL = "runproj.trial"
    TRIALS = "runproj.trials"
    PRUNED = "runproj.pruned"
    BEST = "runproj.best"
    PIPELINE = "runproj.pipeline"
    STEPS = "runproj.steps"
