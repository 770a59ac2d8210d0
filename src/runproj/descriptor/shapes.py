"""The kinds of values a descriptor can hold.  Each reads a node, reporting what does not fit, and knows its JSON Schema.

The classes are made without the methods that nobody calls: making them is half of what importing this module costs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from runproj.core.template import suggestion
from runproj.descriptor.problems import Problems
from runproj.descriptor.yaml_nodes import Node, Shape

Schema = dict[str, object]


class Kind(Protocol):
    """`read` returns None where the node does not fit; then the problem has been reported."""

    @property
    def shape(self) -> Shape: ...
    def read(self, node: Node, problems: Problems) -> object: ...
    def schema(self) -> Schema: ...


@dataclass(frozen=True, eq=False, repr=False, match_args=False)
class Table:
    """A mapping that was read.  Values by key; `node` and `at` say where they stand."""

    node: Node
    values: Mapping[str, object]
    nodes: Mapping[str, Node]

    def __contains__(self, key: str) -> bool:
        return key in self.values

    def at(self, key: str) -> Node:
        return self.nodes.get(key, self.node)

    def text(self, key: str) -> str | None:
        value = self.values.get(key)
        return value if isinstance(value, str) else None

    def number(self, key: str) -> float | None:
        value = self.values.get(key)
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None

    def flag(self, key: str) -> bool | None:
        value = self.values.get(key)
        return value if isinstance(value, bool) else None

    def texts(self, key: str) -> tuple[str, ...]:
        value = self.values.get(key)
        if isinstance(value, str):
            return (value,)
        return tuple(item for item in value if isinstance(item, str)) if isinstance(value, list) else ()

    def table(self, key: str) -> Table | None:
        value = self.values.get(key)
        return value if isinstance(value, Table) else None

    def items(self, key: str) -> Sequence[object]:
        value = self.values.get(key)
        return value if isinstance(value, list) else ()


@dataclass(frozen=True, eq=False, repr=False, match_args=False)
class Text:
    """A text.  Numbers are taken as they are written, so that `python: 3.10` stays 3.10."""

    pattern: str = ""
    words: str = ""
    any_scalar: bool = False
    examples: tuple[str, ...] = ()
    shape: Shape = field(default=Shape.SCALAR, init=False)

    def read(self, node: Node, problems: Problems) -> object:
        if node.tag == "bool" and not self.any_scalar:
            problems.error(node, f"{node.text!r} is a yes or no in YAML, and a text is wanted", "write it in quotes")
            return None
        if not self.any_scalar and not node.text.strip():
            problems.error(node, "a text is wanted, and this is empty")
            return None
        if self.pattern and not re.fullmatch(self.pattern, node.text):
            problems.error(node, f"{node.text!r} is not {self.words}")
            return None
        return node.text

    def schema(self) -> Schema:
        result: Schema = {"type": ["string", "number", "boolean"] if self.any_scalar else ["string", "number"]}
        if not self.any_scalar:
            result["pattern"] = f"^(?:{self.pattern})$" if self.pattern else r"\S"
        if self.examples:
            result["examples"] = list(self.examples)
        return result


@dataclass(frozen=True, eq=False, repr=False, match_args=False)
class Word:
    """One of a closed set of words."""

    words: tuple[str, ...]
    shape: Shape = field(default=Shape.SCALAR, init=False)

    def read(self, node: Node, problems: Problems) -> object:
        if node.text in self.words:
            return node.text
        hint = suggestion(node.text, self.words)
        problems.error(node, f"{node.text!r} is not one of {', '.join(self.words)}", hint)
        return None

    def schema(self) -> Schema:
        return {"enum": list(self.words)}


@dataclass(frozen=True, eq=False, repr=False, match_args=False)
class Number:
    """A number; `least` is included unless `above`."""

    least: float | None = None
    above: bool = False
    whole: bool = False
    shape: Shape = field(default=Shape.SCALAR, init=False)

    def read(self, node: Node, problems: Problems) -> object:
        value: int | float
        try:
            value = int(node.text) if self.whole else float(node.text)
        except ValueError:
            problems.error(node, f"{node.text!r} is not a {'whole ' * self.whole}number")
            return None
        if value != value or (self.least is not None and (value < self.least or (self.above and value == self.least))):
            problems.error(node, f"{node.text} is too small" if value == value else "a number is wanted")
            return None
        return value

    def schema(self) -> Schema:
        result: Schema = {"type": "integer" if self.whole else "number"}
        if self.least is not None:
            result["exclusiveMinimum" if self.above else "minimum"] = self.least
        return result


@dataclass(frozen=True, eq=False, repr=False, match_args=False)
class Flag:
    """Yes or no."""

    shape: Shape = field(default=Shape.SCALAR, init=False)

    def read(self, node: Node, problems: Problems) -> object:
        if node.tag != "bool":
            problems.error(node, f"{node.text!r} is not true or false")
            return None
        return node.text.lower() in ("true", "yes", "on")

    def schema(self) -> Schema:
        return {"type": "boolean"}


@dataclass(frozen=True, eq=False, repr=False, match_args=False)
class Duration:
    """Seconds, or a text like "90s", "30m", "2h", "1d12h"; read as seconds."""

    shape: Shape = field(default=Shape.SCALAR, init=False)

    def read(self, node: Node, problems: Problems) -> object:
        seconds = parse_duration(node.text)
        if seconds is None:
            problems.error(node, f"{node.text!r} is not a duration", 'write seconds, or a text like "90s", "30m", "2h", "1d12h"')
        return seconds

    def schema(self) -> Schema:
        pattern = r"^(?=\d)(\d+(\.\d+)?d)?(\d+(\.\d+)?h)?(\d+(\.\d+)?m)?(\d+(\.\d+)?s?)?$"
        return {"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "string", "pattern": pattern}]}


def parse_duration(text: str) -> float | None:
    """Seconds of "90", "90s", "30m", "2h", "1d12h"; None for anything else and for nothing at all."""
    match = re.fullmatch(
        r"(?=\d)(?:(\d+(?:\.\d+)?)d)?(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?", text.strip()
    )
    if not match:
        return None
    total = sum(float(part) * unit for part, unit in zip(match.groups(), (86400, 3600, 60, 1), strict=True) if part)
    return total if total > 0 else None


@dataclass(frozen=True, eq=False, repr=False, match_args=False)
class Anything:
    """Whatever it is; read as its node.  Further reading is done by whoever knows more."""

    shapes: tuple[Shape, ...] = (Shape.SCALAR, Shape.LIST, Shape.MAP)
    shape: Shape = field(default=Shape.SCALAR, init=False)

    def read(self, node: Node, problems: Problems) -> object:  # noqa: ARG002 - the protocol's
        return node

    def schema(self) -> Schema:
        return {}


@dataclass(frozen=True, eq=False, repr=False, match_args=False)
class ListOf:
    """A list of one kind."""

    of: Kind
    least: int = 0
    shape: Shape = field(default=Shape.LIST, init=False)

    def read(self, node: Node, problems: Problems) -> object:
        if len(node.items) < self.least:
            problems.error(node, "the list is empty")
            return None
        return [value for item in node.items if (value := read(self.of, item, problems)) is not None]

    def schema(self) -> Schema:
        return {"type": "array", "items": self.of.schema()} | ({"minItems": self.least} if self.least else {})


@dataclass(frozen=True, eq=False, repr=False, match_args=False)
class MapOf:
    """A mapping from names to one kind."""

    of: Kind
    names: str = r".+"
    words: str = "a name"
    nullable: bool = False
    shape: Shape = field(default=Shape.MAP, init=False)

    def read(self, node: Node, problems: Problems) -> object:
        values: dict[str, object] = {}
        nodes: dict[str, Node] = {}
        for key, value in node.entries:
            if not re.fullmatch(self.names, key.text):
                problems.error(key, f"{key.text!r} is not {self.words}")
                continue
            nodes[key.text] = value
            if self.nullable and value.is_null:
                values[key.text] = None
            elif (found := read(self.of, value, problems)) is not None:
                values[key.text] = found
        return Table(node, values, nodes)

    def schema(self) -> Schema:
        of = self.of.schema()
        result: Schema = {"type": "object", "additionalProperties": nullable(of) if self.nullable else of}
        if self.names != ".+":
            result["propertyNames"] = {"pattern": f"^(?:{self.names})$"}
        return result


@dataclass(frozen=True, eq=False, repr=False, match_args=False)
class Either:
    """A value of one of several kinds, told apart by their shapes."""

    kinds: tuple[Kind, ...]

    @property
    def shape(self) -> Shape:
        return self.kinds[0].shape

    def read(self, node: Node, problems: Problems) -> object:
        for kind in self.kinds:
            if kind.shape is node.shape and not node.is_null:
                return kind.read(node, problems)
        words = " or ".join(kind.shape.value for kind in self.kinds)
        problems.error(node, f"{words} is wanted here, not {'nothing' if node.is_null else node.shape.value}")
        return None

    def schema(self) -> Schema:
        return {"anyOf": [kind.schema() for kind in self.kinds]}


@dataclass(frozen=True, eq=False, repr=False, match_args=False)
class Field:
    """A key of a record.  `same_as`: another key that this one is a second name of.  `nullable`: left empty is not there."""

    kind: Kind
    help: str
    required: bool = False
    nullable: bool = False
    same_as: str = ""


@dataclass(frozen=True, eq=False, repr=False, match_args=False)
class Record:
    """A mapping with known keys.  `elsewhere`: keys known to another dialect, for a better message.

    one_of: keys of which exactly one is there;  `needs`: keys that mean nothing without another.
    """

    fields: Mapping[str, Field]
    elsewhere: Mapping[str, str] = field(default_factory=dict)
    one_of: tuple[str, ...] = ()
    needs: Mapping[str, str] = field(default_factory=dict)
    shape: Shape = field(default=Shape.MAP, init=False)

    def read(self, node: Node, problems: Problems) -> object:
        values: dict[str, object] = {}
        nodes: dict[str, Node] = {}
        for key, value in node.entries:
            known = self.fields.get(key.text)
            if known is None:
                self._unknown(key, problems)
                continue
            name = known.same_as or key.text
            if name in nodes:
                problems.error(key, f"{key.text!r} and {_other(self.fields, name, key.text)!r} are the same key")
                continue
            nodes[name] = value
            if known.nullable and value.is_null:
                continue
            if (found := read(known.kind, value, problems)) is not None:
                values[name] = found
        for name, known in self.fields.items():
            if known.required and name not in nodes:
                problems.error(node, f"the key {name!r} is missing")
        self._together(node, nodes, problems)
        return Table(node, values, nodes)

    def _together(self, node: Node, nodes: Mapping[str, Node], problems: Problems) -> None:
        chosen = [name for name in self.one_of if name in nodes]
        if self.one_of and not chosen:
            problems.error(node, f"one of the keys {', '.join(map(repr, self.one_of))} is missing")
        for name in chosen[1:]:
            problems.error(nodes[name], f"{chosen[0]!r} and {name!r} exclude each other")
        for name, other in self.needs.items():
            if name in nodes and other not in nodes:
                problems.error(nodes[name], f"{name!r} means nothing without {other!r}")

    def _unknown(self, key: Node, problems: Problems) -> None:
        hint = self.elsewhere.get(key.text) or suggestion(key.text, list(self.fields))
        if not hint and not problems.lenient:
            hint = f"known keys: {', '.join(self.fields)}"
        report = problems.warning if problems.lenient else problems.error
        report(key, f"unknown key {key.text!r}" + (" is ignored" if problems.lenient else ""), hint)

    def schema(self) -> Schema:
        properties: dict[str, object] = {}
        for name, known in self.fields.items():
            of = known.kind.schema()
            properties[name] = (nullable(of) if known.nullable else of) | {"description": known.help}
        result: Schema = {"type": "object", "properties": properties, "additionalProperties": False}
        if required := [name for name, known in self.fields.items() if known.required]:
            result["required"] = required
        if self.one_of:
            result["oneOf"] = [{"required": [name]} for name in self.one_of]
        if self.needs:
            result["dependentRequired"] = {name: [other] for name, other in self.needs.items()}
        twins = [{"required": [name, known.same_as]} for name, known in self.fields.items() if known.same_as]
        if twins:
            result["not"] = {"anyOf": twins}
        return result


def _other(fields: Mapping[str, Field], name: str, key: str) -> str:
    return (
        next((other for other, known in fields.items() if known.same_as == name and other != key), name) if key == name else name
    )


def nullable(schema: Schema) -> Schema:
    """The schema, or null."""
    return {"anyOf": [schema, {"type": "null"}]}


def read(kind: Kind, node: Node, problems: Problems) -> object:
    """Read a node as a kind, checking its shape first."""
    if isinstance(kind, Either | Anything):
        return kind.read(node, problems)
    if node.shape is not kind.shape or node.is_null:
        problems.error(node, f"{kind.shape.value} is wanted here, not {'nothing' if node.is_null else node.shape.value}")
        return None
    return kind.read(node, problems)
