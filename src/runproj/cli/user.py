"""`user`: who may do what on the team's server."""

from __future__ import annotations

import shlex
import sys
import time
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from runproj.cli import complete, output
from runproj.cli import options as opt
from runproj.core.access import KeptToken, Role, TokenView, UserList, UserView
from runproj.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from runproj.tracking.users import Users

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of a user.")]
Store = Annotated[str | None, typer.Option("--store", metavar="URL", help="The server's database; the configured one otherwise.")]
Experiment = Annotated[
    str | None,
    typer.Option("--experiment", metavar="NAME", help="On this experiment alone.", autocompletion=complete.active_experiments),
]
OnRegistry = Annotated[bool, typer.Option("--registry", help="On registered models.")]
_SHORTEST = 8


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="Who may do what on the team's server.", no_args_is_help=True, rich_markup_mode=None)
    for command in (add, password, token, grant, revoke, remove):
        group.command(command.__name__)(command)
    group.command("list")(list_users)
    app.add_typer(group, name="user")


def add(
    name: Name,
    admin: Annotated[bool, typer.Option("--admin", help="May do everything.")] = False,
    password_stdin: Annotated[bool, typer.Option("--password-stdin", help="Read the password from standard input.")] = False,
    store: Store = None,
    json: opt.Json = False,
) -> None:
    """Make a user.  Experiments that a user makes are the user's own; others need a grant.

    The password is asked for on a terminal; without one, only tokens let the user in.
    """
    from runproj.tracking import passwords

    users = _users(store)
    users.check_new(name)
    chosen = _password(asked=password_stdin)
    users.add(name, passwords.keep(chosen) if chosen else "", admin=admin)
    _show(store, name, f"User {name} made{', who may do everything' if admin else ''}.", json=json)
    if not chosen and not json:
        output.say(f"There is no password: `runproj user token {name}` makes a token.")


def password(
    name: Name,
    password_stdin: Annotated[bool, typer.Option("--password-stdin", help="Read the password from standard input.")] = False,
    store: Store = None,
    json: opt.Json = False,
) -> None:
    """Give a user another password."""
    from runproj.tracking import passwords

    chosen = _password(asked=password_stdin)
    if not chosen:
        raise UsageError("There is no password", fix=f"Type it, or pipe it: runproj user password {name} --password-stdin")
    _users(store).set_password(name, passwords.keep(chosen))
    _show(store, name, f"The password of {name} is changed.", json=json)


def token(
    name: Name,
    days: Annotated[
        int | None, typer.Option("--days", metavar="DAYS", min=1, help="Days that it is good for; for ever otherwise.")
    ] = None,
    called: Annotated[str, typer.Option("--name", metavar="TEXT", help="What it is for: laptop, ci; to know it by.")] = "",
    store: Store = None,
    json: opt.Json = False,
) -> None:
    """Make an API token: what MLFLOW_TRACKING_TOKEN is set to.  It is shown once and kept nowhere."""
    from runproj.tracking import passwords

    made = passwords.new_token()
    expires = None if days is None else int((time.time() + days * 86400) * 1000)
    kept = _users(store).add_token(name, passwords.token_digest(made), expires, called)
    if json:
        output.write_json(TokenView(name, made, expires, kept.id, called))
        return
    output.write(made)
    output.say("Keep it: it is not shown again.")
    output.say(f"It is taken back by: runproj user revoke {name} --token {shlex.quote(called or kept.id)}")


def grant(
    name: Name,
    role: Annotated[
        str,
        typer.Argument(metavar="read|write|admin", help="The role.", autocompletion=complete.words("read", "write", "admin")),
    ],
    experiment: Experiment = None,
    registry: OnRegistry = False,
    store: Store = None,
    json: opt.Json = False,
) -> None:
    """Give a user a role: on an experiment, on registered models, or, without a choice, on every experiment."""
    words = {found.name.lower(): found for found in Role if found is not Role.NONE}
    if role not in words:
        raise UsageError(f"{role!r} is not a role", fix=f"Use one of {', '.join(words)}.")
    _assign(name, words[role], experiment, registry=registry, store=store)
    _show(store, name, f"{name} has the role {role} {_where(experiment, registry=registry)}.", json=json)


def revoke(
    name: Name,
    experiment: Experiment = None,
    registry: OnRegistry = False,
    token: Annotated[str | None, typer.Option("--token", metavar="NAME|ID", help="This token, by its name or id.")] = None,
    tokens: Annotated[bool, typer.Option("--tokens", help="All tokens of the user.")] = False,
    store: Store = None,
    json: opt.Json = False,
) -> None:
    """Take back a role on an experiment, on registered models, or, without a choice, on every experiment; or tokens."""
    if sum((experiment is not None, registry, token is not None, tokens)) > 1:
        raise UsageError("Only one thing is taken back at a time", fix="--experiment, --registry, --token and --tokens are four.")
    if token is not None:
        kept = _users(store).remove_token(name, token)
        _show(store, name, f"The token {kept.name or kept.id} of {name} is taken back.", json=json)
        return
    if tokens:
        gone = _users(store).remove_tokens(name)
        _show(store, name, f"{output.count(gone, 'token')} of {name} taken back.", json=json)
        return
    _assign(name, Role.NONE, experiment, registry=registry, store=store)
    _show(store, name, f"{name} has no role {_where(experiment, registry=registry)}.", json=json)


def remove(name: Name, store: Store = None, json: opt.Json = False) -> None:
    """Remove a user with all tokens and grants.  What the user recorded stays."""
    users = _users(store)
    users.remove(name)
    if json:
        output.write_json(UserList(tuple(users.all())))
        return
    output.say(f"User {name} removed.")


def list_users(store: Store = None, json: opt.Json = False) -> None:
    """Show users, their roles and tokens."""
    found = _users(store).all()
    if json:
        output.write_json(UserList(tuple(found)))
        return
    if not found:
        output.say("There are no users: a server lets everybody of this machine in. `runproj user add NAME --admin` makes one.")
        return
    rows = [(user.name, _login(user), _roles(user), "admin" if user.admin else user.registry) for user in found]
    output.table(("NAME", "LOGIN", "EXPERIMENTS", "MODELS"), rows)
    kept = [(token.id, user.name, token.name or "-", _day(token.created), _end(token)) for user in found for token in user.tokens]
    if kept:
        output.write("")
        output.table(("TOKEN", "USER", "NAME", "MADE", "ENDS"), kept)


def _day(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000).strftime("%Y-%m-%d")


def _end(token: KeptToken) -> str:
    if token.expires is None:
        return "never"
    return f"{'ended ' if token.expires < time.time() * 1000 else ''}{_day(token.expires)}"


def _users(store: str | None) -> Users:
    from runproj.settings import load
    from runproj.wiring import Wiring

    return Wiring(load(), output.TerminalReporter()).users(store)


def _assign(name: str, role: Role, experiment: str | None, *, registry: bool, store: str | None) -> None:
    users = _users(store)
    if experiment is not None and registry:
        raise UsageError("--experiment and --registry are two things", fix="Give one of them at a time.")
    if registry:
        users.grant_registry(name, role)
    elif experiment is not None:
        users.grant(name, role, experiment)
    else:
        users.grant_everywhere(name, role)


def _where(experiment: str | None, *, registry: bool) -> str:
    return "on registered models" if registry else f"on {experiment}" if experiment is not None else "on every experiment"


def _show(store: str | None, name: str, words: str, *, json: bool) -> None:
    """The user after a change, or words about it."""
    if not json:
        output.say(words)
        return
    found = next((user for user in _users(store).all() if user.name == name), None)
    if found is None:
        raise NotFoundError(f"There is no user {name!r}")
    output.write_json(found)


def _login(user: UserView) -> str:
    ways = ["password"] if user.password else []
    now = time.time() * 1000
    live = sum(1 for token in user.tokens if token.expires is None or token.expires > now)
    return ", ".join([*ways, *([output.count(live, "token")] if live else [])]) or "none"


def _roles(user: UserView) -> str:
    if user.admin:
        return "admin"
    every = [] if user.everywhere == "none" else [f"all: {user.everywhere}"]
    return ", ".join([*every, *(f"{grant.name}: {grant.role}" for grant in user.grants)]) or "none"


def _password(*, asked: bool) -> str:
    """A password from standard input, or typed twice; empty where nobody can be asked.  Raises `UsageError`."""
    if asked:
        found = sys.stdin.readline().rstrip("\r\n")
    elif sys.stdin.isatty():
        found = typer.prompt("Password (empty: tokens only)", default="", show_default=False, hide_input=True, err=True)
        if found and typer.prompt("Again", hide_input=True, err=True) != found:
            raise UsageError("The two passwords are not the same")
    else:
        return ""
    if (asked or found) and len(found) < _SHORTEST:
        raise UsageError(f"A password needs at least {_SHORTEST} characters")
    return str(found)
