"""What runs and logged models are called in the target, and the tags of runs that name other runs."""

from __future__ import annotations

from dataclasses import replace

from runproj.core.run import Run, Tag, TagName
from runproj.core.transfer import Target
from runproj.transfer.journal import Journal

_NAMING = (TagName.PARENT, TagName.RERUN_OF)


class References:
    """Names in the target, by those in the source."""

    def __init__(self, target: Target, known: Journal) -> None:
        self.runs: dict[str, str] = {}
        self.models: dict[str, str] = {}
        self._target = target
        self._known = known

    def run(self, run_id: str) -> str:
        """What a run is called, be it of this transfer or of an earlier one; empty where it is not in the target."""
        if run_id in self.runs or self._target.keeps_ids:
            return self.runs.get(run_id, run_id)
        before = self._known.find("run", run_id)
        return before.item.target if before and self._target.has(before.item.target) else ""

    def unknown(self, run: Run) -> list[Tag]:
        """The tags of a run that name runs which are not in the target."""
        return [tag for tag in run.tags if tag.key in _NAMING and tag.value and not self.run(tag.value)]

    def translated(self, run: Run) -> Run:
        """The run with tags that name others as the target does."""
        return replace(run, tags=tuple(self._tag(tag) for tag in run.tags))

    def _tag(self, tag: Tag) -> Tag:
        return replace(tag, value=self.run(tag.value) or tag.value) if tag.key in _NAMING else tag
