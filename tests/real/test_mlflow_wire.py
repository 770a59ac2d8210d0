"""Raw requests, valid and invalid, to a team's server and to `mlflow server`: status, code and fields of the answers agree."""

from __future__ import annotations

import http.client
import json
import re
from dataclasses import dataclass
from urllib.parse import quote, urlencode, urlsplit

import pytest

from runproj.server import routes
from support.requests import REQUESTS, Ask
from support.team import Team

pytestmark = [pytest.mark.slow, pytest.mark.network, pytest.mark.timeout(3000)]

_BUG = "MLflow answers 500, and its clients would repeat the request for minutes"
_LENIENT = "what is meant is clear, and done"
_LOST = "MLflow answers 200, and stores 0 or nothing"
_CODE = "the same status, with another error code"
_BARE = "the same status; MLflow says nothing in JSON"

WANTED = {
    "transport: preview": "older clients, and MLflow's R client, ask there",
    "transport: server-info": "there is no gateway",
    "exp: location with query": "a location is a place of its own",
    "exp: get camel": _LENIENT,
    "exp: rename to a taken name": _CODE,
    "exp: rename deleted": _BUG,
    "metric: value a list": _BUG,
    "metric: value an object": _BUG,
    "metric: value beyond a double": _BUG,
    "metric: timestamp beyond 63 bits": _LOST,
    "metric: timestamp true": _LOST,
    "metric: step a fraction": _LOST,
    "metric: dataset and model": "a model that does not exist is 404",
    "batch: odd run": "a run that cannot exist does not exist: 404",
    "batch: metrics are numbers": _BUG,
    "batch: param value a number": _LOST,
    "inputs: no dataset": _LOST,
    "inputs: no name": _LOST,
    "inputs: no digest": _LOST,
    "search: token": "a run without a time begins now; MLflow lets it begin in 1970, so that the pages differ",
    "search: order by something twice": _BUG,
    "file: put at a slash": _BARE,
    "file: put with backslash": "no file has a name that is a path elsewhere",
    "file: put with fragment": "a file may have a # in its name",
    "file: put at nothing": _BARE,
    "file: get folder": _BARE,
    "file: list absolute": "a slash at the beginning is passed over",
    "parts: create": "MLflow's server takes no parts for a local folder",
    "parts: complete unknown": "MLflow's server takes no parts for a local folder",
    "parts: abort unknown": "MLflow's server takes no parts for a local folder",
    "parts: put unknown": "MLflow's server takes no parts for a local folder",
    "model: long name": "the name has a limit, as its documentation says",
    "model: finalize by number": _LENIENT,
    "model: tags": "the model is in the answer, as its documentation says",
    "model: tags with a bad key": "the model is in the answer, as its documentation says",
    "model: params": _LENIENT,
    "model: search bad token": _BUG,
    "registry: update to empty": "a description that is empty is said to be",
    "registry: search": "a description that is empty is said to be",
    "registry: search by tag": "a description that is empty is said to be",
    "registry: rename": "a description that is empty is said to be",
    "registry: rename to itself": "a description that is empty is said to be",
    "version: update by number": _LENIENT,
    "stage: flag as text": _LENIENT,
    "stage: archive without sense": _BUG,
    "registry: search by POST": "the R client searches so",
    "latest: by POST": "the stage that MLflow refused to move above",
    "registry: delete by query": _LENIENT,
}
"""Requests that are answered differently, and why that is meant."""

UNSAID = frozenset({"workspace", "outputs"})
"""Fields of MLflow's answers that are left out: there are no workspaces, and a run without outputs has none."""


@dataclass(frozen=True)
class Told:
    """What is compared of an answer: its status, its error code, and the names of all fields in it."""

    status: int
    code: str
    fields: tuple[str, ...]


class Conversation:
    """A server that is asked one thing after the other."""

    def __init__(self, uri: str) -> None:
        parts = urlsplit(uri)
        self._connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
        self._known = {"p": "wire"}

    def ask(self, request: Ask) -> Told:
        query = urlencode([(name, self._filled(value)) for name, value in request.query])
        path = quote(self._filled(request.path), safe="/%?=&{}") + ("?" + query if query else "")
        headers = {"Content-Type": "application/json", **request.headers} if request.method != "GET" else dict(request.headers)
        self._connection.request(
            request.method, path, self._body(request.body), {name: value for name, value in headers.items() if value}
        )
        answer = self._connection.getresponse()
        content = answer.read()
        document = _document(content)
        for name, place in request.keep.items():
            self._known[name] = _at(document, place)
        return Told(answer.status, str(document.get("error_code", "")), _fields(document))

    def _body(self, body: object) -> bytes | None:
        if body is None or isinstance(body, bytes):
            return self._filled(body.decode()).encode() if body else body
        if isinstance(body, dict):
            body = {name: value for name, value in body.items() if value is not None}
        return self._filled(json.dumps(body, ensure_ascii=False)).encode()

    def _filled(self, text: str) -> str:
        for name, value in self._known.items():
            text = text.replace("{" + name + "}", value)
        return text


def _document(content: bytes) -> dict:
    try:
        found = json.loads(content)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _at(document: object, place: str) -> str:
    for part in place.split("."):
        assert isinstance(document, dict)
        document = document[part]
    assert isinstance(document, str)
    return document


def _fields(document: object, above: str = "") -> tuple[str, ...]:
    """The names of all fields, with their places."""
    found: set[str] = set()
    if isinstance(document, dict) and "error_code" not in document:
        for name, value in document.items():
            if name in UNSAID and value in ("default", {}):
                continue
            found |= {f"{above}{name}", *_fields(value, f"{above}{name}.")}
    elif isinstance(document, list):
        for item in document:
            found |= set(_fields(item, above))
    return tuple(sorted(found))


def test_titles_are_unique() -> None:
    titles = [request.title for request in REQUESTS]
    assert len(set(titles)) == len(titles) >= 150


def test_the_servers_agree(mlflow_server: str, team: Team) -> None:
    theirs, ours = Conversation(mlflow_server), Conversation(team.url)
    surprises, agreed = {}, set()
    for request in REQUESTS:
        first, second = theirs.ask(request), ours.ask(request)
        if first == second:
            agreed.add(request.title)
        elif request.title not in WANTED:
            surprises[request.title] = (first, second)
        assert second.status < 500, (request.title, second)
    lines = [f"{title}:\n  {first}\n  {second}" for title, (first, second) in surprises.items()]
    lines += [f"{title}: agrees by now, and has no place in the list" for title in sorted(agreed & set(WANTED))]
    assert not lines, "\n".join(lines)


def test_every_route_is_asked() -> None:
    """Of those that MLflow has as well, but for the addresses of its pages, which no client asks (see test_server_access)."""
    own = {
        ("GET", "/metrics"),
        ("GET", "/openapi.json"),
        ("GET", "/"),
        *((method, path) for method, path in routes.PAGES if path in routes.LOCATED),
    }
    asked = set()
    for request in REQUESTS:
        path = re.sub(r"\{[a-z]+\}", "x", request.path).partition("?")[0]
        try:
            found = routes.find(request.method, path)
        except routes.WrongMethod:
            continue
        if found:
            asked.add((request.method, found.route.path))
    every = {(method, route.path) for method, _, route in routes.every()}
    assert every - asked == own
