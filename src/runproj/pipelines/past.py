"""What was run before: whether a step's result is there already, and if not, what has changed since."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from dataclasses import replace

from runproj import references, runner, trust
from runproj.core.pipeline import decides, digest_at, files_at
from runproj.core.plan import Plan
from runproj.core.project import ParameterType
from runproj.core.recipe import recipe_of
from runproj.core.record import Output, RunRecord
from runproj.core.run import Run, RunQuery, RunStatus, Tag, TagName
from runproj.core.services import Services
from runproj.core.source import Pin
from runproj.core.values import dataclass
from runproj.errors import NotFoundError, RunprojError, StartError
from runproj.newrun import source_name

_MOST = 50
"""Earlier runs that are looked at, the newest first."""
_LONGEST = 24
_OPEN = (RunStatus.RUNNING, RunStatus.SCHEDULED)


@dataclass(frozen=True)
class Result:
    """A run that has finished, and what it put out."""

    run: Run
    outputs: tuple[Output, ...]


def pinned(plan: Plan, results: Mapping[str, Result]) -> Plan:
    """The plan with the outputs of other steps that it takes.  Raises `StartError` where there is no such output."""
    inputs = []
    for spec in plan.entry_point.inputs:
        if not spec.step:
            inputs.append(spec)
            continue
        result = results[spec.step]
        files = files_at(result.outputs, spec.uri)
        if not files:
            raise StartError(
                f"{spec.step!r} left no {spec.uri}, which is the input {spec.name!r}",
                fix=f"See what it did: runproj runs logs {result.run.id[:8]}",
            )
        digest = digest_at(files, spec.uri)
        if spec.sha256 and digest != spec.sha256:
            raise StartError(
                f"The input {spec.name!r} is not the one that was declared",
                why=f"{spec.uri} of run {result.run.id[:8]} ({spec.step}) has sha256 {digest}, not {spec.sha256}.",
            )
        inputs.append(replace(spec, sha256=digest, run=result.run.id, files=files))
    taken = {spec.step for spec in inputs}
    after = tuple((step, results[step].run.id) for step in plan.entry_point.needs if step not in taken)
    return replace(plan, entry_point=replace(plan.entry_point, inputs=tuple(inputs)), after=after)


class Past:
    """The runs of the store."""

    def __init__(self, use: Services) -> None:
        self._use = use
        self._code: dict[tuple[str, str, str], str] = {}

    def find(self, plan: Plan) -> Result | str:
        """The newest run that has the result of a pinned plan; else why one that had it cannot be used, or an empty text."""
        gone = ""
        for run, record in self._finished(plan):
            if not _given_the_same(record, plan) or (plan.after and runner.load_plan(run, self._use).after != plan.after):
                continue
            lost = self._lost(run, record)
            if not lost:
                return Result(run, record.outputs)
            gone = gone or f"{lost} of run {run.id[:8]} is gone"
        return gone

    def known(self, plan: Plan) -> bool:
        """Whether there is a finished run of a plan that is not pinned yet, whatever the outputs of other steps were."""
        return any(_given_the_same(record, plan) for _, record in self._finished(plan))

    def outputs(self, run: Run) -> tuple[Output, ...]:
        """What a run put out."""
        record = self._record(run)
        return record.outputs if record else ()

    def running(self, plan: Plan, ours: Container[str]) -> Run | None:
        """A run of the same plan that a pipeline has begun and that goes on.

        ours: ids of the runs that this home looks after; of another one nobody here would hear that its machine is gone.
        """
        for run in self._search(statuses=_OPEN, tags={TagName.RECIPE: recipe_of(plan)}):
            if run.id in ours and run.tag(TagName.PIPELINE) and _data_of(self._plan(run)) == _data_of(plan):
                return run
        return None

    def why(self, plan: Plan) -> str:
        """Why the plan has to run: what differs from the last run of that step that finished."""
        latest: Run | None = None
        for run in self._search(tags={TagName.ENTRY_POINT: plan.call.entry_point, TagName.SOURCE_NAME: source_name(plan.code)}):
            if run.tag(TagName.STEPS) or run.tag(TagName.TRIALS) or not run.status.final:
                continue
            latest = latest or run
            old = self._plan(run)
            if latest.status is not RunStatus.FINISHED and latest.tag(TagName.RECIPE) == recipe_of(plan):
                return "it was stopped last time" if latest.status is RunStatus.KILLED else "it failed last time"
            if run.status is RunStatus.FINISHED and old is not None:
                return ", ".join(self._differences(old, self._record(run), plan)) or "it was asked for in other words"
        return "never run" if latest is None else "it has never finished"

    # -- what is there

    def _search(self, tags: Mapping[str, str], statuses: tuple[RunStatus, ...] = ()) -> Iterator[Run]:
        wanted = tuple(Tag(key, value) for key, value in tags.items())
        yield from self._use.tracking.search(RunQuery(statuses=statuses, tags=wanted, limit=_MOST))

    def _finished(self, plan: Plan) -> Iterator[tuple[Run, RunRecord]]:
        for run in self._search(statuses=(RunStatus.FINISHED,), tags={TagName.RECIPE: recipe_of(plan)}):
            if run.tag(TagName.INCOMPLETE) is not None or self._is_strangers(run):
                continue
            if (record := self._record(run)) is not None:
                yield run, record

    def _is_strangers(self, run: Run) -> bool:
        """Whether a run came in a capsule, or repeats one that did: then its maker says what it is the result of."""
        seen: set[str] = set()
        while not trust.is_strangers(run.id, self._use.home):
            seen.add(run.id)
            repeated = run.tag(TagName.RERUN_OF)
            if not repeated or repeated in seen:
                return False
            try:
                run = self._use.tracking.get_run(repeated)
            except NotFoundError:
                return trust.is_strangers(repeated, self._use.home)
        return True

    def _record(self, run: Run) -> RunRecord | None:
        return references.read_document(
            RunRecord, run, "runproj/record.json", self._use.artifacts, self._use.home / "cache" / "views"
        )

    def _plan(self, run: Run) -> Plan | None:
        try:
            return runner.load_plan(run, self._use)
        except RunprojError:
            return None

    def _lost(self, run: Run, record: RunRecord) -> str:
        """An output that was recorded and is not there any more."""
        folders: dict[str, dict[str, int | None]] = {}
        for output in record.outputs:
            folder = output.path.rpartition("/")[0]
            if folder not in folders:
                folders[folder] = {entry.path: entry.size for entry in self._use.artifacts.list(run, folder)}
            if folders[folder].get(output.path) != output.size:
                return output.path
        return ""

    # -- what has changed

    def _differences(self, old: Plan, record: RunRecord | None, new: Plan) -> Iterator[str]:
        if _code_of(old, new) != _code_of(new, new):
            yield self._of_code(old.code, new)
        elif old.call.command != new.call.command:
            yield "command"
        before, now = ({value.name: value.value for value in plan.call.values} for plan in (old, new))
        for name in (name for name in dict.fromkeys([*now, *before]) if before.get(name) != now.get(name)):
            secret = any(value.name == name and value.type is ParameterType.SECRET for value in new.call.values)
            yield f"{name} (secret)" if secret else f"{name}: {_short(before.get(name))} → {_short(now.get(name))}"
        if old.lock.digest != new.lock.digest:
            yield "environment"
        if old.entry_point.env != new.entry_point.env:
            yield "variables"
        told = {(item.kind, item.name): item.sha256 for item in (record.inputs if record else ())}
        for (kind, name), digest in data_of(new).items():
            if told.get((kind, name)) != digest:
                step = next((spec.step for spec in new.entry_point.inputs if kind == "input" and spec.name == name), "")
                yield f"{kind} {name}{f' (of {step})' if step else ''}"
        for step, run in new.after:
            if dict(old.after).get(step) != run:
                yield f"{step} ran again"
        if _ways(old) != _ways(new):
            yield "options"

    def _of_code(self, old: Pin, plan: Plan) -> str:
        """Which files changed, in a few words."""
        new = plan.code
        key = (old.tree, new.tree, plan.scope)
        if key not in self._code:
            try:
                names = [change.path for change in self._use.sources.compare(old, new).files]
                below = f"{new.subdirectory}/" if new.subdirectory else ""
                if plan.scope:
                    found = (name.removeprefix(below) for name in names)
                    names = [name for name in found if decides(name, plan.entry_point, plan.call)]
            except RunprojError:  # the old code cannot be had any more
                names = []
            more = f" and {len(names) - 2} more" if len(names) > 2 else ""
            self._code[key] = f"code: {', '.join(names[:2])}{more}" if names else "code"
        return self._code[key]


def data_of(plan: Plan) -> dict[tuple[str, str], str]:
    """The sha256 of all data that the plan is pinned to, as records name it."""
    found = {("input", spec.name): spec.sha256 for spec in plan.entry_point.inputs}
    found |= {("parameter", value.name): value.sha256 for value in plan.call.values}
    return {key: digest for key, digest in found.items() if digest}


def _data_of(plan: Plan | None) -> tuple[object, ...]:
    return (data_of(plan), plan.after) if plan else ()


def _given_the_same(record: RunRecord, plan: Plan) -> bool:
    told = {(item.kind, item.name): item.sha256 for item in record.inputs}
    return all(told.get(key) == digest for key, digest in data_of(plan).items())


def _code_of(plan: Plan, new: Plan) -> tuple[object, ...]:
    """What has to be the same of a plan's code for `new` to be a repetition of it."""
    pin = plan.code
    if new.scope:
        return plan.scope, pin.subdirectory
    return plan.scope, pin.tree, pin.subdirectory, [(module.path, module.commit) for module in pin.submodules]


def _ways(plan: Plan) -> tuple[object, ...]:
    return plan.options.deterministic, plan.options.clean_env, plan.options.docker_args


def _short(value: str | None) -> str:
    if value is None:
        return "nothing"
    return value if len(value) <= _LONGEST else value[: _LONGEST - 1] + "…"
