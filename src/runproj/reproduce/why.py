"""Why two runs differ: the first factor that is not the same, level by level, and all that come after it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath

from runproj import references, runner
from runproj.core.determinism import profile
from runproj.core.differences import KINDS, Factor, Why
from runproj.core.plan import Plan
from runproj.core.run import Run
from runproj.core.services import Services
from runproj.core.source import CodeDifference, FileChange
from runproj.core.views import RunView
from runproj.errors import NotFoundError, SourceError, StorageError
from runproj.reproduce.comparison import with_mark
from runproj.reproduce.facts import Fact, causes_of
from runproj.reproduce.results import Compared, compare

_ENVIRONMENT_FILES = (
    "requirements*.txt",
    "requirements*.in",
    "constraints*.txt",
    "conda.y*ml",
    "environment.y*ml",
    "python_env.y*ml",
    "pylock*.toml",
    "uv.lock",
    "poetry.lock",
    "Pipfile*",
    "pyproject.toml",
    ".python-version",
    "runtime.txt",
)
_IMAGE_FILES = ("Dockerfile*", "*.dockerfile", ".dockerignore", "Containerfile*")
_FOR_PEOPLE = (".md", ".rst", ".txt")
_NOT_COMPARED = {("hardware", "system")}
"""Differs between machines without deciding anything by itself: what it stands for is looked at by itself."""


class Pair:
    """Two runs with all that is stored of them."""

    def __init__(self, first: Run, second: Run, use: Services) -> None:
        self.use = use
        self.views = self._view(first), self._view(second)
        self.plans = runner.load_plan(first, use), runner.load_plan(second, use)
        self.notes: list[str] = []

    def _view(self, run: Run) -> RunView:
        return references.view(run, self.use.artifacts, self.use.home / "cache" / "views")

    def results(self) -> Compared:
        """What came of both: outputs and metrics, each compared."""
        return compare(*self.views, self.use)

    def code(self) -> CodeDifference:
        """What differs in the code; a file without a name where that cannot be told."""
        first, second = (plan.code for plan in self.plans)
        if first.tree == second.tree and first.submodules == second.submodules:
            return CodeDifference()
        try:
            for view, plan in zip(self.views, self.plans, strict=True):
                runner.restore_patch(view.run, plan, self.use)
            return self.use.sources.compare(first, second)
        except (SourceError, NotFoundError, StorageError) as error:
            self.notes.append(f"Which files of the code differ cannot be told: {error.what}.")
            return CodeDifference((FileChange("", "changed"),))

    def factors(self) -> tuple[Factor, ...]:
        """Everything that differs and can decide the result, in the order of `KINDS`."""
        found = [*self._facts()]
        plans, kinds = self.plans, {factor.kind for factor in found}
        if plans[0].code.subdirectory != plans[1].code.subdirectory:
            found.append(_factor("code", "folder", plans[0].code.subdirectory or ".", plans[1].code.subdirectory or "."))
        files = sorted(self.code().files, key=lambda change: _likelihood(change.path, plans))
        found += [factor for change in files if (factor := _of_file(change, plans, kinds))]
        if plans[0].lock.digest != plans[1].lock.digest and not {"lock", "interpreter", "image"} & kinds:
            found.append(_factor("lock", "digest", plans[0].lock.digest[:12], plans[1].lock.digest[:12]))
        return tuple(sorted(found, key=lambda factor: (KINDS.index(factor.kind), not factor.name.startswith("--"))))

    def _facts(self) -> Iterator[Factor]:
        """What differs among the facts; what one of the runs has no record of cannot be compared."""
        unknown: set[str] = set()
        for record in (view.record for view in self.views):
            if record is None or not record.variables:
                unknown.add("variable")
            if record is None or record.machine is None:
                unknown |= {"hardware", "threads"}
        told = self._told_by_the_profile()
        one, other = (_by_name(causes_of(view)) for view in self.views)
        for key in dict.fromkeys([*one, *other]):
            a, b = one.get(key), other.get(key)
            hidden = key[0] in unknown or (key[0] in ("variable", "threads", "seed") and key[1] in told)
            if a != b and (key[1].startswith("--") or not hidden):
                yield _changed(a, b)

    def _told_by_the_profile(self) -> frozenset[str]:
        """The variables of the determinism profile, where one run has it and the other has not: that is one factor, not many."""
        plans = sorted(self.plans, key=lambda plan: plan.options.deterministic)
        return frozenset() if profile(plans[0]) or not profile(plans[1]) else frozenset(profile(plans[1]))


def explain(first: Run, second: Run, use: Services) -> tuple[Why, Pair]:
    """What differs between two runs, the first factor before all others."""
    pair = Pair(first, second, use)
    factors = pair.factors()
    same = pair.results().same
    return Why(
        runs=(first.id, second.id),
        words=_words(factors, same),
        same_results=same,
        first=factors[0] if factors else None,
        factors=factors,
        notes=tuple(pair.notes),
    ), pair


def _words(factors: tuple[Factor, ...], same: bool) -> str:
    if factors:
        more = f", and {len(factors) - 1} more" if len(factors) > 1 else ""
        return f"{factors[0].words}{more}"
    if same:
        return "nothing differs, and neither do the results"
    return (
        "nothing that is recorded differs: the project is not deterministic (a seed that it does not set, the time, the order of "
        "threads), or reads what it does not declare"
    )


def _by_name(facts: Iterable[Fact]) -> dict[tuple[str, str], Fact]:
    return {(fact.kind, fact.name): fact for fact in facts if (fact.kind, fact.name) not in _NOT_COMPARED}


def _changed(before: Fact | None, after: Fact | None) -> Factor:
    if before is not None and after is not None and before.value == after.value:
        what = f"lock: {after.name} {after.value}" if after.kind == "lock" else _named(after.kind, after.name)
        return Factor(after.kind, after.name, with_mark(before), with_mark(after), f"{what}: other content")
    known = before or after
    assert known is not None
    return _factor(known.kind, known.name, before.value if before else None, after.value if after else None)


def _factor(kind: str, name: str, before: str | None, after: str | None) -> Factor:
    if kind == "lock" and before is None:
        words = f"lock: {name} {after} added"
    elif kind == "lock" and after is None:
        words = f"lock: {name} {before} removed"
    elif kind == "lock":
        words = f"lock: {name} {before} → {after}"
    elif kind == "input":
        words = f"{_named(kind, name)}: other content"
    elif kind == "variable" and not name.startswith("-"):
        words = f"variable {name}: {_said(before)} → {_said(after)}"
        if before is not None and after is not None and _said(before) == _said(after):
            words = f"variable {name}: another value"
    else:
        words = f"{_named(kind, name)}: {'unset' if before is None else before} → {'unset' if after is None else after}"
    return Factor(kind, name, before, after, words)


def _named(kind: str, name: str) -> str:
    return f"{kind}: {name}" if kind in ("descriptor", "interpreter", "hardware", "code") else f"{kind} {name}"


def _said(value: str | None) -> str:
    """A variable's value; of most only a hash is recorded, which says nothing to people."""
    if value is None:
        return "unset"
    return "set" if value.startswith("sha256:") else value


def _likelihood(name: str, plans: tuple[Plan, Plan]) -> tuple[bool, bool, str]:
    """What of the code is named first: the project's own folder before others, and texts for people last."""
    path = PurePosixPath(name)
    inside = any(path.is_relative_to(plan.code.subdirectory or ".") for plan in plans)
    return path.suffix.lower() in _FOR_PEOPLE or path.name in (".gitignore", "LICENSE"), not inside, name


def _of_file(change: FileChange, plans: tuple[Plan, Plan], kinds: set[str]) -> Factor | None:
    """The factor that a changed file is; None where what it says is among the other factors already."""
    path = PurePosixPath(change.path)
    state = None if change.state == "added" else "there", None if change.state == "removed" else "there"
    for plan in plans:
        below = PurePosixPath(plan.code.subdirectory or ".")
        if plan.descriptor and path == below / plan.descriptor:
            known = kinds & {"descriptor", "lock", "interpreter", "image", "parameter", "seed"}
            words = f"descriptor: {path} {change.state}, though nothing in it that this run uses"
            return None if known else Factor("descriptor", str(path), *state, words)
        if any(_is_input(path, below / spec.uri) for spec in plan.entry_point.inputs if not spec.step) and "input" in kinds:
            return None
    if any(path.match(pattern) for pattern in _ENVIRONMENT_FILES) and kinds & {"lock", "interpreter", "image"}:
        return None
    if any(path.match(pattern) for pattern in _IMAGE_FILES) and "image" in kinds:
        return None
    return Factor("code", str(path), *state, f"code: {change.path or 'another tree'} {change.state}")


def _is_input(path: PurePosixPath, declared: PurePosixPath) -> bool:
    return path == declared or declared in path.parents
