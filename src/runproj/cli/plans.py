"""A plan, and what would run of a pipeline, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runproj.cli import output

if TYPE_CHECKING:
    from runproj.core.pipeline import PipelineView
    from runproj.runner import Planned


def show(planned: Planned, *, as_json: bool) -> None:
    """What would be run."""
    decided = planned.plan
    if as_json:
        output.write_json(decided)
        return
    pin, lock = decided.code, decided.lock
    rows = [
        ("code", f"{pin.uri}{'#' + pin.subdirectory if pin.subdirectory else ''}"),
        ("commit", f"{pin.commit or '(no git) tree ' + pin.tree}{' + uncommitted changes' if pin.dirty else ''}"),
        ("descriptor", decided.descriptor or "none"),
        ("environment", f"{lock.manager.value} from {lock.origin}, lock {lock.digest[:12]}"),
        *([("image", lock.image.words)] if lock.image else []),
        ("python", f"{lock.python.implementation} {lock.python.version}" if lock.python else "-"),
        ("packages", str(lock.package_count) + (f" as of {lock.as_of}" if lock.as_of else "")),
        ("command", decided.call.shown()),
        *(
            (f"  {value.name}", f"{'(secret)' if value.value is None else value.value}  ({value.source})")
            for value in decided.call.values
        ),
    ]
    widest = max(12, *(output.width(name) + 1 for name, _ in rows))
    for name, text in rows:
        output.write(f"{output.dim(name)}{' ' * (widest - output.width(name))}{output.clean(text)}")
    output.say("Nothing was started.  --json prints the whole plan.")


_WORDS = {"run": "would run", "open": "may run", "reused": "reused", "failed": "cannot run"}


def show_steps(view: PipelineView, *, as_json: bool) -> None:
    """What would be run of a pipeline, and why."""
    if as_json:
        output.write_json(view)
        return
    rows = [(step.step, _WORDS[step.state.value], step.run[:8], step.why or step.reason) for step in view.steps]
    output.table(("STEP", "", "RUN", "WHY"), rows)
    output.say("Nothing was started.  --json prints the same as a document.")
