"""Moves the model registry: names, versions with their numbers, aliases, stages."""

from __future__ import annotations

from collections.abc import Sequence
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
        versions += _move(transfer, given, kept)
    return models, versions


def _move(transfer: Transfer, given: Registration, kept: Sequence[ModelVersion]) -> int:
    """One registered model, with those of its versions that are to come; returns how many the target has then."""
    name, dry_run = given.model.name, transfer.wishes.dry_run
    there = {version.version: version for version in transfer.target.versions(name)}
    taken = []
    for version in kept:
        moved = version if dry_run else _moved(transfer, version)
        found = there.get(version.version)
        if found is None or (dry_run and not transfer.target.keeps_ids) or _same(found, moved, version):
            taken.append(moved)
        else:
            why = f"the target has another version {version.version}{_origin(found)}"
            transfer.lose(f"version {version.version} of {name!r}", why, differs=True)
    numbers = {version.version for version in taken}
    aliases = tuple(alias for alias in given.model.aliases if alias.version in numbers)
    for alias in given.model.aliases:
        if alias not in aliases:
            transfer.lose(f"alias {alias.alias!r} of {name!r}", "its version is not taken over")
    meant = {alias: version.version for version in there.values() for alias in version.aliases}
    for alias in aliases:
        if (found_at := meant.get(alias.alias, alias.version)) != alias.version:
            why = f"the target means version {found_at} by it and not {alias.version}, and it stays so"
            transfer.lose(f"alias {alias.alias!r} of {name!r}", why, differs=True)
    aliases = tuple(alias for alias in aliases if meant.get(alias.alias, alias.version) == alias.version)
    if not dry_run:
        highest = given.highest if given.highest not in there else 0  # its number is given there
        for loss in transfer.target.register(Registration(replace(given.model, aliases=aliases), tuple(taken), highest)):
            transfer.lose(loss.what, loss.why)
    return len(taken)


def with_aliases(given: Registration) -> tuple[ModelVersion, ...]:
    """The versions of a registered model, each with the aliases that mean it."""
    return tuple(
        replace(version, aliases=tuple(item.alias for item in given.model.aliases if item.version == version.version))
        for version in given.versions
    )


def _same(there: ModelVersion, *wanted: ModelVersion) -> bool:
    """Whether a version of the target is that of the source, as it is called there or was called.

    Where its files are may have changed since it was taken over; then the time tells, or the logged model.
    """
    return any(
        there.run_id == version.run_id
        and (
            there.source == version.source
            or 0 < there.created == version.created
            or (version.model_id != "" and there.model_id == version.model_id)
        )
        for version in wanted
    )


def _origin(version: ModelVersion) -> str:
    made_of = f"run {version.run_id}" if version.run_id else version.source
    return f", of {made_of}" if made_of else ""


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
