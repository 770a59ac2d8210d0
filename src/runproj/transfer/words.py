"""How MLflow writes states, in files, columns and messages of any age."""

from __future__ import annotations

from runproj.core.run import Lifecycle, RunStatus
from runproj.errors import TrackingError
from runproj.tracking.messages import MODEL_NUMBERS, model_status, stage
from runproj.tracking.messages import source_model as model_of

__all__ = [
    "DELETED_VERSION",
    "MODEL_NUMBERS",
    "RUN_NUMBERS",
    "UnreadableError",
    "lifecycle",
    "model_of",
    "model_status",
    "run_status",
    "stage",
]

DELETED_VERSION = "Deleted_Internal"
"""Stage of a version that was deleted; its number is not given again."""

RUN_NUMBERS = {
    RunStatus.RUNNING: 1,
    RunStatus.SCHEDULED: 2,
    RunStatus.FINISHED: 3,
    RunStatus.FAILED: 4,
    RunStatus.KILLED: 5,
}


class UnreadableError(TrackingError):
    """One thing in a source cannot be read; the others may be well."""


def run_status(value: object) -> RunStatus:
    """From a number or a name; RUNNING is what MLflow takes the rest for."""
    return next((status for status, number in RUN_NUMBERS.items() if value in (number, status.value)), RunStatus.RUNNING)


def lifecycle(value: object) -> Lifecycle:
    return Lifecycle.DELETED if value == Lifecycle.DELETED.value else Lifecycle.ACTIVE
