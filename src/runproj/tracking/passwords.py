"""Passwords and tokens: what is kept of them, so that whoever reads the database cannot log in with what is there."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets

_COST = (1 << 14, 8, 1)
"""scrypt's n, r, p: 16 MB and some 50 ms for each guess (RFC 7914)."""

TOKEN = "rpj_"
"""What tokens begin with, so that they are found where they should not be."""


def keep(password: str) -> str:
    """What is stored of a password."""
    salt = os.urandom(16)
    return "$".join(("scrypt", *map(str, _COST), salt.hex(), _derived(password, salt, _COST).hex()))


def fits(password: str, kept: str) -> bool:
    """Whether it is the password that `kept` was made of; an empty `kept` stands for none, and takes as long to refuse."""
    _, n, r, p, salt, digest = (kept or _NOBODY).split("$")
    cost = (int(n), int(r), int(p))
    same = hmac.compare_digest(_derived(password, bytes.fromhex(salt), cost), bytes.fromhex(digest))
    return same and bool(kept)


def _derived(password: str, salt: bytes, cost: tuple[int, int, int]) -> bytes:
    return hashlib.scrypt(password.encode(errors="surrogateescape"), salt=salt, n=cost[0], r=cost[1], p=cost[2], dklen=32)


def new_token() -> str:
    """A token with 256 bits of chance."""
    return TOKEN + secrets.token_urlsafe(32)


def token_digest(token: str) -> str:
    """What is stored of a token: with that much chance in it, a plain hash cannot be guessed."""
    return hashlib.sha256(token.encode(errors="replace")).hexdigest()


_NOBODY = "$".join(("scrypt", *map(str, _COST), "00" * 16, "00" * 32))
