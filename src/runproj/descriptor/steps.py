"""Entry points that need others: whether what they say of each other makes sense."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import PurePosixPath

from runproj.core.pipeline import above, clash, cycle, may_hold
from runproj.core.project import EntryPoint, InputSpec
from runproj.core.template import suggestion
from runproj.descriptor.problems import Problems
from runproj.descriptor.shapes import Table
from runproj.descriptor.yaml_nodes import Node


def check(points: Sequence[EntryPoint], table: Table, problems: Problems) -> None:
    """Report steps that are not there, or need each other; outputs of two; inputs that nobody puts out."""
    known = {point.name: point for point in points}
    declared = list(table.nodes)
    for point in points:
        for step in point.needs:
            if step not in declared:
                hint = suggestion(step, declared) or f"entry points: {', '.join(declared)}"
                problems.error(_mention(table, point, step), f"{point.name!r} needs {step!r}, which is no entry point", hint)
        for spec in point.inputs:
            if spec.step in known:
                _check_input(spec, point, known[spec.step], table, problems)
    needs = {point.name: point.needs for point in points}
    if circle := cycle(needs):
        words = " needs ".join(map(repr, circle))
        problems.error(_mention(table, known[circle[0]], circle[1]), f"{words}: none of them can be the first")
        return
    _check_outputs(points, needs, table, problems)


def _check_input(spec: InputSpec, point: EntryPoint, step: EntryPoint, table: Table, problems: Problems) -> None:
    place = _input(table, point, spec.name).at("path")
    parts = PurePosixPath(spec.uri)
    if parts.is_absolute() or ".." in parts.parts or not parts.parts:
        problems.error(place, f"{spec.uri!r} is not a path below the project", f"write it as {step.name!r} declares it")
    elif not step.outputs:
        problems.error(place, f"{step.name!r} declares no outputs", f"add `outputs: [{spec.uri}]` to it")
    elif not any(may_hold(pattern, spec.uri) for pattern in step.outputs):
        hint = suggestion(spec.uri, step.outputs) or f"its outputs: {', '.join(step.outputs)}"
        problems.error(place, f"{step.name!r} puts out no {spec.uri!r}", hint)


def _check_outputs(points: Sequence[EntryPoint], needs: Mapping[str, Sequence[str]], table: Table, problems: Problems) -> None:
    """Within one graph a file is put out by one step: it is in one place wherever it is an input."""
    graphs = [above(needs, point.name) for point in points if point.needs]
    for one, other in combinations(points, 2):
        if not any({one.name, other.name} <= graph for graph in graphs):
            continue
        for pattern in other.outputs:
            if taken := next((item for item in one.outputs if clash(item, pattern)), None):
                also = pattern if taken == pattern else f"{taken}, which is the same files as {pattern}"
                problems.error(
                    _point(table, other.name).at("outputs"),
                    f"{one.name!r} and {other.name!r} both put out {also}",
                    "what one graph puts out needs a path for each",
                )


def _point(table: Table, name: str) -> Table:
    found = table.values[name]
    assert isinstance(found, Table)
    return found


def _input(table: Table, point: EntryPoint, name: str) -> Table:
    inputs = _point(table, point.name).table("inputs")
    found = inputs.values[name] if inputs else None
    assert isinstance(found, Table)
    return found


def _mention(table: Table, point: EntryPoint, step: str) -> Node:
    """Where an entry point says that it needs a step."""
    own = _point(table, point.name)
    if step in own.texts("needs"):
        node = own.at("needs")
        return next((item for item in node.items if item.text == step), node)
    spec = next(spec for spec in point.inputs if spec.step == step)
    return _input(table, point, spec.name).at("from")
