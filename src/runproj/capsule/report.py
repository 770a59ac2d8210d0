"""What a reviewer wants to read of a run: what was done, how, in which environment, what came of it, and how to repeat it."""

from __future__ import annotations

import datetime
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence

from runproj.capsule.page import Block, Cell, Code, Line, Page, Table, Text
from runproj.core.plan import Plan
from runproj.core.record import Machine, RunRecord
from runproj.core.run import Metric, Run, RunStatus
from runproj.core.values import dataclass
from runproj.core.verdict import Verdict
from runproj.core.views import RunView

_DRAWN = 300
"""Points of a history that are drawn."""
_LONGEST = 200_000
"""Characters of a patch or log that are shown."""


@dataclass(frozen=True)
class Story:
    """All that is told of a run.

    histories: of its metrics;  `verdicts`: of its replays, the newest first;  `packages`: names and versions of the environment.
    patch, log: uncommitted changes, and the end of standard output.
    """

    view: RunView
    experiment: str
    histories: Mapping[str, Sequence[Metric]]
    verdicts: tuple[Verdict, ...] = ()
    packages: tuple[tuple[str, str], ...] = ()
    patch: str = ""
    log: str = ""


def page(story: Story) -> Page:
    """The report."""
    view = story.view
    sections = [
        ("", (*_summary(story),)),
        ("What was run", (*_what(view),)),
        ("Results", (*_results(story),)),
        ("Environment", (*_environment(story),)),
        ("How to repeat it", (*_repeat(view),)),
        ("Remarks", tuple(Text(note) for note in _notes(view))),
    ]
    return Page(f"Run {view.run.name}", tuple((heading, blocks) for heading, blocks in sections if blocks))


def _summary(story: Story) -> Iterator[Block]:
    run = story.view.run
    mood = "good" if run.status is RunStatus.FINISHED else "bad"
    took = f" in {(run.end - run.start) / 1000:,.1f} s" if run.end is not None else ""
    code = f", exit code {story.view.exit_code}" if story.view.exit_code else ""
    yield Text(f"{run.status.value}{took}{code}", mood)
    if story.view.reason:
        yield Text(story.view.reason)
    if note := run.tag("mlflow.note.content"):
        yield Text(note)
    for verdict in story.verdicts[:1]:
        yield Text(
            f"Repeated {len(story.verdicts)} time{'s' if len(story.verdicts) > 1 else ''}; the last time: {verdict.level.value}, "
            f"{verdict.words}.",
            "good" if verdict.level.rank >= 2 else "bad",
        )
    rows = [
        ("id", run.id),
        ("experiment", story.experiment),
        ("by", run.user),
        ("begun", _time(run.start)),
        ("ended", _time(run.end)),
    ]
    yield Table(tuple(row for row in rows if row[1]))


def _what(view: RunView) -> Iterator[Block]:
    plan = view.plan
    if plan is None:
        yield Text("The run was not made by runproj: its code and environment are not known.")
        return
    pin = plan.code
    rows = [
        ("project", plan.project),
        ("source", pin.uri + (f"#{pin.subdirectory}" if pin.subdirectory else "")),
        ("also at", ", ".join(pin.origins)),
        ("commit", pin.commit or f"none; git tree {pin.tree}"),
        ("of", _date(pin.committed_at)),
        ("branch", pin.branch or ""),
        ("uncommitted changes", "yes, recorded with the run" if pin.dirty else ""),
        ("submodules", ", ".join(f"{module.path} at {module.commit[:12]}" for module in pin.submodules)),
        ("descriptor", plan.descriptor or "none"),
        ("entry point", plan.call.entry_point),
    ]
    yield Table(tuple(row for row in rows if row[1]))
    yield Code(plan.call.shown())
    if plan.call.values:
        values = tuple((v.name, "(secret)" if v.value is None else v.value, v.type.value, v.source) for v in plan.call.values)
        yield Table(values, ("parameter", "value", "type", "from"))
    record = view.record
    if record and record.inputs:
        yield Table(tuple((i.name, i.uri, f"{i.size:,}", i.sha256) for i in record.inputs), ("input", "from", "bytes", "sha256"))


def _results(story: Story) -> Iterator[Block]:
    run = story.view.run
    if run.metrics:
        yield Table(tuple(_metrics(run, story.histories)), ("metric", "value", "points", ""))
    outputs = story.view.record.outputs if story.view.record else ()
    if outputs:
        yield Table(tuple((item.path, f"{item.size:,}", item.sha256) for item in outputs), ("output", "bytes", "sha256"))
    if not run.metrics and not outputs:
        yield Text("Neither metrics nor outputs were recorded.")
    for verdict in story.verdicts[:1]:
        checks = [check for replay in verdict.replays for check in replay.metrics]
        if checks:
            rows = tuple((c.name, _number(c.original), _number(c.replay), c.same.value, c.tolerance) for c in checks)
            yield Table(rows, ("metric", "recorded", "repeated", "", "tolerance"))
        compared = [check for replay in verdict.replays for check in replay.outputs]
        if compared:
            yield Table(tuple((c.path, c.same.value, c.how) for c in compared), ("output, repeated", "", "compared"))
    if story.patch:
        yield Code(story.patch[:_LONGEST], "Uncommitted changes")
    if story.log:
        yield Code(story.log[-_LONGEST:], "End of the output")


def _metrics(run: Run, histories: Mapping[str, Sequence[Metric]]) -> Iterator[tuple[Cell, ...]]:
    for metric in sorted(run.metrics, key=lambda metric: metric.key):
        points = sorted(histories.get(metric.key, ()), key=lambda point: (point.step, point.timestamp))
        stride = max(1, len(points) // _DRAWN)
        yield metric.key, _number(metric.value), str(len(points)), Line(tuple(point.value for point in points[::stride]))


def _environment(story: Story) -> Iterator[Block]:
    plan, record = story.view.plan, story.view.record
    if plan is not None:
        lock = plan.lock
        rows = [
            ("made by", f"{lock.manager.value}, from {lock.origin}"),
            ("interpreter", f"{lock.python.implementation} {lock.python.version}" if lock.python else ""),
            ("image", lock.image.asked.image if lock.image else ""),
            ("image, pinned", lock.image.reference if lock.image else ""),
            ("lock", lock.digest),
            ("index as of", _date(lock.as_of)),
            ("platform", lock.platform),
        ]
        yield Table(tuple(row for row in rows if row[1]))
    if record and record.machine:
        yield Table(tuple(_machine(record.machine, record)))
    if story.packages:
        yield Code("\n".join(f"{name} {version}" for name, version in story.packages), f"{len(story.packages)} packages")


def _machine(machine: Machine, record: RunRecord) -> Iterator[tuple[str, str]]:
    yield "machine", f"{machine.system}, {machine.architecture}, Linux {machine.kernel}"
    yield "processor", f"{machine.cpu}, {machine.cores} cores"
    yield "memory", f"{machine.memory / 1e9:,.1f} GB, of which the command used {record.memory / 1e9:,.2f} GB"
    if machine.gpus:
        yield "graphics", f"{', '.join(machine.gpus)}; driver {machine.gpu_driver}"
    yield "processor time", f"{record.cpu:,.1f} s"
    yield from machine.threads


def _repeat(view: RunView) -> Iterator[Block]:
    run, plan = view.run, view.plan
    if plan is None:
        return
    yield Text("With the record of the run, or with its capsule imported, which needs no network:")
    yield Code(f"runproj reproduce {run.id}")
    if plan.code.commit and not plan.code.dirty and (url := _public(plan)):
        yield Text("From the source alone:")
        yield Code(shlex.join(_command(plan, url)))
    if view.record and view.record.machine:
        yield Text("The same results to the last bit may take the same kind of processor.")


def _public(plan: Plan) -> str:
    """An address of the code that is not a folder of somebody's machine."""
    return next((url for url in (plan.code.uri, *plan.code.origins) if not url.startswith("file:")), "")


def _command(plan: Plan, url: str) -> list[str]:
    folder = f"#{plan.code.subdirectory}" if plan.code.subdirectory else ""
    words = ["runproj", "run", url + folder, "-v", plan.code.commit or ""]
    words += ["-e", plan.call.entry_point] if plan.call.entry_point != "main" else []
    for value in plan.call.values:
        if value.source != "default":
            words += ["-P", f"{value.name}={'…' if value.value is None else value.value}"]
    return words


def _notes(view: RunView) -> list[str]:
    return list(dict.fromkeys((*(view.plan.notes if view.plan else ()), *(view.record.notes if view.record else ()))))


def packages_of(plan: Plan) -> tuple[tuple[str, str], ...]:
    """Names and versions of what the lock installs."""
    import tomllib

    try:
        locked = tomllib.loads(plan.lock.pylock or "").get("packages", [])
    except tomllib.TOMLDecodeError:
        locked = []
    found = [(str(item.get("name", "")), str(item.get("version", ""))) for item in locked if isinstance(item, dict)]
    found += [(item.name, item.version) for item in plan.lock.conda]
    for name in plan.lock.installed:
        package, _, version = re.split(r"(==|@)", name, maxsplit=1) if re.search("==|@", name) else (name, "", "")
        found.append((package, version))
    return tuple(sorted(found))


def _number(value: float | None) -> str:
    return "" if value is None else repr(value)


def _time(milliseconds: int | None) -> str:
    if milliseconds is None:
        return ""
    return datetime.datetime.fromtimestamp(milliseconds / 1000, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _date(text: str | None) -> str:
    return (text or "").replace("T", " ")
