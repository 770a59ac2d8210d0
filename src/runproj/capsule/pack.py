"""A recorded run → a capsule: its code, environment, data and record, gathered and written in one pass."""

from __future__ import annotations

import contextlib
import datetime
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from runproj import __version__, inputs, proc
from runproj.capsule import crate, provenance
from runproj.capsule.archive import Writer, document
from runproj.capsule.names import packed
from runproj.capsule.record import write_run
from runproj.core.capsule import (
    MANIFEST,
    Manifest,
    PackedCode,
    PackedEnvironment,
    PackedFile,
    PackedInput,
    PackedRun,
)
from runproj.core.plan import Plan
from runproj.core.project import InputSpec, ParameterType
from runproj.core.record import Output, RunRecord
from runproj.core.run import Run
from runproj.core.services import Reporter
from runproj.core.transfer import Shelf
from runproj.core.values import dataclass
from runproj.errors import RunprojError, StartError, UsageError
from runproj.files import explained, remove_tree, sha256_file

if TYPE_CHECKING:
    from runproj.capsule.signing import Key
    from runproj.core.source import Checkout
    from runproj.environments import EnvironmentCache
    from runproj.source import SourceStore

PREVIEW = "ro-crate-preview.html"
"""The page for people, under the name that archives look for."""
_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]+):")


@dataclass(frozen=True)
class Choices:
    """What the user wants to have in a capsule.  `history`: of the commits, and their tags."""

    inputs: bool = True
    wheels: bool = True
    history: bool = True


@dataclass(frozen=True)
class Workshop:
    """What packing works with.  output: writes what a run put out, as of `inputs.output`."""

    home: Path
    sources: SourceStore
    environments: EnvironmentCache
    shelf: Shelf
    reporter: Reporter
    output: Callable[[str, Output, Path, inputs.Brought], None]


@dataclass(frozen=True)
class Exported:
    """The run to pack, what was recorded of it, a page that tells of it, and the ids of runs that its command began inside it."""

    run: Run
    plan: Plan
    record: RunRecord | None
    page: str
    below: tuple[str, ...] = ()


class Packing:
    """One capsule being written."""

    def __init__(self, exported: Exported, use: Workshop, choices: Choices, writer: Writer, scratch: Path) -> None:
        self.exported, self.use, self.choices = exported, use, choices
        self.writer, self.scratch = writer, scratch
        self.notes: list[str] = []

    def write(self) -> tuple[Manifest, list[PackedRun]]:
        """Everything but what is said about the whole."""
        plan = self.exported.plan
        checkout = self.use.sources.checkout(plan.code, self.use.sources.scratch())
        try:
            code = self._code(checkout)
            environment = self._environment(checkout)
            given = tuple(self._inputs(checkout)) if self.choices.inputs else self._without_inputs()
        finally:
            self.use.sources.discard(checkout)
        ids = (self.exported.run.id, *self.exported.below)
        runs = []
        for moved in sorted(self.use.shelf.some(ids), key=lambda moved: moved.run.id != self.exported.run.id):
            self.use.reporter.progress(f"packing run {moved.run.name}")
            runs.append(write_run(moved, self.use.shelf, self.writer, self.scratch))
        manifest = Manifest(
            run=self.exported.run.id,
            runs=tuple(dict.fromkeys((self.exported.run.id, *(item.moved.run.id for item in runs)))),
            created=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            runproj=__version__,
            code=code,
            environment=environment,
            inputs=given,
            files=(),
            notes=tuple(self.notes),
        )
        return manifest, runs

    def _code(self, checkout: Checkout) -> PackedCode:
        folder = self.scratch / "code"
        folder.mkdir()
        code = self.use.sources.pack(checkout, folder, whole=self.choices.history)
        for path in _files(folder):
            self.writer.add(packed("code", path.relative_to(folder).as_posix()), path)
            path.unlink()
        return code

    def _environment(self, checkout: Checkout) -> PackedEnvironment:
        lock = self.exported.plan.lock
        python = f"{lock.python.implementation} {lock.python.version}" if lock.python else ""
        if not self.choices.wheels:
            self.notes.append("The packages of the environment were left out (--no-wheels).")
            return PackedEnvironment(
                lock.manager.value, lock.digest, lock.platform, python, complete=not lock.pylock and not lock.image
            )
        folder = self.scratch / "wheels"
        folder.mkdir()
        environment = self.use.environments.pack(lock, checkout.project, folder, self.use.reporter.progress)
        wheels = []
        for wheel in environment.wheels:
            name = packed("wheels", wheel.path)
            self.writer.add(name, folder / wheel.path)
            (folder / wheel.path).unlink()
            wheels.append(replace(wheel, path=name))
        image = environment.image
        if image:
            self.writer.add("image/image.tar", folder / image.path)
            (folder / image.path).unlink()
            image = replace(image, path="image/image.tar")
        self.notes += environment.notes
        if built := sum(bool(wheel.of) for wheel in wheels):
            self.notes.append(f"{built} of the packages had no wheel; they were built here, and no index knows what was built.")
        return replace(environment, wheels=tuple(wheels), image=image)

    def _without_inputs(self) -> tuple[PackedInput, ...]:
        self.notes.append("The inputs were left out (--no-inputs).")
        return ()

    def _inputs(self, checkout: Checkout) -> Iterator[PackedInput]:
        """Declared inputs and path parameters that are not in the code itself."""
        record = self.exported.record
        recorded = {(item.kind, item.name): item.sha256 for item in (record.inputs if record else ())}
        brought = inputs.Brought(self.use.home, self.exported.run.id, self.exported.run.id)
        for spec in self.exported.plan.entry_point.inputs:
            if spec.step:
                yield self._output(spec, brought)
            elif _SCHEME.match(spec.uri) or not _inside(checkout, spec.uri):
                wanted = spec.sha256 or recorded.get(("input", spec.name))
                yield self._input("input", spec.name, spec.uri, wanted, brought)
        for value in self.exported.plan.call.values:
            text = value.resolved or value.value or ""
            if value.type is ParameterType.PATH and text and (_fetched(text) or not _inside(checkout, text)):
                yield self._input("parameter", value.name, text, recorded.get(("parameter", value.name)), brought)

    def _output(self, spec: InputSpec, brought: inputs.Brought) -> PackedInput:
        """What another run put out, as the run was given it."""
        number = self._number()
        path = self.scratch / f"input-{number}"
        stored = []
        for file in spec.files:
            self.use.output(spec.run, file, path, brought)
            if (digest := sha256_file(path)) != file.sha256:
                raise _lost(spec.name, f"{file.path} of run {spec.run[:8]} has sha256 {digest}, the run was given {file.sha256}.")
            below = PurePosixPath(file.path).relative_to(spec.uri).as_posix()
            name = "" if below == "." else below
            added = self.writer.add(input_name(number, name), path)
            stored.append(PackedFile(name, added.size, added.sha256))
            path.unlink()
        folder = any(file.path for file in stored)
        return PackedInput("input", spec.name, spec.uri, spec.sha256 or "", tuple(stored), folder=folder)

    def _number(self) -> int:
        """That of the next input: of the files of those before it."""
        return sum(1 for file in self.writer.files if file.path.startswith("inputs/"))

    def _input(self, kind: str, name: str, uri: str, wanted: str | None, brought: inputs.Brought) -> PackedInput:
        """Fetch data anew, and see that it is still what the run was given."""
        number = self._number()
        path = self.scratch / f"input-{number}"
        if not brought.place(kind, name, uri, path):
            if _fetched(uri):
                inputs.fetch(uri, path, self.use.reporter.progress)
            else:
                path = Path(uri)
        if not path.exists():
            raise _lost(name, f"There is no {uri} any more.")
        digest, _ = inputs.digest_of(path)
        if wanted and digest != wanted.lower():
            raise _lost(name, f"{uri} has sha256 {digest}, the run was given {wanted}.")
        if not wanted:
            self.notes.append(f"What the run read from {uri} was not hashed; the capsule holds it as it is now.")
        files = []
        for file in _files(path):
            below = file.relative_to(path).as_posix() if path.is_dir() else ""
            stored = self.writer.add(input_name(number, below), file)
            files.append(PackedFile(below, stored.size, stored.sha256))
        return PackedInput(kind, name, uri, digest, tuple(files), folder=path.is_dir())


def input_name(number: int, below: str) -> str:
    """Where the file `below` of an input is in the zip; the number is that of the files of inputs before it."""
    return packed("inputs", str(number), below or "data")


def write_capsule(exported: Exported, use: Workshop, choices: Choices, target: Path, key: Key | None = None) -> Manifest:
    """Write the capsule of a run to `target`, signed where there is a key.

    Raises `RunprojError` where something of it cannot be had any more.
    """
    if not exported.run.status.final:
        raise UsageError(f"Run {exported.run.id[:8]} has not ended yet", fix="Wait for it (`runproj wait`), or stop it.")
    with scratch_folder(use.home) as scratch, Writer(target) as writer:
        manifest, runs = Packing(exported, use, choices, writer, scratch).write()
        writer.text(PREVIEW, exported.page)
        if key is not None:
            writer.text(provenance.SIGNER, f"{key.public.line}\n")
        told = crate.Told(manifest, runs[0], exported.plan, exported.record, tuple(writer.files))
        writer.text(crate.METADATA, crate.metadata(told))
        manifest = replace(manifest, files=tuple(writer.files))
        provenance.write(told, writer.text(MANIFEST, document(manifest)), writer, key)
    return manifest


@contextlib.contextmanager
def scratch_folder(home: Path) -> Iterator[Path]:
    """A folder for large files.  Those of processes that were killed are removed."""
    root = home / "cache" / "scratch"
    with explained(root):
        root.mkdir(parents=True, exist_ok=True)
        for name in os.listdir(root):
            owner = name.partition("-")[0]
            if owner.isdigit() and proc.start_time(int(owner)) is None:
                remove_tree(root / name)
        with tempfile.TemporaryDirectory(prefix=f"{os.getpid()}-", dir=root) as folder:
            yield Path(folder)


def _files(path: Path) -> list[Path]:
    """Every file at or below a path, sorted."""
    if path.is_file():
        return [path]
    return sorted(Path(folder, name) for folder, _, names in os.walk(path) for name in names if Path(folder, name).is_file())


def _inside(checkout: Checkout, uri: str) -> bool:
    """Whether a path is one of the code: it comes with it."""
    path = checkout.project / uri
    return path.exists() and path.resolve().is_relative_to(checkout.root.resolve())


def _fetched(uri: str) -> bool:
    return bool((match := _SCHEME.match(uri)) and match[1] in ("http", "https", "file"))


def _lost(name: str, why: str) -> RunprojError:
    return StartError(
        f"The input {name!r} is not what the run was given",
        why=why,
        fix="Bring the data back, or leave inputs out (--no-inputs): whoever repeats the run then has to have them.",
    )
