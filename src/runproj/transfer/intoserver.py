"""Writes to a server that speaks MLflow's protocol.  It chooses ids and times; what it is given says where it came from."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TypeVar

from runproj.artifacts.http import HttpArtifacts
from runproj.core.models import Lineage, LoggedModel, ModelStatus, ModelVersion, Stage
from runproj.core.run import Experiment, Lifecycle, Param, Run, RunStatus, Tag
from runproj.core.transfer import ORIGIN, Block, Loss, MovedModel, MovedRun, Registration, Tree
from runproj.errors import AlreadyExistsError, NotFoundError, RefusedError
from runproj.remote import Remote
from runproj.tracking.http import HttpStore, experiment_of
from runproj.tracking.messages import message_in, messages, model_of, number, registered_of, text
from runproj.tracking.rows import unpack
from runproj.transfer import words
from runproj.transfer.points import rows
from runproj.transfer.registry import with_aliases
from runproj.transfer.server import Histories, server_tree
from runproj.transfer.trees import Places, safe

T = TypeVar("T")

_BATCH = 100
_METRICS = 1000
_VERSIONS = "mlflow.modelVersions"
"""Tag in which a logged model has the versions that were made of it."""

_PLACEHOLDER = "s3://removed/by-runproj"
"""Source of versions that are made and deleted at once, so that the next one gets its number."""


class IntoServer:
    """A `Target`.  Runs and models that were begun before are found by their tag, and completed."""

    keeps_ids = False
    exact = False

    def __init__(self, remote: Remote, places: Places) -> None:
        self.name = remote.shown
        self._remote = remote
        self._runs = HttpStore(remote)
        self._histories = Histories(self._runs)
        self._files = HttpArtifacts(remote)
        self._places = places
        self._fresh: set[str] = set()
        self._woken: set[str] = set()
        self._noted: dict[str, str] = {}

    def find(self, name: str) -> Experiment | None:
        try:
            return experiment_of(message_in(self._remote.get("experiments/get-by-name", experiment_name=name), "experiment"))
        except NotFoundError:
            return None

    def make(self, wanted: Experiment, name: str) -> Experiment:
        message: dict[str, object] = {"name": name, "tags": _pairs(wanted.tags)}
        if wanted.artifact_location:
            message["artifact_location"] = wanted.artifact_location
        made = text(self._remote.post("experiments/create", message, repeat=False), "experiment_id")
        self._fresh.add(made)
        return self._runs.experiment_by_id(made)

    def finish(self, wanted: Experiment, made: Experiment) -> None:
        if wanted.lifecycle is Lifecycle.DELETED:
            with contextlib.suppress(NotFoundError):  # it is deleted already
                self._remote.post("experiments/delete", {"experiment_id": made.id})

    def run(self, moved: MovedRun, experiment: Experiment, blocks: Iterable[Block]) -> Run:
        run = moved.run
        if experiment.lifecycle is Lifecycle.DELETED and experiment.id not in self._woken:
            self._remote.post("experiments/restore", {"experiment_id": experiment.id})  # `finish` deletes it again
            self._woken.add(experiment.id)
        run_id = self._begun(run.id, experiment) or self._create(run, experiment)
        with self._alive(run_id, deleted=run.lifecycle is Lifecycle.DELETED):
            for params in _batches(run.params, _BATCH):
                self._log(run_id, params=_pairs(params))
            for tags in _batches(run.tags, _BATCH):
                self._log(run_id, tags=_pairs(tags))
            for points in _batches(rows(blocks), _METRICS):
                self._log(run_id, metrics=[_metric(key, unpack(*point[2:]), *point[:2]) for key, point in points])
            for datasets in _batches(moved.lineage.datasets, _BATCH):
                found = [
                    {
                        "tags": _pairs(used.tags),
                        "dataset": {key: value for key, value in vars(used.dataset).items() if value},
                    }
                    for used in datasets
                ]
                self._remote.post("runs/log-inputs", {"run_id": run_id, "datasets": found})
            ended = {"end_time": run.end} if run.end is not None else {}
            self._remote.post("runs/update", {"run_id": run_id, "status": run.status.value, "run_name": run.name, **ended})
        return self._runs.get_run(run_id)

    def _begun(self, origin: str, experiment: Experiment) -> str:
        """The id of a run that an earlier transfer made; empty where there is none."""
        if experiment.id in self._fresh:
            return ""
        message = {
            "experiment_ids": [experiment.id],
            "filter": f"tags.`{ORIGIN}` = '{origin}'",
            "run_view_type": "ALL",
            "max_results": 1,
        }
        found = messages(self._remote.post("runs/search", message), "runs")
        return text(message_in(found[0], "info"), "run_id") if found else ""

    def _create(self, run: Run, experiment: Experiment) -> str:
        message = {
            "experiment_id": experiment.id,
            "start_time": run.start,
            "user_id": run.user,
            "run_name": run.name,
            "tags": _pairs([Tag(ORIGIN, run.id)]),
        }
        made = message_in(self._remote.post("runs/create", message, repeat=False), "run")
        return text(message_in(made, "info"), "run_id")

    @contextlib.contextmanager
    def _alive(self, run_id: str, *, deleted: bool | None = None) -> Iterator[None]:
        """The run accepts what is sent in the block; afterwards it is deleted, or not, or as it was where that is None."""
        was = self._runs.get_run(run_id).lifecycle is Lifecycle.DELETED
        if was:
            self._remote.post("runs/restore", {"run_id": run_id})
        try:
            yield
        finally:
            if was if deleted is None else deleted:
                self._remote.post("runs/delete", {"run_id": run_id})

    def _log(self, run_id: str, **what: object) -> None:
        self._remote.post("runs/log-batch", {"run_id": run_id, **what})

    def model(self, moved: MovedModel, experiment: Experiment) -> LoggedModel:
        model = moved.model
        model_id = self._begun_model(model.id, experiment) or self._create_model(model, experiment)
        for run_id in sorted({item.run_id for item in model.metrics}):
            mine = [item for item in model.metrics if item.run_id == run_id]
            with self._alive(run_id):
                for some in _batches(mine, _METRICS):
                    found = []
                    for item in some:
                        data = {"dataset_name": item.dataset_name, "dataset_digest": item.dataset_digest}
                        point = _metric(item.metric.key, item.metric.value, item.metric.timestamp, item.metric.step)
                        found.append(point | {"model_id": model_id} | (data if item.dataset_name else {}))
                    self._log(run_id, metrics=found)
        if model.status is not ModelStatus.PENDING:
            self._remote.send("PATCH", f"logged-models/{model_id}", {"model_id": model_id, "status": model.status.value})
        made = self.read_model(model_id)
        for tag in model.tags:
            if tag.key == _VERSIONS:
                self._noted[made.id] = tag.value
        if moved.lifecycle is Lifecycle.DELETED:
            self._remote.send("DELETE", f"logged-models/{model_id}", {})
        return made

    def _begun_model(self, origin: str, experiment: Experiment) -> str:
        if experiment.id in self._fresh:
            return ""
        message = {"experiment_ids": [experiment.id], "filter": f"tags.`{ORIGIN}` = '{origin}'", "max_results": 1}
        found = messages(self._remote.post("logged-models/search", message), "models")
        return text(message_in(found[0], "info"), "model_id") if found else ""

    def _create_model(self, model: LoggedModel, experiment: Experiment) -> str:
        message = {
            "experiment_id": experiment.id,
            "name": model.name,
            "model_type": model.model_type,
            "source_run_id": model.source_run,
            "params": _pairs(model.params[:_BATCH]),
            "tags": _pairs([*model.tags, Tag(ORIGIN, model.id)]),
        }
        made = model_of(message_in(self._remote.post("logged-models", message, repeat=False), "model"))
        for params in _batches(model.params[_BATCH:], _BATCH):
            self._remote.post(f"logged-models/{made.id}/params", {"model_id": made.id, "params": _pairs(params)})
        return made.id

    def link(self, run_id: str, lineage: Lineage) -> None:
        known = self._remote.get("runs/get", run_id=run_id)
        outputs = messages(message_in(message_in(known, "run"), "outputs"), "model_outputs")
        there = {text(output, "model_id") for output in outputs}
        made = [{"model_id": item.model_id, "step": item.step} for item in lineage.models_out if item.model_id not in there]
        with self._alive(run_id):
            if lineage.models_in:
                used = [{"model_id": model} for model in lineage.models_in]
                self._remote.post("runs/log-inputs", {"run_id": run_id, "models": used})
            if made:
                self._remote.post("runs/outputs", {"run_id": run_id, "models": made})

    def register(self, registration: Registration) -> Sequence[Loss]:
        model = registration.model
        message = {"name": model.name, "description": model.description, "tags": _pairs(model.tags)}
        with contextlib.suppress(AlreadyExistsError):
            self._remote.post("registered-models/create", message, repeat=False)
        losses: list[Loss] = []
        there = {found.version for found in self.versions(model.name)}
        highest = max(there, default=0)
        for version in registration.versions:
            if version.version in there:
                continue
            what = f"version {version.version} of {model.name!r}"
            if version.version <= highest:
                losses.append(Loss(what, f"the target has given numbers up to {highest} already"))
                continue
            try:
                highest = self._up_to(model.name, version.version - 1, highest)
                self._create_version(version)
                highest = version.version
            except RefusedError as error:
                losses.append(Loss(what, error.what))
        self._up_to(model.name, registration.highest, highest)
        losses += self._aliases(registration)
        for model_id in {version.model_id for version in registration.versions} & self._noted.keys():
            tags = [{"key": _VERSIONS, "value": self._noted[model_id]}]  # the server has noted the versions a second time
            self._remote.send("PATCH", f"logged-models/{model_id}/tags", {"model_id": model_id, "tags": tags})
        return losses

    def versions(self, name: str) -> Iterable[ModelVersion]:
        quoted = f"'{name}'" if "'" not in name else f'"{name}"'
        page = self._remote.get("model-versions/search", filter=f"name = {quoted}", max_results=10_000)
        found = []
        for item in messages(page, "model_versions"):
            source, made = text(item, "source"), ModelVersion(name, number(item, "version"), "", "", 0, 0)
            model_id = text(item, "model_id") or words.model_of(source)
            found.append(replace(made, source=source, run_id=text(item, "run_id"), model_id=model_id))
        if not found:
            return found
        model = message_in(self._remote.get("registered-models/get", name=name), "registered_model")
        return with_aliases(Registration(registered_of(model), tuple(found)))

    def _up_to(self, name: str, wanted: int, highest: int) -> int:
        """Use up the numbers of versions that were deleted."""
        while highest < wanted:
            made = self._remote.post("model-versions/create", {"name": name, "source": _PLACEHOLDER}, repeat=False)
            highest = number(message_in(made, "model_version"), "version")
            self._remote.send("DELETE", "model-versions/delete", {"name": name, "version": str(highest)})
        return highest

    def _create_version(self, version: ModelVersion) -> None:
        given = {
            "source": version.source,
            "run_id": version.run_id,
            "run_link": version.run_link,
            "description": version.description,
            "model_id": version.model_id,
        }
        message: dict[str, object] = {key: value for key, value in given.items() if value}
        message |= {"name": version.name, "tags": _pairs(version.tags)}
        made = message_in(self._remote.post("model-versions/create", message, repeat=False), "model_version")
        if version.stage is not Stage.NONE:
            stage = {"stage": version.stage.value, "archive_existing_versions": False}
            which = {"name": version.name, "version": text(made, "version")}
            self._remote.post("model-versions/transition-stage", {**which, **stage})

    def _aliases(self, registration: Registration) -> list[Loss]:
        losses = []
        name = registration.model.name
        for alias in registration.model.aliases:
            try:
                message = {"name": name, "alias": alias.alias, "version": str(alias.version)}
                self._remote.post("registered-models/alias", message)
            except (RefusedError, NotFoundError) as error:
                losses.append(Loss(f"alias {alias.alias!r} of {name!r}", error.what))
        return losses

    def put(self, owner: Run | LoggedModel, file: Path, path: str) -> None:
        place = Run(owner.id, owner.experiment_id, "", RunStatus.FINISHED, 0, artifact_uri=owner.artifact_uri)
        self._files.put(place, file, safe(path))

    def has(self, run_id: str) -> bool:
        try:
            self._runs.get_run(run_id)
        except NotFoundError:
            return False
        return True

    def has_model(self, model_id: str) -> bool:
        try:
            self.read_model(model_id)
        except NotFoundError:
            return False
        return True

    def read(self, run_id: str) -> tuple[Run, Iterator[Block]]:
        run = self._runs.get_run(run_id)
        return run, self._histories.of(run)

    def read_model(self, model_id: str) -> LoggedModel:
        return model_of(message_in(self._remote.get(f"logged-models/{model_id}"), "model"))

    def name_of(self, experiment_id: str) -> str:
        return self._runs.experiment_by_id(experiment_id).name

    def tree(self, owner: Run | LoggedModel) -> Tree:
        return server_tree(self._remote, owner, self._places)


def _pairs(items: Iterable[Param | Tag]) -> list[Mapping[str, str]]:
    return [{"key": item.key, "value": item.value} for item in items]


def _metric(key: str, value: float, timestamp: int, step: int) -> dict[str, object]:
    told: object = value
    if math.isnan(value):
        told = "NaN"
    elif math.isinf(value):
        told = "Infinity" if value > 0 else "-Infinity"
    return {"key": key, "value": told, "timestamp": timestamp, "step": step}


def _batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    rest = iter(items)
    while part := list(islice(rest, size)):
        yield part
