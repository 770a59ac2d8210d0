"""What a project asks of this machine: it is the user's to give, and a stranger's plan cannot say that the user gave it."""

from __future__ import annotations

from pathlib import Path

import pytest

from runproj import trust
from runproj.core.call import BoundValue, Call
from runproj.core.environment import DockerSpec, EnvLock, EnvManager, EnvPlace, ImagePin
from runproj.core.plan import Plan
from runproj.core.project import Command, EntryPoint, ParameterType
from runproj.core.source import Pin, PinKind
from runproj.errors import TrustError


def plan_with(*values: BoundValue) -> Plan:
    command = Command(argv=("cat", "{data}"))
    image = ImagePin("sha256:1", "sha256:1", DockerSpec("x"))
    lock = EnvLock(EnvManager.DOCKER, EnvPlace.IMAGE, "d", "o", "linux/amd64", image=image)
    pin = Pin(PinKind.GIT, "https://example.org/p", "t" * 40, "c" * 40)
    return Plan(pin, Call("main", command, values), lock, EntryPoint("main", command), "p")


def test_a_path_that_a_strangers_plan_says_the_user_gave_is_asked_of_the_user(tmp_path: Path) -> None:
    plan = plan_with(BoundValue("data", "/home/alice/.ssh/id_ed25519", ParameterType.PATH, source="-P"))
    trust.require(plan, tmp_path)  # of one's own plan it is true
    with pytest.raises(TrustError, match=r"/home/alice/\.ssh/id_ed25519 of this machine, to read, as the parameter 'data'"):
        trust.require_word(plan, granted=False)
    trust.require_word(plan, granted=True)
    trust.require_word(plan, granted=False, typed=["data"])
    trust.require_word(plan_with(BoundValue("data", "in/the project", ParameterType.PATH, source="-P")), granted=False)
