"""Users of a server, their tokens and their roles, in the database."""

from __future__ import annotations

import re
import time

from runproj.core.access import Caller, GrantView, KeptToken, Role, UserView
from runproj.core.values import dataclass
from runproj.errors import AlreadyExistsError, NotFoundError, UsageError
from runproj.tracking import experiments
from runproj.tracking.sql import Connection, Database, Row

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}")
_TOKEN_ID = 10
"""Characters of a token's digest that are its id."""

_COLUMNS = "u.id, u.name, u.admin, u.everywhere, u.registry, u.password"


@dataclass(frozen=True)
class Known:
    """A user as a caller, with what is kept of the password; empty for none."""

    caller: Caller
    password: str


class Users:
    """The users of a database."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def any(self) -> bool:
        """Whether there are users at all: where there are none, a server asks nobody who they are."""
        with self.database.reading() as connection:
            return connection.execute("SELECT 1 FROM users LIMIT 1").fetchone() is not None

    def add(self, name: str, password: str, *, admin: bool) -> None:
        """A new user, with what is kept of a password (empty for none).  Raises `AlreadyExistsError` and `UsageError`."""
        with self.database.writing() as connection:
            _check_new(connection, name)
            connection.execute(
                "INSERT INTO users (name, password, admin, everywhere, registry, created) VALUES (?, ?, ?, ?, ?, ?)",
                (name, password, int(admin), int(Role.NONE), int(Role.READ), _now()),
            )

    def check_new(self, name: str) -> None:
        """As `add` would, before a password is asked for."""
        with self.database.reading() as connection:
            _check_new(connection, name)

    def set_password(self, name: str, password: str) -> None:
        with self.database.writing() as connection:
            connection.execute("UPDATE users SET password = ? WHERE id = ?", (password, _existing(connection, name)))

    def remove(self, name: str) -> None:
        """Remove a user with all tokens and grants; what the user recorded stays."""
        with self.database.writing() as connection:
            connection.execute("DELETE FROM users WHERE id = ?", (_existing(connection, name),))

    def add_token(self, user: str, digest: str, expires: int | None, name: str = "") -> KeptToken:
        """expires: milliseconds since the epoch, None for never;  name: for the user's own use, empty for none.

        Raises `AlreadyExistsError` for a name that another token of that user has.
        """
        made = KeptToken(digest[:_TOKEN_ID], name, _now(), expires)
        with self.database.writing() as connection:
            account = _existing(connection, user)
            if name and any(token.name == name for token in _tokens(connection, account)):
                fix = f"Choose another name, or take that one back: runproj user revoke {user} --token {name}"
                raise AlreadyExistsError(f"{user} has a token {name!r} already", fix=fix)
            connection.execute(
                "INSERT INTO user_tokens (digest, account, created, expires, name) VALUES (?, ?, ?, ?, ?)",
                (digest, account, made.created, expires, name),
            )
        return made

    def remove_token(self, user: str, which: str) -> KeptToken:
        """Take one token back, by its name or id.  Raises `NotFoundError` where there is none, or several."""
        with self.database.writing() as connection:
            account = _existing(connection, user)
            found = [token for token in _tokens(connection, account) if which and which in (token.name, token.id)]
            if len(found) != 1:
                what = f"{user} has {'several tokens' if found else 'no token'} {which!r}"
                raise NotFoundError(what, fix="`runproj user list` shows names and ids of tokens.")
            connection.execute(
                "DELETE FROM user_tokens WHERE account = ? AND substr(digest, 1, ?) = ?", (account, _TOKEN_ID, found[0].id)
            )
            return found[0]

    def remove_tokens(self, name: str) -> int:
        """All tokens of a user; returns how many there were."""
        with self.database.writing() as connection:
            return connection.execute("DELETE FROM user_tokens WHERE account = ?", (_existing(connection, name),)).rowcount

    def grant(self, name: str, role: Role, experiment: str) -> None:
        """Give a role on one experiment, by name or id, in place of an earlier one; `Role.NONE` takes it away."""
        with self.database.writing() as connection:
            account = _existing(connection, name)
            found = experiments.find(connection, experiment)
            if found is None:
                fix = "Experiments are made by the first run in them, or by mlflow.set_experiment(…); then grant the role."
                raise NotFoundError(f"There is no experiment {experiment!r}", fix=fix)
            connection.execute("DELETE FROM grants WHERE account = ? AND experiment = ?", (account, int(found.id)))
            if role is not Role.NONE:
                values = (account, int(found.id), int(role))
                connection.execute("INSERT INTO grants (account, experiment, role) VALUES (?, ?, ?)", values)

    def grant_everywhere(self, name: str, role: Role) -> None:
        """Give a role on every experiment."""
        with self.database.writing() as connection:
            connection.execute("UPDATE users SET everywhere = ? WHERE id = ?", (int(role), _existing(connection, name)))

    def grant_registry(self, name: str, role: Role) -> None:
        """Give a role on registered models."""
        with self.database.writing() as connection:
            connection.execute("UPDATE users SET registry = ? WHERE id = ?", (int(role), _existing(connection, name)))

    def named(self, name: str) -> Known | None:
        with self.database.reading() as connection:
            return _known(connection, "u.name = ?", name)

    def numbered(self, account: int) -> Known | None:
        with self.database.reading() as connection:
            return _known(connection, "u.id = ?", account)

    def holding(self, digest: str) -> Known | None:
        """The user of a token that has not ended."""
        with self.database.reading() as connection:
            condition = "u.id = (SELECT account FROM user_tokens WHERE digest = ? AND (expires IS NULL OR expires > ?))"
            return _known(connection, condition, digest, _now())

    def all(self) -> list[UserView]:
        """Every user, by name."""
        with self.database.reading() as connection:
            found = connection.execute(f"SELECT {_COLUMNS}, u.created FROM users u ORDER BY u.name").fetchall()
            return [_view(connection, row) for row in found]


def _known(connection: Connection, condition: str, *values: object) -> Known | None:
    found = connection.execute(f"SELECT {_COLUMNS} FROM users u WHERE {condition}", values).fetchone()
    if found is None:
        return None
    account, name, admin, everywhere, registry, password = found
    grants = connection.execute("SELECT experiment, role FROM grants WHERE account = ?", (account,))
    roles = {int(experiment): Role(role) for experiment, role in grants}
    return Known(Caller(name, int(account), bool(admin), Role(everywhere), Role(registry), roles), password)


def _view(connection: Connection, row: Row) -> UserView:
    account, name, admin, everywhere, registry, password, created = row
    grants = connection.execute(
        "SELECT e.id, e.name, g.role FROM grants g JOIN experiments e ON e.id = g.experiment WHERE g.account = ? ORDER BY e.id",
        (account,),
    )
    views = tuple(GrantView(str(number), experiment, word(role)) for number, experiment, role in grants)
    roles = (word(everywhere), word(registry))
    return UserView(name, bool(admin), bool(password), *roles, int(created), views, tuple(_tokens(connection, account)))


def _tokens(connection: Connection, account: int) -> list[KeptToken]:
    """What is kept of a user's tokens, oldest first."""
    found = connection.execute(
        "SELECT digest, name, created, expires FROM user_tokens WHERE account = ? ORDER BY created, digest", (account,)
    ).fetchall()
    return [
        KeptToken(digest[:_TOKEN_ID], name, int(created), None if expires is None else int(expires))
        for digest, name, created, expires in found
    ]


def word(role: int) -> str:
    """A role's word, as commands and documents have it."""
    return Role(role).name.lower()


def _check_new(connection: Connection, name: str) -> None:
    if not _NAME.fullmatch(name):
        raise UsageError(f"{name!r} cannot be the name of a user", fix="Use up to 64 letters, digits and . _ @ + - in it.")
    if _id(connection, name) is not None:
        raise AlreadyExistsError(f"There is already a user {name!r}", fix="Choose another name, or remove that one first.")


def _id(connection: Connection, name: str) -> int | None:
    found = connection.execute("SELECT id FROM users WHERE name = ?", (name,)).fetchone()
    return None if found is None else int(found[0])


def _existing(connection: Connection, name: str) -> int:
    found = _id(connection, name)
    if found is None:
        raise NotFoundError(f"There is no user {name!r}", fix="`runproj user list` shows them.")
    return found


def _now() -> int:
    return int(time.time() * 1000)
