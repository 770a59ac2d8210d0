"""Moves everything from a source to a target, and looks whether it has arrived."""

from __future__ import annotations

import contextlib
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from runproj.core.models import Lineage, LoggedModel
from runproj.core.run import Experiment, Run
from runproj.core.services import Reporter
from runproj.core.transfer import ItemMoved, Loss, MovedModel, MovedRun, Source, Target, TransferReport
from runproj.core.values import dataclass
from runproj.errors import NotFoundError, RefusedError, RunprojError, StorageError
from runproj.transfer import points
from runproj.transfer.compare import missing, model_differences, named, run_differences, state_of
from runproj.transfer.files import compare_files, listed, move_files
from runproj.transfer.journal import Entry, Journal
from runproj.transfer.references import References
from runproj.transfer.registry import move_registry
from runproj.transfer.summary import Place, counted, notes
from runproj.transfer.trees import elsewhere, plain
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
        self._names = References(target, known)
        self._later: list[tuple[MovedRun, Place]] = []
        self._roots: dict[str, str] = {}
        self._places: dict[str, str] = {}
        self._registered = (0, 0)

    def move(self) -> TransferReport:
        """All of it.  What cannot be taken over is in the report; a source or target that fails ends it with an error."""
        begun = time.monotonic()
        self._reporter.phase("transfer", f"{self.source.name} → {self.target.name}")
        experiments = self._experiments()
        with tempfile.TemporaryDirectory(prefix="runproj-transfer-") as scratch:
            places = [self._place(experiment) for experiment in experiments]
            for place in places:
                self._move_runs(place, Path(scratch))
            self._move_later(Path(scratch))
            for place in places:
                self._move_models(place, Path(scratch))
        if not self.wishes.dry_run:
            for place in places:
                if place.found is None and not place.there:
                    self._open(place)
            self._link()
        chosen = bool(self.wishes.experiments)
        self._registered = move_registry(self, only_related=chosen)
        for place in places:
            if place.found is not None and not self.wishes.dry_run and self._known.find("experiment", place.wanted.id):
                self.target.finish(place.wanted, place.found)
        self._losses += self.source.beyond()
        return self._report(places, time.monotonic() - begun)

    def lose(self, what: str, why: str, *, differs: bool = False) -> None:
        """Note something that is not taken over."""
        self._losses.append(Loss(what, why, differs=differs))

    def relocated(self, uri: str) -> str:
        """Where a location of the source is in the target; as it was where it was not moved."""
        cut = len(uri)
        while cut > 0:
            if (root := self._roots.get(plain(uri[:cut]))) is not None:
                return root + uri[cut:]
            cut = uri.rfind("/", 0, cut)
        return uri

    def root(self, item_id: str) -> str:
        """Where the files of a run or logged model of the source are in the target; empty where they were not moved."""
        return self._places.get(item_id, "")

    def run_id(self, run_id: str) -> str:
        """What a run is called in the target; empty for one that was not taken."""
        return self._names.runs.get(run_id, "")

    def renamed(self, run_id: str, what: str) -> str:
        """What a run is called in the target; as it was, and a loss of `what` names it, where the target does not have it."""
        found = self._names.run(run_id)
        if run_id and not found:
            self.lose(what, f"the target does not have run {run_id}, which it names")
        return found or run_id

    def model_id(self, model_id: str) -> str:
        """What a logged model is called in the target; empty for one that was not taken."""
        return self._names.models.get(model_id, "")

    def _experiments(self) -> list[Experiment]:
        found = list(self.source.experiments())
        wanted = self.wishes.experiments
        if missing := sorted(set(wanted) - {experiment.name for experiment in found}):
            known = ", ".join(sorted(experiment.name for experiment in found))
            raise RefusedError(f"{self.source.name} has no experiment {missing[0]!r}", fix=f"It has: {known}")
        return [experiment for experiment in found if not wanted or experiment.name in wanted]

    def _place(self, experiment: Experiment) -> Place:
        before = self._known.find("experiment", experiment.id)
        name = before.item.target if before else experiment.name
        found = self.target.find(name)
        if found is not None and before is None and self.wishes.suffix and name != "Default":
            name += self.wishes.suffix
            found = self.target.find(name)
        if found is None:
            return Place(experiment, name, None)
        if before is None and (lost := {tag.key for tag in experiment.tags} - {tag.key for tag in found.tags}):
            self.lose(
                f"tags of experiment {name!r}: {', '.join(sorted(lost))}", "the target has an experiment of that name already"
            )
        if before is None and found.lifecycle is not experiment.lifecycle:
            self.lose(f"state of experiment {name!r}", f"it is {found.lifecycle.value} in the target, and stays so")
        return Place(experiment, name, found, merged=before is None)

    def _open(self, place: Place) -> Experiment:
        """The experiment, made if it is not there yet."""
        place.took = True
        if place.found is None:
            place.found = self._make(place.wanted, place.name)
        return place.found

    def _make(self, experiment: Experiment, name: str) -> Experiment:
        location = experiment.artifact_location if elsewhere(experiment.artifact_location) else ""
        made = self.target.make(replace(experiment, artifact_location=location), name)
        self._known.add(Entry("", "", ItemMoved("experiment", experiment.id, name, "copied")))
        return made

    def _move_runs(self, place: Place, scratch: Path) -> None:
        for moved in self.source.runs(place.wanted):
            moved = replace(moved, run=named(moved.run))
            self._reporter.progress(f"{place.wanted.name}: {len(self._items)} runs and models, now {moved.run.name}")
            if self._names.unknown(moved.run):
                self._later.append((moved, place))
            else:
                self._take_run(moved, place, scratch)

    def _move_later(self, scratch: Path) -> None:
        """The runs that name others which came after them: those first that are named."""
        while self._later:
            waiting = {moved.run.id for moved, _ in self._later}
            unknown = {moved.run.id: self._names.unknown(moved.run) for moved, _ in self._later}
            ready = [pair for pair in self._later if waiting.isdisjoint(tag.value for tag in unknown[pair[0].run.id])]
            ready = ready or self._later[:1]  # a ring
            taken = {moved.run.id for moved, _ in ready}
            self._later = [pair for pair in self._later if pair[0].run.id not in taken]
            for moved, place in ready:
                for tag in unknown[moved.run.id]:
                    self.renamed(tag.value, f"tag {tag.key} of run {moved.run.id}")
                self._take_run(moved, place, scratch)

    def _take_run(self, moved: MovedRun, place: Place, scratch: Path) -> None:
        moved = replace(moved, run=self._names.translated(moved.run))
        run, state = moved.run, state_of(moved)
        before = self._known.find("run", run.id)
        if before and before.state == state and self.target.has(before.item.target) and self._same_files(before, run):
            self._keep(before, run, place)
        elif self._had(self.target.has, run, place):
            with self._going_on("run", run.id):
                self._compare_run(moved, place, scratch)
            return
        elif self.wishes.dry_run:
            with self._going_on("run", run.id):
                self._look_at(moved, place, scratch)
        else:
            with self._going_on("run", run.id):
                self._move_run(moved, self._open(place), state, scratch)
        if (run_id := self.run_id(run.id)) and (moved.lineage.models_in or moved.lineage.models_out):
            self._links.append((run_id, moved.lineage))

    def _keep(self, before: Entry, owner: Run | LoggedModel, place: Place) -> None:
        place.there = True
        self._took(owner, before.item.target, before.uri)
        self._items.append(replace(before.item, state="kept"))

    def _had(self, has: Callable[[str], bool], owner: Run | LoggedModel, place: Place) -> bool:
        """Whether the target has one of that id which no earlier transfer from here began, or in another experiment."""
        if not self.target.keeps_ids or not has(owner.id):
            return False
        if self._known.find(_kind(owner), owner.id) is None:
            return True
        there = self.target.read(owner.id)[0] if isinstance(owner, Run) else self.target.read_model(owner.id)
        return place.found is None or there.experiment_id != place.found.id

    def _compare_run(self, moved: MovedRun, place: Place, scratch: Path) -> None:
        there, arrived = self.target.read(moved.run.id)
        wanted = points.fingerprint(moved.run, self.source.points(moved.run), exact=self.target.exact)
        problems = run_differences(wanted, points.fingerprint(named(there), arrived, exact=self.target.exact))
        self._leave(ItemMoved("run", there.id, there.id, "there", wanted, problems=problems), moved.run, there, place, scratch)

    def _leave(self, item: ItemMoved, owner: Run | LoggedModel, there: Run | LoggedModel, place: Place, scratch: Path) -> None:
        """Note what the target has of its own, and whether its files are the same."""
        place.there = True
        problems = item.problems
        try:
            if not elsewhere(owner.artifact_uri):
                problems += compare_files(self.source.tree(owner), self.target.tree(there), scratch)
        except (StorageError, RefusedError) as error:
            self.lose(f"files of {item.kind} {item.id}", f"they are not compared: {error.what}")
        self._took(owner, there.id, there.artifact_uri)
        experiment = self.target.name_of(there.experiment_id)
        self._items.append(replace(item, state="differs" if problems else "there", problems=problems, experiment=experiment))

    def _look_at(self, moved: MovedRun, place: Place, scratch: Path) -> None:
        """Note a run that would be taken over."""
        found = points.fingerprint(moved.run, self.source.points(moved.run), exact=self.target.exact)
        state = "kept" if self.target.keeps_ids and self.target.has(moved.run.id) else "copied"
        place.took = True
        self._names.runs[moved.run.id] = moved.run.id
        item = ItemMoved("run", moved.run.id, moved.run.id, state, found)
        self._items.append(self._with_files(item, moved.run, None, scratch)[0])

    @contextlib.contextmanager
    def _going_on(self, kind: str, key: str) -> Iterator[None]:
        """Note that a thing could not be moved for what it is: the others may be well."""
        try:
            yield
        except (UnreadableError, RefusedError, NotFoundError) as error:
            self._items.append(ItemMoved(kind, key, "", "wrong", problems=(str(error),)))

    def _move_run(self, moved: MovedRun, place: Experiment, state: str, scratch: Path) -> None:
        self._begin(moved.run)
        digest = points.Digest(moved.run)
        blocks = self.source.points(moved.run)
        stays = moved.run.artifact_uri if elsewhere(moved.run.artifact_uri) else ""
        given = replace(moved, run=replace(moved.run, artifact_uri=stays))
        made = self.target.run(given, place, digest.passing(blocks if self.target.exact else points.clamped(blocks)))
        there, arrived = self.target.read(made.id)
        wanted = digest.fingerprint()
        problems = run_differences(wanted, points.fingerprint(there, arrived, exact=self.target.exact))
        item = ItemMoved("run", moved.run.id, made.id, "wrong" if problems else "copied", wanted, problems=problems)
        item, complete = self._with_files(item, moved.run, made, scratch)
        self._took(moved.run, made.id, made.artifact_uri)
        self._items.append(item)
        if moved.run.status.final and complete:
            self._known.add(Entry(state, made.artifact_uri, item))

    def _move_models(self, place: Place, scratch: Path) -> None:
        for moved in self.source.models(place.wanted):
            model, state = moved.model, state_of(moved)
            before = self._known.find("model", model.id)
            there = before and before.state == state and self.target.has_model(before.item.target)
            if before and there and self._same_files(before, model):
                self._keep(before, model, place)
            elif self._had(self.target.has_model, model, place):
                with self._going_on("model", model.id):
                    found = self.target.read_model(model.id)
                    problems = model_differences(model, found)
                    self._leave(ItemMoved("model", model.id, model.id, "there", problems=problems), model, found, place, scratch)
            elif self.wishes.dry_run:
                place.took = True
                self._names.models[model.id] = model.id
                with self._going_on("model", model.id):
                    item = ItemMoved("model", model.id, model.id, "copied")
                    self._items.append(self._with_files(item, model, None, scratch)[0])
            else:
                with self._going_on("model", model.id):
                    self._move_model(moved, self._open(place), state, scratch)

    def _move_model(self, moved: MovedModel, place: Experiment, state: str, scratch: Path) -> None:
        model = moved.model
        self._begin(model)
        stays = model.artifact_uri if elsewhere(model.artifact_uri) else ""
        measured = tuple(replace(item, run_id=self.run_id(item.run_id) or item.run_id) for item in model.metrics)
        source_run = self.renamed(model.source_run, f"source run of model {model.id}")
        given = replace(moved, model=replace(model, artifact_uri=stays, metrics=measured, source_run=source_run))
        made = self.target.model(given, place)
        problems = missing(model, made)
        item = ItemMoved("model", model.id, made.id, "wrong" if problems else "copied", problems=problems)
        item, complete = self._with_files(item, model, made, scratch)
        self._took(model, made.id, made.artifact_uri)
        self._items.append(item)
        if complete:
            self._known.add(Entry(state, made.artifact_uri, item))

    def _begin(self, owner: Run | LoggedModel) -> None:
        """Note that what the target may have of a run or model from now on is of this transfer."""
        _checked(owner.id)
        if self.target.keeps_ids and self._known.find(_kind(owner), owner.id) is None:
            self._known.add(Entry("", "", ItemMoved(_kind(owner), owner.id, owner.id, "begun")))

    def _same_files(self, before: Entry, owner: Run | LoggedModel) -> bool:
        """Whether the source has the files that it had, as far as names and sizes tell."""
        if elsewhere(owner.artifact_uri):
            return True
        try:
            found = {(info.path, info.size) for info in self.source.tree(owner).files() if info.size is not None}
        except StorageError:
            return not before.item.files
        return found == {(file.path, file.size) for file in before.item.files}

    def _took(self, owner: Run | LoggedModel, target_id: str, uri: str) -> None:
        (self._names.runs if isinstance(owner, Run) else self._names.models)[owner.id] = target_id
        if uri:
            self._roots[plain(owner.artifact_uri)] = self._places[owner.id] = uri

    def _with_files(
        self, item: ItemMoved, owner: Run | LoggedModel, made: Run | LoggedModel | None, scratch: Path
    ) -> tuple[ItemMoved, bool]:
        """The item with the files of its run or model, which are copied if they can be reached; whether nothing is missing.

        made: the run or model in the target; without one the files are only listed.
        """
        if elsewhere(owner.artifact_uri):
            return item, item.state != "wrong"
        try:
            tree = self.source.tree(owner)
        except StorageError as error:
            self.lose(f"files of {item.kind} {item.id}", f"{error.what}. {error.fix}".strip(". ") + ".")
            return item, False
        files, problems = move_files(tree, self.target, made, scratch) if made else (listed(tree), ())
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

    def _report(self, places: list[Place], seconds: float) -> TransferReport:
        runs = [item for item in self._items if item.kind == "run"]
        files = [file for item in self._items for file in item.files]
        return TransferReport(
            source=self.source.name,
            target=self.target.name,
            dry_run=self.wishes.dry_run,
            verified=not any(item.state in ("wrong", "differs") for item in self._items)
            and not any(loss.differs for loss in self._losses),
            experiments=len(places),
            runs=len(runs),
            points=sum(item.fingerprint.points for item in runs if item.fingerprint),
            models=len(self._items) - len(runs),
            registered_models=self._registered[0],
            versions=self._registered[1],
            files=len(files),
            bytes=sum(file.size for file in files),
            seconds=seconds,
            items=tuple(self._items),
            losses=counted(self._losses),
            notes=notes(self.target, places, self._items, dry_run=self.wishes.dry_run),
        )


def _kind(owner: Run | LoggedModel) -> str:
    return "run" if isinstance(owner, Run) else "model"


def _checked(item_id: str) -> str:
    """An id of a run or logged model, which becomes part of paths.  Raises `UnreadableError` for one that MLflow never made."""
    if not re.fullmatch(r"[a-zA-Z0-9][\w\-]{0,255}", item_id):
        raise UnreadableError(f"{item_id[:100]!r} is not an id")
    return item_id
