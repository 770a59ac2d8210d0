"""Finding recorded runs by what people type, and gathering all that is stored of one."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from runproj.codec import DocumentError, from_json
from runproj.core.catalogue import Catalogue, Shelf
from runproj.core.models import LoggedModel, ModelStatus, ModelVersion
from runproj.core.pipeline import PipelineView
from runproj.core.plan import Plan
from runproj.core.record import RunRecord
from runproj.core.run import Run, RunQuery, RunStatus, TagName
from runproj.core.tracking import ArtifactInfo, ArtifactStore, TrackingStore
from runproj.core.values import dataclass
from runproj.core.views import RunModel, RunView
from runproj.errors import NotFoundError

T = TypeVar("T")
_STATUSES = {ModelStatus.PENDING: "pending", ModelStatus.READY: "ready", ModelStatus.UPLOAD_FAILED: "upload failed"}


def find_run(reference: str, tracking: TrackingStore) -> Run:
    """The run meant by an id, the beginning of one (4 characters at least), a name, `@last` or `@last~N`.

    Raises `NotFoundError` where there is none, or several, which are then named.
    """
    if match := re.fullmatch(r"@last(?:~(\d+))?", reference):
        found = tracking.search(RunQuery(limit=1, offset=int(match[1] or 0)))
        if not found:
            raise NotFoundError("There is no such run yet", fix="`runproj runs list` shows those there are.")
        return found[0]
    if re.fullmatch("[0-9a-f]{32}", reference):
        return tracking.get_run(reference)
    found = tracking.search(RunQuery(name=reference, lifecycle=None, limit=5))
    if not found and re.fullmatch("[0-9a-f]{4,31}", reference):
        found = tracking.search(RunQuery(prefix=reference, lifecycle=None, limit=5))
    if len(found) == 1:
        return found[0]
    if not found:
        raise NotFoundError(f"There is no run {reference!r}", fix="`runproj runs list` shows those there are.")
    names = "\n".join(f"{run.id}  {run.name}" for run in found)
    raise NotFoundError(f"{reference!r} fits several runs", why=names, fix="Use more of the id.")


def view(run: Run, artifacts: ArtifactStore, scratch: Path) -> RunView:
    """A run with its plan, record and files."""
    code = run.tag(TagName.EXIT_CODE)
    listed: list[ArtifactInfo] = []
    folders = [""]
    while folders:
        for entry in artifacts.list(run, folders.pop(0)):
            if entry.size is None:
                folders.append(entry.path)
            else:
                listed.append(entry)
    whole = run.tag(TagName.STEPS) and read_document(PipelineView, run, "runproj/pipeline.json", artifacts, scratch)
    return RunView(
        run=run,
        exit_code=int(code) if code and code.lstrip("-").isdigit() else None,
        reason=run.tag(TagName.REASON),
        plan=read_document(Plan, run, "runproj/plan.json", artifacts, scratch),
        record=read_document(RunRecord, run, "runproj/record.json", artifacts, scratch),
        artifacts=tuple(sorted(listed, key=lambda entry: entry.path)),
        steps=whole.steps if whole else (),
    )


@dataclass(frozen=True)
class ModelFiles:
    """Where the files of a model are: below `root` in the artifacts of `owner`.

    owner: a run, or, where `logged`, a logged model in the shape of one: its id and place.
    """

    owner: Run
    root: str
    logged: bool


def find_model(reference: str, shelf: Shelf, tracking: TrackingStore) -> ModelFiles:
    """The files of the model that is meant by an id (`m-…`), `NAME/VERSION`, `NAME@ALIAS`, or `NAME` for the newest version.

    Raises `NotFoundError`.
    """
    if re.fullmatch("m-[0-9a-f]{32}", reference):
        return _logged(shelf.logged(reference))
    version = _version(reference, shelf)
    if version.model_id:
        return _logged(shelf.logged(version.model_id))
    if match := re.fullmatch("runs:/([^/]+)/(.+)", version.source):
        return ModelFiles(tracking.get_run(match[1]), match[2].strip("/"), False)
    raise NotFoundError(f"The files of {version.name}/{version.version} are of no run and no logged model", why=version.source)


def _logged(model: LoggedModel) -> ModelFiles:
    owner = Run(model.id, model.experiment_id, model.name, RunStatus.FINISHED, model.created, artifact_uri=model.artifact_uri)
    return ModelFiles(owner, "", True)


def _version(reference: str, shelf: Shelf) -> ModelVersion:
    name, mark, which = reference.partition("@") if "@" in reference else reference.partition("/")
    model = next((item for item in shelf.registered() if item.name == name), None)
    if model is None:
        raise NotFoundError(f"There is no registered model {name!r}", fix="`runproj models list` shows those there are.")
    if mark == "@":
        which = next((str(item.version) for item in model.aliases if item.alias == which), "")
    for version in shelf.versions(name):
        if not mark or str(version.version) == which:
            return version
    raise NotFoundError(f"There is no version {reference!r}", fix=f"`runproj models show {name}` shows those there are.")


def placed(view: RunView, catalogue: Catalogue) -> RunView:
    """The view with the name of the run's experiment and the models that the run logged and registered."""
    run, shelf = view.run, catalogue.shelf
    names: dict[str, list[str]] = {}
    sources: dict[str, str] = {}
    for version in reversed(shelf.versions_from(run)):
        names.setdefault(version.model_id or version.source, []).append(f"{version.name}/{version.version}")
        sources[version.model_id or version.source] = version.source
    logged = shelf.logged_by(run)
    models = [RunModel(item.id, item.name, _STATUSES[item.status], tuple(names.pop(item.id, ()))) for item in logged]
    models += [RunModel("", sources[key], "", tuple(versions)) for key, versions in names.items()]
    known = {item.id: item.name for item in catalogue.experiments.all(None)}
    return replace(view, experiment=known.get(run.experiment_id), models=tuple(models))


def read_document(kind: type[T], run: Run, path: str, artifacts: ArtifactStore, scratch: Path) -> T | None:
    """A JSON artifact of a run as a value; None where it is missing or of a version we cannot read."""
    target = scratch / f"{run.id}-{path.replace('/', '-')}"
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        artifacts.get(run, path, target)
        return from_json(kind, target.read_bytes())
    except (NotFoundError, DocumentError):
        return None
    finally:
        target.unlink(missing_ok=True)
