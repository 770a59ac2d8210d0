"""Users of the server: how they are made, how they say who they are, and how that ends."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from runproj.core.access import Role
from runproj.core.run import NewRun
from runproj.server import accounts
from runproj.tracking import passwords
from support.asked import Asked, asked, basic, message
from support.program import Cli
from support.team import team_server

GET = "/api/2.0/mlflow/experiments/get?experiment_id=0"


@pytest.fixture
def here(isolated: Path) -> Iterator[Asked]:
    found = asked(isolated / "home")
    yield found
    found.store.close()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds to add to the clock of what the server remembers."""
    ahead = [0.0]
    monotonic = time.monotonic
    monkeypatch.setattr(accounts.time, "monotonic", lambda: monotonic() + ahead[0])
    return ahead


def typed(cli: Cli, text: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(cli.command(*arguments), input=text, cwd=cli.home, env=cli.env, capture_output=True, text=True)


def test_users_from_the_first_to_the_last(cli):
    assert "no users" in cli("user", "list").stderr
    assert typed(cli, "a long password\n", "user", "add", "ada", "--admin", "--password-stdin").returncode == 0
    assert "runproj user token" in cli("user", "add", "bot").stderr
    assert cli("user", "grant", "bot", "write", "--experiment", "Default").returncode == 0
    assert cli("user", "grant", "bot", "read").returncode == 0
    made = cli.json("user", "token", "bot", "--days", "7")
    assert made["token"].startswith("rpj_")
    assert abs(made["expires"] / 1000 - time.time() - 7 * 86400) < 60
    found = {user["name"]: user for user in cli.json("user", "list")["users"]}
    assert found["ada"]["admin"] and found["ada"]["password"] and not found["ada"]["tokens"]
    assert found["bot"]["grants"] == [{"experiment": "0", "name": "Default", "role": "write"}]
    assert (found["bot"]["everywhere"], found["bot"]["registry"]) == ("read", "read")
    (kept,) = found["bot"]["tokens"]
    assert (kept["id"], kept["name"], kept["expires"]) == (made["id"], "", made["expires"])
    shown = cli("user", "list").stdout
    assert "Default: write" in shown and made["token"] not in shown
    assert cli.json("user", "revoke", "bot", "--experiment", "Default")["grants"] == []
    assert cli.json("user", "revoke", "bot", "--tokens")["tokens"] == []
    assert cli.json("user", "revoke", "bot", "--registry")["registry"] == "none"
    assert [user["name"] for user in cli.json("user", "remove", "bot")["users"]] == ["ada"]


def test_tokens_have_names_and_are_taken_back_one_by_one(cli):
    cli("user", "add", "ada")
    laptop, ci = (cli.json("user", "token", "ada", "--name", name) for name in ("laptop", "ci"))
    unnamed = cli("user", "token", "ada", "--days", "7")
    assert cli("user", "token", "ada", "--name", "ci").returncode == 1, "there is one of that name"
    shown = cli("user", "list").stdout
    assert not any(token in shown for token in (laptop["token"], ci["token"], unnamed.stdout.strip()))
    lines = [line.split() for line in shown.splitlines()]
    assert [line[1:3] for line in lines[-3:]] == [["ada", "laptop"], ["ada", "ci"], ["ada", "-"]]
    assert [line[-1] == "never" for line in lines[-3:]] == [True, True, False]
    assert "The token ci of ada is taken back" in cli("user", "revoke", "ada", "--token", "ci").stderr
    (unnamed_id,) = {line[0] for line in lines[-1:]}
    assert [kept["name"] for kept in cli.json("user", "revoke", "ada", "--token", unnamed_id)["tokens"]] == ["laptop"]
    for wrong in ("ci", "", laptop["token"]):
        assert cli("user", "revoke", "ada", "--token", wrong).returncode == 1
    assert cli("user", "revoke", "ada", "--token", "laptop", "--tokens").returncode == 2
    assert cli.json("user", "revoke", "ada", "--tokens")["tokens"] == []


def test_a_name_that_is_taken_is_said_before_a_password_is_asked_for(cli):
    cli("user", "add", "ada")
    refused = typed(cli, "short\n", "user", "add", "ada", "--password-stdin")
    assert (refused.returncode, "already a user" in refused.stderr) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("add", "a:b"), "cannot be the name"),
        (("add", ""), "cannot be the name"),
        (("add", "ada"), "already a user"),
        (("grant", "ada", "owner"), "not a role"),
        (("grant", "nobody", "read"), "no user"),
        (("grant", "ada", "read", "--experiment", "none such"), "no experiment"),
        (("grant", "ada", "read", "--experiment", "Default", "--registry"), "two things"),
        (("token", "nobody"), "no user"),
        (("remove", "nobody"), "no user"),
        (("password", "ada"), "no password"),
        (("list", "--store", "http://127.0.0.1:1"), "cannot keep its runs"),
    ],
)
def test_mistakes_are_explained(cli, arguments, said):
    cli("user", "add", "ada")
    failed = cli("user", *arguments)
    assert failed.returncode in (1, 2, 125)
    assert said in failed.stderr


@pytest.mark.parametrize("text", ["", "\n", "short\n"])
def test_passwords_that_are_none_are_refused(cli, text):
    failed = typed(cli, text, "user", "add", "ada", "--password-stdin")
    assert failed.returncode == 2
    assert "at least 8" in failed.stderr
    assert cli.json("user", "list")["users"] == []


def test_nothing_that_is_stored_lets_anybody_in(here, isolated):
    here.user("ada", password="a long password")
    content = (isolated / "home" / "runproj.db").read_bytes() + (isolated / "home" / "runproj.db-wal").read_bytes()
    assert b"a long password" not in content
    assert here.tokens["ada"].encode() not in content
    kept = here.users.named("ada").password
    digest = passwords.token_digest(here.tokens["ada"])
    for given in (basic("ada", kept), f"Bearer {digest}", f"Bearer rpj_{digest}", basic("ada", ""), "Bearer ", "Bearer rpj_"):
        assert here.ask("GET", GET, authorization=given).status == 401


def test_passwords_and_tokens_let_users_in(here):
    here.user("ada", password="pässwörd: with colon", admin=True)
    for given in (
        basic("ada", "pässwörd: with colon"),
        f"Bearer {here.tokens['ada']}",
        f"bearer {here.tokens['ada']}",
        basic("ada", here.tokens["ada"]),
    ):
        assert here.ask("GET", GET, authorization=given).status == 200
    for given in (
        basic("ada", "wrong password"),
        basic("Ada", "pässwörd: with colon"),
        basic("eve", here.tokens["ada"]),
        f"Bearer {here.tokens['ada']}x",
        f"Digest {here.tokens['ada']}",
        "Basic !!!",
        "Basic YWRh",
        "",
    ):
        answer = here.ask("GET", GET, authorization=given)
        assert answer.status == 401
        assert answer.headers["WWW-Authenticate"].startswith("Basic")
        assert message(answer)["error_code"] == "UNAUTHENTICATED"
    assert here.ask("GET", GET).status == 401


def test_a_user_without_a_password_cannot_guess_one(here):
    here.user("bot")
    for word in ("", "none", "null"):
        assert here.ask("GET", GET, authorization=basic("bot", word)).status == 401


def test_a_password_is_worked_out_once(here, monkeypatch):
    here.user("ada", password="a long password", admin=True)
    checked = []
    fits = passwords.fits
    monkeypatch.setattr(passwords, "fits", lambda *arguments: checked.append(1) or fits(*arguments))
    for _ in range(200):
        assert here.ask("GET", GET, authorization=basic("ada", "a long password")).status == 200
    assert len(checked) == 1


def test_what_is_remembered_is_soon_forgotten(here, clock):
    here.user("ada", password="a long password", admin=True)
    here.user("other", admin=True)
    given, token = basic("ada", "a long password"), f"Bearer {here.tokens['ada']}"
    assert [here.ask("GET", GET, authorization=word).status for word in (given, token)] == [200, 200]
    here.users.set_password("ada", passwords.keep("another password"))
    here.users.remove_tokens("ada")
    clock[0] += 3
    assert [here.ask("GET", GET, authorization=word).status for word in (given, token)] == [401, 401]
    assert here.ask("GET", GET, authorization=basic("ada", "another password")).status == 200
    here.users.remove("ada")
    clock[0] += 3
    assert here.ask("GET", GET, authorization=basic("ada", "another password")).status == 401


def test_a_role_that_is_given_counts_at_once_and_one_taken_back_soon(here, clock):
    here.user("ada")
    new = here.experiment("new")
    path = f"/api/2.0/mlflow/experiments/get?experiment_id={new}"
    assert here.call("GET", path, "ada").status == 403
    here.users.grant("ada", Role.READ, "new")
    assert here.call("GET", path, "ada").status == 200
    found = message(here.call("POST", "/api/2.0/mlflow/experiments/search", "ada", max_results=10))
    assert [item["name"] for item in found["experiments"]] == ["new"]
    here.users.grant("ada", Role.NONE, "new")
    clock[0] += 3
    assert here.call("GET", path, "ada").status == 403


def test_a_token_ends(here, monkeypatch):
    here.user("ada", admin=True)
    soon = passwords.new_token()
    here.users.add_token("ada", passwords.token_digest(soon), int(time.time() * 1000) - 1)
    assert here.ask("GET", GET, authorization=f"Bearer {soon}").status == 401


def test_guessing_is_slowed_down(here, clock):
    here.user("ada", password="a long password", admin=True)
    here.ask("GET", GET, authorization=basic("ada", "a long password"))
    found = [here.ask("GET", GET, authorization=basic("ada", f"guess {number}")) for number in range(12)]
    assert [answer.status for answer in found] == [401] * 10 + [429] * 2
    assert 0 < int(found[-1].headers["Retry-After"]) <= 60
    assert here.ask("GET", GET, authorization=basic("ada", "a long password")).status == 200, "who is known goes on"
    clock[0] += 5
    assert here.ask("GET", GET, authorization=basic("ada", "a long password")).status == 200
    assert here.ask("GET", GET, authorization=basic("eve", "guess")).status == 401, "other names are not held up"
    clock[0] += 60
    assert here.ask("GET", GET, authorization=basic("ada", "guess 99")).status == 401


def test_a_server_asks_from_the_first_user_on(here, clock):
    assert here.ask("GET", GET).status == 200
    here.user("ada", admin=True)
    clock[0] += 3
    assert here.ask("GET", GET).status == 401
    here.users.remove("ada")
    clock[0] += 3
    assert here.ask("GET", GET).status == 401, "a server does not open itself again"


def test_auth_can_be_asked_for_before_there_are_users(isolated):
    here = asked(isolated / "home", required=True)
    assert here.ask("GET", GET).status == 401
    here.store.close()


def test_there_is_no_password_to_begin_with(here):
    assert not here.users.any()
    assert all(here.users.named(name) is None for name in ("admin", "root", "mlflow", "runproj", ""))
    assert not any(passwords.fits(word, "") for word in ("admin", "password1234", ""))


def test_a_network_address_is_served_where_there_are_users(cli):
    typed(cli, "a long password\n", "user", "add", "ada", "--admin", "--password-stdin")
    with team_server("--host", "0.0.0.0", "--allowed-host", "runs.example.org") as team:
        given = {"Authorization": basic("ada", "a long password")}
        assert team.ask("GET", GET).status == 401
        assert team.ask("GET", GET, **given).status == 200
        assert team.ask("GET", GET, Host="runs.example.org", **given).status == 200
        assert team.ask("GET", GET, Host="evil.example.org", **given).status == 403
        assert team.ask("GET", "/health").status == 200


def test_postgresql_keeps_users_too(isolated, postgres):
    here = asked(isolated / "home", postgres)
    here.user("ada", password="a long password", admin=True)
    here.user("bob")
    mine, other = here.experiment("mine", bob=Role.WRITE), here.experiment("other")
    run, foreign = (here.store.create_run(NewRun(experiment, 1)).id for experiment in (mine, other))
    create, log = "/api/2.0/mlflow/experiments/create", "/api/2.0/mlflow/runs/log-metric"
    fields = {"key": "k", "value": 1, "timestamp": 1}
    assert here.call("POST", log, "bob", run_id=run, **fields).status == 200
    assert here.call("POST", log, "bob", run_id=foreign, **fields).status == 403
    assert here.call("POST", log, run_id=run, **fields).status == 401
    assert here.ask("GET", GET, authorization=basic("ada", "a long password")).status == 200
    files = "/api/2.0/mlflow-artifacts/artifacts"
    assert here.ask("PUT", f"{files}/{mine}/{run}/artifacts/a", b"x", authorization=f"Bearer {here.tokens['bob']}").status == 200
    assert here.call("GET", f"{files}/{other}/{foreign}/artifacts/a", "bob").status == 403
    made = message(here.call("POST", create, "bob", name="own", artifact_location="mlflow-artifacts:/bob"))["experiment_id"]
    assert here.call("POST", create, "bob", name="own too", artifact_location="mlflow-artifacts:/bob/x").status == 400
    found = message(here.call("POST", "/api/2.0/mlflow/experiments/search", "bob", max_results=10))["experiments"]
    assert sorted(item["experiment_id"] for item in found) == sorted([mine, made])
    view = next(user for user in here.users.all() if user.name == "bob")
    assert [(grant.name, grant.role) for grant in view.grants] == [("mine", "write"), ("own", "admin")]
    assert here.users.remove_tokens("bob") == 1
    here.users.remove("bob")
    assert [user.name for user in here.users.all()] == ["ada"]
    here.store.close()
