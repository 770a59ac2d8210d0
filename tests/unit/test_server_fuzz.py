"""Calls with fields that are right, wrong and absurd: whatever they hold, the answer is a result or a word about the request."""

from __future__ import annotations

import json
import random
from pathlib import Path
from urllib.parse import urlencode

import pytest

from runproj.core.access import Role
from runproj.core.run import NewRun
from runproj.server import openapi
from runproj.server.routes import CALLS
from support.asked import Asked, asked

ABSURD = [
    *("", "x", "k", "a/b", "..", "\ud800", "\x00", "é" * 300, "x" * 9000, "0", "1", "2.0", "-5", "1e400", "NaN"),
    *(0, 1, -1, 1.5, 1e308, 2**63, 2**64, -(2**63), 10**30, True, False, None, float("nan"), float("inf")),
    *([], {}, [1, "a", None], {"key": "k", "value": "v"}, [[]], [{}]),
    *(
        "metrics.k > 1",
        "attributes.run_id = 'x'",
        "name = 'm'",
        "name LIKE '%'",
        "tags.a = 'b' OR (",
        "start_time DESC",
        "name ASC",
    ),
    *("eyJvZmZzZXQiOjF9", "models:/m/1", "models:/m@best", "s3://b/x", "Production", "FINISHED", "LOGGED_MODEL_READY", "latest"),
]


class Guesser:
    """Makes fields for a call, of which most are right."""

    def __init__(self, here: Asked, seed: int) -> None:
        self.chance = random.Random(seed)
        experiment = here.experiment("mine", writer=Role.ADMIN)
        self.run = here.store.create_run(NewRun(experiment, 1)).id
        self.model = here.store.models.create(experiment, "net", "", "", (), ()).id
        here.store.registry.create("m", "", ())
        self.right = {
            "run_id": self.run,
            "run_uuid": self.run,
            "run_ids": [self.run],
            "experiment_id": experiment,
            "name": "m",
            "experiment_ids": [experiment],
            "model_id": self.model,
            "version": "1",
            "key": "k",
            "metric_key": "k",
            "max_results": 10,
            "source": f"runs:/{self.run}/m",
            "alias": "best",
        }

    def fields(self, asked_for: str) -> dict[str, object]:
        found = {}
        for word in asked_for.split():
            name, _, kind = word.partition(":")
            name = name.rstrip("!")
            if self.chance.random() < 0.85:
                found[name] = self.right[name] if name in self.right and self.chance.random() < 0.7 else self.value(kind)
        return found

    def value(self, kind: str) -> object:
        if self.chance.random() < 0.25:
            return self.chance.choice(ABSURD)
        if kind.endswith("[]"):
            return [self.value(kind.removesuffix("[]")) for _ in range(self.chance.randint(0, 3))]
        if kind in openapi.MESSAGES:
            return self.fields(openapi.MESSAGES[kind])
        plain = {
            "integer": [0, 1, 5, -1, 2**62, "3"],
            "number": [0.0, 1.5, "NaN", "Infinity", -0.0, 3],
            "boolean": [True, "true"],
        }
        return self.chance.choice(plain.get(kind, ABSURD))


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_whatever_fields_hold_is_no_fault_of_the_server(database, isolated: Path, request):
    here = asked(isolated / "home", request.getfixturevalue("postgres") if database == "postgresql" else None)
    here.user("writer")
    here.users.grant_registry("writer", Role.WRITE)
    guess = Guesser(here, seed=20)
    given = {"authorization": f"Bearer {here.tokens['writer']}"}
    wrong = []
    for number in range(3000):
        method, path = guess.chance.choice(list(CALLS))
        target = f"/api/{path}".replace("{model_id}", guess.model).replace("{tag_key}", "k")
        fields = guess.fields(openapi.fields_of(method, path))
        if method == "GET":
            query = urlencode(fields, doseq=True, errors="surrogatepass")
            answer = here.ask(method, f"{target}?{query}", **given)
        else:
            answer = here.ask(method, target, json.dumps(fields).encode(), content_type="application/json", **given)
        if answer.status not in (200, 400, 403, 404):
            wrong.append((number, method, path, ascii(fields)[:300], answer.status, answer.body[:200]))
    here.store.close()
    assert not wrong, wrong[:5]
