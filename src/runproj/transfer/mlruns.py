"""Reads an `mlruns` folder: MLflow's file store, with its model registry."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from runproj.core.models import (
    Alias,
    Dataset,
    DatasetInput,
    Lineage,
    LoggedModel,
    ModelMetric,
    ModelOutput,
    ModelVersion,
    RegisteredModel,
)
from runproj.core.run import Experiment, Metric, Param, Run, Tag
from runproj.core.transfer import Block, Loss, MovedModel, MovedRun, Registration, Tree
from runproj.descriptor import read_mapping
from runproj.errors import RunprojError, UsageError
from runproj.transfer import points, words
from runproj.transfer.trees import Places

Meta = Mapping[str, object]

TRASH, MODELS = ".trash", "models"
_RESERVED = {"tags", "datasets", "traces", MODELS, TRASH}


class Mlruns:
    """A `Source`.  places: where artifacts may be found beside the folders of the runs."""

    def __init__(self, root: Path, places: Places) -> None:
        self.name = f"the folder {root}"
        self.root = root
        self._places = places
        self._folders: dict[str, Path] = {}
        self._losses: list[Loss] = []
        if not root.is_dir():
            raise UsageError(f"There is no folder {root}")

    def experiments(self) -> Iterable[Experiment]:
        for folder in (*_folders(self.root), *_folders(self.root / TRASH)):
            if folder.name in _RESERVED or (meta := self._meta(folder)) is None:
                continue
            experiment_id = _text(meta, "experiment_id") or folder.name
            self._folders[experiment_id] = folder
            yield Experiment(
                id=experiment_id,
                name=_text(meta, "name"),
                artifact_location=_text(meta, "artifact_location"),
                lifecycle=words.lifecycle(meta.get("lifecycle_stage")),
                created=_number(meta, "creation_time"),
                updated=_number(meta, "last_update_time"),
                tags=tuple(Tag(*pair) for pair in _texts(folder / "tags")),
            )

    def runs(self, experiment: Experiment) -> Iterable[MovedRun]:
        found = [(meta, folder) for folder in self._of(experiment) if (meta := self._meta(folder)) is not None]
        for meta, folder in sorted(found, key=lambda pair: (_number(pair[0], "start_time"), pair[1].name)):
            run_id = _text(meta, "run_id") or _text(meta, "run_uuid")
            if run_id != folder.name:
                self._losses.append(Loss("runs", f"{folder} says that its id is {run_id!r}"))
                continue
            self._folders[run_id] = folder
            mark = str(sum(path.stat().st_size for path in _files(folder / "metrics")))
            yield MovedRun(run_in(folder, meta), self._lineage(folder), _number(meta, "deleted_time") or None, mark)

    def points(self, run: Run) -> Iterator[Block]:
        return points_in(self._folders[run.id])

    def models(self, experiment: Experiment) -> Iterable[MovedModel]:
        for folder in _folders(self._folders[experiment.id] / MODELS):
            if (meta := self._meta(folder)) is None:
                continue
            self._folders[folder.name] = folder
            model = LoggedModel(
                id=folder.name,
                experiment_id=experiment.id,
                name=_text(meta, "name"),
                artifact_uri=_text(meta, "artifact_location"),
                status=words.model_status(meta.get("status")),
                created=_number(meta, "creation_timestamp"),
                updated=_number(meta, "last_updated_timestamp"),
                model_type=_text(meta, "model_type"),
                source_run=_text(meta, "source_run_id"),
                params=tuple(Param(*pair) for pair in _texts(folder / "params")),
                tags=tuple(Tag(*pair) for pair in _texts(folder / "tags")),
                metrics=tuple(self._model_metrics(folder)),
            )
            yield MovedModel(model, words.lifecycle(meta.get("lifecycle_stage")))

    def registry(self) -> Iterable[Registration]:
        for folder in _folders(self.root / MODELS):
            if (meta := self._meta(folder)) is None:
                continue
            name = _text(meta, "name") or folder.name
            aliases = [Alias(alias, int(number)) for alias, number in _texts(folder / "aliases") if number.strip().isdigit()]
            model = RegisteredModel(
                name=name,
                created=_number(meta, "creation_timestamp"),
                updated=_number(meta, "last_updated_timestamp"),
                description=_text(meta, "description"),
                tags=tuple(Tag(*pair) for pair in _texts(folder / "tags")),
                aliases=tuple(aliases),
            )
            found = [
                (below, version)
                for below in _folders(folder)
                if below.name.startswith("version-") and (version := self._meta(below)) is not None
            ]
            living = [pair for pair in found if _text(pair[1], "current_stage") != words.DELETED_VERSION]
            versions = [_version(name, version, below) for below, version in living]
            highest = max((_number(version, "version") for _, version in found), default=0)
            yield Registration(model, tuple(sorted(versions, key=lambda item: item.version)), highest)

    def tree(self, owner: Run | LoggedModel) -> Tree:
        folder = self._folders.get(owner.id)
        return self._places.tree(owner.artifact_uri, folder / "artifacts" if folder else None)

    def beyond(self) -> Iterable[Loss]:
        traces = sum(1 for folder in self._folders.values() for _ in _folders(folder / "traces"))
        if traces:
            yield Loss("traces", "runproj has no place for them", traces)
        yield from self._losses

    def _of(self, experiment: Experiment) -> list[Path]:
        """Folders of the runs of an experiment."""
        return [folder for folder in _folders(self._folders[experiment.id]) if folder.name not in _RESERVED]

    def _meta(self, folder: Path) -> Meta | None:
        """The folder's `meta.yaml`; None, and a loss, where there is none that can be read."""
        path = folder / "meta.yaml"
        if not path.is_file():
            return None
        try:
            return read_mapping(path)
        except RunprojError as error:
            self._losses.append(Loss("folders", f"{folder}: {error.what}"))
            return None

    def _lineage(self, run: Path) -> Lineage:
        datasets, used = [], []
        for folder in _folders(run / "inputs"):
            meta: Meta = self._meta(folder) or {}
            source = _text(meta, "source_id")
            if _text(meta, "source_type") == "MODEL":
                used.append(source)
            elif "/" not in source and (data := self._meta(run.parent / "datasets" / source)):
                fields = ("name", "digest", "source_type", "source", "schema", "profile")
                tags = meta.get("tags")
                pairs = tags.items() if isinstance(tags, dict) else ()
                found = tuple(Tag(str(key), str(value)) for key, value in pairs)
                datasets.append(DatasetInput(Dataset(*(_text(data, field) for field in fields)), found))
        made = [ModelOutput(folder.name, _number(self._meta(folder) or {}, "step")) for folder in _folders(run / "outputs")]
        return Lineage(tuple(datasets), tuple(used), tuple(made))

    def _model_metrics(self, folder: Path) -> Iterator[ModelMetric]:
        for path in _files(folder / "metrics"):
            key = path.relative_to(folder / "metrics").as_posix()
            for line in _lines(path):
                timestamp, step, value = _point(line, path)
                run, *data = line.split(" ")[3:] or [""]
                name, digest = (" ".join(data[:-1]), data[-1]) if len(data) > 1 else ("", "")  # names may hold spaces
                yield ModelMetric(Metric(key, value, timestamp, step), folder.name, run, name, digest)


def run_in(folder: Path, meta: Meta | None = None) -> Run:
    """The run in a folder, which has its id for a name."""
    meta = read_mapping(folder / "meta.yaml") if meta is None else meta
    return Run(
        id=folder.name,
        experiment_id=_text(meta, "experiment_id"),
        name=_text(meta, "run_name") or _text(meta, "name"),
        status=words.run_status(meta.get("status")),
        start=_number(meta, "start_time"),
        end=_number(meta, "end_time") or None,
        artifact_uri=_text(meta, "artifact_uri"),
        user=_text(meta, "user_id"),
        lifecycle=words.lifecycle(meta.get("lifecycle_stage")),
        params=tuple(Param(*pair) for pair in _texts(folder / "params")),
        tags=tuple(Tag(*pair) for pair in _texts(folder / "tags")),
    )


def points_in(folder: Path) -> Iterator[Block]:
    """The history of the run in a folder."""
    for path in _files(folder / "metrics"):
        key = path.relative_to(folder / "metrics").as_posix()
        yield from points.ordered(key, (_point(line, path) for line in _lines(path)))


def _point(line: str, path: Path) -> tuple[int, int, float]:
    parts = line.split(" ")
    try:
        return int(parts[0]), int(parts[2]) if len(parts) > 2 else 0, float(parts[1])
    except (ValueError, IndexError):
        raise words.UnreadableError(f"{path} is not a history of MLflow", why=f"It has the line {line[:100]!r}.") from None


def _version(name: str, meta: Meta, folder: Path) -> ModelVersion:
    source = _text(meta, "source")
    return ModelVersion(
        name=name,
        version=_number(meta, "version"),
        source=source,
        storage=_text(meta, "storage_location") or source,
        created=_number(meta, "creation_timestamp"),
        updated=_number(meta, "last_updated_timestamp"),
        run_id=_text(meta, "run_id"),
        run_link=_text(meta, "run_link"),
        model_id=_text(meta, "model_id") or words.model_of(source),
        user=_text(meta, "user_id"),
        stage=words.stage(meta.get("current_stage")),
        description=_text(meta, "description"),
        tags=tuple(Tag(*pair) for pair in _texts(folder / "tags")),
    )


def _folders(path: Path) -> list[Path]:
    """Folders in a folder, by name; none where there is no such folder."""
    return sorted(below for below in path.iterdir() if below.is_dir()) if path.is_dir() else []


def _files(path: Path) -> list[Path]:
    """Files below a folder in the order of their keys: a key's `/` makes folders."""
    found = [below for below in path.rglob("*") if below.is_file()] if path.is_dir() else []
    return sorted(found, key=lambda below: below.relative_to(path).as_posix())


def _texts(path: Path) -> list[tuple[str, str]]:
    """Keys and contents of the files below a folder."""
    return [(below.relative_to(path).as_posix(), below.read_bytes().decode(errors="replace")) for below in _files(path)]


def _lines(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            if line := line.strip():
                yield line


def _text(meta: Meta, field: str) -> str:
    value = meta.get(field)
    return "" if value is None else str(value)


def _number(meta: Meta, field: str) -> int:
    value = meta.get(field)
    if isinstance(value, str) and value.isdigit():
        return int(value)
    return int(value) if isinstance(value, int | float) else 0
