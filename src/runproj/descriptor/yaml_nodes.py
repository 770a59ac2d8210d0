"""The one door for YAML: text → nodes with positions.  Builds no Python objects, and refuses what is made to exhaust a machine.

Nodes are composed from the parser's events with a stack of our own, so that nesting costs no recursion, and an alias shares
its node: what a document would unfold to is counted before anything unfolds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

from runproj.descriptor.problems import Problem

if TYPE_CHECKING:
    import yaml

LARGEST_FILE = 1 << 20
DEEPEST = 50
MOST_NODES = 50_000
"""Of the document with all its aliases unfolded."""

_SAFE_TAGS = {"str", "int", "float", "bool", "null", "timestamp", "map", "seq", "merge"}
_PREFIX = "tag:yaml.org,2002:"


class Shape(Enum):
    SCALAR = "a text or number"
    LIST = "a list"
    MAP = "a mapping"


@dataclass(eq=False)
class Node:
    """A node of the document.  `tag` is what YAML 1.1 takes a scalar for ("str", "int", "bool", "null", …), `text` is as written.

    weight: nodes below and including it, aliases unfolded.
    """

    shape: Shape
    tag: str
    line: int
    column: int
    text: str = ""
    items: list[Node] = field(default_factory=list)
    entries: list[tuple[Node, Node]] = field(default_factory=list)
    weight: int = 1

    @property
    def is_null(self) -> bool:
        return self.tag == "null"

    def get(self, key: str) -> Node | None:
        """The value of a key of a mapping."""
        return next((value for name, value in self.entries if name.text == key), None)


class YamlError(Exception):
    """The document cannot be read; carries the problem."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem


def load_file(path: Path, name: str) -> Node | None:
    """The root node of a file, or None where it is empty.  `name` is the file's name for people.  Raises `YamlError`."""
    return load(read_bounded(path, name), name)


def read_bounded(path: Path, name: str, limit: int = LARGEST_FILE) -> bytes:
    """The content of a file that is small enough.  Raises `YamlError`."""
    try:
        with path.open("rb") as file:
            content = file.read(limit + 1)
    except OSError as error:
        raise YamlError(Problem(name, 0, 0, f"cannot be read: {error.strerror or error}")) from error
    if len(content) > limit:
        raise YamlError(Problem(name, 0, 0, f"is larger than {limit >> 20} MB"))
    return content


def load(content: bytes, name: str, limit: int = LARGEST_FILE) -> Node | None:
    """The root node of a document, or None where it is empty.  Raises `YamlError`."""
    import yaml

    if len(content) > limit:
        raise YamlError(Problem(name, 0, 0, f"is larger than {limit >> 20} MB"))
    composer = _Composer(name)
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml is ten times as fast; wheels have it
    try:
        for event in yaml.parse(content, Loader=loader):
            composer.take(event)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        words = ", ".join(part for part in (error.context, error.problem) if part)
        hint = "YAML takes no tabs for indentation" if "\\t" in words else ""
        place = (mark.line + 1, mark.column + 1) if mark else (0, 0)
        raise YamlError(Problem(name, *place, f"is not valid YAML: {words}", hint)) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise YamlError(Problem(name, 0, 0, f"is not valid YAML: {' '.join(str(error).split())[:200]}")) from error
    return composer.root


class _Composer:
    """Turns events into nodes, within the budgets."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.root: Node | None = None
        self.documents = 0
        self.stack: list[Node] = []
        self.keys: list[Node | None] = []  # the key read last of each open mapping
        self.anchors: dict[str, Node] = {}
        self.open_anchors: set[str] = set()
        self.anchor_of: list[str | None] = []

    def fail(self, event: yaml.Event, message: str, hint: str = "") -> YamlError:
        return YamlError(Problem(self.name, *_position(event), message, hint))

    def take(self, event: yaml.Event) -> None:
        import yaml

        if isinstance(event, yaml.AliasEvent):
            if event.anchor in self.open_anchors:
                raise self.fail(event, f"the alias *{event.anchor} contains itself")
            if event.anchor not in self.anchors:
                raise self.fail(event, f"the alias *{event.anchor} has no anchor")
            self.add(event, self.anchors[event.anchor])
        elif isinstance(event, yaml.ScalarEvent):
            node = self.node(event, Shape.SCALAR, self.scalar_tag(event), event.value)
            if event.anchor:
                self.anchors[event.anchor] = node
            self.add(event, node)
        elif isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
            shape, tag = (Shape.MAP, "map") if isinstance(event, yaml.MappingStartEvent) else (Shape.LIST, "seq")
            self.check_tag(event, event.tag)
            self.open(event, self.node(event, shape, tag))
        elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
            self.close(event)
        elif isinstance(event, yaml.DocumentStartEvent):
            self.documents += 1
            if self.documents > 1:
                raise self.fail(event, "has more than one document", "remove the line ---")

    def node(self, event: yaml.Event, shape: Shape, tag: str, text: str = "") -> Node:
        return Node(shape, tag, *_position(event), text)

    def open(self, event: yaml.CollectionStartEvent, node: Node) -> None:
        if len(self.stack) >= DEEPEST:
            raise self.fail(event, f"is nested more than {DEEPEST} levels deep")
        self.stack.append(node)
        self.keys.append(None)
        self.anchor_of.append(event.anchor)
        if event.anchor:
            self.open_anchors.add(event.anchor)

    def close(self, event: yaml.Event) -> None:
        node = self.stack.pop()
        self.keys.pop()
        if anchor := self.anchor_of.pop():
            self.open_anchors.discard(anchor)
            self.anchors[anchor] = node
        if node.shape is Shape.MAP:
            self.finish_mapping(node)
        self.add(event, node)

    def add(self, event: yaml.Event, node: Node) -> None:
        """Put a complete node where it belongs."""
        if not self.stack:
            self.root = None if node.is_null and not node.text else node
            return
        parent = self.stack[-1]
        parent.weight += node.weight
        if parent.weight > MOST_NODES:
            raise self.fail(event, f"unfolds to more than {MOST_NODES} values")
        if parent.shape is Shape.LIST:
            parent.items.append(node)
        elif (key := self.keys[-1]) is None:
            if node.shape is not Shape.SCALAR:
                raise YamlError(Problem(self.name, node.line, node.column, "a key has to be a text"))
            self.keys[-1] = node
        else:
            parent.entries.append((key, node))
            self.keys[-1] = None

    def finish_mapping(self, node: Node) -> None:
        """Refuse keys that come twice, and unfold `<<` (keys of the mapping itself win)."""
        own = [(key, value) for key, value in node.entries if key.tag != "merge"]
        seen: dict[str, Node] = {}
        for key, _ in own:
            if key.text in seen:
                message = f"the key {key.text!r} is there twice (first in line {seen[key.text].line})"
                raise YamlError(Problem(self.name, key.line, key.column, message))
            seen[key.text] = key
        for key, value in node.entries:
            if key.tag == "merge":
                for source in value.items if value.shape is Shape.LIST else [value]:
                    if source.shape is not Shape.MAP:
                        raise YamlError(Problem(self.name, key.line, key.column, "`<<` takes a mapping"))
                    own += [(k, v) for k, v in source.entries if k.text not in seen]
                    seen |= {k.text: k for k, _ in source.entries}
        node.entries = own

    def check_tag(self, event: yaml.Event, tag: str | None) -> None:
        if tag and tag != "!" and tag.removeprefix(_PREFIX) not in _SAFE_TAGS:
            raise self.fail(event, f"the tag {tag} is not allowed", "plain YAML only")

    def scalar_tag(self, event: yaml.ScalarEvent) -> str:
        import yaml

        self.check_tag(event, event.tag)
        if event.tag and event.tag != "!":
            return event.tag.removeprefix(_PREFIX)
        if not event.implicit[0]:
            return "str"
        resolvers = yaml.SafeLoader.yaml_implicit_resolvers
        for tag, pattern in (*resolvers.get(event.value[:1], ()), *resolvers.get(None, ())):
            if pattern.match(event.value):
                short: str = tag.removeprefix(_PREFIX)
                return short
        return "str"


def _position(event: yaml.Event) -> tuple[int, int]:
    mark = event.start_mark
    return (mark.line + 1, mark.column + 1) if mark else (0, 0)


def plain(node: Node) -> object:
    """The value that PyYAML's safe loader makes of a node.  Raises `ValueError` for a scalar that is none (`2024-99-99`)."""
    import yaml

    match node.shape:
        case Shape.LIST:
            return [plain(item) for item in node.items]
        case Shape.MAP:
            return {key.text: plain(value) for key, value in node.entries}
        case Shape.SCALAR:
            constructor = yaml.constructor.SafeConstructor()
            value: object = constructor.construct_object(yaml.ScalarNode(_PREFIX + node.tag, node.text))
            return value


def json_ready(node: Node) -> object:
    """A value for `json.dumps`: dates and the like as the text they were written as."""
    match node.shape:
        case Shape.LIST:
            return [json_ready(item) for item in node.items]
        case Shape.MAP:
            return {key.text: json_ready(value) for key, value in node.entries}
        case Shape.SCALAR:
            if node.tag in ("int", "float", "bool", "null"):
                value = plain(node)
                finite = not isinstance(value, float) or (value == value and abs(value) != float("inf"))
                return value if finite else node.text
            return node.text
