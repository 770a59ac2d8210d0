"""What differs between recorded runs: code, environment, parameters, metrics, outputs, machine."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Sequence

from runproj.core.environment import EnvLock
from runproj.core.run import TagName
from runproj.core.views import Comparison, Difference, RunView

_TAGS = {
    "code": (
        (TagName.SOURCE_NAME, "source"),
        (TagName.COMMIT, "commit"),
        (TagName.PATCH, "patch"),
        (TagName.ENTRY_POINT, "entry point"),
    ),
    "run": ((TagName.PROJECT_BACKEND, "backend"),),
}


def compare_runs(views: Sequence[RunView], *, everything: bool = False) -> Comparison:
    """Values that are not the same in all runs, in the order code, environment, parameters, machine, metrics, outputs, run."""
    facts = [dict(_facts(view)) for view in views]
    keys = list(dict.fromkeys(key for one in facts for key in one))
    order = ("code", "environment", "parameter", "machine", "metric", "output", "run")
    keys.sort(key=lambda key: order.index(key[0]))
    all_values = [Difference(kind, name, tuple(one.get((kind, name)) for one in facts)) for kind, name in keys]
    different = [item for item in all_values if len(set(item.values)) > 1]
    shown = all_values if everything else different
    return Comparison(tuple(view.run.id for view in views), tuple(shown), 0 if everything else len(all_values) - len(different))


def _facts(view: RunView) -> Iterator[tuple[tuple[str, str], str]]:
    run = view.run
    for kind, tags in _TAGS.items():
        for tag, name in tags:
            if value := run.tag(tag):
                yield (kind, name), value
    if view.plan:
        lock = view.plan.lock
        yield ("environment", "manager"), lock.manager.value
        if lock.python:
            yield ("environment", "python"), lock.python.version
        for name, version in packages_of(lock):
            yield ("environment", name), version
    for param in run.params:
        yield ("parameter", param.key), param.value
    for metric in run.metrics:
        yield ("metric", metric.key), repr(metric.value)
    if view.record:
        if machine := view.record.machine:
            yield ("machine", "host"), machine.host
            yield ("machine", "cpu"), f"{machine.cpu}, {machine.cores} cores"
            for gpu in machine.gpus:
                yield ("machine", "gpu"), gpu
            for name, value in machine.threads:
                yield ("machine", name), value
        for output in view.record.outputs:
            yield ("output", output.path), output.sha256[:16]
    yield ("run", "status"), run.status.value
    yield ("run", "name"), run.name


def packages_of(lock: EnvLock) -> Iterator[tuple[str, str]]:
    """Names and versions of everything in a lock; conda's with their builds, `1.26.4=py311_0`."""
    for item in lock.conda:
        yield item.name, f"{item.version}={item.build}"
    yield from packages(lock.pylock or "")


def packages(pylock: str) -> Iterator[tuple[str, str]]:
    """Names and versions in a PEP 751 lock."""
    for package in tomllib.loads(pylock).get("packages", ()):
        yield package["name"], package.get("version", "(local)")
