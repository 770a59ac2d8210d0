"""Writes an `mlruns` folder as MLflow's file store reads it."""

from __future__ import annotations

import hashlib
import os
import posixpath
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import groupby
from operator import attrgetter
from pathlib import Path

from runproj.artifacts.files import put
from runproj.artifacts.folder import Folder
from runproj.core.models import Lineage, LoggedModel, ModelVersion
from runproj.core.run import Experiment, Lifecycle, Param, Run, Tag
from runproj.core.transfer import Block, Loss, MovedModel, MovedRun, Registration, Tree
from runproj.errors import NotFoundError, RefusedError
from runproj.files import atomic_write, explained
from runproj.tracking.rows import unpack
from runproj.transfer import words
from runproj.transfer.mlruns import MODELS, TRASH, Mlruns, points_in, run_in
from runproj.transfer.registry import with_aliases
from runproj.transfer.trees import FolderTree, Places, safe


class IntoMlruns:
    """A `Target`.  What has no `meta.yaml` yet does not count, and that file is written last."""

    keeps_ids = True
    exact = True

    def __init__(self, root: Path) -> None:
        self.name = f"the folder {root}"
        self._root = root
        found = Mlruns(root, Places(root, (root,))).experiments() if root.is_dir() else ()
        self._experiments = {known.name: known for known in found}
        self._folders: dict[str, Path] = {}

    def find(self, name: str) -> Experiment | None:
        return self._experiments.get(name)

    def make(self, wanted: Experiment, name: str) -> Experiment:
        with explained(self._root):
            (self._root / TRASH).mkdir(parents=True, exist_ok=True)
        taken = any((folder / wanted.id).exists() for folder in (self._root, self._root / TRASH)) or not wanted.id.isdigit()
        experiment_id = wanted.id if not taken else str(time.time_ns())[:18]
        location = wanted.artifact_location or str(self._root / experiment_id)
        made = Experiment(experiment_id, name, location, wanted.lifecycle, wanted.created, wanted.updated, wanted.tags)
        folder = self._folder(made)
        _write_texts(folder / "tags", wanted.tags)
        meta = {
            "artifact_location": location,
            "creation_time": wanted.created,
            "experiment_id": experiment_id,
            "last_update_time": wanted.updated,
            "lifecycle_stage": wanted.lifecycle.value,
            "name": name,
        }
        write_mapping(folder / "meta.yaml", meta)
        self._experiments[name] = made
        return made

    def run(self, moved: MovedRun, experiment: Experiment, blocks: Iterable[Block]) -> Run:
        run = moved.run
        folder = self._folders[run.id] = self._folder(experiment) / run.id
        for name in ("artifacts", "metrics", "params", "tags"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        _write_texts(folder / "params", run.params)
        _write_texts(folder / "tags", run.tags)
        _write_history(folder / "metrics", blocks)
        self._write_datasets(folder, moved.lineage)
        meta: dict[str, object] = {
            "artifact_uri": run.artifact_uri or f"{experiment.artifact_location.rstrip('/')}/{run.id}/artifacts",
            "deleted_time": moved.deleted,
            "end_time": run.end,
            "entry_point_name": "",
            "experiment_id": experiment.id,
            "lifecycle_stage": run.lifecycle.value,
            "run_id": run.id,
            "run_name": run.name,
            "run_uuid": run.id,
            "source_name": "",
            "source_type": 4,
            "source_version": "",
            "start_time": run.start,
            "status": words.RUN_NUMBERS[run.status],
            "tags": [],
            "user_id": run.user,
        }
        write_mapping(folder / "meta.yaml", meta)
        return run_in(folder)

    def _write_datasets(self, run: Path, lineage: Lineage) -> None:
        for used in lineage.datasets:
            data = used.dataset
            dataset = hashlib.md5(f"{data.name}{data.digest}".encode(), usedforsecurity=False).hexdigest()
            meta = {**vars(data), "schema": data.schema or None, "profile": data.profile or None}
            write_mapping(run.parent / "datasets" / dataset / "meta.yaml", meta)
            self._write_input(run, "DATASET", dataset, {tag.key: tag.value for tag in used.tags})

    @staticmethod
    def _write_input(run: Path, kind: str, source: str, tags: Mapping[str, str]) -> None:
        name = hashlib.md5(f"{source}{run.name}".encode(), usedforsecurity=False).hexdigest()
        meta: dict[str, object] = {"source_type": kind, "source_id": source, "destination_type": "RUN", "destination_id": source}
        write_mapping(run / "inputs" / name / "meta.yaml", {**meta, "tags": tags})

    def model(self, moved: MovedModel, experiment: Experiment) -> LoggedModel:
        model = moved.model
        folder = self._folders[model.id] = self._folder(experiment) / MODELS / model.id
        for name in ("artifacts", "metrics", "params", "tags"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        _write_texts(folder / "params", model.params)
        _write_texts(folder / "tags", model.tags)
        lines: dict[str, list[str]] = {}
        for item in model.metrics:
            data = f" {item.dataset_name} {item.dataset_digest}" if item.dataset_name and " " not in item.dataset_name else ""
            point = item.metric
            lines.setdefault(point.key, []).append(f"{point.timestamp} {point.value!r} {point.step} {item.run_id}{data}\n")
        for key, found in lines.items():
            atomic_write(folder / "metrics" / _key(key), "".join(found))
        meta: dict[str, object] = {
            "artifact_location": model.artifact_uri or f"{experiment.artifact_location.rstrip('/')}/models/{model.id}/artifacts",
            "creation_timestamp": model.created,
            "experiment_id": experiment.id,
            "last_updated_timestamp": model.updated,
            "lifecycle_stage": moved.lifecycle.value,
            "model_id": model.id,
            "model_type": model.model_type or None,
            "name": model.name,
            "source_run_id": model.source_run or None,
            "status": words.MODEL_NUMBERS[model.status],
            "status_message": None,
        }
        write_mapping(folder / "meta.yaml", meta)
        return self.read_model(model.id)

    def link(self, run_id: str, lineage: Lineage) -> None:
        run = self._found(run_id)
        for model in lineage.models_in:
            self._write_input(run, "MODEL", safe(model), {})
        for output in lineage.models_out:
            model = safe(output.model_id)
            meta: dict[str, object] = {"source_type": "RUN_OUTPUT", "source_id": model, "destination_type": "MODEL_OUTPUT"}
            meta |= {"destination_id": model, "tags": {}, "step": output.step}
            write_mapping(run / "outputs" / model / "meta.yaml", meta)

    def versions(self, name: str) -> Iterable[ModelVersion]:
        return self._registered.get(name, ())

    @cached_property
    def _registered(self) -> dict[str, tuple[ModelVersion, ...]]:
        """The versions that were there before this transfer."""
        if not self._root.is_dir():
            return {}
        reader = Mlruns(self._root, Places(self._root, (self._root,)))
        return {given.model.name: with_aliases(given) for given in reader.registry()}

    def register(self, registration: Registration) -> Sequence[Loss]:
        model = registration.model
        folder = self._root / MODELS / safe(model.name)
        _write_texts(folder / "tags", model.tags)
        for version in registration.versions:
            self._write_version(folder / f"version-{version.version}", version, version.stage.value)
        if registration.highest > max((version.version for version in registration.versions), default=0):
            gone = ModelVersion(model.name, registration.highest, "", "", model.updated, model.updated)
            self._write_version(folder / f"version-{registration.highest}", gone, words.DELETED_VERSION)
        for alias in model.aliases:
            atomic_write(folder / "aliases" / _key(alias.alias), str(alias.version))
        meta: dict[str, object] = {
            "aliases": {alias.alias: str(alias.version) for alias in model.aliases},
            "creation_timestamp": model.created,
            "description": model.description or None,
            "last_updated_timestamp": model.updated,
            "name": model.name,
        }
        write_mapping(folder / "meta.yaml", meta)
        return ()

    @staticmethod
    def _write_version(folder: Path, version: ModelVersion, stage: str) -> None:
        _write_texts(folder / "tags", version.tags)
        meta: dict[str, object] = {
            "creation_timestamp": version.created,
            "current_stage": stage,
            "description": version.description or None,
            "last_updated_timestamp": version.updated,
            "model_id": version.model_id or None,
            "name": version.name,
            "run_id": version.run_id or None,
            "run_link": version.run_link or None,
            "source": version.source,
            "status": "READY",
            "status_message": None,
            "storage_location": version.storage,
            "user_id": version.user or None,
            "version": version.version,
        }
        write_mapping(folder / "meta.yaml", meta)

    def put(self, owner: Run | LoggedModel, file: Path, path: str) -> None:
        put(Folder(self._found(owner.id) / "artifacts"), file, safe(path))

    def finish(self, wanted: Experiment, made: Experiment) -> None:
        """Nothing is left to do: states were written with the things."""

    def has(self, run_id: str) -> bool:
        return self._look(run_id) is not None

    def has_model(self, model_id: str) -> bool:
        return self._look(model_id) is not None

    def read(self, run_id: str) -> tuple[Run, Iterator[Block]]:
        folder = self._found(run_id)
        return run_in(folder), points_in(folder)

    def read_model(self, model_id: str) -> LoggedModel:
        place = self._found(model_id).parent.parent.name
        reader = Mlruns(self._root, Places(self._root, (self._root,)))
        models = (item.model for found in reader.experiments() if found.id == place for item in reader.models(found))
        return next(model for model in models if model.id == model_id)

    def name_of(self, experiment_id: str) -> str:
        return next((name for name, found in self._experiments.items() if found.id == experiment_id), experiment_id)

    def tree(self, owner: Run | LoggedModel) -> Tree:
        return FolderTree(self._found(owner.id) / "artifacts")

    def _folder(self, experiment: Experiment) -> Path:
        return (self._root if experiment.lifecycle is Lifecycle.ACTIVE else self._root / TRASH) / experiment.id

    def _look(self, name: str) -> Path | None:
        """The folder of a run or model, wherever it is."""
        if name not in self._folders:
            for pattern in ("*", f"{TRASH}/*", f"*/{MODELS}", f"{TRASH}/*/{MODELS}"):
                for path in self._root.glob(f"{pattern}/{safe(name)}/meta.yaml"):
                    self._folders[name] = path.parent
        return self._folders.get(name)

    def _found(self, name: str) -> Path:
        folder = self._look(name)
        if folder is None:
            raise NotFoundError(f"{self.name} has no {name}")
        return folder


def _write_history(folder: Path, blocks: Iterable[Block]) -> None:
    """A file for each key, which is complete or not there."""
    for key, group in groupby(blocks, key=attrgetter("key")):
        path = folder / _key(key)
        unfinished = path.with_name(path.name + ".tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with unfinished.open("w") as file:
                for block in group:
                    file.writelines(f"{at} {unpack(value, kind)!r} {step}\n" for at, step, value, kind in block.points)
            os.replace(unfinished, path)
        except OSError as error:
            raise RefusedError(f"The metric {key!r} cannot be a file", why=error.strerror or str(error)) from error


def _write_texts(folder: Path, items: Iterable[Param | Tag]) -> None:
    for item in items:
        path = folder / _key(item.key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(item.value.encode())
        except OSError as error:
            raise RefusedError(f"{item.key!r} cannot be a file", why=error.strerror or str(error)) from error


def _key(key: str) -> str:
    """A key as a path.  Raises `RefusedError` for one that MLflow's file store cannot read."""
    if len(key) > 250 or not re.fullmatch(r"[/\w.\- :]+", key) or posixpath.normpath(key) != key or key[0] in "./":
        raise RefusedError(f"{key[:100]!r} cannot be a name in MLflow's file store")
    return safe(key)


def write_mapping(path: Path, values: Mapping[str, object]) -> None:
    """A YAML file: each value as JSON writes it, which YAML reads."""
    atomic_write(path, "".join(f"{_yaml(key)}: {_yaml(value)}\n" for key, value in values.items()))


def _yaml(value: object) -> str:
    match value:
        case None:
            return "null"
        case str():
            return '"' + "".join(map(_escaped, value)) + '"'
        case Mapping():
            return "{" + ", ".join(f"{_yaml(key)}: {_yaml(item)}" for key, item in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(_yaml, value)) + "]"
        case _:
            return str(value)


def _escaped(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    return character if character.isprintable() else f"\\U{ord(character):08x}"
