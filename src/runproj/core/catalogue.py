"""What a store holds beside its runs, as people look at it: experiments, registered models, and the models that runs logged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from runproj.core.models import LoggedModel, ModelVersion, RegisteredModel
from runproj.core.run import Experiment, Lifecycle, Run
from runproj.core.values import dataclass


@dataclass(frozen=True)
class ExperimentUse:
    """How an experiment is used.

    runs: how many it has: those that are not deleted, or, where it is deleted itself, those that were deleted with it.
    more: there are more; a server is not asked to list them all.
    used: when the newest run began, in milliseconds since the epoch; None without runs.
    """

    runs: int = 0
    more: bool = False
    used: int | None = None


@dataclass(frozen=True)
class ExperimentView:
    """`experiments show`."""

    experiment: Experiment
    use: ExperimentUse


@dataclass(frozen=True)
class ExperimentList:
    """`experiments list`; `create`, `rename`, `delete` and `restore` (those concerned)."""

    experiments: tuple[ExperimentView, ...]


@dataclass(frozen=True)
class RegisteredModelView:
    """`models show`: a registered model with all its versions, the newest first."""

    model: RegisteredModel
    versions: tuple[ModelVersion, ...]


@dataclass(frozen=True)
class RegisteredModelList:
    """`models list`."""

    models: tuple[RegisteredModelView, ...]


class Experiments(Protocol):
    """The experiments of a store.  What names one that is not there raises `NotFoundError`."""

    def all(self, lifecycle: Lifecycle | None) -> Sequence[Experiment]:
        """Those in that state, or all; newest first."""

    def find(self, reference: str) -> Experiment:
        """The experiment of that name, or else of that id; deleted or not."""

    def create(self, name: str) -> Experiment:
        """A new one.  Raises `AlreadyExistsError`."""

    def rename(self, experiment: Experiment, name: str) -> None:
        """Raises `AlreadyExistsError`, and `RefusedError` for a deleted one."""

    def move(self, experiment: Experiment, lifecycle: Lifecycle) -> None:
        """Delete or restore it, with its runs."""

    def uses(self, experiments: Sequence[Experiment]) -> Sequence[ExperimentUse]:
        """How each of them is used."""


class Shelf(Protocol):
    """The models of a store."""

    def registered(self) -> Sequence[RegisteredModel]:
        """All registered models, by name."""

    def versions(self, name: str) -> Sequence[ModelVersion]:
        """The versions of a registered model, the newest first.  Empty where there is no such model."""

    def versions_from(self, run: Run) -> Sequence[ModelVersion]:
        """The versions of any registered model that a run made."""

    def logged(self, model_id: str) -> LoggedModel:
        """A logged model.  Raises `NotFoundError`."""

    def logged_by(self, run: Run) -> Sequence[LoggedModel]:
        """The models that a run logged."""


@dataclass(frozen=True)
class Catalogue:
    experiments: Experiments
    shelf: Shelf
