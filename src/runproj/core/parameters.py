"""Binds the values a user gives to the parameters an entry point declares.  Everything wrong is found at once, before a start."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import assert_never

from runproj.core import call as calls
from runproj.core.call import BoundValue, Call, Given
from runproj.core.project import EntryPoint, Parameter, ParameterType
from runproj.core.template import suggestion
from runproj.errors import DescriptorError, ParameterError

KEY = re.compile(r"\w[\w.-]{0,249}")
"""What a parameter may be called."""

TRUE_WORDS = ("true", "yes", "on", "1", "t", "y")
FALSE_WORDS = ("false", "no", "off", "0", "f", "n")

_INTEGER = re.compile(r"[-+]?\d+(_\d+)*")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
LIST_OF = re.compile(r"list\[(int|float|bool|str|string)\]")
_NONE_WORDS = {"None", "none", "null"}


def bind(entry_point: EntryPoint, given: Sequence[Given], *, strict: bool = False) -> tuple[Call, tuple[str, ...]]:
    """The call of `entry_point` with these values, and notes for people.  Raises `ParameterError` naming all that is wrong.

    A value that an MLproject does not declare is passed on with a note, unless `strict`.
    """
    problems: list[str] = []
    notes: list[str] = []
    values = _by_name(given, problems)
    declared = {parameter.name: parameter for parameter in entry_point.parameters}
    bound: list[BoundValue] = []
    missing: list[str] = []
    for parameter in entry_point.parameters:
        value = _bound(entry_point, parameter, values.get(parameter.name), problems, notes)
        if value is None:
            missing.append(parameter.name)
        else:
            bound.append(value)
    for name, item in values.items():
        if name not in declared:
            _undeclared(entry_point, item, strict, problems, notes)
            bound.append(BoundValue(name, item.value, source=item.source, declared=False))
    if missing:
        names = ", ".join(repr(name) for name in missing)
        problems.insert(0, f"No value given for missing parameter{'s' * (len(missing) > 1)}: {names}")
    if problems:
        raise _error(entry_point, problems, missing)
    if not entry_point.command.shell and not entry_point.command.argv:
        raise DescriptorError(f"The entry point {entry_point.name!r} has no command")
    result = Call(entry_point.name, entry_point.command, tuple(bound))
    result.argv({name: item.value for name, item in values.items()})  # what the template cannot take is found here
    return result, tuple(notes)


def problem_with(parameter: Parameter, text: str, *, lenient: bool = False) -> str | None:
    """Why `text` is no value of the parameter, or None.  `lenient` (MLproject) takes whole floats for ints, and None words."""
    if "\0" in text:
        return "a value cannot contain a NUL byte"
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        return "the value is not valid UTF-8, so it could not be recorded"
    if size > calls.LONGEST:
        return f"the value has {size} bytes; the operating system takes at most {calls.LONGEST} in one argument"
    if lenient and text in _NONE_WORDS:
        return None
    if parameter.type is ParameterType.SECRET:  # what is wrong with it could not be said without showing it
        return "the value is not one of its choices" if parameter.choices and text not in parameter.choices else None
    return _type_problem(parameter, text, lenient) or _out_of_range(parameter, text)


def _bound(
    entry_point: EntryPoint, parameter: Parameter, item: Given | None, problems: list[str], notes: list[str]
) -> BoundValue | None:
    """The value of a declared parameter; None where there is none and one is needed."""
    secret = parameter.type is ParameterType.SECRET
    if item is None or (secret and not parameter.required and not item.value):
        if parameter.default is None:
            return None if parameter.required else BoundValue(parameter.name, "")
        if problem := problem_with(parameter, parameter.default, lenient=entry_point.open):
            text = f"The default of parameter {parameter.name!r} does not fit: {problem}"
            notes.append(text) if entry_point.open else problems.append(text)
        return BoundValue(parameter.name, parameter.default, parameter.type)
    if (secret or item.value != parameter.default) and (problem := problem_with(parameter, item.value, lenient=entry_point.open)):
        problems.append(f"Parameter {parameter.name!r} from {item.source}: {problem}")
    return BoundValue(parameter.name, None if secret else item.value, parameter.type, item.source)


def _by_name(given: Sequence[Given], problems: list[str]) -> dict[str, Given]:
    values: dict[str, Given] = {}
    for item in given:
        if not KEY.fullmatch(item.name):
            problems.append(
                f"{item.name[:60]!r} is no parameter name (letters, digits, `_`, `-`, `.`; at most 250; not first `-` or `.`)"
            )
        elif item.name in values:
            problems.append(f"Parameter {item.name!r} is given twice ({values[item.name].source}, {item.source})")
        else:
            values[item.name] = item
    return values


def _undeclared(entry_point: EntryPoint, item: Given, strict: bool, problems: list[str], notes: list[str]) -> None:
    hint = suggestion(item.name, [parameter.name for parameter in entry_point.parameters])
    text = f"Parameter {item.name!r} is not declared by entry point {entry_point.name!r}"
    if strict or not entry_point.open:
        problems.append(f"{text}. {hint}".rstrip() if hint else text)
        return
    if problem := problem_with(Parameter(item.name), item.value):
        problems.append(f"Parameter {item.name!r} from {item.source}: {problem}")
    if entry_point.parameters:  # where nothing is declared, passing on is what was meant
        passed = calls.extra_words(entry_point.command, item.name, "…")
        notes.append(f"{text}; passed on as {' '.join(passed)}. {hint}".rstrip())


def _error(entry_point: EntryPoint, problems: Sequence[str], missing: Sequence[str]) -> ParameterError:
    fix = " ".join(f"-P {name}=…" for name in missing)
    if not fix and entry_point.parameters:
        fix = f"Parameters of {entry_point.name!r}: {', '.join(describe(p) for p in entry_point.parameters)}"
    if len(problems) == 1:
        what, _, why = problems[0].partition("\n")
        return ParameterError(what, why=why, fix=fix)
    return ParameterError(
        f"{len(problems)} problems with the parameters of {entry_point.name!r}", why="\n".join(problems), fix=fix
    )


def describe(parameter: Parameter) -> str:
    """The parameter in a few words: `lr (float, default 0.1)`."""
    kind = parameter.declared_type or parameter.type.value
    if parameter.choices:
        kind = " | ".join(parameter.choices)
    rest = f", default {parameter.default}" if parameter.default is not None else ("" if parameter.required else ", optional")
    return f"{parameter.name} ({kind}{rest})"


def _shown(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:77] + "…")


def _type_problem(parameter: Parameter, text: str, lenient: bool) -> str | None:
    match parameter.type:
        case ParameterType.INT | ParameterType.SEED:
            return _scalar_problem("int", text, lenient)
        case ParameterType.FLOAT:
            return _scalar_problem("float", text, lenient)
        case ParameterType.BOOL:
            return _scalar_problem("bool", text, lenient)
        case ParameterType.PATH:
            return None if text else "an empty text is no path"
        case ParameterType.URI:
            return None if _SCHEME.match(text) else f"{_shown(text)} is not a URI (it has no scheme, like https: or s3:)"
        case ParameterType.LIST:
            return _list_problem(parameter, text, lenient)
        case ParameterType.OBJECT:
            return None if isinstance(_json(text), dict) else f"{_shown(text)} is not an object (a JSON text in braces)"
        case ParameterType.STRING | ParameterType.SECRET | ParameterType.CHOICE:  # choices are looked at for every type
            return None
        case _:
            assert_never(parameter.type)


def _scalar_problem(kind: str, text: str, lenient: bool) -> str | None:
    number = _number(text)
    match kind:
        case "int":
            fits = bool(_INTEGER.fullmatch(text.strip())) or (lenient and number is not None and number.is_integer())
            words = "an int (a whole number)"
        case "float":
            fits, words = number is not None, "a float (a number like 0.1 or 1e-3)"
        case "bool":
            fits, words = text.strip().lower() in (*TRUE_WORDS, *FALSE_WORDS), "a bool (true or false)"
        case _:
            return None
    return None if fits else f"{_shown(text)} is not {words}"


def _list_problem(parameter: Parameter, text: str, lenient: bool) -> str | None:
    if text.lstrip().startswith("[") and not isinstance(_json(text), list):
        return f"{_shown(text)} is not a list (a JSON array, or items between commas)"
    if element := LIST_OF.fullmatch(parameter.declared_type):
        for item in calls.items(text):
            if problem := _scalar_problem(element.group(1), item, lenient):
                return f"item {problem}"
    return None


def _out_of_range(parameter: Parameter, text: str) -> str | None:
    if parameter.choices and text not in parameter.choices:
        hint = suggestion(text, parameter.choices)
        return f"{_shown(text)} is not one of {', '.join(parameter.choices)}. {hint}".rstrip(". ")
    if parameter.minimum is None and parameter.maximum is None:
        return None
    number = _number(text)
    if number is None or number != number:
        return f"{_shown(text)} is not a number that can be compared with min and max"
    if parameter.minimum is not None and number < parameter.minimum:
        return f"{_shown(text)} is less than the least value, {parameter.minimum:g}"
    if parameter.maximum is not None and number > parameter.maximum:
        return f"{_shown(text)} is more than the greatest value, {parameter.maximum:g}"
    return None


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _json(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
