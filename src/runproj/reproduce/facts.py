"""The facts of a run: what decided it, what came of it, and what surrounded it, each by kind and name."""

from __future__ import annotations

import shlex
import tomllib
from collections.abc import Iterator

from runproj.core.environment import DockerSpec, EnvLock, EnvManager
from runproj.core.plan import Plan
from runproj.core.project import Command, EntryPoint, ParameterType
from runproj.core.record import RunRecord
from runproj.core.run import TagName
from runproj.core.values import dataclass
from runproj.core.views import RunView
from runproj.machine import THREAD_VARIABLES


@dataclass(frozen=True)
class Fact:
    """kind: one of `runproj.core.differences.KINDS`, or "metric", "output", "run".

    value: for people;  `mark`: what else has to be equal for the fact to be the same, like a hash.
    """

    kind: str
    name: str
    value: str
    mark: str = ""


def facts_of(view: RunView) -> Iterator[Fact]:
    """All that is known of a run, in the order of kinds."""
    run = view.run
    for tag, name in (
        (TagName.SOURCE_NAME, "source"),
        (TagName.COMMIT, "commit"),
        (TagName.PATCH, "patch"),
        (TagName.TREE, "tree"),
    ):
        if value := run.tag(tag):
            yield Fact("code", name, value)
    yield from causes_of(view)
    decided = {value.name for value in view.plan.call.values} if view.plan else set()
    for param in run.params:
        if param.key not in decided:
            yield Fact("parameter", param.key, param.value)
    if view.record and (machine := view.record.machine):
        yield Fact("hardware", "host", machine.host)
    for metric in run.metrics:
        yield Fact("metric", metric.key, repr(metric.value))
    for output in view.record.outputs if view.record else ():
        yield Fact("output", output.path, output.sha256[:16], output.sha256)
    if backend := run.tag(TagName.PROJECT_BACKEND):
        yield Fact("run", "backend", backend)
    if image := run.tag(TagName.JOB_IMAGE):
        yield Fact("run", "image of its job", image)
    yield Fact("run", "status", run.status.value)
    yield Fact("run", "name", run.name)


def causes_of(view: RunView) -> Iterator[Fact]:
    """What can decide the result, but for the code itself."""
    if view.plan:
        yield from _descriptor(view.plan)
        yield from _parameters(view.plan)
        yield from lock_facts(view.plan.lock)
    if view.record:
        for item in view.record.inputs:
            yield Fact("input", item.name, f"{item.size} bytes", item.sha256)
    if view.plan:
        for name, set_ in (("--deterministic", view.plan.options.deterministic), ("--clean-env", view.plan.options.clean_env)):
            if set_:
                yield Fact("variable", name, "yes")
        if arguments := view.plan.options.docker_args:
            yield Fact("variable", "--docker-args", " ".join(arguments))
    declared = {name for name, _ in view.plan.entry_point.env} if view.plan else set()
    for fact in _surroundings(view.record) if view.record else ():
        if fact.name not in declared:  # what the descriptor sets is told as that
            yield fact
    if view.plan:
        yield from _parameters(view.plan, seeds=True)


def _descriptor(plan: Plan) -> Iterator[Fact]:
    yield Fact("descriptor", "entry point", plan.call.entry_point)
    point = plan.entry_point
    yield Fact("descriptor", "command", command_text(plan.call.command))
    for name, value in point.env:
        yield Fact("descriptor", f"env {name}", value)
    yield from _declared(point)
    if plan.lock.image:
        yield from _container(plan.lock.image.asked)


def _declared(point: EntryPoint) -> Iterator[Fact]:
    for parameter in point.parameters:
        if parameter.default is not None:
            yield Fact("descriptor", f"default of {parameter.name}", parameter.default)
    for spec in point.inputs:
        yield Fact("descriptor", f"input {spec.name}", spec.uri)
    if point.outputs:
        yield Fact("descriptor", "outputs", ", ".join(point.outputs))
    for number, metric in enumerate(point.metrics, start=1):
        yield Fact("descriptor", f"metric {metric.name or number}", metric.pattern or metric.file or "")


def _container(asked: DockerSpec) -> Iterator[Fact]:
    """What the project asks for its containers."""
    for name, value in asked.environment:
        yield Fact("descriptor", f"container variable {name}", "of the host" if value is None else value)
    for name, text in (
        ("volumes", ", ".join(asked.volumes)),
        ("gpus", asked.gpus),
        ("shm_size", asked.shm_size),
        ("network", asked.network),
        ("user", asked.user),
    ):
        if text:
            yield Fact("descriptor", f"container {name}", text)


def command_text(command: Command) -> str:
    return command.shell if command.shell is not None else shlex.join(command.argv)


def _parameters(plan: Plan, *, seeds: bool = False) -> Iterator[Fact]:
    for value in plan.call.values:
        if (value.type is ParameterType.SEED) is seeds and value.value is not None:
            yield Fact("seed" if seeds else "parameter", value.name, value.value)


def lock_facts(lock: EnvLock) -> Iterator[Fact]:
    """Manager, packages and interpreter of a lock."""
    yield Fact("lock", "manager", lock.manager.value)
    yield from packages_of(lock)
    if lock.python:
        yield Fact("interpreter", "python", f"{lock.python.implementation} {lock.python.version}")
        if lock.python.build:
            yield Fact("interpreter", "build", lock.python.build)
        if lock.manager is EnvManager.SYSTEM:
            yield Fact("interpreter", "path", lock.python.path)
    if lock.image:
        yield Fact("image", "reference", lock.image.reference)


def packages_of(lock: EnvLock) -> Iterator[Fact]:
    """Everything that a lock installs or found installed: versions, and the hashes of the files."""
    for item in lock.conda:
        yield Fact("lock", item.name, f"{item.version}={item.build}", item.sha256)
    for package in tomllib.loads(lock.pylock or "").get("packages", ()):
        yield Fact("lock", package["name"], package.get("version", "(local)"), _hashes(package))
    for local in lock.local_packages:
        yield Fact("lock", local.path, "(local)", local.digest)
    for text in lock.installed:
        name, _, version = text.partition("==")
        yield Fact("lock", name, version)
    for name, value in lock.variables:
        yield Fact("lock", f"variable {name}", value)


def _hashes(package: dict[str, object]) -> str:
    """Hashes of all files of a package of a PEP 751 lock."""
    files: list[object] = []
    for key in ("wheels", "sdist", "archive", "vcs"):
        found = package.get(key)
        files += found if isinstance(found, list) else [found]
    marks = [str(file.get("hashes") or file.get("commit-id")) for file in files if isinstance(file, dict)]
    return " ".join(sorted(marks))


def _surroundings(record: RunRecord) -> Iterator[Fact]:
    for name, value in record.variables:
        if name not in THREAD_VARIABLES:
            yield Fact("variable", name, value)
    if machine := record.machine:
        for name, value in (
            ("cpu", machine.cpu),
            ("cores", str(machine.cores)),
            ("architecture", machine.architecture),
            ("system", machine.system),
            ("libc", machine.libc),
            ("gpu", ", ".join(machine.gpus)),
            ("gpu driver", machine.gpu_driver),
        ):
            if value:
                yield Fact("hardware", name, value)
        for name, value in machine.threads:
            yield Fact("seed" if name == "PYTHONHASHSEED" else "threads", name, value)
