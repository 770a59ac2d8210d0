"""Moves everything from a source to a target, and looks whether it has arrived."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from runproj.core.models import Lineage, LoggedModel
from runproj.core.run import Experiment, Run, Tag, TagName
from runproj.core.services import Reporter
from runproj.core.transfer import Fingerprint, ItemMoved, Loss, MovedModel, MovedRun, Source, Target, TransferReport
from runproj.errors import NotFoundError, RefusedError, RunprojError, StorageError
from runproj.transfer import points
from runproj.transfer.files import move_files
from runproj.transfer.journal import Entry, Journal
from runproj.transfer.registry import move_registry
from runproj.transfer.words import UnreadableError


@dataclass(frozen=True)
class Wishes:
    """What a transfer is to do.

    experiments: names of those to take; empty means all.
    suffix:      appended to the name of an experiment that the target has already; without it the two become one.
    dry_run:     look at everything, write nothing.
    """

    experiments: tuple[str, ...] = ()
    suffix: str = ""
    dry_run: bool = False


class Transfer:
    """One transfer.  `known` is what of it was finished before."""

    def __init__(self, source: Source, target: Target, known: Journal, reporter: Reporter, wishes: Wishes) -> None:
        self.source = source
        self.target = target
        self.wishes = wishes
        self._known = known
        self._reporter = reporter
        self._items: list[ItemMoved] = []
        self._losses: list[Loss] = []
        self._links: list[tuple[str, Lineage]] = []
        self._runs: dict[str, str] = {}
        self._models: dict[str, str] = {}
        self._roots: dict[str, str] = {}
        self._places: dict[str, str] = {}
        self._registered = (0, 0)

    def move(self) -> TransferReport:
        """All of it.  What cannot be taken over is in the report; a source or target that fails ends it with an error."""
        begun = time.monotonic()
        self._reporter.phase("transfer", f"{self.source.name} → {self.target.name}")
        experiments = self._experiments()
        with tempfile.TemporaryDirectory(prefix="runproj-transfer-") as scratch:
            made = [(experiment, self._place(experiment)) for experiment in experiments]
            for experiment, place in made:
                self._move_runs(experiment, place, Path(scratch))
            for experiment, place in made:
                self._move_models(experiment, place, Path(scratch))
        if not self.wishes.dry_run:
            self._link()
        chosen = bool(self.wishes.experiments)
        self._registered = move_registry(self, only_related=chosen)
        for experiment, place in made:
            if place is not None and self._known.find("experiment", experiment.id):
                self.target.finish(experiment, place)
        self._losses += self.source.beyond()
        return self._report(len(made), time.monotonic() - begun)

    def lose(self, what: str, why: str) -> None:
        """Note something that is not taken over."""
        self._losses.append(Loss(what, why))

    def relocated(self, uri: str) -> str:
        """Where a location of the source is in the target; as it was where it was not moved."""
        cut = len(uri)
        while cut > 0:
            if (root := self._roots.get(_plain(uri[:cut]))) is not None:
                return root + uri[cut:]
            cut = uri.rfind("/", 0, cut)
        return uri

    def root(self, item_id: str) -> str:
        """Where the files of a run or logged model of the source are in the target; empty where they were not moved."""
        return self._places.get(item_id, "")

    def run_id(self, run_id: str) -> str:
        """What a run is called in the target; empty for one that was not taken."""
        return self._runs.get(run_id, "")

    def model_id(self, model_id: str) -> str:
        """What a logged model is called in the target; empty for one that was not taken."""
        return self._models.get(model_id, "")

    def _experiments(self) -> list[Experiment]:
        found = list(self.source.experiments())
        wanted = self.wishes.experiments
        if missing := sorted(set(wanted) - {experiment.name for experiment in found}):
            known = ", ".join(sorted(experiment.name for experiment in found))
            raise RefusedError(f"{self.source.name} has no experiment {missing[0]!r}", fix=f"It has: {known}")
        return [experiment for experiment in found if not wanted or experiment.name in wanted]

    def _place(self, experiment: Experiment) -> Experiment | None:
        """Where the runs of an experiment go; None where it would be made first."""
        before = self._known.find("experiment", experiment.id)
        name = before.item.target if before else experiment.name
        found = self.target.find(name)
        if found is not None and before is None and self.wishes.suffix and name != "Default":
            name += self.wishes.suffix
            found = self.target.find(name)
        if found is None:
            return None if self.wishes.dry_run else self._make(experiment, name)
        if before is None and (lost := {tag.key for tag in experiment.tags} - {tag.key for tag in found.tags}):
            self.lose(
                f"tags of experiment {name!r}: {', '.join(sorted(lost))}", "the target has an experiment of that name already"
            )
        if before is None and found.lifecycle is not experiment.lifecycle:
            self.lose(f"state of experiment {name!r}", f"it is {found.lifecycle.value} in the target, and stays so")
        return found

    def _make(self, experiment: Experiment, name: str) -> Experiment:
        location = experiment.artifact_location if _elsewhere(experiment.artifact_location) else ""
        made = self.target.make(replace(experiment, artifact_location=location), name)
        self._known.add(Entry("", "", ItemMoved("experiment", experiment.id, name, "copied")))
        return made

    def _move_runs(self, experiment: Experiment, place: Experiment | None, scratch: Path) -> None:
        for moved in self.source.runs(experiment):
            moved = replace(moved, run=_named(moved.run))
            self._reporter.progress(f"{experiment.name}: {len(self._items)} runs and models, now {moved.run.name}")
            if place is None or self.wishes.dry_run:
                self._items.append(self._looked_at(moved))
                continue
            state = _state(moved)
            before = self._known.find("run", moved.run.id)
            if before and before.state == state and self.target.has(before.item.target) and self._same_files(before, moved.run):
                self._took(moved.run, before.item.target, before.uri)
                self._items.append(replace(before.item, state="kept"))
            else:
                with self._going_on("run", moved.run.id):
                    self._move_run(moved, place, state, scratch)
            if (run_id := self.run_id(moved.run.id)) and (moved.lineage.models_in or moved.lineage.models_out):
                self._links.append((run_id, moved.lineage))

    def _looked_at(self, moved: MovedRun) -> ItemMoved:
        found = points.fingerprint(moved.run, self.source.points(moved.run), exact=self.target.exact)
        state = "kept" if self.target.keeps_ids and self.target.has(moved.run.id) else "copied"
        self._runs[moved.run.id] = moved.run.id
        return ItemMoved("run", moved.run.id, moved.run.id, state, found)

    @contextlib.contextmanager
    def _going_on(self, kind: str, key: str) -> Iterator[None]:
        """Note that a thing could not be moved for what it is: the others may be well."""
        try:
            yield
        except (UnreadableError, RefusedError, NotFoundError) as error:
            self._items.append(ItemMoved(kind, key, "", "wrong", problems=(str(error),)))

    def _move_run(self, moved: MovedRun, place: Experiment, state: str, scratch: Path) -> None:
        _checked(moved.run.id)
        digest = points.Digest(moved.run)
        blocks = self.source.points(moved.run)
        stays = moved.run.artifact_uri if _elsewhere(moved.run.artifact_uri) else ""
        given = replace(moved, run=replace(moved.run, artifact_uri=stays))
        made = self.target.run(given, place, digest.passing(blocks if self.target.exact else points.clamped(blocks)))
        there, arrived = self.target.read(made.id)
        wanted = digest.fingerprint()
        problems = _differences(wanted, points.fingerprint(there, arrived, exact=self.target.exact))
        item = ItemMoved("run", moved.run.id, made.id, "wrong" if problems else "copied", wanted, problems=problems)
        item, complete = self._with_files(item, moved.run, made, scratch)
        self._took(moved.run, made.id, made.artifact_uri)
        self._items.append(item)
        if moved.run.status.final and complete:
            self._known.add(Entry(state, made.artifact_uri, item))

    def _move_models(self, experiment: Experiment, place: Experiment | None, scratch: Path) -> None:
        for moved in self.source.models(experiment):
            if place is None or self.wishes.dry_run:
                self._items.append(ItemMoved("model", moved.model.id, moved.model.id, "copied"))
                self._models[moved.model.id] = moved.model.id
                continue
            state = _state(moved)
            before = self._known.find("model", moved.model.id)
            there = before and before.state == state and self.target.has_model(before.item.target)
            if before and there and self._same_files(before, moved.model):
                self._took(moved.model, before.item.target, before.uri)
                self._items.append(replace(before.item, state="kept"))
            else:
                with self._going_on("model", moved.model.id):
                    self._move_model(moved, place, state, scratch)

    def _move_model(self, moved: MovedModel, place: Experiment, state: str, scratch: Path) -> None:
        model = moved.model
        _checked(model.id)
        stays = model.artifact_uri if _elsewhere(model.artifact_uri) else ""
        measured = tuple(replace(item, run_id=self.run_id(item.run_id) or item.run_id) for item in model.metrics)
        source_run = self.run_id(model.source_run) or model.source_run
        given = replace(moved, model=replace(model, artifact_uri=stays, metrics=measured, source_run=source_run))
        made = self.target.model(given, place)
        problems = _missing(model, made)
        item = ItemMoved("model", model.id, made.id, "wrong" if problems else "copied", problems=problems)
        item, complete = self._with_files(item, model, made, scratch)
        self._took(model, made.id, made.artifact_uri)
        self._items.append(item)
        if complete:
            self._known.add(Entry(state, made.artifact_uri, item))

    def _same_files(self, before: Entry, owner: Run | LoggedModel) -> bool:
        """Whether the source has the files that it had, as far as names and sizes tell."""
        if _elsewhere(owner.artifact_uri):
            return True
        try:
            found = {(info.path, info.size) for info in self.source.tree(owner).files() if info.size is not None}
        except StorageError:
            return not before.item.files
        return found == {(file.path, file.size) for file in before.item.files}

    def _took(self, owner: Run | LoggedModel, target_id: str, uri: str) -> None:
        (self._runs if isinstance(owner, Run) else self._models)[owner.id] = target_id
        if uri:
            self._roots[_plain(owner.artifact_uri)] = self._places[owner.id] = uri

    def _with_files(
        self, item: ItemMoved, owner: Run | LoggedModel, made: Run | LoggedModel, scratch: Path
    ) -> tuple[ItemMoved, bool]:
        """The item with the files of its run or model, which are copied if they can be reached; whether nothing is missing."""
        if _elsewhere(owner.artifact_uri):
            return item, item.state != "wrong"
        try:
            tree = self.source.tree(owner)
        except StorageError as error:
            self.lose(f"files of {item.kind} {item.id}", f"{error.what}. {error.fix}".strip(". ") + ".")
            return item, False
        files, problems = move_files(tree, self.target, made, scratch)
        for link in (info.path for info in tree.files() if info.size is None):
            self.lose(f"file {link} of {item.kind} {item.id}", "it is a symbolic link, and links are not followed")
        item = replace(item, files=files, problems=item.problems + problems, state="wrong" if problems else item.state)
        return item, item.state != "wrong"

    def _link(self) -> None:
        for run_id, lineage in self._links:
            used = tuple(self.model_id(model) or model for model in lineage.models_in)
            made = tuple(
                replace(output, model_id=self.model_id(output.model_id) or output.model_id) for output in lineage.models_out
            )
            try:
                self.target.link(run_id, Lineage(models_in=used, models_out=made))
            except RunprojError as error:
                self.lose(f"models of run {run_id}", error.what)

    def _report(self, experiments: int, seconds: float) -> TransferReport:
        runs = [item for item in self._items if item.kind == "run"]
        files = [file for item in self._items for file in item.files]
        return TransferReport(
            source=self.source.name,
            target=self.target.name,
            dry_run=self.wishes.dry_run,
            verified=all(item.state != "wrong" for item in self._items),
            experiments=experiments,
            runs=len(runs),
            points=sum(item.fingerprint.points for item in runs if item.fingerprint),
            models=len(self._items) - len(runs),
            registered_models=self._registered[0],
            versions=self._registered[1],
            files=len(files),
            bytes=sum(file.size for file in files),
            seconds=seconds,
            items=tuple(self._items),
            losses=_counted(self._losses),
        )


def _named(run: Run) -> Run:
    """The run with a name, which is a tag of it too, as everywhere today; older stores had the one or the other."""
    name = run.name or run.tag(TagName.RUN_NAME) or f"run-{run.id[:8]}"
    if run.name == name and run.tag(TagName.RUN_NAME) == name:
        return run
    tags = (*(tag for tag in run.tags if tag.key != TagName.RUN_NAME), Tag(TagName.RUN_NAME, name))
    return replace(run, name=name, tags=tags)


def _state(moved: MovedRun | MovedModel) -> str:
    """A digest of all that a source tells of a thing before its history is read."""
    from runproj.codec import to_plain

    return hashlib.sha256(json.dumps(to_plain(moved), sort_keys=True, default=str).encode()).hexdigest()


def _differences(wanted: Fingerprint, found: Fingerprint) -> tuple[str, ...]:
    counts = (("parameters", "params"), ("tags", "tags"), ("points of metrics", "points"))
    told = [
        f"{getattr(found, field)} {words} instead of {getattr(wanted, field)}"
        for words, field in counts
        if getattr(found, field) != getattr(wanted, field)
    ]
    return tuple(told) if told or found == wanted else ("its values differ",)


def _missing(wanted: LoggedModel, found: LoggedModel) -> tuple[str, ...]:
    """What a logged model lacks in the target."""
    counts = (
        ("parameters", wanted.params, found.params),
        ("tags", wanted.tags, found.tags),
        ("metrics", wanted.metrics, found.metrics),
    )
    return tuple(f"{len(there)} {words} instead of {len(had)}" for words, had, there in counts if len(there) < len(had))


def _checked(item_id: str) -> str:
    """An id of a run or logged model, which becomes part of paths.  Raises `UnreadableError` for one that MLflow never made."""
    if not re.fullmatch(r"[a-zA-Z0-9][\w\-]{0,255}", item_id):
        raise UnreadableError(f"{item_id[:100]!r} is not an id")
    return item_id


def _elsewhere(uri: str) -> bool:
    """Whether a location is in a store that the target's users reach by themselves, as a bucket is."""
    return urlsplit(uri).scheme not in ("", "file", "mlflow-artifacts", "runs", "models")


def _plain(uri: str) -> str:
    return uri.removeprefix("file://").rstrip("/")


def _counted(losses: Iterable[Loss]) -> tuple[Loss, ...]:
    """Equal losses as one."""
    found: dict[tuple[str, str], int] = {}
    for loss in losses:
        found[loss.what, loss.why] = found.get((loss.what, loss.why), 0) + loss.count
    return tuple(Loss(what, why, count) for (what, why), count in found.items())
