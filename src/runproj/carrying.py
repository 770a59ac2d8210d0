"""Capsules, connected: which store a run is taken from, and which it goes to.  As `wiring`, for what few commands need."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from runproj.core.run import RunQuery, Tag, TagName
from runproj.errors import UsageError
from runproj.files import sha256_file

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runproj.capsule.pack import Choices
    from runproj.core.capsule import CapsuleImport, CapsuleView
    from runproj.core.transfer import Shelf, Source, TransferReport
    from runproj.transfer import Surroundings
    from runproj.transfer.engine import Wishes
    from runproj.wiring import Wiring

_MANY = 10_000


@dataclass(frozen=True)
class Carrying:
    """What carries runs away and takes them in, of one home folder.  `cwd` is where the user is."""

    wiring: Wiring
    cwd: Path

    def pack(self, reference: str, target: Path, choices: Choices) -> CapsuleView:
        """Write the capsule of a run."""
        from runproj.capsule.pack import Exported, Workshop, write_capsule
        from runproj.core.capsule import CapsuleView
        from runproj.runner import restore_patch

        run = self.wiring.find_run(reference)
        view = self.wiring.view(run)
        if view.plan is None:
            raise UsageError(f"Run {run.id[:8]} was not made by runproj", why="It has no plan that could be repeated.")
        restore_patch(run, view.plan, self.wiring.services())
        wiring = self.wiring
        use = Workshop(wiring.settings.home, wiring.sources, wiring.environments, self._shelf(), wiring.reporter)
        exported = Exported(run, view.plan, view.record, tuple(self._below(run.id)))
        manifest = write_capsule(exported, use, choices, target)
        return CapsuleView(
            path=str(target),
            run=run.id,
            size=target.stat().st_size,
            sha256=sha256_file(target),
            files=len(manifest.files),
            wheels=len(manifest.environment.wheels),
            inputs=len(manifest.inputs),
            complete=manifest.environment.complete and choices.inputs,
            notes=manifest.notes,
        )

    def _shelf(self) -> Shelf:
        """The configured store: one of ours or a server, from both of which single runs can be taken."""
        from runproj.transfer import open_source

        return cast("Shelf", open_source(self.wiring.settings.tracking_uri, self._surroundings()))

    def _surroundings(self) -> Surroundings:
        from runproj.transfer import Surroundings

        return Surroundings(self.wiring.settings.home, self.cwd, os.environ, (), self.wiring.settings.artifacts_uri)

    def _below(self, run_id: str) -> Iterator[str]:
        """Runs that were begun inside that one, directly or not."""
        query = RunQuery(tags=(Tag(TagName.PARENT, run_id),), lifecycle=None, limit=_MANY)
        for run in self.wiring.tracking.search(query):
            if run.id != run_id:
                yield run.id
                yield from self._below(run.id)

    def take(self, path: Path, into: str | None, wishes: Wishes, *, trust: bool) -> CapsuleImport:
        """Take a capsule in, its record into the configured store or another."""
        from runproj.capsule.archive import opened
        from runproj.capsule.unpack import Landing, Unpacking

        def move(source: Source) -> TransferReport:
            return self._move(source, into or self.wiring.settings.tracking_uri, wishes)

        wiring = self.wiring
        use = Landing(wiring.settings.home, wiring.sources, wiring.reporter, move, trust=trust, dry_run=wishes.dry_run)
        with opened(path) as reader:
            return Unpacking(reader, use).take()

    def _move(self, source: Source, target: str, wishes: Wishes) -> TransferReport:
        from runproj.transfer import open_target
        from runproj.transfer.engine import Transfer
        from runproj.transfer.journal import Journal

        writing = open_target(target, self._surroundings(), into_ours=True)
        with Journal(self.wiring.settings.home / "transfers", source.name, writing.name) as known:
            return Transfer(source, writing, known, self.wiring.reporter, wishes).move()
