"""What is said of a run that goes on without this command."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runproj.cli import output

if TYPE_CHECKING:
    from runproj.core.run import Run
    from runproj.wiring import Wiring


def tell(run: Run, wiring: Wiring, *, as_json: bool, quiet: bool) -> None:
    """Print its id, or all of it, and how it is followed."""
    from runproj.core.run import TagName

    if as_json:
        output.write_json(run)
        return
    if not quiet:
        name, short = output.clean(run.name), run.id[:8]
        queued = run.tag(TagName.PROJECT_BACKEND) == "queue" and _place(run, wiring)
        first = f"In the queue: {name}{queued}" if queued else f"Running in the background: {name}"
        output.say(f"{first}\n  runproj runs logs -af {short}\n  runproj runs stop {short}")
    output.write(run.id)


def _place(run: Run, wiring: Wiring) -> str:
    """Where it is in the queue; empty where it has ended already."""
    from runproj.backends.queue_folder import QueueFolder
    from runproj.core.queue import QueueState

    queue = QueueFolder(wiring.settings.home)
    with queue.locked():
        listed = queue.listed()
    for entry in listed.entries:
        if entry.run == run.id:
            if entry.state is QueueState.RUNNING:
                return ", running"
            waits = f"\n  It waits: {output.clean(entry.waits)}" if entry.waits else ""
            return f", position {entry.position}{waits}"
    return ""
