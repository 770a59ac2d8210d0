"""Entry points and parameters, from the tables that were read to the frozen values everything else works with."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import PurePosixPath

from runproj.core.parameters import KEY, LIST_OF, problem_with
from runproj.core.project import (
    Command,
    EntryPoint,
    Expectation,
    InputSpec,
    MetricSpec,
    Parameter,
    ParameterType,
    Resources,
    SweepWishes,
)
from runproj.core.template import Hole, parse, suggestion
from runproj.descriptor.problems import Problems
from runproj.descriptor.shapes import Table
from runproj.descriptor.yaml_nodes import Node, Shape, json_ready, plain
from runproj.errors import DescriptorError

_T = ParameterType
_WORDS: Mapping[str, ParameterType] = {
    **{kind.value: kind for kind in _T},
    **dict.fromkeys(("str", "text"), _T.STRING),
    **dict.fromkeys(("integer", "long"), _T.INT),
    **dict.fromkeys(("double", "number"), _T.FLOAT),
    **dict.fromkeys(("boolean", "flag"), _T.BOOL),
    **dict.fromkeys(("file", "dir", "folder"), _T.PATH),
    **dict.fromkeys(("url",), _T.URI),
    **dict.fromkeys(("enum",), _T.CHOICE),
    **dict.fromkeys(("dict", "json", "map"), _T.OBJECT),
    **dict.fromkeys(("array",), _T.LIST),
    **dict.fromkeys(("password",), _T.SECRET),
}
_ML_WORDS: Mapping[str, ParameterType] = {
    word: kind for word, kind in _WORDS.items() if kind in (_T.STRING, _T.INT, _T.FLOAT, _T.BOOL) or word in ("path", "uri")
}
_ML_SILENT = re.compile(r"(list|tuple|dict|array|set|json|object|any)(\[.*\])?", re.IGNORECASE)
"""Words of MLprojects whose values have no one spelling: they are texts, and nothing needs to be said."""


def entry_point(
    name: str, table: Table, shared: Mapping[str, Parameter], env: Mapping[str, str], problems: Problems
) -> EntryPoint:
    """The entry point of `runproj.yaml`."""
    own = parameters(table.table("parameters"), problems)
    declared = {**shared, **own}
    command = _command(table)
    _check_command(table, command, declared, problems)
    resources = table.table("resources")
    inputs = _inputs(table.table("inputs"), problems)
    return EntryPoint(
        name,
        command,
        tuple(declared.values()),
        open=False,
        env=tuple({**env, **variables(table.table("env"))}.items()),
        inputs=inputs,
        outputs=_outputs(table, problems),
        metrics=_metrics(table, problems),
        expect=_expect(table.table("expect")),
        resources=_resources(resources) if resources else Resources(),
        timeout=table.number("timeout"),
        needs=tuple(dict.fromkeys([*table.texts("needs"), *(spec.step for spec in inputs if spec.step)])),
        backend=table.text("backend") or "",
        code=tuple(table.texts("code")),
    )


def sweeps(points: Table | None) -> tuple[tuple[str, SweepWishes], ...]:
    """How entry points of `runproj.yaml` are to be searched; which values fit is told when somebody does."""
    found = []
    for name, value in points.values.items() if points else ():
        if isinstance(value, Table) and (table := value.table("sweep")):
            space = table.table("space")
            axes = [(key, item) for key, item in space.values.items()] if space else []
            texts = tuple((key, tuple(map(str, item)) if isinstance(item, list) else str(item)) for key, item in axes)
            wishes = SweepWishes(
                method=table.text("method"),
                metric=table.text("metric"),
                goal=table.text("goal"),
                trials=_whole(table, "trials"),
                parallel=_whole(table, "parallel"),
                seed=_whole(table, "seed"),
                prune=table.text("prune"),
                max_time=table.number("max_time"),
                max_failures=_whole(table, "max_failures"),
                space=texts,
            )
            found.append((name, wishes))
    return tuple(found)


def _whole(table: Table, key: str) -> int | None:
    number = table.number(key)
    return None if number is None else int(number)


def ml_entry_point(name: str, table: Table | None, problems: Problems) -> EntryPoint:
    """The entry point of an MLproject.  Without a command it is an error only when it is run."""
    if table is None:
        return EntryPoint(name, Command())
    declared = parameters(table.table("parameters"), problems, ml=True)
    command = Command(table.text("command"))
    if problems.thorough:  # a placeholder that nothing declares can still be given a value
        _check_command(table, command, declared, problems)
    return EntryPoint(name, command, tuple(declared.values()))


def variables(table: Table | None) -> dict[str, str]:
    """Environment variables of an `env:` mapping."""
    return {key: value for key, value in table.values.items() if isinstance(value, str)} if table else {}


def parameters(table: Table | None, problems: Problems, *, ml: bool = False) -> dict[str, Parameter]:
    """The declared parameters by name."""
    result = {}
    for name, value in table.values.items() if table else ():
        assert table is not None
        if ml and not KEY.fullmatch(name):
            problems.warning(table.at(name), f"{name!r} is no name that a parameter can be given by")
        spec = value if isinstance(value, Table) else Table(table.at(name), {}, {})
        result[name] = _parameter(name, value if isinstance(value, str) else spec.text("type"), spec, problems, ml)
    return result


def _parameter(name: str, word: str | None, spec: Table, problems: Problems, ml: bool) -> Parameter:
    choices = spec.texts("choices")
    kind, declared = _type(name, word, spec, problems, ml)
    if word is None and choices:
        kind = ParameterType.CHOICE
    default = _default(spec, kind, problems, ml)
    required = spec.flag("required")
    result = Parameter(
        name,
        kind,
        default,
        choices,
        spec.number("min"),
        spec.number("max"),
        _help(spec),
        declared,
        required is not False and default is None,
    )
    if not ml:
        _check_parameter(result, spec, required, problems)
    if default is not None and (problem := problem_with(result, default, lenient=ml)):
        report = problems.warning if ml else problems.error
        report(spec.at("default"), f"the default of parameter {name!r} does not fit: {problem}")
    return result


def _help(spec: Table) -> str:
    value = spec.values.get("help")
    return value.text if isinstance(value, Node) else spec.text("help") or ""


def _type(name: str, word: str | None, spec: Table, problems: Problems, ml: bool) -> tuple[ParameterType, str]:
    """The type that a word stands for, and the word where it is not the type's own."""
    if word is None:
        return ParameterType.STRING, ""
    known = _ML_WORDS if ml else _WORDS
    plain_word = re.sub(r"\s", "", word).lower()
    if kind := known.get(plain_word):
        return kind, "" if plain_word == kind.value else word
    if not ml and LIST_OF.fullmatch(plain_word):
        return ParameterType.LIST, plain_word
    if not (ml and _ML_SILENT.fullmatch(plain_word)):
        hint = suggestion(plain_word, list(known))
        problems.warning(spec.at("type"), f"the type {word!r} of parameter {name!r} is not known; it is taken as a string", hint)
    return ParameterType.STRING, word


def _default(spec: Table, kind: ParameterType, problems: Problems, ml: bool) -> str | None:
    """The text of a default: as written; in an MLproject as MLflow would pass it, which is Python's `str` of the value."""
    node = spec.values.get("default")
    if not isinstance(node, Node) or node.is_null:
        return None
    if ml:
        try:
            return str(plain(node))
        except ValueError as error:
            problems.warning(node, f"{node.text!r} is taken as a text", str(error))
            return node.text
    if node.shape is Shape.SCALAR:
        return node.text
    if kind not in (ParameterType.LIST, ParameterType.OBJECT):
        problems.error(node, f"the default is {node.shape.value}, and the type is {kind.value}", "use type list or object")
        return None
    return json.dumps(json_ready(node), ensure_ascii=False)


def _check_parameter(parameter: Parameter, spec: Table, required: bool | None, problems: Problems) -> None:
    name = parameter.name
    numeric = parameter.type in (ParameterType.INT, ParameterType.FLOAT, ParameterType.SEED)
    for key in ("min", "max"):
        if key in spec and not numeric:
            problems.error(
                spec.at(key), f"{key!r} is for parameters of type int, float or seed; {name!r} is {parameter.type.value}"
            )
    if parameter.minimum is not None and parameter.maximum is not None and parameter.minimum > parameter.maximum:
        problems.error(spec.at("min"), f"the least value of {name!r} is more than the greatest")
    if parameter.type is ParameterType.CHOICE and not parameter.choices:
        problems.error(spec.node, f"the parameter {name!r} has no choices", "add `choices: [a, b]`")
    if required and parameter.default is not None:
        problems.error(spec.at("required"), f"the parameter {name!r} has a default, so it cannot be required")
    if parameter.type is ParameterType.SECRET and parameter.default is not None:
        problems.error(spec.at("default"), f"the secret {name!r} has a default, so it is none", "remove the default")


def _command(table: Table) -> Command:
    value = table.values.get("command")
    if isinstance(value, str):
        return Command(value)
    return Command(argv=table.texts("command"))


def _check_command(table: Table, command: Command, declared: Mapping[str, Parameter], problems: Problems) -> None:
    for template in command.argv or ((command.shell,) if command.shell else ()):
        try:
            pieces = parse(template, list(declared))
        except DescriptorError as error:
            problems.error(table.at("command"), f"{error.what[0].lower()}{error.what[1:]}", error.why.rstrip(".") or error.fix)
            continue
        for piece in pieces:
            if isinstance(piece, Hole) and piece.spread and command.argv and len(pieces) > 1:
                problems.error(table.at("command"), f"{{{piece.name}...}} has to be a word of its own")


def _inputs(table: Table | None, problems: Problems) -> tuple[InputSpec, ...]:
    result = []
    for name, value in table.values.items() if table else ():
        assert table is not None
        if isinstance(value, str):
            result.append(InputSpec(name, value))
        elif isinstance(value, Table):
            places = [text for key in ("path", "uri") if (text := value.text(key))]
            step = value.text("from") or ""
            if step and (len(places) != 1 or "uri" in value):
                problems.error(table.at(name), f"the input {name!r} needs the `path` that {step!r} puts it out under")
                continue
            if len(places) != 1 and not problems.found:
                problems.error(table.at(name), f"the input {name!r} needs one of `path` and `uri`")
            digest = value.text("sha256")
            places = [str(PurePosixPath(place)) if step else place for place in places]
            result += [InputSpec(name, place, digest.lower() if digest else None, step) for place in places[:1]]
    return tuple(result)


def _outputs(table: Table, problems: Problems) -> tuple[str, ...]:
    for pattern in table.texts("outputs"):
        if PurePosixPath(pattern).is_absolute() or ".." in PurePosixPath(pattern).parts:
            problems.error(table.at("outputs"), f"the output {pattern!r} is outside of the project", "copy it into the project")
    return table.texts("outputs")


def _metrics(table: Table, problems: Problems) -> tuple[MetricSpec, ...]:
    value = table.values.get("metrics")
    entries = value if isinstance(value, list) else ([] if value is None else [value])
    result = []
    for entry in entries:
        spec = MetricSpec(pattern=entry) if isinstance(entry, str) else None
        place = table.at("metrics")
        if isinstance(entry, Table):
            spec, place = MetricSpec(entry.text("name"), entry.text("pattern"), entry.text("file")), entry.node
        if spec is None:
            continue
        if (spec.pattern is None) == (spec.file is None):
            problems.error(place, "a metric needs one of `pattern` and `file`")
            continue
        if spec.file and (PurePosixPath(spec.file).is_absolute() or ".." in PurePosixPath(spec.file).parts):
            problems.error(place, f"the file {spec.file!r} is outside of the project")
        if spec.pattern:
            _check_pattern(spec.pattern, spec.name, place, problems)
        result.append(spec)
    return tuple(result)


def _check_pattern(pattern: str, name: str | None, place: Node, problems: Problems) -> None:
    try:
        compiled = re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        problems.error(place, f"{pattern!r} is not a regular expression: {error}")
        return
    if name is None and "name" not in compiled.groupindex:
        problems.error(place, f"{pattern!r} does not say what the metric is called", "add `name:`, or a group (?P<name>…)")
    if not compiled.groups or ("name" in compiled.groupindex and "value" not in compiled.groupindex):
        problems.error(place, f"{pattern!r} does not say where the value is", "add a group (?P<value>…)")


def _expect(table: Table | None) -> tuple[Expectation, ...]:
    result = []
    for name, value in table.values.items() if table else ():
        if isinstance(value, Table):
            number = value.number("value")
            if number is not None:
                result.append(Expectation(name, number, value.number("rtol"), value.number("atol")))
        elif isinstance(value, int | float):
            result.append(Expectation(name, float(value)))
    return tuple(result)


def _resources(table: Table) -> Resources:
    gpus, nodes, time = table.number("gpus"), table.number("nodes"), table.number("time")
    return Resources(
        table.number("cpus"),
        table.text("memory"),
        None if gpus is None else int(gpus),
        None if time is None else table.at("time").text,
        None if nodes is None else int(nodes),
        table.text("partition"),
    )
