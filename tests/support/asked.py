"""A server without sockets: requests go straight to its gate."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

from runproj.artifacts import open_direct
from runproj.artifacts.direct import DirectArtifacts
from runproj.core.access import Role
from runproj.server.accounts import Accounts
from runproj.server.gate import Gate
from runproj.server.protocol import Request, Response
from runproj.server.rest import Api, Context
from runproj.tracking import open_full_store, passwords
from runproj.tracking.full import FullStore
from runproj.tracking.users import Users

HOST = "127.0.0.1:5000"


@dataclass
class Asked:
    """A gate before a store, and the tokens of users that `user` made."""

    gate: Gate
    store: FullStore
    artifacts: DirectArtifacts
    users: Users
    tokens: dict[str, str]

    def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> Response:
        """`_` in names of headers stands for `-`; they are named in lower case."""
        target, _, query = path.partition("?")
        named = {"host": HOST, **{name.replace("_", "-").lower(): value for name, value in headers.items()}}
        return self.gate.handle(Request(method, target, query, named, io.BytesIO(body), len(body), "127.0.0.1"))

    def call(self, method: str, path: str, user: str = "", /, **fields: object) -> Response:
        """A call with `fields`, of a user whose token is known here; of nobody by default."""
        headers = {"authorization": f"Bearer {self.tokens[user]}"} if user else {}
        if method in ("GET", "HEAD"):
            return self.ask(method, f"{path}?{urlencode(fields, doseq=True)}" if fields else path, **headers)
        return self.ask(method, path, json.dumps(fields).encode(), content_type="application/json", **headers)

    def user(self, name: str, *, admin: bool = False, password: str = "") -> None:
        self.users.add(name, passwords.keep(password) if password else "", admin=admin)
        self.tokens[name] = passwords.new_token()
        self.users.add_token(name, passwords.token_digest(self.tokens[name]), None)

    def experiment(self, name: str, **roles: Role) -> str:
        """A new experiment on which users have roles; returns its id."""
        found = self.store.experiments.create(name).id
        for user, role in roles.items():
            self.users.grant(user, role, name)
        return found


def basic(name: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


def message(answer: Response) -> dict:
    return json.loads(answer.body)


def asked(home: Path, uri: str | None = None, *, required: bool = False, roots: tuple[str, ...] = ()) -> Asked:
    uri = uri or f"sqlite:///{home / 'runproj.db'}"
    store = open_full_store(uri, home=home)
    artifacts = open_direct(uri, home=home, environ={})
    users = Users(store.database)
    accounts = Accounts(users, required=required)
    gate = Gate(
        frozenset({HOST}),
        accounts.admit,
        Api(Context(store, artifacts, renew=accounts.renew, roots=roots, max_upload=1 << 20)),
        pages=True,
    )
    return Asked(gate, store, artifacts, users, {})
