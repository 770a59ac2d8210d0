"""Reads a server that speaks MLflow's protocol, of any age."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from urllib.parse import quote, urlencode, urlsplit

from runproj.artifacts.large import told_sha256
from runproj.core.models import Dataset, DatasetInput, Lineage, LoggedModel, ModelOutput, ModelVersion
from runproj.core.run import Experiment, Run
from runproj.core.tracking import ArtifactInfo
from runproj.core.transfer import Block, Loss, MovedModel, MovedRun, Registration, Tree
from runproj.errors import DamagedError, NotFoundError, RefusedError, StorageError
from runproj.files import explained
from runproj.remote import Document, Remote
from runproj.tracking.http import HttpStore, experiment_of, run_of
from runproj.tracking.messages import message_in, messages, model_of, number, registered_of, tags, text, version_of
from runproj.transfer import points
from runproj.transfer.trees import PROXIED, Places, plain_path, safe

_PAGE = 1000
_AT_ONCE = 8
"""Histories that are asked for at a time."""

PROMPTS = "tags.`mlflow.prompt.is_prompt` = 'true'"
"""Prompts are registered models that searches leave out unless they are asked for."""


class MlflowServer:
    """A `Shelf`.  places: where artifacts may be that the server does not hand out."""

    def __init__(self, remote: Remote, places: Places) -> None:
        self.name = remote.shown
        self._remote = remote
        self._histories = Histories(HttpStore(remote))
        self._places = places

    def experiments(self) -> Iterable[Experiment]:
        message = {"view_type": "ALL", "max_results": _PAGE, "order_by": ["experiment_id ASC"]}
        return (experiment_of(item) for item in self._pages("experiments/search", "experiments", message))

    def runs(self, experiment: Experiment) -> Iterable[MovedRun]:
        message = {
            "experiment_ids": [experiment.id],
            "run_view_type": "ALL",
            "max_results": _PAGE,
            "order_by": ["attributes.start_time ASC"],
        }
        for item in self._pages("runs/search", "runs", message):
            found = run_of(item)
            if self._has_models:  # a search does not tell which models a run used and made
                item = message_in(self._remote.get("runs/get", run_id=found.id), "run")
            yield MovedRun(found, _lineage(item))

    def some(self, ids: Sequence[str]) -> Iterable[MovedRun]:
        for run_id in ids:
            item = message_in(self._remote.get("runs/get", run_id=run_id), "run")
            yield MovedRun(run_of(item), _lineage(item))

    def experiment(self, experiment_id: str) -> Experiment:
        return experiment_of(message_in(self._remote.get("experiments/get", experiment_id=experiment_id), "experiment"))

    def read_model(self, model_id: str) -> LoggedModel:
        return model_of(message_in(self._remote.get(f"logged-models/{model_id}"), "model"))

    @cached_property
    def _has_models(self) -> bool:
        return any(True for experiment in self.experiments() for _ in self.models(experiment))

    def points(self, run: Run) -> Iterator[Block]:
        return self._histories.of(run)

    def models(self, experiment: Experiment) -> Iterable[MovedModel]:
        message = {"experiment_ids": [experiment.id], "max_results": 50}
        try:
            for item in self._pages("logged-models/search", "models", message):
                yield MovedModel(model_of(item))
        except NotFoundError:  # MLflow 2 has none
            return

    def registry(self) -> Iterable[Registration]:
        for filter_string in ("", PROMPTS):
            query = {"max_results": 100, **({"filter": filter_string} if filter_string else {})}
            try:
                for item in self._pages("registered-models/search", "registered_models", query, get=True):
                    yield self._registration(item, filter_string)
            except (NotFoundError, RefusedError):
                if not filter_string:
                    return  # a server without a registry

    def tree(self, owner: Run | LoggedModel) -> Tree:
        return server_tree(self._remote, owner, self._places)

    def beyond(self) -> Iterable[Loss]:
        yield Loss("traces and deleted logged models", "a server is not asked for them")

    def _registration(self, item: Document, filter_string: str) -> Registration:
        name = text(item, "name")
        quoted = f"'{name}'" if "'" not in name else f'"{name}"'
        wanted = f"name = {quoted}" + (f" AND {filter_string}" if filter_string else "")
        query = {"filter": wanted, "max_results": 10_000}
        found = [self._version(version) for version in self._pages("model-versions/search", "model_versions", query, get=True)]
        model = registered_of(item)
        versions = tuple(sorted(found, key=lambda version: version.version))
        return Registration(model, versions, versions[-1].version if versions else 0)

    def _version(self, item: Document) -> ModelVersion:
        found = version_of(item)
        where = self._remote.get("model-versions/get-download-uri", name=found.name, version=str(found.version))
        return replace(found, storage=text(where, "artifact_uri") or found.source, aliases=())  # the registered model has them

    def _pages(self, call: str, field: str, message: Mapping[str, object], *, get: bool = False) -> Iterator[Document]:
        token = ""
        while True:
            if get:
                asked = {key: value for key, value in message.items() if isinstance(value, str | int)}
                page = self._remote.get(call, **asked, page_token=token or None)
            else:
                page = self._remote.post(call, {**message, **({"page_token": token} if token else {})})
            yield from messages(page, field)
            token = text(page, "next_page_token")
            if not token:
                return


class Histories:
    """Histories on a server, several metrics asked for at a time, over connections that are kept."""

    def __init__(self, store: HttpStore) -> None:
        self._store = store
        self._pool = ThreadPoolExecutor(_AT_ONCE)

    def of(self, run: Run) -> Iterator[Block]:
        """All points of a run."""
        keys = sorted({metric.key for metric in run.metrics})
        for start in range(0, len(keys), _AT_ONCE):
            some = keys[start : start + _AT_ONCE]
            for key, found in zip(some, self._pool.map(lambda key: self._store.history(run.id, key), some), strict=True):
                yield from points.ordered(key, ((point.timestamp, point.step, point.value) for point in found))


def _lineage(item: Document) -> Lineage:
    inputs, outputs = message_in(item, "inputs"), message_in(item, "outputs")
    fields = ("name", "digest", "source_type", "source", "schema", "profile")
    datasets = [
        DatasetInput(Dataset(*(text(message_in(used, "dataset"), field) for field in fields)), tags(used))
        for used in messages(inputs, "dataset_inputs")
    ]
    made = [ModelOutput(text(output, "model_id"), number(output, "step")) for output in messages(outputs, "model_outputs")]
    return Lineage(tuple(datasets), tuple(text(used, "model_id") for used in messages(inputs, "model_inputs")), tuple(made))


def server_tree(remote: Remote, owner: Run | LoggedModel, places: Places) -> Tree:
    """The files of a run or model: through the server's proxy, in a folder that may be looked at, or as its pages load them."""
    if owner.artifact_uri.startswith(PROXIED):
        return ProxiedTree(remote, urlsplit(owner.artifact_uri).path.strip("/"))
    if plain_path(owner.artifact_uri) is not None:
        try:
            return places.tree(owner.artifact_uri)
        except StorageError:
            pass  # the server may hand it out
    return PagesTree(remote, owner)


class ProxiedTree:
    """A `Tree` in the store that the server proxies, at `root`."""

    def __init__(self, remote: Remote, root: str) -> None:
        self._remote = remote
        self._root = root

    def files(self) -> Iterable[ArtifactInfo]:
        waiting = [""]
        while waiting:
            folder = waiting.pop()
            for item in listed(self._remote, f"/api/2.0/mlflow-artifacts/artifacts?{urlencode({'path': self._root + folder})}"):
                path = f"{folder}/{text(item, 'path')}"
                if item.get("is_dir"):
                    waiting.append(path)
                else:
                    yield ArtifactInfo(safe(path[1:]), number(item, "file_size"))

    def fetch(self, path: str, into: Path) -> Path:
        return _download(self._remote, f"/api/2.0/mlflow-artifacts/artifacts/{quote(f'{self._root}/{path}')}", into)


class PagesTree:
    """A `Tree` that the server reads itself, as its own pages show it."""

    def __init__(self, remote: Remote, owner: Run | LoggedModel) -> None:
        self._remote = remote
        if isinstance(owner, Run):
            self._list, self._get = (
                f"/api/2.0/mlflow/artifacts/list?run_id={owner.id}&path=",
                f"/get-artifact?run_id={owner.id}&path=",
            )
        else:
            self._list = f"/api/2.0/mlflow/logged-models/{owner.id}/artifacts/directories?artifact_directory_path="
            self._get = f"/ajax-api/2.0/mlflow/logged-models/{owner.id}/artifacts/files?artifact_file_path="

    def files(self) -> Iterable[ArtifactInfo]:
        waiting = [""]
        while waiting:
            for item in listed(self._remote, self._list + quote(waiting.pop(), safe="")):
                if item.get("is_dir"):
                    waiting.append(text(item, "path"))
                else:
                    yield ArtifactInfo(safe(text(item, "path")), number(item, "file_size"))

    def fetch(self, path: str, into: Path) -> Path:
        return _download(self._remote, self._get + quote(path, safe=""), into)


def listed(remote: Remote, target: str) -> Sequence[Document]:
    """The files and folders that a listing tells."""
    import json

    with remote.raw(target) as answer:
        found = json.loads(answer.read() or b"{}")
    return messages(found, "files") if isinstance(found, dict) else ()


def _download(remote: Remote, target: str, into: Path) -> Path:
    """The file at `target`, as a whole.  Raises `DamagedError` where it is not what the server says of it."""
    digest, size = hashlib.sha256(), 0
    with remote.raw(target) as answer, explained(into), into.open("wb") as file:
        while data := answer.read(1 << 20):
            file.write(data)
            digest.update(data)
            size += len(data)
        length, expected = answer.headers.get("Content-Length"), told_sha256(answer.headers.get("Repr-Digest", ""))
    if length is not None and size != int(length):  # a server that ends early says so by nothing else
        raise DamagedError(f"{remote.shown} ended its answer after {size} of {length} bytes")
    if expected and digest.digest() != expected:
        raise DamagedError(f"{remote.shown} sent bytes with sha256 {digest.hexdigest()}, not {expected.hex()}")
    return into
