"""What can be asked about each kind of thing: words, fields, and the operators that have a meaning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from enum import Enum

from runproj.core.condition import Entity, Operator
from runproj.core.values import dataclass


class Kind(Enum):
    """What the values of a field are."""

    TEXT = "text"
    NUMBER = "number"
    TIME = "time"


ORDERED = frozenset(
    {Operator.EQUAL, Operator.UNEQUAL, Operator.GREATER, Operator.GREATER_EQUAL, Operator.LESS, Operator.LESS_EQUAL}
)
LISTED = frozenset({Operator.IN, Operator.NOT_IN})
PRESENT = frozenset({Operator.IS_NULL, Operator.IS_NOT_NULL})
TEXTUAL = frozenset({Operator.EQUAL, Operator.UNEQUAL, Operator.LIKE, Operator.ILIKE}) | LISTED


@dataclass(frozen=True)
class Field:
    """An attribute that can be searched.  `name` is its own.

    absent: things may be without it, so that IS NULL can be asked.  loose: whole numbers may be quoted.
    """

    name: str
    kind: Kind = Kind.TEXT
    absent: bool = False
    loose: bool = False

    @property
    def operators(self) -> frozenset[Operator]:
        return (TEXTUAL if self.kind is Kind.TEXT else ORDERED) | (PRESENT if self.absent else frozenset())


@dataclass(frozen=True)
class Language:
    """What can be asked about one kind of thing.

    entities:   the words in front of a key, and what they mean.
    attributes: what can be said without such a word, or with one that means an attribute.
    numeric:    whether parameters can be compared with numbers.
    """

    entities: Mapping[str, Entity]
    attributes: Mapping[str, Field]
    datasets: Mapping[str, Field] = field(default_factory=dict)
    numeric: bool = False

    def fields(self, entity: Entity) -> Mapping[str, Field]:
        return self.datasets if entity is Entity.DATASET else self.attributes

    def kind(self, entity: Entity, key: str) -> Kind:
        match entity:
            case Entity.ATTRIBUTE | Entity.DATASET:
                return self.fields(entity)[key].kind
            case Entity.METRIC:
                return Kind.NUMBER
            case Entity.PARAM | Entity.TAG:
                return Kind.TEXT

    def operators(self, entity: Entity, key: str) -> frozenset[Operator]:
        match entity:
            case Entity.ATTRIBUTE | Entity.DATASET:
                return self.fields(entity)[key].operators
            case Entity.METRIC:
                return ORDERED | PRESENT
            case Entity.PARAM if self.numeric:
                return ORDERED | TEXTUAL | PRESENT
            case Entity.PARAM | Entity.TAG:
                return TEXTUAL | PRESENT


def _words(**groups: Entity) -> dict[str, Entity]:
    return {word: entity for words, entity in groups.items() for word in words.split("_")}


def _times(*names: str) -> dict[str, Field]:
    return {name: Field(name, Kind.TIME) for name in names}


def _texts(*names: str) -> dict[str, Field]:
    return {name: Field(name) for name in names}


_ATTRIBUTE_WORDS = _words(attribute_attributes_attr_run=Entity.ATTRIBUTE)
_TAG_WORDS = _words(tag_tags=Entity.TAG)
_VALUE_WORDS = _words(metric_metrics=Entity.METRIC, param_params_parameter_parameters=Entity.PARAM)

RUNS = Language(
    entities={**_ATTRIBUTE_WORDS, **_TAG_WORDS, **_VALUE_WORDS, **_words(dataset_datasets=Entity.DATASET)},
    attributes={
        **_texts("run_id", "run_name", "status", "user_id", "artifact_uri"),
        **dict.fromkeys(("run name", "Run name", "Run Name"), Field("run_name")),
        **dict.fromkeys(("start_time", "created", "Created"), Field("start_time", Kind.TIME)),
        "end_time": Field("end_time", Kind.TIME, absent=True),
    },
    datasets=_texts("name", "digest", "context"),
    numeric=True,
)
EXPERIMENTS = Language(
    entities={"attribute": Entity.ATTRIBUTE, **_TAG_WORDS},
    attributes={**_texts("name", "experiment_id"), **_times("creation_time", "last_update_time")},
)
REGISTERED_MODELS = Language(
    entities={"attribute": Entity.ATTRIBUTE, **_TAG_WORDS},
    attributes={
        **_texts("name"),
        **dict.fromkeys(("last_updated_timestamp", "timestamp"), Field("last_updated_timestamp", Kind.TIME)),
    },
)
MODEL_VERSIONS = Language(
    entities={"attribute": Entity.ATTRIBUTE, **_TAG_WORDS},
    attributes={
        **_texts("name", "run_id", "source_path"),
        "version_number": Field("version_number", Kind.NUMBER, loose=True),
        **_times("creation_timestamp", "last_updated_timestamp"),
    },
)
LOGGED_MODELS = Language(
    entities={**_ATTRIBUTE_WORDS, **_TAG_WORDS, **_VALUE_WORDS},
    attributes={
        **_texts("name", "model_id", "model_type", "status", "source_run_id", "experiment_id", "artifact_uri"),
        **_times("creation_timestamp", "last_updated_timestamp"),
        "creation_time": Field("creation_timestamp", Kind.TIME),
    },
)
