"""MLflow's search language: filter and order texts → clauses.  Knows what may be asked, not how it is found."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from runproj.errors import RefusedError


class Entity(Enum):
    ATTRIBUTE = "attribute"
    METRIC = "metric"
    PARAM = "param"
    TAG = "tag"
    DATASET = "dataset"


class Operator(Enum):
    EQUAL = "="
    UNEQUAL = "!="
    GREATER = ">"
    GREATER_EQUAL = ">="
    LESS = "<"
    LESS_EQUAL = "<="
    LIKE = "LIKE"
    ILIKE = "ILIKE"
    IN = "IN"
    NOT_IN = "NOT IN"
    IS_NULL = "IS NULL"
    IS_NOT_NULL = "IS NOT NULL"


class Kind(Enum):
    """What the values of a field are."""

    TEXT = "text"
    NUMBER = "number"


_ORDERED = frozenset(
    {Operator.EQUAL, Operator.UNEQUAL, Operator.GREATER, Operator.GREATER_EQUAL, Operator.LESS, Operator.LESS_EQUAL}
)
_MATCHING = frozenset({Operator.EQUAL, Operator.UNEQUAL, Operator.LIKE, Operator.ILIKE})
_LISTED = frozenset({Operator.IN, Operator.NOT_IN})
_PRESENT = frozenset({Operator.IS_NULL, Operator.IS_NOT_NULL})


@dataclass(frozen=True)
class Field:
    """An attribute that can be searched.  `name` is its own; operators are those of its kind, with IN where `listed`.

    loose: whole numbers may be quoted.
    """

    name: str
    kind: Kind = Kind.TEXT
    listed: bool = False
    loose: bool = False

    @property
    def operators(self) -> frozenset[Operator]:
        return (_ORDERED if self.kind is Kind.NUMBER else _MATCHING) | (_LISTED if self.listed else frozenset())


@dataclass(frozen=True)
class Language:
    """What can be asked about one kind of thing.

    entities:   the words in front of a key, and what they mean.
    attributes: what can be said without such a word, or with one that means an attribute.
    present:    entities that know IS NULL;  `order` the attributes that can be sorted by, all where None.
    """

    entities: Mapping[str, Entity]
    attributes: Mapping[str, Field]
    present: frozenset[Entity] = frozenset()
    order: frozenset[str] | None = None
    datasets: Mapping[str, Field] = field(default_factory=dict)


@dataclass(frozen=True)
class Clause:
    """One condition; conditions are ANDed.  `value` is a number, a text, several texts, or None for IS [NOT] NULL."""

    entity: Entity
    key: str
    operator: Operator
    value: float | str | tuple[str, ...] | None


@dataclass(frozen=True)
class Order:
    entity: Entity
    key: str
    ascending: bool = True


def _words(**groups: Entity) -> dict[str, Entity]:
    return {word: entity for words, entity in groups.items() for word in words.split("_")}


_ATTRIBUTE_WORDS = _words(attribute_attributes_attr_run=Entity.ATTRIBUTE)
_TAG_WORDS = _words(tag_tags=Entity.TAG)
_VALUE_WORDS = _words(metric_metrics=Entity.METRIC, param_params_parameter_parameters=Entity.PARAM)
_START = Field("start_time", Kind.NUMBER)

RUNS = Language(
    entities={**_ATTRIBUTE_WORDS, **_TAG_WORDS, **_VALUE_WORDS, **_words(dataset_datasets=Entity.DATASET)},
    attributes={
        "run_id": Field("run_id", listed=True),
        **dict.fromkeys(("run_name", "run name", "Run name", "Run Name"), Field("run_name")),
        "status": Field("status"),
        "user_id": Field("user_id"),
        "artifact_uri": Field("artifact_uri"),
        **dict.fromkeys(("start_time", "created", "Created"), _START),
        "end_time": Field("end_time", Kind.NUMBER),
    },
    present=frozenset({Entity.PARAM, Entity.TAG}),
    datasets={name: Field(name, listed=True) for name in ("name", "digest", "context")},
)
EXPERIMENTS = Language(
    entities={"attribute": Entity.ATTRIBUTE, **_TAG_WORDS},
    attributes={
        "name": Field("name"),
        "experiment_id": Field("experiment_id", listed=True),
        "creation_time": Field("creation_time", Kind.NUMBER),
        "last_update_time": Field("last_update_time", Kind.NUMBER),
    },
    present=frozenset({Entity.TAG}),
)
REGISTERED_MODELS = Language(
    entities={"attribute": Entity.ATTRIBUTE, **_TAG_WORDS},
    attributes={
        "name": Field("name", listed=True),
        "timestamp": Field("last_updated_timestamp", Kind.NUMBER),
        "last_updated_timestamp": Field("last_updated_timestamp", Kind.NUMBER),
    },
)
MODEL_VERSIONS = Language(
    entities={"attribute": Entity.ATTRIBUTE, **_TAG_WORDS},
    attributes={
        "name": Field("name", listed=True),
        "run_id": Field("run_id", listed=True),
        "source_path": Field("source_path"),
        "version_number": Field("version_number", Kind.NUMBER, loose=True),
        "creation_timestamp": Field("creation_timestamp", Kind.NUMBER),
        "last_updated_timestamp": Field("last_updated_timestamp", Kind.NUMBER),
    },
)
LOGGED_MODELS = Language(
    entities={**_ATTRIBUTE_WORDS, **_TAG_WORDS, **_VALUE_WORDS},
    attributes={
        **{
            name: Field(name, listed=True)
            for name in ("name", "model_id", "model_type", "status", "source_run_id", "experiment_id", "artifact_uri")
        },
        "creation_timestamp": Field("creation_timestamp", Kind.NUMBER),
        "creation_time": Field("creation_timestamp", Kind.NUMBER),
        "last_updated_timestamp": Field("last_updated_timestamp", Kind.NUMBER),
    },
)

_IDENTIFIER = re.compile(
    r"(?:(?P<entity>[^\W\d]\w*)\.)?(?:`(?P<ticked>[^`]*)`|\"(?P<double>[^\"]*)\"|'(?P<single>[^']*)'|(?P<word>\w[\w.]*))"
)
_OPERATOR = re.compile(
    r"\s*(?:(?P<sign>!=|>=|<=|=|>|<)|(?<=\s)(?P<word>NOT\s+IN|IN|ILIKE|LIKE|IS\s+NOT\s+NULL|IS\s+NULL)(?=[\s'\"(]|$))",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"-?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?(?=\s|$)")
_TEXT = re.compile(r"'([^']*)'|\"([^\"]*)\"")
_AND = re.compile(r"\s*(?:\bAND\b\s*)*", re.IGNORECASE)


def parse_filter(text: str, language: Language) -> tuple[Clause, ...]:
    """The clauses of a filter, ANDed.  Raises `RefusedError` that shows where it goes wrong."""
    if not text:
        return ()
    parser = _Parser(text, language)
    clauses = [parser.clause()]
    while not parser.ended():
        clauses.append(parser.clause())
    return tuple(clauses)


def parse_order(texts: Sequence[str], language: Language) -> tuple[Order, ...]:
    """The fields to sort by.  Raises `RefusedError`."""
    found: dict[tuple[Entity, str], Order] = {}
    for text in texts:
        ending = re.search(r"\s+(ASC|DESC)$", text, re.IGNORECASE)
        parser = _Parser(text[: ending.start()] if ending else text, language)
        entity, key = parser.identifier()
        if not parser.at_end or entity is Entity.DATASET:
            raise RefusedError(
                f"Invalid order_by {text!r}", fix="Write it like `metrics.loss ASC` or `attributes.start_time DESC`."
            )
        order = Order(entity, key, not ending or ending.group(1).upper() == "ASC")
        found.setdefault((entity, key), order)
    return tuple(found.values())


class _Parser:
    """Reads a filter from left to right."""

    def __init__(self, text: str, language: Language) -> None:
        self.text = text
        self.language = language
        self.at = len(text) - len(text.lstrip())

    @property
    def at_end(self) -> bool:
        return self.at >= len(self.text)

    def ended(self) -> bool:
        """Pass over what stands between clauses; whether there are no more."""
        found = _AND.match(self.text, self.at)
        rest = found.end() if found else self.at
        if rest >= len(self.text):
            if "and" in self.text[self.at :].lower():
                raise self.wrong("nothing follows AND")
            return True
        if rest == self.at:
            raise self.wrong("AND is expected")
        self.at = rest
        return False

    def clause(self) -> Clause:
        entity, key = self.identifier()
        kind, operators = self._known(entity, key)
        operator = self.operator()
        if operator not in operators:
            raise self.wrong(f"{operator.value} cannot be asked of {entity.value} {key!r}")
        return Clause(entity, key, operator, self.value(operator, kind, loose=self._loose(entity, key)))

    def identifier(self) -> tuple[Entity, str]:
        found = _IDENTIFIER.match(self.text, self.at)
        if not found:
            raise self.wrong("a field is expected")
        word = found["entity"]
        entity = self.language.entities.get(word) if word else Entity.ATTRIBUTE
        if entity is None:
            raise self.wrong(f"{word!r} is not one of {', '.join(self.language.entities)}")
        key = next(found[group] for group in ("ticked", "double", "single", "word") if found[group] is not None)
        if entity in (Entity.ATTRIBUTE, Entity.DATASET):
            key = self._field(entity, key).name
        self.at = found.end()
        return entity, key

    def _field(self, entity: Entity, key: str) -> Field:
        fields = self.language.datasets if entity is Entity.DATASET else self.language.attributes
        if key not in fields:
            raise self.wrong(f"{key!r} is not one of {', '.join(dict.fromkeys(known.name for known in fields.values()))}")
        return fields[key]

    def _known(self, entity: Entity, key: str) -> tuple[Kind, frozenset[Operator]]:
        match entity:
            case Entity.ATTRIBUTE | Entity.DATASET:
                known = next(field for field in self._fields(entity) if field.name == key)
                return known.kind, known.operators
            case Entity.METRIC:
                return Kind.NUMBER, _ORDERED
            case Entity.PARAM | Entity.TAG:
                return Kind.TEXT, _MATCHING | (_PRESENT if entity in self.language.present else frozenset())

    def _loose(self, entity: Entity, key: str) -> bool:
        return entity is Entity.ATTRIBUTE and any(field.loose for field in self._fields(entity) if field.name == key)

    def _fields(self, entity: Entity) -> Sequence[Field]:
        return list((self.language.datasets if entity is Entity.DATASET else self.language.attributes).values())

    def operator(self) -> Operator:
        found = _OPERATOR.match(self.text, self.at)
        if not found:
            raise self.wrong("an operator (=, !=, <, LIKE, …) is expected")
        self.at = found.end()
        return Operator(" ".join((found["sign"] or found["word"]).upper().split()))

    def value(self, operator: Operator, kind: Kind, *, loose: bool) -> float | str | tuple[str, ...] | None:
        if operator in _PRESENT:
            return None
        self.at += len(self.text[self.at :]) - len(self.text[self.at :].lstrip())
        if operator in _LISTED:
            return self._list()
        if kind is Kind.NUMBER:
            return self._number(loose=loose)
        return self._quoted()

    def _number(self, *, loose: bool) -> float:
        if loose and (quoted := _TEXT.match(self.text, self.at)) and (quoted[1] or quoted[2] or "").isdecimal():
            self.at = quoted.end()
            return int(quoted[1] or quoted[2])
        found = _NUMBER.match(self.text, self.at)
        if not found:
            raise self.wrong("a number is expected")
        self.at = found.end()
        text = found.group()
        return int(text) if text.lstrip("-").isdecimal() and len(text) < 19 else float(text)

    def _quoted(self) -> str:
        found = _TEXT.match(self.text, self.at)
        if not found:
            raise self.wrong("a text in quotes is expected")
        self.at = found.end()
        return found[1] if found[1] is not None else found[2]

    def _list(self) -> tuple[str, ...]:
        items: list[str] = []
        if not self._take("("):
            raise self.wrong("a list like ('a', 'b') is expected")
        while not self._take(")"):
            items.append(self._quoted())
            if not self._take(",") and self.text[self.at : self.at + 1] != ")":
                raise self.wrong("`,` or `)` is expected")
        if not items:
            raise self.wrong("the list is empty")
        return tuple(items)

    def _take(self, sign: str) -> bool:
        while self.text[self.at : self.at + 1].isspace():
            self.at += 1
        if not self.text.startswith(sign, self.at):
            return False
        self.at += 1
        while self.text[self.at : self.at + 1].isspace():
            self.at += 1
        return True

    def wrong(self, why: str) -> RefusedError:
        place = self.text[self.at : self.at + 40] or "its end"
        return RefusedError(f"Invalid filter {self.text[:500]!r}", why=f"At {place!r}: {why}.")
