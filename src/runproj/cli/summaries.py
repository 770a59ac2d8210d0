"""What the lists of commands say of each: one line that fits, where a command's own first sentence is longer."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import typer
    from typer.core import TyperGroup

SUMMARIES = {
    "run": "Run a project from a git URL, a folder or a .zip.",
    "plan": "Decide everything, print it, start nothing.",
    "rerun": "Run a recorded run again.",
    "reproduce": "Repeat a run, and say how much of its result came back.",
    "diff": "Show all that differs between two runs.",
    "wait": "Wait until runs have ended.",
    "validate": "Report every problem of a project's descriptor.",
    "init": "Write a runproj.yaml to start from.",
    "lock": "Pin the environment into a file to commit.",
    "gc": "Free what no run needs.",
    "doctor": "See whether this machine is fit.",
    "server": "Serve runs, artifacts and models to a team.",
    "worker": "Run what is in the queue.",
    "backends": "List where runs can be, and what can be said.",
    "sync": "Send what was logged while the server was away.",
    "import": "Take over a record of MLflow, or a capsule.",
    "export": "Give the record to MLflow, or one run to a capsule.",
    "report": "Write a page about a run for those who review it.",
    "ci": "Run, repeat and judge a project, in a CI job.",
    "runs search": "Find runs in MLflow's filter language.",
    "runs compare": "Put runs side by side.",
    "runs stop": "Stop runs with everything they started.",
    "experiments list": "List experiments with their number of runs.",
    "experiments delete": "Mark experiments as deleted, with their runs.",
    "models show": "Show the versions of a registered model.",
    "env prune": "Remove environments that no run used lately.",
    "env verify": "Compare every installed file with what was installed.",
    "user grant": "Give a user a role.",
    "user revoke": "Take back a role, or tokens.",
}


def put_summaries(app: typer.Typer) -> None:
    """Have the lists of commands say them."""
    places = [("", app), *((f"{group.name} ", group.typer_instance) for group in app.registered_groups)]
    for prefix, place in places:
        for info in place.registered_commands if place is not None else ():
            info.short_help = SUMMARIES.get(f"{prefix}{info.name}")


def in_order(names: Collection[str]) -> type[TyperGroup]:
    """A group that lists its commands in the order of `names`."""
    from typer.core import TyperGroup

    order = {name: number for number, name in enumerate(names)}

    class Ordered(TyperGroup):
        def list_commands(self, ctx: object) -> list[str]:  # noqa: ARG002 - Typer's signature
            found: Iterable[str] = self.commands
            return sorted(found, key=lambda name: order.get(name, len(order)))

    return Ordered
