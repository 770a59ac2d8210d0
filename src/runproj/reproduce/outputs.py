"""What a run put out, and whether another run put out the same: by sha256, then by value."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path

from runproj.core.run import Run
from runproj.core.services import Services
from runproj.core.verdict import OutputCheck, Sameness
from runproj.core.views import RunView
from runproj.errors import NotFoundError, StorageError, TrackingError
from runproj.files import remove_tree, sha256_file
from runproj.observe import RESERVED


def outputs_of(view: RunView, ignored: Sequence[str] = ()) -> dict[str, str | None]:
    """The sha256 of each output by its path: files that the descriptor declares, and those that the project logged itself.

    None where it is not recorded, because the project logged it.
    """
    found: dict[str, str | None] = {
        info.path: None
        for info in view.artifacts
        if not any(info.path == taken or info.path.startswith(taken + "/") for taken in RESERVED)
    }
    found |= {output.path: output.sha256 for output in (view.record.outputs if view.record else ())}
    return {path: digest for path, digest in found.items() if not matches(path, ignored)}


def matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


@contextmanager
def scratch(use: Services) -> Iterator[Path]:
    """A folder that is gone afterwards, or, where this process is killed, with the next command."""
    folder = use.sources.scratch()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
    finally:
        remove_tree(folder.parent)


class OutputComparison:
    """Compares the outputs of two runs; files are fetched into `folder` only where their hashes do not settle it."""

    def __init__(self, original: RunView, replay: RunView, use: Services, folder: Path) -> None:
        self._original, self._replay = original, replay
        self._artifacts = use.artifacts
        self._folder = folder

    def checks(self, ignored: Sequence[str] = ()) -> tuple[OutputCheck, ...]:
        one, other = (outputs_of(view, ignored) for view in (self._original, self._replay))
        return tuple(self._check(path, one, other) for path in sorted({*one, *other}))

    def _check(self, path: str, one: Mapping[str, str | None], other: Mapping[str, str | None]) -> OutputCheck:
        if path not in other:
            return OutputCheck(path, Sameness.MISSING)
        if path not in one:
            return OutputCheck(path, Sameness.NEW)
        digests = (one[path], other[path])
        if None not in digests and digests[0] == digests[1]:
            return OutputCheck(path, Sameness.EXACT, "sha256")
        try:
            first = self._fetched(self._original.run, path, digests[0])
            second = self._fetched(self._replay.run, path, digests[1])
            return self._compared(path, first, second)
        except (NotFoundError, StorageError, TrackingError) as error:
            if digests[0] is None or digests[1] is None:
                return OutputCheck(path, Sameness.DIFFERENT, f"it cannot be read any more: {error.what}")
            return OutputCheck(path, Sameness.DIFFERENT, f"by sha256 alone, as it cannot be read any more: {error.what}")

    def _compared(self, path: str, first: Path, second: Path) -> OutputCheck:
        if first.stat().st_size == second.stat().st_size and sha256_file(first) == sha256_file(second):
            return OutputCheck(path, Sameness.EXACT, "sha256")
        from runproj.reproduce.semantic import compare_files  # loads readers of many formats, which equal bytes do not need

        found = compare_files(path, first, second)
        return OutputCheck(path, Sameness.EQUAL if found.equal else Sameness.DIFFERENT, found.how)

    def _fetched(self, run: Run, path: str, digest: str | None) -> Path:
        """The file, in the place of the one that was fetched of this run before."""
        target = self._folder / run.id
        self._artifacts.get(run, path, target)
        if digest is not None and sha256_file(target) != digest:
            raise StorageError(f"The output {path!r} of run {run.id[:8]} is not what was recorded")
        return target
