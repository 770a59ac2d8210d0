"""A process that runs trials, one after another, for a sweep that speaks to it: an order a line comes in, answers go out."""

from __future__ import annotations

import os
import queue
import signal
import threading
from collections.abc import Callable, Mapping
from dataclasses import field, replace
from pathlib import Path
from typing import BinaryIO

from runproj import runner
from runproj.codec import from_json, to_json
from runproj.core.call import Call
from runproj.core.plan import Plan, RunOptions
from runproj.core.run import Run
from runproj.core.services import Services
from runproj.core.values import dataclass
from runproj.errors import Interrupted, RunprojError
from runproj.leases import Leases


@dataclass(frozen=True)
class Order:
    """What a trial has of its own; the rest is the plan that all share."""

    number: int
    call: Call
    options: RunOptions
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Answer:
    """A trial has begun, or, with `ended`, is over.  `error`: why it could not be recorded or started."""

    number: int
    run: str = ""
    ended: bool = False
    error: str = ""


def serve(plan: Path, use: Services, leases: Leases, incoming: BinaryIO, outgoing: BinaryIO) -> None:
    """Run what is ordered until nobody orders any more.  When the sweep's process is gone, the trial under way is stopped."""
    base = from_json(Plan, plan.read_bytes())
    orders: queue.SimpleQueue[Order | None] = queue.SimpleQueue()
    closed = threading.Event()
    busy = threading.Event()

    def read() -> None:
        for line in incoming:
            orders.put(from_json(Order, line))
        closed.set()
        orders.put(None)
        if busy.is_set():
            os.kill(os.getpid(), signal.SIGTERM)

    def say(answer: Answer) -> None:
        try:
            outgoing.write(to_json(answer).encode() + b"\n")
            outgoing.flush()
        except BrokenPipeError:
            closed.set()

    threading.Thread(target=read, name="orders", daemon=True).start()
    while not closed.is_set():
        try:
            order = orders.get()
        except Interrupted:  # meant for a trial that has just ended
            continue
        if order is None:
            return
        busy.set()
        if closed.is_set():  # the reader looks at `busy` after it has said so: one of the two sees the other
            return
        _one(order, base, use, leases, say)
        busy.clear()


def _one(order: Order, base: Plan, use: Services, leases: Leases, say: Callable[[Answer], None]) -> None:
    """Run one trial to its end, however it comes."""
    begun: list[str] = []

    def created(run: Run) -> None:
        begun.append(run.id)
        say(Answer(order.number, run.id))

    planned = runner.Planned(replace(base, call=order.call, options=order.options), order.secrets)
    error = ""
    try:
        runner.start(planned, use, leases, on_created=created)
    except Interrupted:
        pass
    except RunprojError as failure:
        error = str(failure)
    say(Answer(order.number, begun[0] if begun else "", ended=True, error=error))
