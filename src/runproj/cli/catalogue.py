"""`experiments` and `models`: what a store holds beside its runs."""

from __future__ import annotations

import os
import shlex
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from runproj.cli import complete, output
from runproj.cli import options as opt
from runproj.cli.artifacts import model_artifacts
from runproj.errors import AlreadyExistsError, NotFoundError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runproj.core.catalogue import Catalogue, ExperimentView, RegisteredModelView
    from runproj.core.run import Experiment, Lifecycle
    from runproj.wiring import Wiring

Name = Annotated[str, typer.Argument(metavar="NAME", help="Its name, or its id.", autocompletion=complete.experiments)]
Names = Annotated[
    list[str], typer.Argument(metavar="NAME…", help="Names, or ids, of experiments.", autocompletion=complete.experiments)
]
Model = Annotated[str, typer.Argument(metavar="NAME", help="Name of a registered model.", autocompletion=complete.models)]


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="List, make, rename, delete and restore experiments.", rich_markup_mode=None, no_args_is_help=True)
    for name, command in (
        ("list", list_experiments),
        ("show", show_experiment),
        ("create", create),
        ("rename", rename),
        ("delete", delete),
        ("restore", restore),
    ):
        group.command(name)(command)
    app.add_typer(group, name="experiments")
    models = typer.Typer(help="Look at registered models and their versions.", rich_markup_mode=None, no_args_is_help=True)
    models.command("list")(list_models)
    models.command("show")(show_model)
    models.command("artifacts")(model_artifacts)
    app.add_typer(models, name="models")


def catalogue(wiring: Wiring) -> Catalogue:
    """The catalogue of the configured store."""
    from runproj.tracking.catalogue import open_catalogue

    return open_catalogue(wiring.settings.tracking_uri, home=wiring.settings.home, environ=os.environ)


def _wiring() -> Wiring:
    from runproj.settings import load
    from runproj.wiring import Wiring

    return Wiring(load(), output.TerminalReporter())


def list_experiments(
    everything: Annotated[bool, typer.Option("--all", "-a", help="Deleted ones, too.")] = False,
    deleted: Annotated[bool, typer.Option("--deleted", help="Deleted ones instead.")] = False,
    json: opt.Json = False,
) -> None:
    """List experiments with their number of runs, those used last first."""
    from runproj.core.catalogue import ExperimentList
    from runproj.core.run import Lifecycle

    store = catalogue(_wiring())
    found = store.experiments.all(None if everything else Lifecycle.DELETED if deleted else Lifecycle.ACTIVE)
    views = sorted(_views(store, found), key=lambda view: -(view.use.used or view.experiment.created))
    if json:
        output.write_json(ExperimentList(tuple(views)))
        return
    if not views:
        output.say("No experiment is deleted." if deleted else "No experiments yet.")
        return
    rows = []
    for view in views:
        item = view.experiment
        state = " (deleted)" if item.lifecycle is Lifecycle.DELETED and not deleted else ""
        rows.append((item.id, _runs(view), _when(view.use.used), item.name + state))
    output.table(("ID", "RUNS", "LAST RUN", "NAME"), rows, right=(1,))


def show_experiment(name: Name, json: opt.Json = False) -> None:
    """Show an experiment."""
    store = catalogue(_wiring())
    (view,) = _views(store, [store.experiments.find(name)])
    if json:
        output.write_json(view)
        return
    item = view.experiment
    output.write(f"{output.clean(item.name)}  {output.dim(item.id)}")
    for label, text in (
        ("state", item.lifecycle.value),
        ("runs", _runs(view)),
        ("last run", _when(view.use.used)),
        ("made", _when(item.created)),
        ("artifacts", item.artifact_location),
        *((tag.key, tag.value) for tag in item.tags),
    ):
        output.write(f"{output.dim(f'{output.clean(label):<12}')}  {output.clean(text)}")


def create(name: Annotated[str, typer.Argument(metavar="NAME", help="Its name.")], json: opt.Json = False) -> None:
    """Make an experiment.  A run makes the one that it names by itself."""
    store = catalogue(_wiring())
    _free(store, name)
    _tell(store, [store.experiments.create(name)], "made", json=json)


def rename(name: Name, new: Annotated[str, typer.Argument(metavar="NEW", help="Its new name.")], json: opt.Json = False) -> None:
    """Give an experiment another name."""
    store = catalogue(_wiring())
    found = store.experiments.find(name)
    if new != found.name:
        _free(store, new)
    store.experiments.rename(found, new)
    _tell(store, [store.experiments.find(new)], f"is what {output.clean(found.name)} is called now", json=json)


def delete(names: Names, json: opt.Json = False) -> None:
    """Mark experiments as deleted, with their runs.  They can be restored until `runproj gc --deleted` removes them for good."""
    from runproj.core.run import Lifecycle, RunQuery, RunStatus

    wiring = _wiring()
    wiring.recover()
    store = catalogue(wiring)
    found = [store.experiments.find(name) for name in names]
    for item in found:
        running = RunQuery((item.id,), statuses=(RunStatus.RUNNING, RunStatus.SCHEDULED), limit=1)
        for run in wiring.tracking.search(running):
            raise UsageError(f"Run {run.id[:8]} of {item.name} is {run.status.value}", fix=f"runproj runs stop {run.id[:8]}")
    _move(store, found, Lifecycle.DELETED, "deleted", json=json)


def restore(names: Names, json: opt.Json = False) -> None:
    """Bring deleted experiments back, with their runs."""
    from runproj.core.run import Lifecycle

    store = catalogue(_wiring())
    _move(store, [store.experiments.find(name) for name in names], Lifecycle.ACTIVE, "restored", json=json)


def _move(store: Catalogue, found: Sequence[Experiment], state: Lifecycle, verb: str, *, json: bool) -> None:
    for item in found:
        if item.lifecycle is state:
            raise UsageError(f"The experiment {item.name} is {state.value} already")
    for item in found:
        store.experiments.move(item, state)
    _tell(store, [store.experiments.find(item.id) for item in found], verb, json=json)


def _tell(store: Catalogue, found: Sequence[Experiment], verb: str, *, json: bool) -> None:
    from runproj.core.catalogue import ExperimentList

    if json:
        output.write_json(ExperimentList(tuple(_views(store, found))))
    for item in found:
        output.say(f"Experiment {output.clean(item.name)} (id {item.id}) {verb}.")


def _free(store: Catalogue, name: str) -> None:
    """Raises `UsageError` for what can be no name, and `AlreadyExistsError` for one that is taken."""
    from runproj.core.run import Lifecycle

    if not 0 < len(name) <= 500:
        raise UsageError("The name of an experiment has 1 to 500 characters")
    for found in store.experiments.all(None):
        if found.name == name:
            deleted = found.lifecycle is Lifecycle.DELETED
            fix = f"runproj experiments restore {shlex.quote(name)}" if deleted else "Choose another name."
            raise AlreadyExistsError(f"There is {'a deleted' if deleted else 'an'} experiment {name!r} already", fix=fix)


def _views(store: Catalogue, found: Sequence[Experiment]) -> list[ExperimentView]:
    from runproj.core.catalogue import ExperimentView

    return [ExperimentView(item, use) for item, use in zip(found, store.experiments.uses(found), strict=True)]


def _runs(view: ExperimentView) -> str:
    return f"{view.use.runs}{'+' if view.use.more else ''}"


def _when(milliseconds: int | None) -> str:
    return datetime.fromtimestamp(milliseconds / 1000).strftime("%Y-%m-%d %H:%M") if milliseconds else "-"


def list_models(json: opt.Json = False) -> None:
    """List registered models with their versions and aliases."""
    from runproj.core.catalogue import RegisteredModelList

    views = _model_views(None)
    if json:
        output.write_json(RegisteredModelList(tuple(views)))
        return
    if not views:
        output.say("No registered models yet.  mlflow.register_model(…) makes one.")
        return
    rows = [
        (
            view.model.name,
            str(len(view.versions)),
            str(view.versions[0].version) if view.versions else "-",
            _when(view.versions[0].created if view.versions else view.model.created),
            ", ".join(f"{item.alias}→{item.version}" for item in view.model.aliases),
        )
        for view in views
    ]
    output.table(("NAME", "VERSIONS", "NEWEST", "MADE", "ALIASES"), rows, right=(1, 2))


def show_model(name: Model, json: opt.Json = False) -> None:
    """Show a registered model: its versions, their aliases, and the run of each."""
    from runproj.core.models import Stage

    views = _model_views(name)
    if not views:
        raise NotFoundError(f"There is no registered model {name!r}", fix="`runproj models list` shows those there are.")
    view = views[0]
    if json:
        output.write_json(view)
        return
    output.write(output.clean(view.model.name))
    for label, text in (("description", view.model.description), *((tag.key, tag.value) for tag in view.model.tags)):
        if text:
            output.write(f"{output.dim(f'{output.clean(label):<12}')}  {output.clean(text)}")
    aliases: dict[int, list[str]] = {}
    for item in view.model.aliases:
        aliases.setdefault(item.version, []).append(item.alias)
    rows = [
        (
            str(version.version),
            _when(version.created),
            version.run_id[:8] or "-",
            ", ".join([*aliases.get(version.version, ()), *([version.stage.value] if version.stage is not Stage.NONE else [])]),
            version.description or version.source,
        )
        for version in view.versions
    ]
    output.table(("VERSION", "MADE", "RUN", "ALIASES", "FROM"), rows, right=(0,))


def _model_views(name: str | None) -> list[RegisteredModelView]:
    from runproj.core.catalogue import RegisteredModelView

    shelf = catalogue(_wiring()).shelf
    chosen = [model for model in shelf.registered() if name is None or model.name == name]
    return [RegisteredModelView(model, tuple(shelf.versions(model.name))) for model in chosen]
