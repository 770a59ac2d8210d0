"""Capsules, connected: which store a run is taken from, and which it goes to.  As `wiring`, for what few commands need."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, cast

from runproj.core.run import RunQuery, Tag, TagName
from runproj.core.values import dataclass
from runproj.errors import NotFoundError, UsageError
from runproj.files import sha256_file

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runproj.capsule.pack import Choices
    from runproj.capsule.report import Story
    from runproj.capsule.signing import Key, PublicKey
    from runproj.core.capsule import CapsuleImport, CapsuleView, PackedEnvironment
    from runproj.core.run import Run
    from runproj.core.transfer import Shelf, Source, TransferReport
    from runproj.core.verdict import Verdict
    from runproj.transfer import Surroundings
    from runproj.transfer.engine import Wishes
    from runproj.wiring import Wiring

_MANY = 10_000
_SHOWN = 200_000
"""Bytes of a log or patch that a report shows."""


@dataclass(frozen=True)
class Carrying:
    """What carries runs away and takes them in, of one home folder.  `cwd` is where the user is."""

    wiring: Wiring
    cwd: Path

    def pack(self, reference: str, target: Path, choices: Choices, key: Key | None = None) -> CapsuleView:
        """Write the capsule of a run."""
        from runproj.capsule.pack import Exported, Workshop, write_capsule
        from runproj.capsule.page import as_html
        from runproj.capsule.report import page
        from runproj.core.capsule import CapsuleView, Signature
        from runproj.inputs import output
        from runproj.runner import restore_patch

        run = self.wiring.find_run(reference)
        story = self._story(run)
        view = story.view
        if view.plan is None:
            raise UsageError(f"Run {run.id[:8]} was not made by runproj", why="It has no plan that could be repeated.")
        restore_patch(run, view.plan, self.wiring.services())
        wiring = self.wiring
        services = wiring.services()
        use = Workshop(
            wiring.settings.home,
            wiring.sources,
            wiring.environments,
            self._shelf(),
            wiring.reporter,
            lambda run_id, file, into, brought: output(run_id, file, into, services, brought),
        )
        exported = Exported(run, view.plan, view.record, as_html(page(story)), tuple(self._below(run.id)))
        manifest = write_capsule(exported, use, choices, target, key)
        return CapsuleView(
            path=str(target),
            run=run.id,
            size=target.stat().st_size,
            sha256=sha256_file(target),
            files=len(manifest.files),
            wheels=len(manifest.environment.wheels),
            inputs=len(manifest.inputs),
            complete=manifest.environment.complete and choices.inputs,
            signature=Signature(key.fingerprint, True) if key else None,
            notes=manifest.notes,
        )

    def report(self, reference: str, *, markdown: bool) -> str:
        """The report of a run, as HTML or Markdown."""
        from runproj.capsule.page import as_html, as_markdown
        from runproj.capsule.report import page

        told = page(self._story(self.wiring.find_run(reference)))
        return as_markdown(told) if markdown else as_html(told)

    def _story(self, run: Run) -> Story:
        """All that a report tells of a run."""
        from runproj.capsule.report import Story, packages_of

        wiring = self.wiring
        view = wiring.view(run)
        return Story(
            view=view,
            experiment=self._shelf().experiment(run.experiment_id).name,
            histories={metric.key: wiring.tracking.history(run.id, metric.key) for metric in run.metrics},
            verdicts=tuple(self._verdicts(run)),
            packages=packages_of(view.plan) if view.plan else (),
            patch=self._text(run, "runproj/code.patch") if view.plan and view.plan.code.dirty else "",
            log=self._text(run, "logs/stdout.log"),
        )

    def _verdicts(self, run: Run) -> Iterator[Verdict]:
        """The verdicts on the replays of a run, the newest first."""
        from runproj.core.verdict import Verdict
        from runproj.references import read_document

        scratch = self.wiring.settings.cache / "views"
        for replay in self.wiring.tracking.search(RunQuery(tags=(Tag(TagName.RERUN_OF, run.id),), limit=_MANY)):
            if replay.tag(TagName.VERDICT):
                found = read_document(Verdict, replay, "runproj/verdict.json", self.wiring.artifacts, scratch)
                if found is not None:
                    yield found

    def _text(self, run: Run, path: str) -> str:
        """The end of a text of a run, or nothing where it has none."""
        target = self.wiring.settings.cache / "views" / f"{run.id}-text"
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            self.wiring.artifacts.get(run, path, target)
            with target.open("rb") as file:
                file.seek(max(0, target.stat().st_size - _SHOWN))
                return file.read().decode(errors="replace")
        except NotFoundError:
            return ""
        finally:
            target.unlink(missing_ok=True)

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

    def take(
        self, path: Path, into: str | None, wishes: Wishes, *, trust: bool, signer: PublicKey | None = None
    ) -> CapsuleImport:
        """Take a capsule in, its record into the configured store or another."""
        from runproj.capsule.archive import opened
        from runproj.capsule.unpack import Landing, Unpacking

        wiring = self.wiring
        home, store = wiring.settings.home, into or wiring.settings.tracking_uri

        def move(source: Source) -> TransferReport:
            return self._move(source, store, wishes)

        use = Landing(
            home,
            wiring.sources,
            wiring.reporter,
            move,
            self._lacks,
            store,
            trust=trust,
            signer=signer,
            dry_run=wishes.dry_run,
        )
        with opened(path) as reader:
            return Unpacking(reader, use).take()

    def collect(self, *, days: float, dry_run: bool) -> Iterator[tuple[str, int]]:
        """Remove what came in capsules for runs that are gone."""
        if not (self.wiring.settings.home / "capsules" / "runs").is_dir():
            return iter(())
        from runproj.capsule.collect import collect

        tracking = self.wiring.tracking

        def has(tag: str, value: str) -> bool:
            if not tag:
                try:
                    return bool(tracking.get_run(value))
                except NotFoundError:
                    return False
            return bool(tracking.search(RunQuery(tags=(Tag(tag, value),), lifecycle=None, limit=1)))

        settings = self.wiring.settings
        return collect(settings.home, settings.tracking_uri, has, days=days, dry_run=dry_run)

    def _lacks(self, packed: PackedEnvironment) -> str:
        """What an environment needs and no capsule brings; empty where it is all here."""
        from runproj.environments.digests import platform_name
        from runproj.environments.pythons import Pythons
        from runproj.environments.versions import parse_wish

        if packed.manager != "virtualenv":
            return ""
        home = self.wiring.settings.home
        version = packed.python.rpartition(" ")[2]
        known = Pythons(home / "cache/interpreters.json", home / "pythons", os.environ)
        if version and not any(pin.version == version for pin in known.find(parse_wish(version))):
            return f"{packed.python}, which the environment is locked to, is not installed here: `uv python install {version}`."
        if packed.platform != platform_name():
            return f"The packages are those of {packed.platform}; this machine is {platform_name()}."
        return ""

    def _move(self, source: Source, target: str, wishes: Wishes) -> TransferReport:
        from runproj.transfer import open_target
        from runproj.transfer.engine import Transfer
        from runproj.transfer.journal import Journal

        writing = open_target(target, self._surroundings(), into_ours=True)
        with Journal(self.wiring.settings.home / "transfers", source.name, writing.name) as known:
            return Transfer(source, writing, known, self.wiring.reporter, wishes).move()
