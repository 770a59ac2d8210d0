"""JSON, YAML, CSV and notebooks by value."""

from __future__ import annotations

import base64
import binascii
import csv
import io
import json
import math
from collections.abc import Callable, Iterator, Mapping

from runproj.reproduce.images import png_equal
from runproj.reproduce.unreadable import Unreadable

_PNG = "iVBORw0KGgo"
"""How a PNG begins in base64."""


def same_value(first: object, second: object, same: Callable[[object, object], bool] | None = None) -> bool:
    """Equality as documents mean it: 1 is 1.0, true is not 1, NaN is NaN, and keys have no order.

    same: whether two scalars are equal, where that is not all there is to it.
    """
    same = same or _same_scalar
    todo: list[tuple[object, object]] = [(first, second)]
    seen: set[tuple[int, int]] = set()  # what a document has twice, by an alias, is looked at once
    while todo:
        one, other = todo.pop()
        if isinstance(one, dict | list):
            if (id(one), id(other)) in seen:
                continue
            seen.add((id(one), id(other)))
        match one, other:
            case dict(), dict():
                if one.keys() != other.keys():
                    return False
                todo += [(value, other[key]) for key, value in one.items()]
            case list() | tuple(), list() | tuple():
                if len(one) != len(other):
                    return False
                todo += zip(one, other, strict=True)
            case _ if not same(one, other):
                return False
            case _:
                pass
    return True


def _same_scalar(one: object, other: object) -> bool:
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, float) and isinstance(other, float) and math.isnan(one):
        return math.isnan(other)
    return one == other


def _text(content: memoryview) -> str:
    try:
        return bytes(content).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Unreadable("it is not UTF-8") from error


def _json(content: memoryview) -> object:
    try:
        return json.loads(_text(content))
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"it is not JSON ({error})") from error


def json_equal(first: memoryview, second: memoryview) -> bool:
    return same_value(_json(first), _json(second))


def json_lines_equal(first: memoryview, second: memoryview) -> bool:
    def lines(content: memoryview) -> list[object]:
        try:
            return [json.loads(line) for line in _text(content).splitlines() if line.strip()]
        except (ValueError, RecursionError) as error:
            raise Unreadable(f"a line is not JSON ({error})") from error

    return same_value(lines(first), lines(second))


def yaml_equal(first: memoryview, second: memoryview) -> bool:
    from runproj.descriptor.values import yaml_values

    def values(content: memoryview) -> list[object]:
        try:
            return yaml_values(bytes(content))
        except ValueError as error:
            raise Unreadable(f"it is not plain YAML ({error})") from error

    return same_value(values(first), values(second))


def csv_equal(first: memoryview, second: memoryview) -> bool:
    return _tables_equal(first, second, ",")


def tsv_equal(first: memoryview, second: memoryview) -> bool:
    return _tables_equal(first, second, "\t")


def _tables_equal(first: memoryview, second: memoryview, delimiter: str) -> bool:
    """The same rows in the same order; columns that have names may stand in another order.  `1.50` is `1.5`."""
    one, other = _rows(first, delimiter), _rows(second, delimiter)
    if len(one) != len(other):
        return False
    if one and one[0] != other[0] and _names(one[0]) and sorted(one[0]) == sorted(other[0]):
        places = [other[0].index(name) for name in one[0]]
        if any(len(row) != len(places) for row in other):
            return False
        other = [[row[place] for place in places] for row in other]
    return all(len(a) == len(b) and all(map(_same_cell, a, b)) for a, b in zip(one, other, strict=True))


def _rows(content: memoryview, delimiter: str) -> list[list[str]]:
    try:
        return [row for row in csv.reader(io.StringIO(_text(content), newline=""), delimiter=delimiter) if row]
    except csv.Error as error:
        raise Unreadable(f"it is no table ({error})") from error


def _names(row: list[str]) -> bool:
    return len(set(row)) == len(row) and all(_number(cell) is None for cell in row)


def _number(cell: str) -> float | int | None:
    """The value of a cell, whole numbers as exact as they stand there; None for what is none, or more than a double holds."""
    try:
        return int(cell)
    except ValueError:
        pass
    try:
        found = float(cell)
    except ValueError:
        return None
    return None if math.isinf(found) and "inf" not in cell.lower() else found


def _same_cell(one: str, other: str) -> bool:
    if one == other:
        return True
    a, b = _number(one), _number(other)
    return a is not None and b is not None and _same_scalar(a, b) and "_" not in one + other


def notebooks_equal(first: memoryview, second: memoryview) -> bool:
    """Cells and what they put out; not when they were run, nor in what order they were numbered."""
    return same_value(_notebook(_json(first)), _notebook(_json(second)), _same_picture)


def _notebook(document: object) -> object:
    if not isinstance(document, dict) or not isinstance(document.get("cells"), list):
        raise Unreadable("it is not a notebook of version 4")
    return [_cell(cell) for cell in document["cells"] if isinstance(cell, dict)]


def _cell(cell: Mapping[str, object]) -> object:
    outputs = cell.get("outputs")
    return {
        "type": cell.get("cell_type"),
        "source": _joined(cell.get("source")),
        "outputs": list(_outputs(outputs)) if isinstance(outputs, list) else [],
    }


def _outputs(outputs: list[object]) -> Iterator[object]:
    """Consecutive pieces of one stream are one: where it was cut is a matter of timing."""
    stream: dict[str, object] | None = None
    for output in outputs:
        if not isinstance(output, dict):
            continue
        if output.get("output_type") == "stream":
            text = _joined(output.get("text"))
            if stream is not None and stream["name"] == output.get("name"):
                stream["text"] = f"{stream['text']}{text}"
                continue
            if stream is not None:
                yield stream
            stream = {"name": output.get("name"), "text": text}
            continue
        if stream is not None:
            yield stream
            stream = None
        kept = {key: value for key, value in output.items() if key not in ("execution_count", "metadata")}
        data = kept.get("data")
        if isinstance(data, dict):
            kept["data"] = {kind: _joined(value) for kind, value in data.items()}
        yield kept
    if stream is not None:
        yield stream


def _same_picture(one: object, other: object) -> bool:
    """As scalars; pictures (PNG in base64) by their pixels."""
    if _same_scalar(one, other):
        return True
    if not (isinstance(one, str) and isinstance(other, str) and one.startswith(_PNG) and other.startswith(_PNG)):
        return False
    try:
        return png_equal(memoryview(base64.b64decode(one)), memoryview(base64.b64decode(other)))
    except (binascii.Error, Unreadable):
        return False


def _joined(text: object) -> object:
    return "".join(map(str, text)) if isinstance(text, list) else text
