"""Replay a recorded plan and judge what comes of it: what cannot be restored ends in FAILED, never in a weaker check."""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from dataclasses import field, replace

from runproj import references, runner
from runproj.codec import to_json
from runproj.core.call import Given
from runproj.core.plan import Plan, RunOptions
from runproj.core.project import ParameterType
from runproj.core.record import RunRecord
from runproj.core.run import Run, RunChanges, RunStatus, Tag, TagName
from runproj.core.services import Services
from runproj.core.values import dataclass
from runproj.core.verdict import Level, Noise, Replay, Verdict, limit, words_of
from runproj.core.views import RunView
from runproj.errors import EnvironmentFailure, Interrupted, RunprojError, StartError, UsageError
from runproj.files import atomic_write
from runproj.leases import Leases
from runproj.reproduce.history import noise_before, values_of
from runproj.reproduce.outputs import matches, scratch
from runproj.reproduce.results import compare
from runproj.reproduce.tolerance import Tolerances, noise_of
from runproj.reproduce.why import Pair


@dataclass(frozen=True)
class Wishes:
    """How to reproduce: how often, with which secrets, in a new environment, leaving which outputs and metrics aside.

    trust: as in a `Request`.
    """

    times: int = 1
    secrets: tuple[Given, ...] = ()
    rebuild: bool = False
    trust: bool = False
    ignored: tuple[str, ...] = ()
    options: RunOptions = field(default_factory=RunOptions)


class Reproduction:
    """Replays of one run."""

    def __init__(self, run: Run, use: Services, leases: Leases, wishes: Wishes) -> None:
        self._run, self._use, self._leases, self._wishes = run, use, leases, wishes
        self._notes: list[str] = []
        self._original = self.view(run)
        self._plan = runner.load_plan(run, use)

    def view(self, run: Run) -> RunView:
        return references.view(run, self._use.artifacts, self._use.home / "cache" / "views")

    def judge(self) -> Verdict:
        """Replay as often as wished, or until a replay fails; the weakest level counts.  Raises `Interrupted` where stopped."""
        self._require_sense()
        expect = {expected.metric: expected for expected in self._plan.entry_point.expect}
        tolerances = Tolerances(expect, noise_before(self._original, self._plan, self._use))
        self._look_at_what_was_expected(tolerances)
        replays: list[Replay] = []
        while len(replays) < self._wishes.times and not any(replay.level is Level.FAILED for replay in replays):
            replays.append(self._replay(tolerances))
        weakest = min(replays, key=lambda replay: replay.level.rank)
        verdict = Verdict(
            run=self._run.id,
            level=weakest.level,
            words=words_of(weakest),
            suspects=self._suspects(weakest),
            replays=tuple(replays),
            noise=self._noise([self._use.tracking.get_run(replay.run) for replay in replays if replay.run]),
            ignored=self._wishes.ignored,
            notes=tuple(self._notes),
        )
        self._store(verdict)
        return verdict

    def _look_at_what_was_expected(self, tolerances: Tolerances) -> None:
        """Say where the run itself was not what the descriptor expects: that it comes back does not make it right."""
        found = {metric.key: metric.value for metric in self._original.run.metrics}
        for name in tolerances.expect:
            low, high, words = tolerances.of(name, None)
            if name not in found:
                self._note(f"The descriptor expects a metric {name!r}, and the run has recorded none.")
            elif not low <= found[name] <= high:
                self._note(f"The run's own {name} is {found[name]!r}: {words}.")

    def _require_sense(self) -> None:
        run, secret = self._run, ParameterType.SECRET
        if run.status is not RunStatus.FINISHED:
            raise UsageError(
                f"Run {run.id[:8]} is {run.status.value}, so there is no result to reproduce",
                fix=f"Run it again: runproj rerun {run.id[:8]}",
            )
        known = {value.name for value in self._plan.call.values if value.type is secret}
        if wrong := sorted({item.name for item in self._wishes.secrets} - known):
            raise UsageError(
                f"{', '.join(wrong)}: only secrets can be given, as everything else is taken from the record",
                fix=f"To change a parameter: runproj rerun {run.id[:8]} -P {wrong[0]}=…",
            )

    def _replay(self, tolerances: Tolerances) -> Replay:
        begun: list[str] = []
        started = time.monotonic()
        try:
            planned = self._planned()
            ended = runner.start(planned, self._use, self._leases, on_created=lambda run: begun.append(run.id))
        except RunprojError as error:
            return Replay(Level.FAILED, begun[0] if begun else None, str(error), _since(started))
        if ended.status is RunStatus.KILLED:
            raise stopped(ended)
        if ended.status is not RunStatus.FINISHED:
            return Replay(Level.FAILED, ended.id, ended.tag(TagName.REASON) or ended.status.value, _since(started))
        return self._compared(ended, tolerances, started)

    def _planned(self) -> runner.Planned:
        """The recorded plan, ready to be replayed: its patch, lock, environment and inputs are what they were, or it raises."""
        use, wishes = self._use, self._wishes
        planned = runner.rerun(self._run, wishes.secrets, use, wishes.options, trust=wishes.trust)
        recorded = self._run.tag(TagName.LOCK)
        if recorded is not None and recorded != planned.plan.lock.digest:
            raise EnvironmentFailure(
                "The lock is not the one that the run was made with",
                why=f"Recorded: {recorded}. Stored: {planned.plan.lock.digest}.",
            )
        if problem := use.environments.examine(planned.plan.lock, rebuild=wishes.rebuild):
            self._note(f"The environment was damaged ({problem}); it is built anew.")
        return replace(planned, plan=pinned(planned.plan, self._original.record))

    def _compared(self, ended: Run, tolerances: Tolerances, started: float) -> Replay:
        ignored = self._wishes.ignored
        replayed = self.view(self._use.tracking.get_run(ended.id))
        found = compare(self._original, replayed, self._use, tolerances, ignored)
        reason = limit(found.outputs, found.metrics)
        return Replay(found.level, ended.id, reason, _since(started), found.outputs, found.metrics)

    def _suspects(self, replay: Replay) -> tuple[str, ...]:
        """What surrounded the replay and was not the same as in the original run."""
        if replay.run is None or replay.level in (Level.R4, Level.FAILED):
            return ()
        pair = Pair(self._run, self._use.tracking.get_run(replay.run), self._use)
        return tuple(factor.words for factor in pair.factors())

    def _noise(self, runs: Sequence[Run]) -> tuple[Noise, ...]:
        """How the metrics varied over the original and several replays."""
        if len(runs) < 2:
            return ()
        found = values_of([self._run, *runs])
        return noise_of({name: values for name, values in found.items() if not matches(name, self._wishes.ignored)})

    def _store(self, verdict: Verdict) -> None:
        """Keep the verdict with the replays.  Their tag says that they were judged, and are no yardstick for others."""
        use = self._use
        for replay in verdict.replays:
            if replay.run is None:
                continue
            use.tracking.update(replay.run, RunChanges(tags=(Tag(TagName.VERDICT, replay.level.value),)))
            with scratch(use) as folder:
                atomic_write(folder / "verdict.json", to_json(verdict, pretty=True))
                use.artifacts.adopt(use.tracking.get_run(replay.run), folder / "verdict.json", "runproj/verdict.json")

    def _note(self, text: str) -> None:
        self._notes.append(text)
        self._use.reporter.note(text)


def _since(started: float) -> float:
    return round(time.monotonic() - started, 3)


def pinned(plan: Plan, record: RunRecord | None) -> Plan:
    """The plan with all data pinned to the content that the run had, so that any other content ends the replay.

    Raises `StartError` for a declared input whose content is not recorded.
    """
    known = {(item.kind, item.name): item.sha256 for item in (record.inputs if record else ())}
    inputs = tuple(replace(spec, sha256=known.get(("input", spec.name), spec.sha256)) for spec in plan.entry_point.inputs)
    if unknown := [spec.name for spec in inputs if spec.sha256 is None]:
        raise StartError(
            f"What the input {unknown[0]!r} was is not recorded, so it cannot be checked",
            why="The run has no record of its inputs.",
        )
    values = tuple(replace(value, sha256=known.get(("parameter", value.name))) for value in plan.call.values)
    return replace(plan, entry_point=replace(plan.entry_point, inputs=inputs), call=replace(plan.call, values=values))


def stopped(run: Run) -> Interrupted:
    """What a run that was stopped has to end the whole command with."""
    code = run.tag(TagName.EXIT_CODE) or ""
    return Interrupted(int(code) - 128 if code.isdigit() and int(code) > 128 else signal.SIGINT)
