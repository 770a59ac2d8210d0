"""What a guard is told to run: a command on this machine, or one in a container."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from runproj import child, supervise
from runproj.core.call import Call
from runproj.core.environment import Environment
from runproj.core.plan import Plan
from runproj.core.run import Run
from runproj.core.services import Services
from runproj.core.source import Checkout
from runproj.errors import BackendError, RunprojError
from runproj.files import write_descriptor

if TYPE_CHECKING:
    from runproj.containers import Box

_INIT = re.compile(r"^\[FATAL tini \(\d+\)\] exec (?P<program>.*) failed: (?P<why>.*)$", re.MULTILINE)
"""How the init process of a container says that it cannot start the command (the engine's docker-init is tini)."""

_PATIENCE = "trap 'wait; exit 143' TERM; trap 'wait; exit 129' HUP; "
"""The container ends with its shell.  So the shell, which is asked to stop as everything else is, waits for what it runs."""


@dataclass(frozen=True)
class Task:
    """A command and what it is run in.

    given: variables that name inputs;  box: the container; None for a command on the host.
    """

    plan: Plan
    run: Run
    use: Services
    checkout: Checkout
    environment: Environment
    box: Box | None = None
    argv: tuple[str, ...] = ()
    given: Mapping[str, str] = field(default_factory=dict)

    @property
    def address(self) -> str:
        """Where the run's endpoint must listen for the command to reach it."""
        return self.box.address if self.box else child.LOOPBACK

    def with_call(self, call: Call, given: Mapping[str, str], secrets: Mapping[str, str]) -> Task:
        """The task of running a call whose paths are on this machine."""
        if self.box is None:
            return replace(self, argv=call.argv(secrets), given=given)
        call = self.box.call(call)
        argv = call.argv(secrets)
        if call.command.shell is not None and argv[:2] == ("bash", "-c"):
            argv = (self.box.shell_for(argv[2]), "-c", _PATIENCE + argv[2], *argv[3:])
        return replace(self, argv=argv, given=self.box.variables(given))

    def variables(self, link: child.Link) -> dict[str, str]:
        """The variables of the command."""
        if self.box:
            variables = child.contained(self.plan, link, self.address)
            if self.box.network == "none":
                variables["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"  # in vain, and for minutes
            return self.box.environment({**self.given, **variables})
        return child.environment(self.plan, self.run, self.environment, self.use, {**self.given, **link.variables})

    @contextlib.contextmanager
    def ready(self, variables: Mapping[str, str]) -> Iterator[supervise.CommandSpec]:
        """What to tell the guard; what it needs is there until the end of the block, and nothing is left of it after that."""
        options = self.plan.options
        if self.box is None:
            argv = child.resolve(self.argv, variables)
            yield supervise.CommandSpec(argv, self.checkout.project, variables, options.timeout, options.grace)
            return
        order = self.box.order(self.argv, variables, child.client_folder(self.use), child.spool(self.run, self.use))
        descriptor = os.memfd_create("order")
        try:
            write_descriptor(descriptor, order)
            self.box.mark()
            plain = {name: value for name, value in os.environ.items() if not name.startswith(("RUNPROJ_", "MLFLOW_"))}
            words, keep = (str(descriptor),), (descriptor,)
            yield supervise.CommandSpec(words, self.box.folder, plain, options.timeout, options.grace, "contained.py", keep)
        finally:
            os.close(descriptor)
            self.box.remove()

    def failure(self, said: str) -> RunprojError:
        """Why the guard could not run the command, for people."""
        if self.box is None:
            return BackendError("The command could not be run", why=said)
        from runproj.containers import explain

        return explain(said, self.plan)


def task(plan: Plan, run: Run, use: Services, checkout: Checkout, environment: Environment, token: str) -> Task:
    """The task of executing a plan here; `token` is the run's lease."""
    bare = Task(plan, run, use, checkout, environment)
    if environment.image is None:
        return bare
    from runproj import containers, engine, trust
    from runproj.core.container import options

    trust.require(plan, use.home, checkout.project)
    owner = containers.Identity(run.id, token, use.home)
    where, folder = engine.find(os.environ), use.runs / run.id
    box = containers.Box(owner, plan, environment.image, checkout, folder, where, options(plan.options.docker_args))
    box.sweep()
    return replace(bare, box=box)


def not_in_image(said: str, code: int) -> str:
    """Why the command of a container could not be started, where that is why it ended; else nothing."""
    if code in (126, 127) and (found := _INIT.search(said)):
        return f"the command {found['program']!r} could not be started in the image: {found['why']}"
    return ""
