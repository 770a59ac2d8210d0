"""The catalogue of any store: of a database, or of a server that speaks MLflow's protocol."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from runproj.core.catalogue import Catalogue, ExperimentUse
from runproj.core.models import LoggedModel, ModelVersion, RegisteredModel
from runproj.core.run import Experiment, Lifecycle, Run
from runproj.core.search import EVERYTHING, LOGGED_MODELS, MODEL_VERSIONS, parse_filter
from runproj.errors import NotFoundError, RefusedError
from runproj.remote import Document, Remote
from runproj.tracking.full import FullStore
from runproj.tracking.http import HttpStore, experiment_of
from runproj.tracking.messages import message_in, messages, model_of, number, registered_of, text, version_of
from runproj.tracking.names import no_experiment

_EVERYTHING = 1_000_000
_PAGE = 1000
_VIEWS = {Lifecycle.ACTIVE: "ACTIVE_ONLY", Lifecycle.DELETED: "DELETED_ONLY", None: "ALL"}


def open_catalogue(uri: str, *, home: Path, environ: Mapping[str, str]) -> Catalogue:
    """The catalogue of the store behind a tracking URI.  Nothing is read before it is asked."""
    if uri.startswith(("http://", "https://")):
        remote = Remote(uri, environ)
        return Catalogue(ServerExperiments(remote), ServerShelf(remote))
    from runproj.tracking import open_full_store

    store = open_full_store(uri, home=home)
    return Catalogue(LocalExperiments(store), LocalShelf(store))


class LocalExperiments:
    """`Experiments` of a database."""

    def __init__(self, store: FullStore) -> None:
        self._store = store

    def all(self, lifecycle: Lifecycle | None) -> Sequence[Experiment]:
        return self._store.experiments.search(EVERYTHING, (), lifecycle, _EVERYTHING, 0)

    def find(self, reference: str) -> Experiment:
        return self._store.experiments.referred(reference)

    def create(self, name: str) -> Experiment:
        return self._store.experiments.create(name)

    def rename(self, experiment: Experiment, name: str) -> None:
        self._store.experiments.rename(experiment.id, name)

    def move(self, experiment: Experiment, lifecycle: Lifecycle) -> None:
        self._store.experiments.set_lifecycle(experiment.id, lifecycle)

    def uses(self, experiments: Sequence[Experiment]) -> Sequence[ExperimentUse]:
        found = self._store.experiments.uses()
        return [found.get(experiment.id, ExperimentUse()) for experiment in experiments]


class LocalShelf:
    """A `Shelf` of a database."""

    def __init__(self, store: FullStore) -> None:
        self._store = store

    def registered(self) -> Sequence[RegisteredModel]:
        return self._store.registry.search(EVERYTHING, (), _EVERYTHING, 0)

    def versions(self, name: str) -> Sequence[ModelVersion]:
        return self._versions(f"name = {quoted(name)}")

    def versions_from(self, run: Run) -> Sequence[ModelVersion]:
        return self._versions(f"run_id = {quoted(run.id)}")

    def logged(self, model_id: str) -> LoggedModel:
        return self._store.models.get(model_id)

    def logged_by(self, run: Run) -> Sequence[LoggedModel]:
        condition = parse_filter(f"source_run_id = {quoted(run.id)}", LOGGED_MODELS)
        return self._store.models.search([run.experiment_id], condition, (), _EVERYTHING, 0)

    def _versions(self, wanted: str) -> Sequence[ModelVersion]:
        found = self._store.versions.search(parse_filter(wanted, MODEL_VERSIONS), (), _EVERYTHING, 0)
        return _newest_first(found)


class ServerExperiments:
    """`Experiments` on a server."""

    def __init__(self, remote: Remote) -> None:
        self._remote = remote

    def all(self, lifecycle: Lifecycle | None) -> Sequence[Experiment]:
        message = {"view_type": _VIEWS[lifecycle], "max_results": _PAGE}
        found = [experiment_of(item) for item in _posted(self._remote, "experiments/search", "experiments", message)]
        return sorted(found, key=lambda experiment: experiment.created, reverse=True)

    def find(self, reference: str) -> Experiment:
        try:
            return _experiment(self._remote.get("experiments/get-by-name", experiment_name=reference))
        except NotFoundError:
            if not reference.isdigit():
                raise no_experiment(reference) from None
        return HttpStore(self._remote).experiment_by_id(reference)

    def create(self, name: str) -> Experiment:
        made = self._remote.post("experiments/create", {"name": name}, repeat=False)
        return HttpStore(self._remote).experiment_by_id(text(made, "experiment_id"))

    def rename(self, experiment: Experiment, name: str) -> None:
        self._remote.post("experiments/update", {"experiment_id": experiment.id, "new_name": name})

    def move(self, experiment: Experiment, lifecycle: Lifecycle) -> None:
        call = "experiments/delete" if lifecycle is Lifecycle.DELETED else "experiments/restore"
        self._remote.post(call, {"experiment_id": experiment.id})

    def uses(self, experiments: Sequence[Experiment]) -> Sequence[ExperimentUse]:
        return [self._use(experiment) for experiment in experiments]

    def _use(self, experiment: Experiment) -> ExperimentUse:
        message = {
            "experiment_ids": [experiment.id],
            "run_view_type": _VIEWS[experiment.lifecycle],
            "max_results": _PAGE,
            "order_by": ["attributes.start_time DESC"],
        }
        page = self._remote.post("runs/search", message)
        found = messages(page, "runs")
        info = found[0].get("info") if found else None
        newest = number(info, "start_time") if isinstance(info, dict) else None
        return ExperimentUse(len(found), bool(text(page, "next_page_token")), newest)


class ServerShelf:
    """A `Shelf` on a server; one that knows no models has none."""

    def __init__(self, remote: Remote) -> None:
        self._remote = remote

    def registered(self) -> Sequence[RegisteredModel]:
        found = _got(self._remote, "registered-models/search", "registered_models", {"max_results": 100})
        return sorted((registered_of(item) for item in found), key=lambda model: model.name)

    def versions(self, name: str) -> Sequence[ModelVersion]:
        return self._versions(f"name = {quoted(name)}")

    def versions_from(self, run: Run) -> Sequence[ModelVersion]:
        return self._versions(f"run_id = {quoted(run.id)}")

    def logged(self, model_id: str) -> LoggedModel:
        return model_of(message_in(self._remote.get(f"logged-models/{quote(model_id, safe='')}"), "model"))

    def logged_by(self, run: Run) -> Sequence[LoggedModel]:
        message = {"experiment_ids": [run.experiment_id], "filter": f"source_run_id = {quoted(run.id)}", "max_results": 50}
        try:
            return [model_of(item) for item in _posted(self._remote, "logged-models/search", "models", message)]
        except NotFoundError:  # MLflow 2 has none
            return ()

    def _versions(self, wanted: str) -> Sequence[ModelVersion]:
        try:
            found = list(_got(self._remote, "model-versions/search", "model_versions", {"filter": wanted, "max_results": 1000}))
        except (NotFoundError, RefusedError):  # a server without a registry
            return ()
        return _newest_first([version_of(item) for item in found])


def quoted(value: str) -> str:
    """A text as filters have it; they have no escapes."""
    return f"'{value}'" if "'" not in value else f'"{value}"'


def _newest_first(versions: Sequence[ModelVersion]) -> list[ModelVersion]:
    return sorted(versions, key=lambda version: (version.name, -version.version))


def _experiment(message: Document) -> Experiment:
    found = message.get("experiment")
    return experiment_of(found if isinstance(found, dict) else {})


def _posted(remote: Remote, call: str, field: str, message: Mapping[str, object]) -> Iterator[Document]:
    token = ""
    while True:
        page = remote.post(call, {**message, **({"page_token": token} if token else {})})
        yield from messages(page, field)
        token = text(page, "next_page_token")
        if not token:
            return


def _got(remote: Remote, call: str, field: str, query: Mapping[str, str | int]) -> Iterator[Document]:
    token = ""
    while True:
        page = remote.get(call, **query, page_token=token or None)
        yield from messages(page, field)
        token = text(page, "next_page_token")
        if not token:
            return
