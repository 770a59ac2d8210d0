"""Who may do what: roles on experiments and on the model registry, and the callers that hold them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field
from enum import IntEnum

from runproj.core.values import dataclass


class Role(IntEnum):
    """What somebody may do with an experiment, or with the registry.  Each role may do what the ones before it may."""

    NONE = 0
    READ = 1
    WRITE = 2
    ADMIN = 3


def experiment_number(experiment_id: str) -> int | None:
    """The number that an experiment's id stands for; None for what can be no id."""
    return int(experiment_id) if experiment_id.isascii() and experiment_id.isdigit() and len(experiment_id) < 19 else None


@dataclass(frozen=True)
class Caller:
    """Whoever asks, with all that they may.

    account:    number of the user; None where the server knows no users, or where a token of a run stands for its project.
    admin:      may do everything.
    everywhere: role on every experiment, those still to be made included.
    registry:   role on registered models and their versions.
    grants:     roles on single experiments, by the experiment's number.
    """

    name: str
    account: int | None = None
    admin: bool = False
    everywhere: Role = Role.NONE
    registry: Role = Role.READ
    grants: Mapping[int, Role] = field(default_factory=dict)

    def role(self, experiment: int) -> Role:
        """What the caller may do with an experiment."""
        return Role.ADMIN if self.admin else max(self.everywhere, self.grants.get(experiment, Role.NONE))

    def on_registry(self) -> Role:
        return Role.ADMIN if self.admin else self.registry

    def readable(self) -> frozenset[int] | None:
        """Numbers of the experiments that the caller may read; None for all."""
        if self.admin or self.everywhere >= Role.READ:
            return None
        return frozenset(number for number, role in self.grants.items() if role >= Role.READ)

    def narrowed(self, experiments: Iterable[str]) -> Sequence[str]:
        """Those of `experiments`, given by id, that the caller may read.  What can be no id is left for the store to refuse."""
        readable = self.readable()
        if readable is None:
            return list(experiments)
        numbers = [(text, experiment_number(text)) for text in experiments]
        return [text for text, number in numbers if number is None or number in readable]


OPERATOR = Caller("", admin=True)
"""Whoever reaches a server that knows no users: only people of this machine can."""


@dataclass(frozen=True)
class GrantView:
    """A role on one experiment."""

    experiment: str
    name: str
    role: str


@dataclass(frozen=True)
class KeptToken:
    """What is kept of a token, which is not the token.  Times in milliseconds since the epoch; `expires` is None for never.

    id:   the beginning of its digest, by which it is taken back.
    name: what its maker called it; empty for nothing.
    """

    id: str
    name: str
    created: int
    expires: int | None


@dataclass(frozen=True)
class UserView:
    """A user.  Times in milliseconds since the epoch.

    password: there is one; without it, only tokens let the user in.
    everywhere, registry: roles on all experiments and on registered models.
    """

    name: str
    admin: bool
    password: bool
    everywhere: str
    registry: str
    created: int
    grants: tuple[GrantView, ...] = ()
    tokens: tuple[KeptToken, ...] = ()


@dataclass(frozen=True)
class UserList:
    """`user list`."""

    users: tuple[UserView, ...]


@dataclass(frozen=True)
class TokenView:
    """`user token`: shown once, kept nowhere.  `expires` in milliseconds since the epoch, None for never."""

    user: str
    token: str
    expires: int | None
    id: str = ""
    name: str = ""
