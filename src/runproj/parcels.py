"""What a job that is executed elsewhere takes along, and the record that it brings back: a folder, read by the executor there.

plan.json      what is to be run
waybill.json   which run it is, and where its record belongs
secrets.json   values that are recorded nowhere, for the owner's eyes only
inputs/        what other runs put out and this one is given, named by sha256
code/          the code, where the executor cannot see this home
given-up       somebody stopped the run: no executor is to begin any more
record/        written there: `runproj.db` and `artifacts/` (a store of its own, with this run in it), `snapshot.db` while it
               runs, `ended.json` when everything is written
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import field
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from runproj.codec import DocumentError, from_json, to_json
from runproj.core.capsule import PackedCode
from runproj.core.outcome import Outcome
from runproj.core.plan import Plan
from runproj.core.run import Run
from runproj.core.services import Services
from runproj.core.source import Checkout, Pin, PinKind
from runproj.core.values import dataclass
from runproj.errors import NotFoundError, StorageError
from runproj.files import atomic_write, remove_tree
from runproj.inputs import Brought, output

T = TypeVar("T")


@dataclass(frozen=True)
class Waybill:
    """Which run a parcel is for.

    experiment:   its name;
    tracking_uri: the store that the run is recorded in; `home`: where that is, which the executor may see or not;
    code:         what `code/` holds; None where the executor sees the home.
    """

    run: Run
    experiment: str
    tracking_uri: str
    home: str
    code: PackedCode | None = None


@dataclass(frozen=True)
class Secrets:
    """parameters: of the plan;  variables: with which the executor reaches the tracking server."""

    parameters: Mapping[str, str] = field(default_factory=dict, repr=False)
    variables: Mapping[str, str] = field(default_factory=dict, repr=False)


def folder_of(run_id: str, home: Path) -> Path:
    """Where the parcel of a run is."""
    return home / "parcels" / run_id


def unstored(home: Path) -> Path:
    """Where the records are, one folder a run, of which not everything could be stored."""
    return home / "unstored"


class FreshParcel:
    """The parcel of a run that is about to be submitted; made when it is first asked for."""

    def __init__(self, run: Run, plan: Plan, secrets: Mapping[str, str], use: Services) -> None:
        self._run, self._plan, self._use = run, plan, use
        self._secrets = Secrets(dict(secrets), dict(use.child_env))

    @cached_property
    def folder(self) -> Path:
        """Holds everything but the code."""
        folder = folder_of(self._run.id, self._use.home)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        atomic_write(folder / "plan.json", to_json(self._plan))
        atomic_write(folder / "secrets.json", to_json(self._secrets), mode=0o600)
        (folder / "record").mkdir(exist_ok=True)
        self._take_outputs(folder / "inputs")
        self._write(None)
        return folder

    def _take_outputs(self, folder: Path) -> None:
        """Add what other runs put out: the executor need not reach the store that has it."""
        files = [(spec.run, file) for spec in self._plan.entry_point.inputs for file in spec.files]
        if not files:
            return
        brought = Brought(self._use.home, self._plan.rerun_of, self._run.id)
        folder.mkdir(exist_ok=True)
        for run_id, file in files:
            output(run_id, file, folder / file.sha256, self._use, brought)

    def _write(self, code: PackedCode | None) -> None:
        use = self._use
        experiment = use.tracking.experiment_by_id(self._run.experiment_id).name
        waybill = Waybill(self._run, experiment, use.tracking_uri, str(use.home), code)
        atomic_write(folder_of(self._run.id, use.home) / "waybill.json", to_json(waybill))

    @property
    def command(self) -> tuple[str, ...]:
        return (sys.executable, "-P", "-m", "runproj.cli.main", "execute-parcel", str(self.folder))

    def complete(self, most: int | None = None) -> Path:
        """Add the code, or what there is room for: the commits with their history, alone, or only where they can be had."""
        use, pin, folder = self._use, self._plan.code, self.folder
        if pin.patch:
            atomic_write(folder / "code.patch", use.objects.path(pin.patch).read_bytes())
        checkout = use.sources.checkout(pin, use.sources.scratch())
        try:
            packed, note = self._pack(checkout, whole=True), ""
            if not self._fits(most):
                packed = self._pack(checkout, whole=False)
                note = "The history of the code is too large to go along with the job: git has one commit there."
        finally:
            use.sources.discard(checkout)
        if not self._fits(most) and _is_elsewhere(pin):
            remove_tree(folder / "code")
            packed, note = PackedCode(), f"The code is too large to go along with the job, which gets it from {pin.uri}."
        if note:
            use.reporter.note(note)
        self._write(packed)
        return folder

    def _pack(self, checkout: Checkout, *, whole: bool) -> PackedCode:
        code = self.folder / "code"
        remove_tree(code)
        code.mkdir()
        return self._use.sources.pack(checkout, code, whole=whole)

    def _fits(self, most: int | None) -> bool:
        return most is None or sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file()) <= most


def _is_elsewhere(pin: Pin) -> bool:
    """Whether all of the code was fetched from remotes, which another machine may reach."""
    urls = [pin.uri, *(module.uri for module in pin.submodules)]
    return pin.kind is PinKind.GIT and not any(url.startswith("file:") for url in urls)


@dataclass(frozen=True)
class Received:
    """A parcel, as its executor reads it."""

    folder: Path

    @property
    def record(self) -> Path:
        return self.folder / "record"

    @cached_property
    def waybill(self) -> Waybill:
        """Raises `NotFoundError` where the parcel was taken away: nobody waits for it any more."""
        return _read(Waybill, self.folder / "waybill.json")

    @cached_property
    def plan(self) -> Plan:
        return _read(Plan, self.folder / "plan.json")

    @cached_property
    def secrets(self) -> Secrets:
        return _read(Secrets, self.folder / "secrets.json")

    @property
    def ended(self) -> Outcome | None:
        """How the execution ended, where its record is complete."""
        try:
            return _read(Outcome, self.record / "ended.json")
        except NotFoundError:
            return None

    def end(self, outcome: Outcome) -> None:
        """Say that everything is written."""
        atomic_write(self.record / "ended.json", to_json(outcome))
        (self.folder / "secrets.json").unlink(missing_ok=True)

    @property
    def given_up(self) -> bool:
        """Whether somebody wants it to end, or not to begin."""
        return (self.folder / "given-up").exists()

    def give_up(self) -> None:
        """Have an executor that comes later do nothing."""
        atomic_write(self.folder / "given-up", "")


def _read(kind: type[T], path: Path) -> T:
    try:
        return from_json(kind, path.read_bytes())
    except FileNotFoundError:
        raise NotFoundError(f"There is no {path.name} in the parcel {path.parent}") from None
    except DocumentError as error:
        raise StorageError(f"{path} cannot be read", why=str(error), fix="Use the version that made it.") from error
