"""The fields of a request, read as leniently as MLflow's own server reads them: clients in Python, R and Java differ.

Names come in snake_case or camelCase, numbers as numbers or as strings, whole numbers also as `2.0`, a null counts as absent,
and unknown fields are passed over.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from enum import Enum
from types import MappingProxyType
from typing import TypeVar

import msgspec

from runproj.server.protocol import MAX_JSON, Problem, Request, invalid

E = TypeVar("E", bound=Enum)

_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
_ROUND = re.compile(r"[-+]?\d(\.\d{1,17})?[eE]\+?\d{1,2}", re.ASCII)
"""R writes 100000 as 1e+05."""
_SPECIAL = {"nan": math.nan, "infinity": math.inf, "-infinity": -math.inf, "inf": math.inf, "-inf": -math.inf}
_INT64 = 1 << 63
_decode = msgspec.json.Decoder().decode


class Fields:
    """The values of one message.  Every reader raises `Problem` (400) for a value that is not of its type."""

    def __init__(self, values: Mapping[str, object]) -> None:
        self._values = values

    def __contains__(self, name: str) -> bool:
        return self._raw(name) is not None

    def text(self, name: str) -> str | None:
        raw = self._raw(name)
        if raw is None or isinstance(raw, str):
            return raw
        raise invalid(f"Invalid value {_shown(raw)} for parameter '{name}' supplied: a string is expected.")

    def required(self, *names: str) -> str:
        """The text of the first of `names` that is there and not empty."""
        for name in names:
            if found := self.text(name):
                return found
        raise _absent(names[0])

    def integer(self, name: str) -> int | None:
        raw = self._raw(name)
        if raw is None:
            return None
        value: int | None = None
        if isinstance(raw, int) and not isinstance(raw, bool):
            value = raw
        elif isinstance(raw, float) and raw.is_integer():
            value = int(raw)
        elif isinstance(raw, str) and re.fullmatch(r"[-+]?\d{1,20}(\.0*)?", raw.strip(), re.ASCII):
            value = int(raw.strip().partition(".")[0])
        elif isinstance(raw, str) and _ROUND.fullmatch(raw) and float(raw).is_integer():
            value = int(float(raw))
        if value is None or not -_INT64 <= value < _INT64:
            raise invalid(f"Invalid value {_shown(raw)} for parameter '{name}' supplied: a whole number is expected.")
        return value

    def time(self, name: str) -> int | None:
        """Milliseconds.  A fraction of one is dropped: it is what `time.time() * 1000` has."""
        raw = self._raw(name)
        return int(raw) if isinstance(raw, float) and abs(raw) < _INT64 else self.integer(name)

    def number(self, name: str) -> float | None:
        raw = self._raw(name)
        if raw is None:
            return None
        if isinstance(raw, int | float):
            try:
                return float(raw)
            except OverflowError:
                raise invalid(f"Invalid value for parameter '{name}' supplied: it is too large for a double.") from None
        if isinstance(raw, str) and raw.strip().lower() in _SPECIAL:
            return _SPECIAL[raw.strip().lower()]
        if isinstance(raw, str) and _NUMBER.fullmatch(raw.strip()):
            return float(raw)
        raise invalid(f"Invalid value {_shown(raw)} for parameter '{name}' supplied: a number is expected.")

    def flag(self, name: str) -> bool:
        raw = self._raw(name)
        if raw is None:
            return False
        if isinstance(raw, bool):
            return raw
        if isinstance(raw, str) and raw.lower() in ("true", "false"):
            return raw.lower() == "true"
        raise invalid(f"Invalid value {_shown(raw)} for parameter '{name}' supplied: true or false is expected.")

    def choice(self, name: str, words: Sequence[E]) -> E | None:
        """An enum by name, or by its number counted from 1; an unknown one counts as absent, as with MLflow."""
        raw = self._raw(name)
        for number, word in enumerate(words, start=1):
            if raw == word.value or (not isinstance(raw, bool) and raw in (number, str(number))):
                return word
        return None

    def word(self, name: str) -> str:
        """An enum's name, or its number, as text; empty where it is absent."""
        raw = self._raw(name)
        return str(raw) if isinstance(raw, str | int) and not isinstance(raw, bool) else ""

    def texts(self, name: str) -> list[str]:
        """A repeated string.  Whole numbers are taken as their digits."""
        found = []
        for item in self._list(name):
            if isinstance(item, int) and not isinstance(item, bool):
                item = str(item)
            if not isinstance(item, str):
                raise invalid(f"Invalid value {_shown(item)} for parameter '{name}' supplied: strings are expected.")
            found.append(item)
        return found

    def every(self, name: str) -> list[str]:
        """The texts given under `name`, whether one or a list of them."""
        raw = self._raw(name, repeated=True)
        return [raw] if isinstance(raw, str) else self.texts(name)

    def within(self, name: str, inner: str) -> list[str]:
        """The texts named `inner` in the messages of `name`, where there are any; what is no text is left for its reader."""
        raw = self._raw(name, repeated=True)
        if not isinstance(raw, list):
            return []
        camel = re.sub(r"_([a-z])", lambda match: match.group(1).upper(), inner)
        found = [item.get(key) for item in raw if isinstance(item, dict) for key in (inner, camel)]
        return [text for text in found if isinstance(text, str) and text]

    def messages(self, name: str) -> list[Fields]:
        """A repeated message."""
        found = []
        for item in self._list(name):
            if not isinstance(item, dict):
                raise invalid(f"Invalid value {_shown(item)} for parameter '{name}' supplied: objects are expected.")
            found.append(Fields(item))
        return found

    def raw_messages(self, name: str) -> Sequence[object]:
        """As `messages`, unread."""
        return self._list(name)

    def message(self, name: str) -> Fields:
        """A message; an empty one where it is absent."""
        raw = self._raw(name)
        if raw is None:
            return Fields({})
        if not isinstance(raw, dict):
            raise invalid(f"Invalid value {_shown(raw)} for parameter '{name}' supplied: an object is expected.")
        return Fields(raw)

    def _list(self, name: str) -> Sequence[object]:
        raw = self._raw(name, repeated=True)
        if raw is None:
            return ()
        if not isinstance(raw, list):
            raise invalid(f"Invalid value {_shown(raw)} for parameter '{name}' supplied: a list is expected.")
        return raw

    def _raw(self, name: str, *, repeated: bool = False) -> object:
        camel = re.sub(r"_([a-z])", lambda match: match.group(1).upper(), name)
        raw = self._values.get(name)
        if camel != name and camel in self._values:
            if raw is not None:
                raise invalid(f"The field '{name}' is given twice, as '{name}' and as '{camel}'.")
            raw = self._values[camel]
        if isinstance(raw, _Repeated) and not repeated:
            return raw[-1]
        return raw


class _Repeated(list[str]):
    """The values of a key of a query string, where one value and a list of one look the same."""


def _absent(name: str) -> Problem:
    return invalid(
        f"Missing value for required parameter '{name}'. See the API docs for more information about request parameters."
    )


def _shown(value: object) -> str:
    return json.dumps(value, default=str)[:100]


def read_fields(request: Request, named: Mapping[str, str] = MappingProxyType({})) -> Fields:
    """The fields of a request: of its query for GET, of its JSON body otherwise.  DELETE may have either.

    named: further ones, from its path.
    """
    from urllib.parse import parse_qs

    if request.method in ("GET", "HEAD") or (request.method == "DELETE" and request.length == 0):
        found = parse_qs(request.query, keep_blank_values=True)
        return Fields({**{name: _Repeated(values) for name, values in found.items()}, **named})
    if request.method in ("POST", "PUT"):
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            given = "is missing" if not kind else "must be 'application/json'"
            raise invalid(f"Bad Request. Content-Type header {given}.")
    return Fields({**_document(read_body(request, MAX_JSON)), **named})


def read_body(request: Request, limit: int) -> bytes:
    """The body in memory.  Raises `Problem` where it is longer than `limit` bytes."""
    too_long = Problem("INVALID_PARAMETER_VALUE", f"The request is longer than {limit} bytes.", 413)
    if request.length is not None and request.length > limit:
        raise too_long
    parts, total = [], 0
    while data := request.body.read(1 << 16):
        total += len(data)
        if total > limit:
            raise too_long
        parts.append(data)
    return b"".join(parts)


def _document(body: bytes) -> Mapping[str, object]:
    """The JSON object in a body; an empty one for whatever is none.  Some old clients encode it twice."""
    try:
        found = _parsed(body or b"{}")
        if isinstance(found, str):
            found = _parsed(found.encode())
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _parsed(text: bytes) -> object:
    try:
        return _decode(text)
    except msgspec.DecodeError:
        return json.loads(text)  # Python's clients may write NaN and Infinity as bare words
