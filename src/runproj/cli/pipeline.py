"""`run` of an entry point that needs others: a line for each step, and what became of all of them."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from runproj.cli import detached_pipeline, output, plans
from runproj.errors import RunprojError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from runproj.cli.run import Asked
    from runproj.core.pipeline import Graph, PipelineView, StepView
    from runproj.core.plan import Request
    from runproj.core.run import Run
    from runproj.runner import Opened
    from runproj.wiring import Wiring

_DIM = "\x1b[2m"
_TAIL = 8
"""Lines of a failed step's output that are shown."""


def run(opened: Opened, request: Request, asked: Asked, wiring: Wiring) -> int:
    """Run what has to be run; the exit code is that of the first step that failed."""
    from runproj.core.pipeline import PipelineView
    from runproj.pipelines import deciding
    from runproj.pipelines.engine import Engine
    from runproj.pipelines.outlook import outlook

    use = wiring.services()
    if asked.repeat > 1:
        use.sources.discard(opened.checkout)
        what = f"--repeat is for a single run, and {request.entry_point!r} needs others"
        raise UsageError(what, fix="--force runs every step again.")
    told = detached_pipeline.told()
    if asked.detach and told is None and not asked.dry_run:
        use.sources.discard(opened.checkout)
        return detached_pipeline.begin(wiring, as_json=asked.json, quiet=asked.quiet)
    pipeline = deciding.plan(opened, request, deciding.Wishes(asked.force, asked.from_step), use)
    if asked.dry_run:
        steps = outlook(pipeline, use)
        use.sources.discard(pipeline.checkout)
        plans.show_steps(PipelineView(None, request.entry_point, "PLANNED", steps), as_json=asked.json)
        return 0
    watch = Watch(pipeline.graph, wiring, quiet=asked.quiet and told is None)
    if told is not None:
        watch.known = lambda parent: detached_pipeline.tell(told, parent, use)
    parallel = asked.parallel or len(os.sched_getaffinity(0))
    begun = time.monotonic()
    try:
        view = Engine(pipeline, use, wiring.leases, watch, parallel).run()
    except KeyboardInterrupt:
        watch.wipe()
        output.say("What has finished is kept: the same command goes on from there.")
        raise
    watch.wipe()
    if asked.json:
        output.write_json(view)
    elif not asked.quiet:
        _say_end(view, time.monotonic() - begun)
    return view.exit_code


def _say_end(view: PipelineView, took: float) -> None:
    counted: dict[str, int] = {}
    for step in view.steps:
        counted[step.state.value] = counted.get(step.state.value, 0) + 1
    if view.run is None and view.exit_code == 0:
        output.say(f"Nothing had to be run: {output.clean(view.steps[-1].step)} is up to date ({view.steps[-1].run[:8]}).")
        return
    good = view.status == "FINISHED"
    word = output.paint(view.status, "\x1b[32m" if good else "\x1b[31;1m", sys.stderr)
    told = ", ".join(f"{number} {word}" for word, number in counted.items())
    name = f"  {output.clean(view.name)} ({view.run[:8]})" if view.run else ""
    output.say(f"{word} in {output.seconds(took)}{name}  {told}")


class Watch:
    """Tells how a pipeline gets on: a line for each step when it is over, and on a terminal one below that moves."""

    def __init__(self, graph: Graph, wiring: Wiring, *, quiet: bool) -> None:
        self._wiring, self._quiet = wiring, quiet
        self._live = not quiet and output.TerminalReporter().live
        self._width = max(12, *(output.width(name) + 2 for name in graph.names))
        self._running: dict[str, float] = {}
        self.known: Callable[[Run], None] = lambda _: None

    def begun(self, parent: Run) -> None:
        self.known(parent)
        if not self._quiet:
            self.wipe()
            word = output.paint("pipeline    ", _DIM, sys.stderr)
            output.say(f"{word}{output.clean(parent.name)} ({parent.id[:8]})")

    def started(self, step: str) -> None:
        self._running[step] = time.monotonic()
        self.passing()

    def adopted(self, step: str, run: Run) -> None:
        if not self._quiet:
            self.wipe()
            self._line(step, "waiting", "", "", run.id, "it runs already")
        self.started(step)

    def settled(self, view: StepView, run: Run | None) -> None:
        from runproj.core.pipeline import StepState

        self._running.pop(view.step, None)
        bad = view.state in (StepState.FAILED, StepState.KILLED)
        if self._quiet and not bad:
            return
        self.wipe()
        colours = {StepState.FINISHED: "\x1b[32m", StepState.REUSED: _DIM, StepState.SKIPPED: "\x1b[33m"}
        took = output.seconds(view.seconds) if view.seconds is not None and view.state is not StepState.REUSED else ""
        why = view.reason.partition("\n")[0] if bad or view.state is StepState.SKIPPED else view.why
        self._line(view.step, view.state.value, colours.get(view.state, "\x1b[31;1m"), took, view.run, why)
        if view.state is StepState.FAILED:
            self._show_failure(view, run)
        self.passing()

    def _line(self, step: str, word: str, colour: str, took: str, run: str, why: str) -> None:
        painted = output.paint(f"{word:<9}", colour, sys.stderr) if colour else f"{word:<9}"
        gap = " " * (self._width - output.width(step))
        output.say(f"{output.clean(step)}{gap}{painted} {took:>6}  {run[:8]:<8}  {output.clean(why)}".rstrip())

    def _show_failure(self, view: StepView, run: Run | None) -> None:
        lines = view.reason.splitlines()[1:]
        if run is not None:
            lines += self._tail(run)
        for line in lines:
            output.say(f"    {output.clean(line)}")
        if view.run:
            hint = output.paint(f"runproj runs logs -a {view.run[:8]}", _DIM, sys.stderr)
            output.say(f"    {hint}")

    def _tail(self, run: Run) -> list[str]:
        """The end of what a run wrote to standard error."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "stderr.log"
            try:
                self._wiring.artifacts.get(run, "logs/stderr.log", path)
                with path.open("rb") as file:
                    file.seek(max(0, path.stat().st_size - 8192))
                    return file.read().decode(errors="replace").splitlines()[-_TAIL:]
            except (RunprojError, OSError):
                return []

    def passing(self) -> None:
        """Say what runs, over what was said last."""
        if self._live and self._running:
            now = time.monotonic()
            told = ", ".join(f"{output.clean(step)} {output.seconds(now - since)}" for step, since in self._running.items())
            output.move(f"{'running':<12}{told}")

    def stopping(self) -> None:
        self.wipe()
        output.say(f"Stopping {', '.join(output.clean(step) for step in self._running)} …  (Ctrl-C again not to wait for them)")

    def wipe(self) -> None:
        """Take away what moves."""
        output.move("")
