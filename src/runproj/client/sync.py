"""Send what processes that are gone left in their spools."""

import os
import time
from typing import Callable, Iterator, List, NamedTuple, Optional

from runproj.client import spool
from runproj.client.delivery import Delivery
from runproj.client.spool import Spool
from runproj.client.values import Refused
from runproj.client.wire import Away, Server, scrubbed

Connect = Callable[[str], Server]


class Sent(NamedTuple):
    """What became of one spool.

    left:    how many events it still holds.
    problem: why there is something left.
    refused: how many events the server refused; they are kept in `folder`.
    """

    folder: str
    uri: str
    sent: int
    refused: int
    left: int
    problem: str = ""


def waiting(root: str) -> List[str]:
    """Spools that no living process owns."""
    return [folder for folder in spool.waiting(root) if not spool.held(folder)]


def send_all(root: str, connect: Connect, progress: Callable[[str, int], None], refused: bool = False) -> Iterator[Sent]:
    """Send every spool that no living process owns, oldest first.  `progress` is told a spool and how much was sent so far.

    refused: also what a server has refused before.
    Safe to run several times, at the same time too, and to be killed: what was sent is recorded once.
    """
    if refused:
        spool.put_back(root)
    for folder in spool.waiting(root):
        taken = Spool.take(folder)
        if taken is not None:
            yield _send(taken, connect, progress)
    spool.sweep(root)


def _send(taken: Spool, connect: Connect, progress: Callable[[str, int], None]) -> Sent:
    about, problem, done = taken.about, "", False
    uri = about.home_uri or about.uri
    delivery: Optional[Delivery] = None
    try:
        delivery = Delivery(taken, connect(uri), ends=not about.run)
        while delivery.step():
            progress(taken.folder, delivery.sent)
        if not taken.shared():
            delivery.close_lost_runs()
            done = True
    except Away as error:
        problem = str(error)
    except Refused as error:
        problem = str(error)
    sent, refused = (delivery.sent, delivery.refused) if delivery else (0, 0)
    left = taken.journal.unsent()
    if done and not left:
        taken.finish()
    else:
        taken.release()
    folder = taken.folder if os.path.isdir(taken.folder) or not refused else _set_aside(taken.folder)
    return Sent(folder, scrubbed(uri), sent, refused, left, problem)


def _set_aside(folder: str) -> str:
    return os.path.join(os.path.dirname(folder), spool.REFUSED + os.path.basename(folder))


def send_of_run(root: str, server: Server, seconds: float) -> "tuple[int, str]":
    """Send what the processes of one run left for its server, for so long at most; returns how many events are left, and why."""
    deadline, left, problem = time.monotonic() + seconds, 0, ""
    for folder in spool.waiting(root):
        taken = Spool.take(folder)
        if taken is None:
            continue
        if not taken.about.run:  # it is meant for another server
            taken.release()
            continue
        done = False
        try:
            delivery = Delivery(taken, server)
            while time.monotonic() < deadline and delivery.step():
                pass
            if not taken.journal.unsent() and not taken.shared():
                delivery.close_lost_runs()
                done = True
        except Away as error:
            problem = str(error)
        left += taken.journal.unsent()
        if done:
            taken.finish()
        else:
            taken.release()
    try:
        os.rmdir(root)
    except OSError:
        pass
    return left, problem
