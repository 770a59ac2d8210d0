"""Moves the model registry: names, versions with their numbers, aliases, stages."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from runproj.core.models import ModelVersion
from runproj.core.transfer import Registration
from runproj.transfer.trees import plain_path

if TYPE_CHECKING:
    from runproj.transfer.engine import Transfer


def move_registry(transfer: Transfer, *, only_related: bool) -> tuple[int, int]:
    """All registered models; or, with `only_related`, versions of runs and models that are taken over.

    Returns the numbers of models and versions.
    """
    models = versions = 0
    for given in transfer.source.registry():
        kept = tuple(version for version in given.versions if not only_related or _related(transfer, version))
        if only_related and not kept:
            continue
        models += 1
        versions += len(kept)
        if transfer.wishes.dry_run:
            continue
        numbers = {version.version for version in kept}
        aliases = tuple(alias for alias in given.model.aliases if alias.version in numbers)
        for alias in set(given.model.aliases) - set(aliases):
            transfer.lose(f"alias {alias.alias!r} of {given.model.name!r}", "its version is not taken over")
        moved = tuple(_moved(transfer, version) for version in kept)
        for loss in transfer.target.register(Registration(replace(given.model, aliases=aliases), moved, given.highest)):
            transfer.lose(loss.what, loss.why)
    return models, versions


def _related(transfer: Transfer, version: ModelVersion) -> bool:
    return bool(transfer.run_id(version.run_id) or transfer.model_id(version.model_id))


def _moved(transfer: Transfer, version: ModelVersion) -> ModelVersion:
    """A version as the target has it: its files are where those of its run or logged model have gone."""
    source, model = version.source, transfer.model_id(version.model_id)
    if model and source.startswith(f"models:/{version.model_id}"):
        source = source.replace(version.model_id, model, 1)
    run_id, slash, path = source.removeprefix("runs:/").partition("/")
    if source.startswith("runs:/") and transfer.run_id(run_id):
        source = f"runs:/{transfer.run_id(run_id)}{slash}{path}"
    return replace(
        version,
        source=transfer.relocated(source),
        storage=_storage(transfer, version),
        run_id=transfer.renamed(version.run_id, f"run of version {version.version} of {version.name!r}"),
        model_id=model or version.model_id,
    )


def _storage(transfer: Transfer, version: ModelVersion) -> str:
    where = version.storage
    for scheme in ("runs:/", "models:/"):  # of versions that were never resolved
        owner, _, path = where.removeprefix(scheme).partition("/")
        if where.startswith(scheme) and (root := transfer.root(owner)):
            return f"{root}/{path}" if path else root
    moved = transfer.relocated(where)
    if moved == where and plain_path(where) is not None:
        transfer.lose(f"files of version {version.version} of {version.name!r}", "they are not among those of any run or model")
    return moved
