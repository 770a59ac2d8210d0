"""Who asks: users by password or token, checked against the store, and remembered for a moment.

What is remembered is used for up to two seconds: so long a removed user, a token that was taken back or a role that was lowered
may still be good.  A role that was given counts at once: nothing is refused by what is remembered.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import threading
import time
from dataclasses import dataclass

from runproj.core.access import OPERATOR, Caller
from runproj.server.protocol import Problem, Request
from runproj.tracking import passwords
from runproj.tracking.users import Known, Users

_FRESH = 2.0  # seconds
_MOST = 10_000
_WINDOW = 60.0  # seconds in which failures are counted
_FAILURES = 10
_AT_ONCE = 2  # passwords that are checked at the same time: each takes 16 MB and a processor


@dataclass
class _Seen:
    """Credentials that were good at `when`; `kept` is what the password was checked against, empty for a token."""

    caller: Caller
    when: float
    kept: str


class Accounts:
    """Finds out who sent a request.

    required: users are asked for even while there are none.  Otherwise a server without users lets everybody in, until there
              is the first one.
    """

    def __init__(self, users: Users, *, required: bool = False) -> None:
        self._users = users
        self._required = required
        self._looked = float("-inf")
        self._seen: dict[bytes, _Seen] = {}
        self._salt = os.urandom(16)  # what is remembered is of no use elsewhere
        self._failures = Failures()
        self._checking = threading.BoundedSemaphore(_AT_ONCE)

    def admit(self, request: Request) -> Caller:
        """The caller.  Raises `Problem` (401, 429)."""
        if not self.asks():
            return OPERATOR
        given = request.headers.get("authorization")
        if given is None:
            raise _unknown(
                "Say who you are: set MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD."
            )
        key = hashlib.sha256(self._salt + given.encode(errors="replace")).digest()
        seen, now = self._seen.get(key), time.monotonic()
        if seen is not None and now - seen.when < _FRESH:
            return seen.caller
        known, kept = self._identify(given, request.peer, seen)
        if len(self._seen) >= _MOST:
            self._seen.clear()
        self._seen[key] = _Seen(known.caller, now, kept)
        return known.caller

    def renew(self, caller: Caller) -> Caller:
        """The caller with the roles of this moment.  Raises `Problem` (401) for a user who is gone."""
        if caller.account is None:
            return caller
        if known := self._users.numbered(caller.account):
            return known.caller
        raise _unknown("There is no such user any more.")

    def asks(self) -> bool:
        """Whether this server asks who somebody is.  Once it does, it does so until it ends."""
        if not self._required and time.monotonic() - self._looked > _FRESH:
            self._required = self._users.any()
            self._looked = time.monotonic()
        return self._required

    def _identify(self, given: str, peer: str, seen: _Seen | None) -> tuple[Known, str]:
        scheme, _, rest = given.partition(" ")
        match scheme.lower():
            case "bearer":
                return self._by_token(rest.strip(), None), ""
            case "basic":
                name, password = _pair(rest.strip())
                if password.startswith(passwords.TOKEN):
                    return self._by_token(password, name), ""
                known = self._by_password(name, password, peer, seen)
                return known, known.password
        raise _unknown("Only Basic and Bearer are understood.")

    def _by_token(self, token: str, name: str | None) -> Known:
        known = self._users.holding(passwords.token_digest(token))
        if known is None or (name is not None and name != known.caller.name):
            raise _unknown("The token is not known here, or has ended.")
        return known

    def _by_password(self, name: str, password: str, peer: str, seen: _Seen | None) -> Known:
        known = self._users.named(name)
        if known and seen and seen.kept == known.password and seen.kept:
            return known
        self._failures.check(name, peer)
        if not self._checking.acquire(timeout=10):
            raise Problem("TEMPORARILY_UNAVAILABLE", "Too many passwords are being checked.", 503, {"Retry-After": "1"})
        try:
            right = passwords.fits(password, known.password if known else "")
        finally:
            self._checking.release()
        if not known or not right:
            self._failures.note(name, peer)
            raise _unknown("The name or the password is wrong.")
        self._failures.forget(name, peer)
        return known


class Failures:
    """Wrong passwords by name and address: after ten within a minute, no more are looked at until the minute is over."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str], tuple[float, int]] = {}
        self._lock = threading.Lock()

    def check(self, name: str, peer: str) -> None:
        """Raises `Problem` (429)."""
        since, count = self._counts.get((name, peer), (0.0, 0))
        left = since + _WINDOW - time.monotonic()
        if count >= _FAILURES and left > 0:
            message = f"Too many wrong passwords for this name; try again in {int(left) + 1} s."
            raise Problem("REQUEST_LIMIT_EXCEEDED", message, 429, {"Retry-After": str(int(left) + 1)})

    def note(self, name: str, peer: str) -> None:
        with self._lock:
            now = time.monotonic()
            if len(self._counts) >= _MOST:
                self._counts = {key: found for key, found in self._counts.items() if now - found[0] < _WINDOW}
            since, count = self._counts.get((name, peer), (now, 0))
            self._counts[name, peer] = (since, count + 1) if now - since < _WINDOW else (now, 1)

    def forget(self, name: str, peer: str) -> None:
        with self._lock:
            self._counts.pop((name, peer), None)


def _unknown(message: str) -> Problem:
    return Problem("UNAUTHENTICATED", message, 401, {"WWW-Authenticate": 'Basic realm="runproj", charset="UTF-8"'})


def _pair(encoded: str) -> tuple[str, str]:
    try:
        name, colon, password = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        raise _unknown("The credentials cannot be read.") from None
    if not colon:
        raise _unknown("The credentials cannot be read.")
    return name, password
