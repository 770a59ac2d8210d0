"""What MLflow's protocol knows beside runs: datasets, logged models, and the registry.  Times in milliseconds."""

from __future__ import annotations

from dataclasses import field
from enum import Enum

from runproj.core.run import Metric, Param, Tag
from runproj.core.values import dataclass


@dataclass(frozen=True)
class Dataset:
    """Data that a run used.  Name and digest identify it within an experiment."""

    name: str
    digest: str
    source_type: str = ""
    source: str = ""
    schema: str = ""
    profile: str = ""


@dataclass(frozen=True)
class DatasetInput:
    """A dataset and what it was used for (tag `mlflow.data.context`)."""

    dataset: Dataset
    tags: tuple[Tag, ...] = ()


@dataclass(frozen=True)
class ModelOutput:
    """A logged model that a run made, at a step of it."""

    model_id: str
    step: int = 0


@dataclass(frozen=True)
class Lineage:
    """What went into a run and what came out of it."""

    datasets: tuple[DatasetInput, ...] = ()
    models_in: tuple[str, ...] = ()
    models_out: tuple[ModelOutput, ...] = ()


class ModelStatus(Enum):
    """State of a logged model, in the order of the protocol's numbers."""

    PENDING = "LOGGED_MODEL_PENDING"
    READY = "LOGGED_MODEL_READY"
    UPLOAD_FAILED = "LOGGED_MODEL_UPLOAD_FAILED"


@dataclass(frozen=True)
class ModelMetric:
    """A metric of a logged model: the run that measured it, and the data it was measured on."""

    metric: Metric
    model_id: str
    run_id: str
    dataset_name: str = ""
    dataset_digest: str = ""


@dataclass(frozen=True)
class LoggedModel:
    id: str
    experiment_id: str
    name: str
    artifact_uri: str
    status: ModelStatus
    created: int
    updated: int
    model_type: str = ""
    source_run: str = ""
    params: tuple[Param, ...] = ()
    tags: tuple[Tag, ...] = ()
    metrics: tuple[ModelMetric, ...] = ()


class Stage(Enum):
    NONE = "None"
    STAGING = "Staging"
    PRODUCTION = "Production"
    ARCHIVED = "Archived"


@dataclass(frozen=True)
class ModelVersion:
    """A version of a registered model.

    source:  what was registered, as the client named it;  `storage` is where its files are.
    """

    name: str
    version: int
    source: str
    storage: str
    created: int
    updated: int
    run_id: str = ""
    run_link: str = ""
    model_id: str = ""
    user: str = ""
    stage: Stage = Stage.NONE
    description: str = ""
    tags: tuple[Tag, ...] = ()
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True)
class Alias:
    alias: str
    version: int


@dataclass(frozen=True)
class RegisteredModel:
    """A name with versions.  `latest` holds the highest version of each stage."""

    name: str
    created: int
    updated: int
    description: str = ""
    tags: tuple[Tag, ...] = ()
    aliases: tuple[Alias, ...] = ()
    latest: tuple[ModelVersion, ...] = field(default_factory=tuple)
