"""The search space of a sweep: `lr=0.1,0.01`, `depth=2..8`, `rate=1e-4..1:log`, a CSV file; typed before a start."""

from __future__ import annotations

import csv
import io
import math
import random
import re
from collections.abc import Iterator, Sequence

from runproj.core.parameters import KEY, problem_with
from runproj.core.project import EntryPoint, Parameter, ParameterType
from runproj.core.values import dataclass
from runproj.errors import ParameterError

_NUMBER = r"[-+]?(?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_RANGE = re.compile(rf"\s*({_NUMBER})\s*\.\.\s*({_NUMBER})\s*(?::\s*(.*?))?\s*")
_WHOLE = re.compile(r"[-+]?\d[\d_]*")
_RANGED = (ParameterType.INT, ParameterType.FLOAT, ParameterType.SEED, ParameterType.STRING)
_KEPT_WHOLE = (ParameterType.LIST, ParameterType.OBJECT)
_MOST_STEPS = 1_000_000


@dataclass(frozen=True)
class Choices:
    """A parameter that takes these values, in this order."""

    name: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class Range:
    """A parameter between two numbers, both included.

    step:  distance of the values from `low` on; None for any value between (for whole numbers that is 1).
    log:   each order of magnitude is as likely as any other.
    whole: whole numbers only.
    """

    name: str
    low: float
    high: float
    step: float | None = None
    log: bool = False
    whole: bool = False


@dataclass(frozen=True)
class Space:
    """What is tried: axes, which are combined, or rows, tried as they are.  A row leaves out what has no value in it."""

    choices: tuple[Choices, ...] = ()
    ranges: tuple[Range, ...] = ()
    rows: tuple[tuple[tuple[str, str], ...], ...] = ()

    @property
    def axes(self) -> tuple[Choices | Range, ...]:
        return (*self.choices, *self.ranges)

    @property
    def names(self) -> tuple[str, ...]:
        names = [axis.name for axis in self.axes] or [name for row in self.rows for name, _ in row]
        return tuple(dict.fromkeys(names))


Values = tuple[tuple[str, str], ...]
"""Names and texts of one trial."""


def axis(entry_point: EntryPoint, name: str, text: str | Sequence[str]) -> Choices | Range | str:
    """What a value says: an axis, or, where it is one value only, that value.  A sequence is taken as the values themselves.

    Raises `ParameterError` for what does not fit the declared parameter.
    """
    parameter = next((one for one in entry_point.parameters if one.name == name), None)
    declared = parameter or Parameter(name)
    if declared.type is ParameterType.SECRET:
        if isinstance(text, str):
            return text
        raise ParameterError(f"The secret {name!r} cannot be tried with several values", why="Secrets are never recorded.")
    if not isinstance(text, str):
        return _choices(entry_point, declared, tuple(text))
    if declared.type in _RANGED and (match := _RANGE.fullmatch(text)):
        return _range(entry_point, declared, match)
    values = _items(declared, text)
    return _choices(entry_point, declared, values) if len(values) > 1 else values[0]


def _items(parameter: Parameter, text: str) -> tuple[str, ...]:
    """The values between commas.  One in double quotes is taken as it is, commas and all; so is a list or an object."""
    quoted = text.startswith('"') and parameter.type is not ParameterType.OBJECT
    if not quoted and (parameter.type in _KEPT_WHOLE or "," not in text):
        return (text,)
    try:
        (row,) = csv.reader(io.StringIO(text, newline=""), strict=True)
    except (csv.Error, ValueError) as error:
        raise ParameterError(
            f"The values of {parameter.name!r} cannot be read: {text!r}",
            why=str(error),
            fix=f"""Put a value with commas into double quotes, and all into single ones: -P '{parameter.name}="a,b","c"'""",
        ) from error
    return tuple(row)


def _choices(entry_point: EntryPoint, parameter: Parameter, values: tuple[str, ...]) -> Choices:
    if not values:
        raise ParameterError(f"No value is given for {parameter.name!r} to try")
    problems = [problem for value in values if (problem := problem_with(parameter, value, lenient=entry_point.open))]
    if problems:
        raise _misfit(parameter, problems[0])
    if len(set(values)) < len(values):
        twice = next(value for value in values if values.count(value) > 1)
        raise _misfit(parameter, f"{twice!r} is among the values twice")
    return Choices(parameter.name, values)


def _misfit(parameter: Parameter, problem: str, fix: str = "") -> ParameterError:
    return ParameterError(f"Parameter {parameter.name!r} cannot be tried like that: {problem}", fix=fix)


def _range(entry_point: EntryPoint, parameter: Parameter, match: re.Match[str]) -> Range:
    low_text, high_text, words = match.group(1), match.group(2), match.group(3)
    low, high = float(low_text), float(high_text)
    for text in (low_text, high_text):
        if problem := problem_with(parameter, text, lenient=entry_point.open):
            raise _misfit(parameter, problem)
    step, log = _manner(parameter, words)
    is_int = parameter.type in (ParameterType.INT, ParameterType.SEED)
    untyped = parameter.type is ParameterType.STRING
    whole = is_int or (untyped and all(_WHOLE.fullmatch(text) for text in (low_text, high_text)) and (step or 1) % 1 == 0)
    if not all(map(math.isfinite, (low, high))):
        raise _misfit(parameter, "an end of the range is not finite")
    if low >= high:
        raise _misfit(parameter, f"{low_text} is not less than {high_text}", f"-P {parameter.name}={high_text}..{low_text}")
    if log and low <= 0:
        raise _misfit(parameter, f"a logarithmic range begins above 0, not at {low_text}")
    if step is not None and whole and step % 1:
        raise _misfit(parameter, f"the step {step:g} is not a whole number, and the parameter is")
    if step is not None and not 0 < step <= high - low:
        raise _misfit(parameter, f"the step {step:g} does not fit between {low_text} and {high_text}")
    return Range(parameter.name, low, high, step, log, whole)


def _manner(parameter: Parameter, words: str | None) -> tuple[float | None, bool]:
    """What stands behind the colon: a step, or `log`."""
    if words is None:
        return None, False
    if words == "log":
        return None, True
    if re.fullmatch(_NUMBER, words):
        return float(words), False
    raise _misfit(parameter, f"{words!r} is neither a step nor 'log'", f"Write {parameter.name}=LOW..HIGH:STEP or LOW..HIGH:log.")


def rows_of(text: str, origin: str) -> tuple[Values, ...]:
    """The trials of a CSV file: a line of names, and a line for each trial; an empty cell leaves the parameter to its default."""
    try:
        lines = [line for line in csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline=""), strict=True) if line]
    except csv.Error as error:
        raise ParameterError(f"{origin} cannot be read as CSV", why=str(error)) from error
    if len(lines) < 2:
        raise ParameterError(f"{origin} holds no trials", fix="Its first line names parameters; each other line is a trial.")
    names = [name.strip() for name in lines[0]]
    if wrong := [name for name in names if not KEY.fullmatch(name)] or sorted({n for n in names if names.count(n) > 1}):
        raise ParameterError(f"{origin} names a parameter wrongly: {wrong[0]!r}", why="Names are letters and digits, each once.")
    for number, line in enumerate(lines[1:], start=1):
        if len(line) != len(names):
            raise ParameterError(f"Trial {number} of {origin} has {len(line)} values for {len(names)} parameters")
    return tuple(tuple((name, cell) for name, cell in zip(names, line, strict=True) if cell) for line in lines[1:])


def check_rows(entry_point: EntryPoint, rows: Sequence[Values], origin: str) -> None:
    """Raise `ParameterError` for the first value that does not fit its declared parameter."""
    declared = {parameter.name: parameter for parameter in entry_point.parameters}
    for number, row in enumerate(rows, start=1):
        for name, value in row:
            parameter = declared.get(name) or Parameter(name)
            if parameter.type is ParameterType.SECRET:
                raise ParameterError(f"{origin} gives a value for the secret {name!r}", why="Secrets are never recorded.")
            if problem := problem_with(parameter, value, lenient=entry_point.open):
                raise ParameterError(f"Trial {number} of {origin}: parameter {name!r}: {problem}")


def count(space: Space) -> int | None:
    """How many different trials there are; None where there is no end of them."""
    if space.rows:
        return len(space.rows)
    sizes = [_size(one) for one in space.axes]
    return None if None in sizes else math.prod(size for size in sizes if size is not None)


def _size(one: Choices | Range) -> int | None:
    if isinstance(one, Choices):
        return len(one.values)
    step = one.step or (1.0 if one.whole and not one.log else None)
    return None if step is None else math.floor((one.high - one.low) / step + 1e-9) + 1


def _at(one: Choices | Range, number: int) -> str:
    if isinstance(one, Choices):
        return one.values[number]
    return text_of(one, one.low + number * (one.step or 1.0))


def text_of(one: Range, value: float) -> str:
    """A number of a range as the text that the parameter gets; one with a step is free of the dust of adding."""
    if one.whole:
        return str(round(value))
    return repr(float(f"{value:.12g}")) if one.step else repr(value)


def endless(space: Space) -> str | None:
    """The parameter that a grid cannot count through, if there is one."""
    return next((one.name for one in space.axes if (_size(one) or _MOST_STEPS + 1) > _MOST_STEPS), None)


def grid(space: Space, number: int) -> Values:
    """Trial `number` of all combinations, the last axis changing fastest; or of the rows."""
    if space.rows:
        return space.rows[number]
    places = []
    for one in reversed(space.axes):
        number, place = divmod(number, _size(one) or 1)
        places.append((one.name, _at(one, place)))
    return tuple(reversed(places))


def drawn(space: Space, seed: int, number: int) -> Values:
    """Random trial `number`: always the same for a seed, in whatever order the trials are drawn."""
    dice = random.Random(f"{seed}/{number}")
    return tuple((one.name, _drawn(one, dice)) for one in space.axes)


def _drawn(one: Choices | Range, dice: random.Random) -> str:
    if isinstance(one, Choices):
        return one.values[int(dice.random() * len(one.values))]
    if not one.log:
        if (size := _size(one)) is not None:
            return _at(one, int(dice.random() * size))
        return text_of(one, min(one.high, one.low + dice.random() * (one.high - one.low)))
    edge = 0.5 if one.whole else 0.0
    low, high = math.log(one.low - edge), math.log(one.high + edge)
    value = math.exp(low + dice.random() * (high - low))
    return text_of(one, min(one.high, max(one.low, value)))


def samples(space: Space) -> Iterator[Values]:
    """Trials with which it can be told before the start whether all can be bound: each axis at its ends, or every row."""
    if space.rows:
        yield from space.rows
        return
    ends = [(_at(one, 0), text_of(one, one.high) if isinstance(one, Range) else one.values[-1]) for one in space.axes]
    for place in (0, 1):
        yield tuple((one.name, end[place]) for one, end in zip(space.axes, ends, strict=True))
