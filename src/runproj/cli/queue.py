"""`worker`, `queue list|move|remove`: the queue of this machine."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from runproj.cli import complete, output
from runproj.cli import options as opt
from runproj.cli.logs import looking
from runproj.errors import BackendError, RunprojError, UsageError

if TYPE_CHECKING:
    from runproj.backends.queue_folder import QueueFolder
    from runproj.core.outcome import Outcome
    from runproj.core.queue import Entry, QueueEntry, QueueList, Worker
    from runproj.core.run import Run
    from runproj.wiring import Wiring

_NEWS = 15.0
"""Seconds after which what runs log is taken into the store, even if nobody looks."""
_AGAIN, _SELDOM = 3.0, 120.0
"""Seconds after which it is tried again where a run that has ended could not be closed yet: at first, and at last."""

QueuedRun = Annotated[
    str, typer.Argument(metavar="RUN", help="Id, beginning of an id, name, or @last.", autocompletion=complete.queued)
]
QueuedRuns = Annotated[
    list[str], typer.Argument(metavar="RUN…", help="Ids, beginnings of ids, names, or @last.", autocompletion=complete.queued)
]


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="Look at the queue of this machine, and change it.", rich_markup_mode=None, no_args_is_help=True)
    for name, command in (("list", list_), ("move", move), ("remove", remove)):
        group.command(name)(command)
    app.add_typer(group, name="queue")
    app.command("worker")(worker)


def worker(
    gpus: Annotated[
        str,
        typer.Option(
            "--gpus",
            metavar="IDS|all",
            help="GPUs to give to runs, one run each at a time: 0,1.",
            autocompletion=complete.words("all"),
        ),
    ] = "",
    parallel: Annotated[
        int | None,
        typer.Option("--parallel", "-j", min=1, metavar="N", help="So many runs at a time; by default one, or one for each GPU."),
    ] = None,
    drain: Annotated[bool, typer.Option("--drain", help="End when the queue holds nothing that this worker can take.")] = False,
) -> None:
    """Run what is in the queue, highest priority first, as slots and GPUs become free.

    Asked to end (Ctrl-C, SIGTERM), it begins nothing more and waits for what runs. Asked again, it stops that and puts it
    back: the same runs begin again with the next worker. If it is killed, what runs goes on, and the next worker looks after it.
    """
    import secrets as tokens

    from runproj.core.queue import Worker
    from runproj.working import Working

    wiring = looking()
    ids = _gpus(gpus)
    me = Worker(tokens.token_hex(4), os.getpid(), parallel or len(ids) or 1, ids, int(time.time() * 1000))
    stops: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda received, _: stops.append(received))
    watch = _Watch(wiring, stops)
    output.say(f"Worker {me.id}: {_has(me)}.  Ctrl-C lets what runs end; a second one puts it back into the queue.")
    Working(wiring.settings.home, me, watch, stops, drain=drain, environ=os.environ).run()
    watch.bring()
    output.say(f"Worker {me.id} has ended." + (f"  {output.count(watch.over, 'run')} ended." if watch.over else ""))


def _gpus(text: str) -> tuple[str, ...]:
    """Ids of GPUs, as they were typed, or all that there are.  Raises `UsageError`, `BackendError`."""
    if text.strip().lower() == "all":
        return _all_gpus()
    ids = tuple(word.strip() for word in text.split(",")) if text.strip() else ()
    if not all(ids) or len({*ids}) < len(ids):
        raise UsageError(f"{text!r} names no GPUs", fix="Write ids with commas between them, each once: --gpus 0,1")
    return ids


def _all_gpus() -> tuple[str, ...]:
    """What nvidia-smi lists.  Raises `BackendError` where it is not here, or lists none."""
    import shutil

    from runproj import proc

    program = shutil.which("nvidia-smi")
    if program is None:
        raise BackendError("nvidia-smi is not here, so it is not known which GPUs there are", fix="Name them: --gpus 0,1")
    done = proc.run([program, "--query-gpu=index", "--format=csv,noheader"], timeout=60)
    ids = tuple(done.out.decode(errors="replace").split())
    if done.code or not ids:
        raise BackendError("nvidia-smi lists no GPUs", why=done.text[-500:], fix="Name them: --gpus 0,1")
    return ids


def _has(worker: Worker) -> str:
    slots = output.count(worker.parallel, "slot")
    return f"{slots}, GPU {', '.join(worker.gpus)}" if worker.gpus else slots


class _Watch:
    """Says what a worker does, and has what has ended recorded."""

    def __init__(self, wiring: Wiring, stops: Sequence[int]) -> None:
        self.over = 0
        self._wiring, self._stops = wiring, stops
        self._told = 0
        self._due, self._wait = 0.0, _AGAIN
        self._open: set[str] = set()

    def began(self, entry: Entry, gpus: Sequence[str], *, adopted: bool) -> None:
        had = f"  GPU {', '.join(gpus)}" if gpus else ""
        self._line("goes on" if adopted else "begins", entry, had + ("  (its worker is gone)" if adopted else ""))

    def ended(self, entry: Entry, outcome: Outcome | None) -> None:
        self.over, self._due, self._wait = self.over + 1, 0.0, _AGAIN
        self._open.add(entry.run)
        took = f"  {output.seconds(time.time() - entry.taken.since / 1000)}" if entry.taken else ""
        status, reason = (outcome.status.value, outcome.reason) if outcome else self._recorded(entry.run)
        self._line(status, entry, took + (f"  {output.clean(reason.partition(chr(10))[0])}" if reason else ""))

    def _recorded(self, run_id: str) -> tuple[str, str]:
        """Status and reason of a run that is in the store already: another command was faster."""
        from runproj.core.run import TagName

        try:
            run = self._wiring.tracking.get_run(run_id)
        except RunprojError:  # deleted for good
            return "ended", ""
        return run.status.value, run.tag(TagName.REASON) or ""

    def returned(self, entry: Entry) -> None:
        self._line("put back", entry, "  it begins again")

    def left(self, entry: Entry, why: str) -> None:
        self._line("is left", entry, f"  it needs {why}")

    def passing(self, *, busy: bool) -> None:
        if len(self._stops) > self._told:
            self._told = len(self._stops)
            if busy:
                once = "It begins nothing more, and waits for what runs.  Again: stops that, and puts it back."
                output.say(once if self._told == 1 else "Stopping what runs; it is put back into the queue.")
        if (self._open or busy) and time.monotonic() > self._due:
            self.bring()

    def bring(self) -> None:
        """Have what runs have recorded in the store."""
        try:
            self._wiring.recover()
        except RunprojError as error:
            output.say(f"Records could not be brought into the store: {error.what}. The next command that looks does it.")
        self._open &= {info.run_id for info in self._wiring.leases.all()}
        self._due = time.monotonic() + (self._wait if self._open else _NEWS)
        self._wait = min(_SELDOM, self._wait * 2)

    @staticmethod
    def _line(word: str, entry: Entry, more: str) -> None:
        clock = output.dim(datetime.now().strftime("%H:%M:%S"))
        output.write_now(f"{clock}  {word:<8}  {output.clean(entry.name)} ({entry.run[:8]}){more}")


def list_(json: opt.Json = False) -> None:
    """List what runs and what waits, in the order in which it will begin, and the workers."""
    wiring = looking()
    queue = _queue(wiring)
    with queue.locked():
        listed = queue.listed()
    _show(listed, json=json)


def move(
    reference: QueuedRun,
    priority: Annotated[int | None, typer.Option("--priority", metavar="N", help="Give it this priority.")] = None,
    first: Annotated[bool, typer.Option("--first", help="Before all others.")] = False,
    last: Annotated[bool, typer.Option("--last", help="After all others of its priority.")] = False,
    json: opt.Json = False,
) -> None:
    """Move a run that waits: to another priority, to the front, or behind the others of its priority."""
    from dataclasses import replace

    from runproj.core.queue import QueueState

    if [first, last, priority is not None].count(True) != 1:
        raise UsageError("It is not clear where it is to be moved", fix="Say --first, --last, or --priority N.")
    wiring = looking()
    run = wiring.find_run(reference)
    queue = _queue(wiring)
    with queue.locked():
        entry = queue.entry(run.id)
        if entry is None or queue.state(entry) is not QueueState.WAITING:
            raise _not_waiting(run)
        if first:
            others = [item.priority for item in queue.entries() if item.run != run.id and queue.state(item) is QueueState.WAITING]
            priority = max([entry.priority, *others])
        wanted = entry.priority if priority is None else priority
        queue.write(replace(entry, priority=wanted, order=queue.last(wanted, first=first)))
        listed = queue.listed()
    _show(listed, json=json)


def remove(references: QueuedRuns, json: opt.Json = False) -> None:
    """Take runs out of the queue that wait in it; they end as KILLED. `runs stop` does it too, and stops those that run."""
    from runproj.core.queue import QueueState

    wiring = looking()
    queue = _queue(wiring)
    found = [wiring.find_run(reference) for reference in references]
    for run in found:
        with queue.locked():
            entry = queue.entry(run.id)
            if entry is None or queue.state(entry) is not QueueState.WAITING:
                raise _not_waiting(run)
    for run in found:
        wiring.cancel(run)
        output.say(f"Removed {output.clean(run.name)} ({run.id[:8]}).")
    wiring.recover()
    with queue.locked():
        listed = queue.listed()
    if json:
        output.write_json(listed)


def _not_waiting(run: Run) -> UsageError:
    fix = "" if run.status.final else f"runproj runs stop {run.id[:8]}"
    return UsageError(f"Run {run.id[:8]} does not wait in the queue", why=f"It is {run.status.value}.", fix=fix)


def _queue(wiring: Wiring) -> QueueFolder:
    from runproj.backends.queue_folder import QueueFolder

    return QueueFolder(wiring.settings.home)


def _show(listed: QueueList, *, json: bool) -> None:
    if json:
        output.write_json(listed)
        return
    if listed.entries:
        header = ("POSITION", "STATE", "PRIORITY", "NEEDS", "GPU", "SINCE", "RUN", "NAME", "WAITS FOR")
        output.table(header, [_row(entry) for entry in listed.entries], right=(0, 2), spare=(5,))
    else:
        output.say("The queue is empty.")
    for item in listed.workers:
        output.say(f"Worker {item.id} (process {item.pid}): {_has(item)}.")
    if not listed.workers:
        output.say("No worker runs.  Start one with: runproj worker")


def _row(entry: QueueEntry) -> tuple[str, ...]:
    needs = [f"{entry.slots} slots"] if entry.slots > 1 else []
    needs += [output.count(entry.needs, "GPU")] if entry.needs is not None else []
    return (
        str(entry.position or ""),
        entry.state.value,
        str(entry.priority),
        ", ".join(needs),
        ",".join(entry.gpus),
        datetime.fromtimestamp((entry.since or entry.submitted) / 1000).strftime("%Y-%m-%d %H:%M"),
        entry.run[:8],
        entry.name,
        entry.waits,
    )
