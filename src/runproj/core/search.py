"""The search language: filter and order texts → conditions and orders.  MLflow's, and more."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence

from runproj.core import wrong
from runproj.core.condition import EVERYTHING, And, Clause, Condition, Entity, Not, Operator, Or, Order, Value, clauses_of
from runproj.core.languages import (
    EXPERIMENTS,
    LISTED,
    LOGGED_MODELS,
    MODEL_VERSIONS,
    PRESENT,
    REGISTERED_MODELS,
    RUNS,
    Field,
    Kind,
    Language,
)
from runproj.core.moments import ago, moment
from runproj.errors import RefusedError

__all__ = [
    "EVERYTHING",
    "EXPERIMENTS",
    "LOGGED_MODELS",
    "MODEL_VERSIONS",
    "REGISTERED_MODELS",
    "RUNS",
    "And",
    "Clause",
    "Condition",
    "Entity",
    "Language",
    "Not",
    "Operator",
    "Or",
    "Order",
    "clauses_of",
    "parse_filter",
    "parse_order",
]

MOST_CHARACTERS, MOST_CLAUSES, MOST_LEVELS, MOST_ORDERS, MOST_PATTERN = 100_000, 200, 50, 30, 5_000
"""What a filter may hold: enough for every list of names that somebody pastes, too little to keep a server busy."""

_IDENTIFIER = re.compile(
    r"(?:(?P<entity>[^\W\d]\w*)\.)?(?:`(?P<ticked>[^`]*)`|\"(?P<double>[^\"]*)\"|'(?P<single>[^']*)'|(?P<word>\w[\w.]*))"
)
_OPERATOR = re.compile(
    r"\s*(?:(?P<sign>!=|>=|<=|=|>|<)|(?<=\s)(?P<word>NOT\s+IN|IN|ILIKE|LIKE|IS\s+NOT\s+NULL|IS\s+NULL)(?=[\s'\"()]|$))",
    re.IGNORECASE,
)
_END = r"(?=[\s)]|$)"
_NUMBER = re.compile(r"-?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?" + _END)
_AGO = re.compile(r"-([0-9]{1,6})([smhdw])" + _END)
# As MLflow's own scanner reads it: a quote that is doubled or follows a backslash belongs to the text, with what escapes it.
_TEXT = re.compile(r"'((?:''|\\'|[^'])*)'|\"((?:\"\"|\\\"|[^\"])*)\"")
_BLANK = re.compile(r"\s*")
_ANDS = re.compile(r"(?:AND\b\s*)+", re.IGNORECASE)
_OR = re.compile(r"OR\b", re.IGNORECASE)
_NOT = re.compile(r"NOT(?=[\s(])", re.IGNORECASE)
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")


def parse_filter(text: str, language: Language, now: int | None = None) -> Condition:
    """The condition that a filter states.  Raises `RefusedError` that shows where it goes wrong.

    now: what times ago are counted from, in milliseconds since the epoch; the clock's time unless given.
    """
    if not text:
        return EVERYTHING
    if len(text) > MOST_CHARACTERS:
        raise RefusedError(f"Invalid filter: it has {len(text)} characters, and {MOST_CHARACTERS} are the most")
    return _Parser(text, language, "filter", now).filter()


def parse_order(texts: Sequence[str], language: Language) -> tuple[Order, ...]:
    """The fields to sort by.  Raises `RefusedError`."""
    found: dict[tuple[Entity, str], Order] = {}
    if len(texts) > MOST_ORDERS:
        raise RefusedError(f"Invalid order_by: it names {len(texts)} fields, and {MOST_ORDERS} are the most")
    for text in texts:
        ending = re.search(r"[\s:](ASC|DESC)$", text[-6:], re.IGNORECASE)
        field = text[: -len(ending.group())].rstrip() if ending else text
        parser = _Parser(field, language, "order_by")
        entity, key = parser.identifier()
        if parser.at < len(field) or entity is Entity.DATASET:
            name = field[: parser.at].strip() if entity is not Entity.DATASET else "metrics.loss"
            raise parser.wrong("one field, and ASC or DESC, is expected", hint=f"Write it like {name}:desc or '{name} DESC'.")
        found.setdefault((entity, key), Order(entity, key, not ending or ending[1].upper() == "ASC"))
    return tuple(found.values())


class _Parser:
    """Reads a text from left to right; `at` is where it stands."""

    def __init__(self, text: str, language: Language, what: str, now: int | None = None) -> None:
        self.text, self.language, self.what, self.now = text, language, what, now
        self.at = len(text) - len(text.lstrip())
        self.clauses = 0
        if bad := _UNSTORABLE.search(text):
            raise self.wrong("this character cannot be stored, hence not be found", bad.start())

    def filter(self) -> Condition:
        self._take(_ANDS)  # programs that put clauses together leave one too many, and MLflow does not mind
        condition = self.either(0)
        if self.at < len(self.text):
            raise self.wrong("this `)` closes nothing")
        return condition

    def either(self, level: int) -> Condition:
        parts = [self.both(level)]
        while self._take(_OR):
            parts.append(self.both(level))
        return parts[0] if len(parts) == 1 else Or(tuple(parts))

    def both(self, level: int) -> Condition:
        parts = [self.inverse(level)]
        while self._joined():
            parts.append(self.inverse(level))
        return parts[0] if len(parts) == 1 else And(tuple(parts))

    def inverse(self, level: int) -> Condition:
        if level > MOST_LEVELS:
            raise self.wrong(f"more than {MOST_LEVELS} levels of NOT and parentheses")
        if self._take(_NOT):
            return Not(self.inverse(level + 1))
        start = self.at
        if self._sign("("):
            inner = self.either(level + 1)
            if not self._sign(")"):
                raise self.wrong("this `(` is not closed", start)
            return inner
        return self.clause()

    def _joined(self) -> bool:
        """Pass over AND; whether another part follows.  As with MLflow, a blank between two clauses does as well."""
        apart = self._blank()
        if self._take(_ANDS):
            return self.at < len(self.text)
        if self.at >= len(self.text) or self.text[self.at] == ")" or _OR.match(self.text, self.at):
            return False
        if apart and not _NOT.match(self.text, self.at) and _IDENTIFIER.match(self.text, self.at):
            return True
        raise self.wrong("AND or OR is expected", hint=wrong.hint_for(self.text[self.at :]))

    def clause(self) -> Clause:
        self.clauses += 1
        if self.clauses > MOST_CLAUSES:
            raise self.wrong(f"more than {MOST_CLAUSES} clauses", hint="Use IN ('a', 'b') for many values of one field.")
        entity, key = self.identifier()
        start = _BLANK.match(self.text, self.at).end()  # type: ignore[union-attr]  # matches everywhere
        operator = self.operator()
        if operator not in self.language.operators(entity, key):
            hint = wrong.hint_for_operator(operator.value, entity.value, numeric=self.language.numeric)
            raise self.wrong(f"{operator.value} cannot be asked of {entity.value} {key!r}", start, hint)
        return Clause(entity, key, operator, self.value(entity, key, operator))

    def identifier(self) -> tuple[Entity, str]:
        found = _IDENTIFIER.match(self.text, self.at)
        if not found:
            what = "a field is expected" if self.at < len(self.text) else "something is missing at the end"
            raise self.wrong(what, hint=wrong.hint_for(self.text[self.at :]))
        word = found["entity"]
        entity = self.language.entities.get(word) if word else Entity.ATTRIBUTE
        if entity is None:
            raise self.wrong(f"{word!r} is not one of {', '.join(self.language.entities)}")
        group = next(group for group in ("ticked", "double", "single", "word") if found[group] is not None)
        key = found[group]
        if entity in (Entity.ATTRIBUTE, Entity.DATASET):
            key = self._field(entity, key, found.start(group)).name
        self.at = found.end()
        return entity, key

    def _field(self, entity: Entity, key: str, start: int) -> Field:
        fields = self.language.fields(entity)
        if key not in fields:
            names = list(dict.fromkeys(known.name for known in fields.values()))
            logged = [word for word in ("metrics", "params") if entity is Entity.ATTRIBUTE and word in self.language.entities]
            hint = wrong.hint_for_field(key, names, logged)
            raise self.wrong(f"{key[:100]!r} is not one of {', '.join(names)}", start, hint)
        return fields[key]

    def operator(self) -> Operator:
        found = _OPERATOR.match(self.text, self.at)
        if not found or self.text[found.end() : found.end() + 1] in ("=", ">", "<"):  # two signs of which the first alone is one
            self._blank()
            raise self.wrong("an operator (=, !=, <, LIKE, …) is expected", hint=wrong.hint_for(self.text[self.at :]))
        self.at = found.end()
        return Operator(" ".join((found["sign"] or found["word"]).upper().split()))

    def value(self, entity: Entity, key: str, operator: Operator) -> Value:
        if operator in PRESENT:
            return None
        self._blank()
        if operator in LISTED:
            return self._list()
        match self.language.kind(entity, key):
            case Kind.NUMBER:
                loose = entity is Entity.ATTRIBUTE and self.language.attributes[key].loose
                return float(self._number(loose=loose)) if entity is Entity.METRIC else self._number(loose=loose)
            case Kind.TIME:
                return self._time(operator)
            case Kind.TEXT:
                return self._param(operator) if entity is Entity.PARAM else self._quoted(operator)

    def _param(self, operator: Operator) -> float | str:
        if operator in (Operator.LIKE, Operator.ILIKE) or not self.language.numeric:
            return self._quoted(operator)
        if _NUMBER.match(self.text, self.at):
            return float(self._number())
        if operator in (Operator.EQUAL, Operator.UNEQUAL):
            return self._quoted(operator)
        raise self.wrong("a number is expected", hint="Parameters are compared by < and > as numbers: params.lr < 0.1")

    def _number(self, *, loose: bool = False) -> float:
        if loose and (quoted := _TEXT.match(self.text, self.at)) and re.fullmatch("[0-9]{1,18}", quoted[1] or quoted[2] or ""):
            self.at = quoted.end()
            return int(quoted[1] or quoted[2])
        found = _NUMBER.match(self.text, self.at)
        if not found:
            raise self.wrong("a number is expected", hint="Write numbers without quotes, like 5, -0.25 or 1e-3.")
        self.at = found.end()
        text = found.group()
        return int(text) if text.lstrip("-").isdecimal() and len(text) < 19 else float(text)

    def _time(self, operator: Operator) -> float:
        if found := _AGO.match(self.text, self.at):
            self.at = found.end()
            return ago(int(found[1]), found[2], int(time.time() * 1000) if self.now is None else self.now)
        quoted = _TEXT.match(self.text, self.at)
        if not quoted and _NUMBER.match(self.text, self.at):
            return self._number()
        when = moment(quoted.group()[1:-1]) if quoted else None
        if not quoted or when is None:
            raise self.wrong(
                "a time is expected", hint="Write milliseconds since 1970, '2026-01-31', '2026-01-31T12:00+01:00', or -7d."
            )
        if operator in (Operator.EQUAL, Operator.UNEQUAL):
            raise self.wrong(
                "a date is a moment, which nothing meets exactly", hint="Ask for a span: start_time >= '…' AND start_time < '…'"
            )
        self.at = quoted.end()
        return when

    def _quoted(self, operator: Operator | None = None) -> str:
        found = _TEXT.match(self.text, self.at)
        if not found:
            raise self.wrong("a text in quotes is expected", hint=wrong.hint_for_text(self.text[self.at :]))
        text = found[1] if found[1] is not None else found[2]
        if operator in (Operator.LIKE, Operator.ILIKE) and len(text) > MOST_PATTERN:
            raise self.wrong(f"a pattern has at most {MOST_PATTERN} characters")
        self.at = found.end()
        return text

    def _list(self) -> tuple[str, ...]:
        items: list[str] = []
        start = self.at
        if not self._sign("("):
            raise self.wrong("a list like ('a', 'b') is expected")
        while not self._sign(")"):
            items.append(self._quoted())
            if not self._sign(",") and self.text[self.at : self.at + 1] != ")":
                raise self.wrong("`,` or `)` is expected")
        if not items:
            raise self.wrong("the list is empty", start)
        return tuple(items)

    def _blank(self) -> bool:
        start = self.at
        self.at = _BLANK.match(self.text, start).end()  # type: ignore[union-attr]  # matches everywhere
        return self.at > start

    def _take(self, word: re.Pattern[str]) -> bool:
        """Pass over a word and the blanks around it; whether it is there."""
        self._blank()
        if not (found := word.match(self.text, self.at)):
            return False
        self.at = found.end()
        self._blank()
        return True

    def _sign(self, sign: str) -> bool:
        """Pass over a sign and the blanks before it; whether it is there."""
        self._blank()
        if not self.text.startswith(sign, self.at):
            return False
        self.at += len(sign)
        self._blank()
        return True

    def wrong(self, why: str, at: int | None = None, hint: str = "") -> RefusedError:
        return RefusedError(f"Invalid {self.what}: {why}", why=wrong.pointed(self.text, self.at if at is None else at), fix=hint)
