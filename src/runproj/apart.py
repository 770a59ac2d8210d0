"""Work in a process that is nobody's child: what an engine does to the job that it knows does not reach it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

from runproj.proc import send


def apart(work: Callable[[], int]) -> int:
    """Do some work in a process that is nobody's child, in a session of its own, and wait; returns what it returned.

    For engines that kill every process below the one that they know before it could end in order: this one passes SIGTERM on,
    and may be killed.  137 where the work was.
    """
    reader, writer = os.pipe()
    told: list[int] = []
    other: list[int] = []

    def tell(number: int, _: object) -> None:
        told.append(number)
        send(other, signal.SIGTERM)

    words = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = {number: signal.signal(number, tell) for number in words}
    between = os.fork()
    if between == 0:
        os.setsid()
        if os.fork():
            os._exit(0)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(reader)
        os.write(writer, b"%d\n" % os.getpid())
        code = 1
        try:
            code = work()
        finally:
            os.write(writer, b"%d\n" % code)
            os._exit(code)
    os.close(writer)
    os.waitpid(between, 0)
    with os.fdopen(reader) as said:
        other.append(int(said.readline()))
        if told:
            send(other, signal.SIGTERM)
        last = said.readline()
    return int(last) if last else 128 + signal.SIGKILL
