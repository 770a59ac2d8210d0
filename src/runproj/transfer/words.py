"""How MLflow writes states, in files, columns and messages of any age."""

from __future__ import annotations

import re

from runproj.core.models import ModelStatus, Stage
from runproj.core.run import Lifecycle, RunStatus
from runproj.errors import TrackingError

DELETED_VERSION = "Deleted_Internal"
"""Stage of a version that was deleted; its number is not given again."""

RUN_NUMBERS = {
    RunStatus.RUNNING: 1,
    RunStatus.SCHEDULED: 2,
    RunStatus.FINISHED: 3,
    RunStatus.FAILED: 4,
    RunStatus.KILLED: 5,
}
MODEL_NUMBERS = {ModelStatus.PENDING: 1, ModelStatus.READY: 2, ModelStatus.UPLOAD_FAILED: 3}


class UnreadableError(TrackingError):
    """One thing in a source cannot be read; the others may be well."""


def run_status(value: object) -> RunStatus:
    """From a number or a name; RUNNING is what MLflow takes the rest for."""
    return next((status for status, number in RUN_NUMBERS.items() if value in (number, status.value)), RunStatus.RUNNING)


def model_status(value: object) -> ModelStatus:
    return next((status for status, number in MODEL_NUMBERS.items() if value in (number, status.value)), ModelStatus.PENDING)


def lifecycle(value: object) -> Lifecycle:
    return Lifecycle.DELETED if value == Lifecycle.DELETED.value else Lifecycle.ACTIVE


def stage(value: object) -> Stage:
    return next((known for known in Stage if known.value == value), Stage.NONE)


def model_of(source: str) -> str:
    """The logged model that a version was made from, as its source tells; empty where it was none."""
    found = re.match(r"models:/(m-[^/]+)", source)
    return found[1] if found else ""
