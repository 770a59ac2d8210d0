"""The record of runs in a capsule: written from a store, and read again as a source that any store can take it from."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import groupby
from operator import itemgetter
from pathlib import Path

from runproj.capsule.archive import Reader, Writer, document
from runproj.capsule.names import packed, unpacked
from runproj.codec import DocumentError, from_json, to_json, to_plain
from runproj.core.capsule import PackedFile, PackedRun
from runproj.core.models import LoggedModel
from runproj.core.run import Experiment, Run
from runproj.core.tracking import ArtifactInfo
from runproj.core.transfer import Block, Loss, MovedModel, MovedRun, Point, Registration, Shelf, Tree
from runproj.errors import NotFoundError, StorageError

_BLOCK = 20_000
_HUGE = 1 << 63


def write_run(moved: MovedRun, shelf: Shelf, writer: Writer, scratch: Path) -> PackedRun:
    """A run with its points, its files and the models it logged."""
    run = moved.run
    models = []
    for output in moved.lineage.models_out:
        try:
            models.append(shelf.read_model(output.model_id))
        except NotFoundError:  # removed since
            continue
    record = PackedRun(shelf.experiment(run.experiment_id), moved, tuple(models))
    writer.text(f"runs/{run.id}/run.json", document(record))
    _write_points(shelf.points(run), f"runs/{run.id}/metrics.jsonl", writer, scratch)
    _write_tree(shelf.tree(run), f"runs/{run.id}/artifacts", writer, scratch)
    for model in models:
        _write_tree(shelf.tree(model), f"models/{model.id}/artifacts", writer, scratch)
    return record


def _write_points(blocks: Iterable[Block], name: str, writer: Writer, scratch: Path) -> None:
    """Each point as a line [key, timestamp, step, value, kind], in order."""
    with tempfile.NamedTemporaryFile("w", dir=scratch, encoding="utf-8") as file:
        for block in blocks:
            for point in block.points:
                file.write(f"{to_json((block.key, *point))}\n")
        file.flush()
        writer.add(name, Path(file.name))


def _write_tree(tree: Tree, folder: str, writer: Writer, scratch: Path) -> None:
    into = scratch / "file"
    for info in sorted(tree.files(), key=lambda info: info.path):
        if info.size is not None:
            writer.add(packed(folder, info.path), tree.fetch(info.path, into))
            into.unlink(missing_ok=True)


class CapsuleRecord:
    """The record of an opened capsule, as a `Source`."""

    def __init__(self, reader: Reader) -> None:
        self.name = f"capsule {reader.sha256}"
        self._reader = reader
        self._runs = [self._read(run_id) for run_id in reader.manifest.runs]
        self._trees: dict[str, list[PackedFile]] = {}
        for file in reader.files.values():
            owner, below, _ = file.path.partition("/artifacts/")
            if below:
                self._trees.setdefault(owner, []).append(file)

    def _read(self, run_id: str) -> PackedRun:
        try:
            found = from_json(PackedRun, self._reader.read(packed("runs", run_id, "run.json")), words=True)
        except DocumentError as error:
            raise StorageError(f"The record of run {run_id[:80]} cannot be read", why=str(error)) from error
        if not _fits(to_plain(found)):
            raise StorageError(f"The record of run {run_id[:80]} holds numbers that no store takes")
        if found.moved.run.id != run_id:
            raise StorageError(f"The record of run {run_id[:80]} is that of another run")
        return found

    def experiments(self) -> Iterable[Experiment]:
        found = {item.experiment.name: item.experiment for item in self._runs}
        return [replace(experiment, artifact_location="") for experiment in found.values()]

    def runs(self, experiment: Experiment) -> Iterable[MovedRun]:
        """Where files are is for the target to say: a stranger's record must not lead it to places of its own."""
        for item in self._runs:
            if item.experiment.name == experiment.name:
                yield replace(item.moved, run=replace(item.moved.run, artifact_uri=f"runs/{item.moved.run.id}"))

    def points(self, run: Run) -> Iterator[Block]:
        for key, group in groupby(self._points(run), itemgetter(0)):
            part: list[Point] = []
            for point in group:
                part.append(point[1:])
                if len(part) == _BLOCK:
                    yield Block(key, part)
                    part = []
            if part:
                yield Block(key, part)

    def _points(self, run: Run) -> Iterator[tuple[str, int, int, float, int]]:
        rest = b""
        for data in self._reader.chunks(packed("runs", run.id, "metrics.jsonl")):
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                yield _point(line)

    def models(self, experiment: Experiment) -> Iterable[MovedModel]:
        for item in self._runs:
            if item.experiment.name == experiment.name:
                for model in item.models:
                    yield MovedModel(replace(model, artifact_uri=f"models/{model.id}"))

    def registry(self) -> Iterable[Registration]:
        return ()

    def tree(self, owner: Run | LoggedModel) -> Tree:
        return _PackedTree(self._reader, f"{owner.artifact_uri}/artifacts/", self._trees.get(owner.artifact_uri, []))

    def beyond(self) -> Iterable[Loss]:
        return ()


def _fits(plain: object) -> bool:
    """Whether every whole number has at most 64 bits."""
    match plain:
        case int():
            return -_HUGE <= plain < _HUGE
        case dict():
            return all(_fits(value) for value in plain.values())
        case list() | tuple():
            return all(_fits(value) for value in plain)
        case _:
            return True


def _point(line: bytes) -> tuple[str, int, int, float, int]:
    try:
        key, timestamp, step, value, kind = from_json(tuple[str, int, int, float, int], line, words=True)
        if not (abs(timestamp) < _HUGE and abs(step) < _HUGE and kind in (0, 1, 2)) or math.isnan(value):
            raise DocumentError("a number is out of range")
        return key, timestamp, step, value, kind
    except DocumentError as error:
        raise StorageError("A point of the capsule cannot be read", why=str(error)) from error


class _PackedTree:
    """The files of a run or model in a capsule."""

    def __init__(self, reader: Reader, folder: str, files: list[PackedFile]) -> None:
        self._reader = reader
        self._folder = folder
        self._files = files

    def files(self) -> Iterable[ArtifactInfo]:
        return [ArtifactInfo(unpacked(file.path.removeprefix(self._folder)), file.size) for file in self._files]

    def fetch(self, path: str, into: Path) -> Path:
        into.unlink(missing_ok=True)
        self._reader.extract(packed(self._folder.rstrip("/"), path), into)
        return into
