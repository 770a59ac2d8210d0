"""Entry points that need others, as a graph; and what is told of running it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from runproj.core.call import Call
from runproj.core.project import EntryPoint, ParameterType
from runproj.core.record import Output
from runproj.core.values import dataclass


@dataclass(frozen=True)
class Graph:
    """An entry point and all that it needs.  `steps`: each after those it needs, so that the last is the one asked for."""

    steps: tuple[EntryPoint, ...]

    @property
    def target(self) -> EntryPoint:
        return self.steps[-1]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(step.name for step in self.steps)

    def from_on(self, name: str) -> frozenset[str]:
        """The step and all that need it, directly or not."""
        found = {name}
        for step in self.steps:
            if found.intersection(step.needs):
                found.add(step.name)
        return frozenset(found)


def graph_of(points: Iterable[EntryPoint], target: str) -> Graph:
    """The graph of an entry point, in the order of the descriptor where the needs leave a choice.  There must be no cycle."""
    known = {point.name: point for point in points}
    wanted = above({name: point.needs for name, point in known.items()}, target)
    order: list[EntryPoint] = []
    left = [point for name, point in known.items() if name in wanted]
    while left:
        done = {point.name for point in order}
        chosen = next(point for point in left if done.issuperset(point.needs))
        order.append(chosen)
        left.remove(chosen)
    return Graph(tuple(order))


def above(needs: Mapping[str, Sequence[str]], name: str) -> frozenset[str]:
    """A step and all that it needs, directly or not."""
    found: set[str] = set()
    todo = [name]
    while todo:
        if (step := todo.pop()) not in found:
            found.add(step)
            todo += needs.get(step, ())
    return frozenset(found)


def cycle(needs: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Steps that need each other in a circle, the first one again at the end; empty where there are none."""
    left = {name: {other for other in others if other in needs} for name, others in needs.items()}
    while free := [name for name, others in left.items() if not others.intersection(left)]:
        for name in free:
            del left[name]
    if not left:
        return ()
    walked = [next(iter(left))]
    while walked[-1] not in walked[:-1]:
        walked.append(next(other for other in needs[walked[-1]] if other in left))
    return tuple(walked[walked.index(walked[-1]) :])


# -- outputs, as they are declared and as they were left


def may_hold(pattern: str, path: str) -> bool:
    """Whether a declared output can leave something at a path, or below it: a folder stands for everything in it."""
    return _fits(PurePosixPath(pattern).parts, PurePosixPath(path).parts, open_ended=True)


def clash(one: str, other: str) -> bool:
    """Whether two declared outputs are surely of the same files.  Of two patterns it is known only where they are equal."""
    first, second = PurePosixPath(one).parts, PurePosixPath(other).parts
    if first == second:
        return True
    if not _plain(first) and not _plain(second):
        return False
    if _plain(second):
        first, second = second, first
    return _fits(second, first, open_ended=False) or second[: len(first)] == first


def _plain(parts: Sequence[str]) -> bool:
    return not any(mark in part for part in parts for mark in "*?[")


def _fits(pattern: Sequence[str], path: Sequence[str], *, open_ended: bool) -> bool:
    """Whether a path is one that a pattern names, or below one; `open_ended`: also where the pattern goes on below the path."""
    if not pattern:
        return True
    if not path:
        return open_ended or all(part == "**" for part in pattern)
    if pattern[0] == "**":
        return _fits(pattern[1:], path, open_ended=open_ended) or _fits(pattern, path[1:], open_ended=open_ended)
    return fnmatchcase(path[0], pattern[0]) and _fits(pattern[1:], path[1:], open_ended=open_ended)


def files_at(outputs: Iterable[Output], path: str) -> tuple[Output, ...]:
    """The outputs that are the file `path`, or in the folder `path`."""
    wanted = PurePosixPath(path)
    found = [output for output in outputs if PurePosixPath(output.path).is_relative_to(wanted)]
    return tuple(sorted(found, key=lambda output: PurePosixPath(output.path).parts))


def digest_at(files: Sequence[Output], path: str) -> str:
    """sha256 of what is at `path`: of the file, or of the folder's sorted listing of digests and names."""
    if [file.path for file in files] == [str(PurePosixPath(path))]:
        return files[0].sha256
    whole = hashlib.sha256()
    for file in files:
        below = PurePosixPath(file.path).relative_to(PurePosixPath(path))
        whole.update(f"{file.sha256}  {below}\n".encode(errors="surrogateescape"))
    return whole.hexdigest()


def names(pattern: str, path: str) -> bool:
    """Whether a pattern names a file: a folder stands for everything in it, and `**` for any number of folders."""
    return _fits(PurePosixPath(pattern).parts, PurePosixPath(path).parts, open_ended=False)


def decides(name: str, point: EntryPoint, call: Call) -> bool:
    """Whether a file of the project is of the code that an entry point declares, or data that it is given there."""
    if any(names(pattern, name) for pattern in point.code):
        return True
    given = [value.resolved or value.value for value in call.values if value.type is ParameterType.PATH]
    given += [spec.uri for spec in point.inputs if not spec.step]
    return any(PurePosixPath(name).is_relative_to(PurePosixPath(path)) for path in given if path)


# -- what is told


class StepState(Enum):
    """What becomes of a step.  `RUN` and `OPEN` are of a dry run: it would run; it would where its inputs come out changed."""

    RUN = "run"
    OPEN = "open"
    REUSED = "reused"
    FINISHED = "finished"
    FAILED = "failed"
    KILLED = "killed"
    SKIPPED = "skipped"

    @property
    def good(self) -> bool:
        return self in (StepState.REUSED, StepState.FINISHED)


@dataclass(frozen=True)
class StepView:
    """One step.  `why` it runs or need not; `run`: the run that has its result, empty where there is none.

    seconds:   that its run took, this time or when it ran;
    exit_code, reason: of a run that failed or was stopped; without a run, why there is none.
    """

    step: str
    state: StepState
    why: str = ""
    run: str = ""
    needs: tuple[str, ...] = ()
    backend: str = ""
    seconds: float | None = None
    exit_code: int | None = None
    reason: str = ""


@dataclass(frozen=True)
class PipelineView:
    """`run` of an entry point that needs others.  `run`: the parent of the runs that ran; None where nothing had to be run.

    status: FINISHED, FAILED or KILLED; PLANNED of a dry run.  The last of `steps` is the one that was asked for.
    """

    run: str | None
    name: str
    status: str
    steps: tuple[StepView, ...]
    exit_code: int = 0
