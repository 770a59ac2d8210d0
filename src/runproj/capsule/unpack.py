"""A capsule → this machine: everything is checked first, and the record comes last, so that what is recorded can be repeated."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from runproj.capsule import collect, provenance
from runproj.capsule.archive import Reader
from runproj.capsule.names import unpacked
from runproj.capsule.pack import input_name, scratch_folder
from runproj.capsule.record import CapsuleRecord
from runproj.core.capsule import CapsuleImport, PackedEnvironment, PackedWheel
from runproj.core.services import Reporter
from runproj.core.transfer import Source, TransferReport
from runproj.core.values import dataclass
from runproj.errors import StorageError
from runproj.kept import BuiltWheel, Kept, SavedImage

if TYPE_CHECKING:
    from runproj.capsule.signing import PublicKey
    from runproj.source import SourceStore

_CODE = re.compile(r"code/(\d+\.bundle|lfs/[0-9a-f]{64})")
_WHEEL = re.compile(r"wheels/(?:built/[0-9a-f]{1,16}/)?([A-Za-z0-9_.=+-]+\.(?:whl|conda|tar\.bz2))")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_RUN = re.compile(r"[0-9A-Za-z_-]{1,80}")


@dataclass(frozen=True)
class Landing:
    """Where a capsule goes.  move: takes its record over into a store.

    store:  where that is;
    lacks:  what this machine has not got for an environment;
    signer: whose signature the capsule has to bear;
    trust: packages that the maker of the capsule built are taken too, though nothing can tell what was built.
    """

    home: Path
    sources: SourceStore
    reporter: Reporter
    move: Callable[[Source], TransferReport]
    lacks: Callable[[PackedEnvironment], str]
    store: str = ""
    trust: bool = False
    signer: PublicKey | None = None
    dry_run: bool = False


class Unpacking:
    """One capsule being taken in."""

    def __init__(self, reader: Reader, use: Landing) -> None:
        self.reader, self.use = reader, use
        self.manifest = reader.manifest
        self.kept = Kept(use.home)
        self.notes: list[str] = list(self.manifest.notes)

    def take(self) -> CapsuleImport:
        """All of it.  Raises `StorageError` where it is not what its manifest says, `SourceError` for unfit code."""
        self.use.reporter.progress("checking every file of the capsule")
        self.reader.verify()
        self._require_names()
        signature = provenance.check(self.reader, self.use.signer)
        if signature and not signature.trusted:
            self.notes.append(f"Signed with the key {signature.key}, which you have not named (--signer): it may be anybody's.")
        if lacking := self.use.lacks(self.manifest.environment):
            self.notes.append(lacking)
        record = CapsuleRecord(self.reader)
        wheels = self._wheels()
        if not self.use.dry_run:
            with scratch_folder(self.use.home) as scratch:
                self._take_code(scratch / "code")
                for wheel in wheels:
                    self._take_wheel(wheel, scratch)
                self._take_image(scratch)
                self._take_inputs(scratch)
            for run in self.manifest.runs:  # all of them have plans of a stranger
                collect.note(self.use.home, collect.Brought(run, self.use.store, self.manifest.environment.digest))
            collect.note(self.use.home, collect.Brought.of(self.manifest, self.use.store))
        report = self.use.move(record)
        run_id, arrived = self._arrived(report)
        if arrived and self.manifest.inputs and not self.use.dry_run:
            self.kept.keep_inputs(run_id, self.manifest.inputs)
        return CapsuleImport(
            run=run_id,
            sha256=self.reader.sha256,
            verified=report.verified,
            wheels=len(wheels),
            inputs=len(self.manifest.inputs),
            transfer=report,
            signature=signature,
            notes=tuple(self.notes),
        )

    def _require_names(self) -> None:
        """What things are called is made names of files here.  Raises `StorageError` for names that nothing of a capsule has."""
        for run in self.manifest.runs:
            if not _RUN.fullmatch(run):
                raise StorageError(f"{run[:80]!r} is not a name that a run has")
        if self.manifest.run not in self.manifest.runs:
            raise StorageError(f"The capsule says that it is of run {self.manifest.run[:80]!r}, which it does not hold")
        for wheel in self.manifest.environment.wheels:
            if self.reader.files[self._named(wheel.path)].sha256 != wheel.sha256:
                raise StorageError(f"{wheel.path[:200]} is not what the capsule says of its environment")

    def _arrived(self, report: TransferReport) -> tuple[str, bool]:
        """What the run is called here, and whether it came by this capsule: another's inputs are not to be touched."""
        for item in report.items:
            if item.kind == "run" and item.id == self.manifest.run:
                return item.target or item.id, item.state in ("copied", "kept")
        return self.manifest.run, False

    def _take_code(self, folder: Path) -> None:
        code = self.manifest.code
        names = [f"code/{packed.bundle}" for packed in code.repositories] + [f"code/lfs/{oid}" for oid in code.lfs]
        for name in names:
            if not _CODE.fullmatch(name):
                raise StorageError(f"{name[:200]!r} is not a name that code has in a capsule")
            self.reader.extract(self._named(name), folder / name.removeprefix("code/"))
        self.use.sources.unpack(code, folder)

    def _named(self, name: str) -> str:
        if name not in self.reader.files:
            raise StorageError(f"The capsule lacks {name}")
        return name

    def _wheels(self) -> list[PackedWheel]:
        """The packages to take.  Those that were built elsewhere are as good as whoever built them."""
        built = [wheel for wheel in self.manifest.environment.wheels if wheel.of]
        if not built or self.use.trust or self.use.signer:
            return list(self.manifest.environment.wheels)
        names = ", ".join(wheel.path.rpartition("/")[2] for wheel in built[:5])
        self.notes.append(
            f"Left out, because nothing but the word of its maker says what is in them: {names}"
            f"{' …' if len(built) > 5 else ''}. --trust takes packages that the maker of the capsule built."
        )
        return [wheel for wheel in self.manifest.environment.wheels if not wheel.of]

    def _take_wheel(self, wheel: PackedWheel, scratch: Path) -> None:
        match = _WHEEL.fullmatch(wheel.path)
        if match is None or (wheel.of and not _DIGEST.fullmatch(wheel.of)):
            raise StorageError(f"{wheel.path[:200]!r} is not a name that a package has in a capsule")
        digest = self._take(wheel.path, scratch)
        if wheel.of:
            name = unpacked(match[1])
            if "/" in name:
                raise StorageError(f"{name[:200]!r} is not a name that a package has")
            self.kept.keep_wheel(wheel.of, BuiltWheel(name, digest))

    def _take_image(self, scratch: Path) -> None:
        """An image is what its id says; which one a registry's digest means, only the maker of the capsule says."""
        image = self.manifest.environment.image
        if image is None:
            return
        saved = SavedImage(image.id, self._take(image.path, scratch))
        self.kept.keep_image(image.id, saved)
        if image.reference != image.id and (self.use.trust or self.use.signer):
            self.kept.keep_image(image.reference, saved)
        elif image.reference != image.id:
            says = f"that it is {image.reference[:100]}, only the maker of the capsule says"
            self.notes.append(f"The image was left out: {says}. --trust takes it.")

    def _take(self, name: str, scratch: Path) -> str:
        """Put a file into the content-addressed store, unless it is there."""
        packed = self.reader.files[self._named(name)]
        if not self.kept.objects.path(packed.sha256).exists():
            self.reader.extract(name, scratch / "file")
            self.kept.objects.put(scratch / "file")
            (scratch / "file").unlink()
        return packed.sha256

    def _take_inputs(self, scratch: Path) -> None:
        number = 0
        for data in self.manifest.inputs:
            for file in data.files:
                if self._take(input_name(number, file.path), scratch) != file.sha256:
                    raise StorageError(f"The input {data.name[:80]!r} of the capsule is not what its manifest says")
            number += len(data.files)
