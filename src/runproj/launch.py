"""What a guard is told to run: a command on this machine, or one in a container."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import field, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from runproj import child, supervise
from runproj.core.call import Call
from runproj.core.dialect import shell_for
from runproj.core.environment import Environment
from runproj.core.plan import Plan
from runproj.core.project import ParameterType
from runproj.core.run import Run
from runproj.core.services import Services
from runproj.core.source import Checkout
from runproj.core.values import dataclass
from runproj.errors import BackendError, RunprojError
from runproj.files import explained, write_descriptor

if TYPE_CHECKING:
    from runproj.audit import Scope, Watch
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
            argv = call.argv(secrets)
            if self.use.inside and call.command.shell is not None and argv[:2] == ("bash", "-c"):
                argv = (shell_for(argv[2], bash=shutil.which("bash") is not None), *argv[1:])
            return replace(self, argv=argv, given=given)
        call = self.box.call(call)
        argv = call.argv(secrets)
        if call.command.shell is not None and argv[:2] == ("bash", "-c"):
            argv = (self.box.shell_for(argv[2]), "-c", _PATIENCE + argv[2], *argv[3:])
        return replace(self, argv=argv, given=self.box.variables(given))

    def variables(self, link: child.Link) -> dict[str, str]:
        """The variables of the command."""
        if self.box:
            variables = child.contained(self.plan, link, self.address)
            if self.box.far and self.box.typed.reach and self.use.endpoint is not None:
                server = urlsplit(variables["MLFLOW_TRACKING_URI"])
                variables["MLFLOW_TRACKING_URI"] = f"http://{self.box.typed.reach}:{server.port}"
            elif self.box.network == "none" or (self.box.far and self.use.endpoint is not None):
                variables["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"  # in vain, and for minutes
            return self.box.environment({**self.given, **variables})
        return child.environment(self.plan, self.run, self.environment, self.use, {**self.given, **link.variables})

    @contextlib.contextmanager
    def ready(self, variables: Mapping[str, str]) -> Iterator[supervise.CommandSpec]:
        """What to tell the guard; what it needs is there until the end of the block.  `finish` has to follow."""
        options = self.plan.options
        if self.box is None:
            argv = child.resolve(self.argv, variables)
            told = self.use.told
            yield supervise.CommandSpec(argv, self.checkout.project, variables, options.timeout, options.grace, told=told)
            return
        order = self.box.order(self.argv, variables, child.client_folder(self.use))
        descriptor = os.memfd_create("order")
        try:
            write_descriptor(descriptor, order)
            self.box.mark()
            plain = {name: value for name, value in os.environ.items() if not name.startswith(("RUNPROJ_", "MLFLOW_"))}
            yield supervise.CommandSpec(
                (str(descriptor),),
                self.box.folder,
                plain,
                options.timeout,
                options.grace,
                guard="contained.py",
                keep=(descriptor,),
                lingers=True,
            )
        except BaseException:
            self.finish()
            raise
        finally:
            os.close(descriptor)

    def take_over(self, link: child.Link) -> None:
        """Have what a container logged, and could not send, where `child.send_what_is_left` looks for it."""
        if self.box and self.box.spool.is_dir() and os.listdir(self.box.spool):
            from runproj.salvage import salvage

            about = {"uri": link.variables["MLFLOW_TRACKING_URI"], "home_uri": self.use.tracking_uri, "run": self.run.id}
            salvage(self.box.spool, child.spool(self.run, self.use), about, files=link.endpoint is not None)

    def finish(self) -> None:
        """Wait until nothing is left of the command."""
        if self.box and not supervise.settle():  # the guard was killed
            self.box.remove()

    def watched(self, spec: supervise.CommandSpec, link: child.Link, folder: Path) -> Watch | None:
        """What looks on while the command runs, where that was asked for."""
        if self.plan.options.audit == "never" or self.box:
            return None
        from runproj import audit

        return audit.watch(spec, self._scope(link), folder / "audit.log", strict=self.plan.options.audit == "strict")

    def _scope(self, link: child.Link) -> Scope:
        """What the command may open without saying so."""
        from runproj.audit import Scope, addresses

        home, python = self.use.home, self.environment.lock.python
        mine = [self.checkout.root, self.use.runs / self.run.id, *self.environment.bin, child.spool(self.run, self.use)]
        mine += [home / "cache" / "client", home / "cache" / "git", home / "capsules" / "git"]
        mine += [self.environment.path] if self.environment.path else []
        if python:  # as it was named, and where it really is
            mine += [path.parent.parent for path in (Path(python.path), Path(os.path.realpath(python.path)))]
        mine += [Path(path) for path in self.given.values()]
        values = (value.resolved or value.value or "" for value in self.plan.call.values if value.type is ParameterType.PATH)
        mine += [Path(text) for text in values if text.startswith("/")]
        server = urlsplit(link.variables.get("MLFLOW_TRACKING_URI", ""))
        port = server.port or {"http": 80, "https": 443}.get(server.scheme, 0)
        return Scope(tuple(mine), time.time(), addresses(server.hostname, port) if server.hostname else frozenset())

    def failure(self, said: str) -> RunprojError:
        """Why the guard could not run the command, for people."""
        if self.box is None:
            return BackendError("The command could not be run", why=said)
        return explain(said, self.plan)


def laid_out(plan: Plan, use: Services, into: Path) -> Checkout:
    """The code of a plan in a folder of its own; taken from where it was laid out for this executor, which may have no git."""
    if use.inside is None:
        return use.sources.checkout(plan.code, into)
    with explained(into):
        into.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(use.inside, into)
    return Checkout(plan.code, into)


def environment(plan: Plan, use: Services, checkout: Checkout) -> Environment:
    """That of a plan, which is here on return."""
    if use.inside is not None:
        return Environment(plan.lock)
    return use.environments.ensure(plan.lock, checkout.project, use.reporter.progress)


def task(bare: Task, token: str, note: Callable[[str], None]) -> Task:
    """The task of executing a plan here, ready for its call; `token` is the run's lease, `note` takes what is to be recorded."""
    plan, run, use, checkout, environment = bare.plan, bare.run, bare.use, bare.checkout, bare.environment
    if environment.image is None:
        return bare
    from runproj import containers, engine, far_engine, trust
    from runproj.core.container import options

    pin = plan.lock.image
    if pin and pin.id and pin.id != environment.image.id:
        built_anew = f"The image {pin.id} is gone: one built again from the same inputs is used, {environment.image.id}."
        note(built_anew if pin.inputs else f"The image has another id here than where it was pinned: {environment.image.id}.")
    trust.require(plan, use.home, checkout.project)
    owner = containers.Identity(run.id, token, use.home)
    where, folder = engine.find(os.environ), use.runs / run.id
    box = containers.Box(owner, plan, environment.image, checkout, folder, where, options(plan.options.docker_args))
    here = urlsplit(use.tracking_uri).hostname in ("localhost", "127.0.0.1", "::1")
    if use.endpoint is None and here and box.network != "host":
        note("The tracking server is on this machine's loopback, which the container does not reach: use its other address.")
    box.sweep()
    probe = {"Image": environment.image.id, "Labels": owner.labels}
    if not far_engine.sees(folder, use.home, probe, f"{owner.name}-sees", where):
        box.far = True
        note(f"The {far_engine.named(where)} does not see this machine's folders: files are copied there, and back at the end.")
        if use.endpoint is not None and not box.typed.reach:
            note("It does not reach this machine's store: `import runproj` logs all the same, mlflow needs `-A reach=ADDRESS`.")
    return replace(bare, box=box)


def not_in_image(said: str, code: int) -> str:
    """Why the command of a container could not be started, where that is why it ended; else nothing."""
    if code in (126, 127) and (found := _INIT.search(said)):
        return f"the command {found['program']!r} could not be started in the image: {found['why']}"
    return ""


def explain(message: str, plan: Plan) -> BackendError:
    """The engine's refusal of a container, for people."""
    what, fix = "The container could not be started", ""
    name = plan.lock.image.asked.image if plan.lock.image else "the image"
    if "could not be fetched" in message:  # why that is may have any of the words that follow
        what = "The command ended, and what it left did not come back"
    elif "could not select device driver" in message and "gpu" in message:
        what = "The engine has no way to give a container GPUs"
        fix = "Install the NVIDIA container toolkit and restart the engine, or run it without GPUs."
    elif "bind source path does not exist" in message:
        what = "Something to be mounted does not exist"
        fix = "Make the folder; or, if it is there, name a folder that the engine's machine has too."
    elif "No such image" in message:
        what = f"The image {name} is gone"
    elif "executable file not found" in message or "no such file or directory" in message:
        what = "The command is not in the image"
    elif "the engine is gone" in message:
        what = "The Docker engine went away while the command ran"
    return BackendError(what, why=message, fix=fix)
