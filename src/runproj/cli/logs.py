"""`runs logs`: what a run wrote, once or as it comes."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from runproj.cli import options as opt
from runproj.cli import output
from runproj.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from runproj.core.run import Run
    from runproj.wiring import Wiring

_HOUR = 3600.0


def looking() -> Wiring:
    """The stores, with every status made true first."""
    from runproj.settings import load
    from runproj.wiring import Wiring

    wiring = Wiring(load(), output.TerminalReporter())
    wiring.recover()
    stamp = wiring.settings.home / "told-of-unsent"
    if _older(stamp) and (left := wiring.unsent()):
        wiring.reporter.note(f"What {left} process{'' if left == 1 else 'es'} logged has not been sent yet: runproj sync")
        with contextlib.suppress(OSError):  # a home that cannot be written is told again
            stamp.touch()
    return wiring


def _older(stamp: Path) -> bool:
    """Whether it was not in the last hour."""
    try:
        return not 0 <= time.time() - stamp.stat().st_mtime < _HOUR
    except FileNotFoundError:
        return True


def logs(
    reference: opt.RunReference,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run ends.")] = False,
    stderr: Annotated[bool, typer.Option("--stderr", help="Standard error instead of standard output.")] = False,
    both: Annotated[bool, typer.Option("--all", "-a", help="Both streams in the order they were written.")] = False,
    timestamps: Annotated[bool, typer.Option("--timestamps", "-t", help="Begin each line with its time.")] = False,
) -> None:
    """Print what a run wrote, byte for byte."""
    from runproj.core.run import RunStatus

    wiring = looking()
    run = wiring.find_run(reference)
    live = wiring.settings.runs / run.id / "logs"
    if follow and not run.over:
        if timestamps:
            raise UsageError("--follow cannot be combined with --timestamps", fix="Follow first, then print with -t.")
        if _follow(wiring, run, ("stdout", "stderr") if both else ("stderr",) if stderr else ("stdout",)):
            return
        run = wiring.tracking.get_run(run.id)  # it may have ended before its output could be opened
    with _log_folder(wiring, run, live) as folder:
        if both or timestamps:
            _merged(folder, only=None if both else "e" if stderr else "o", timestamps=timestamps)
        else:
            _copy(folder / ("stderr.log" if stderr else "stdout.log"))
            other = folder / "stderr.log"
            if not stderr and run.status is RunStatus.FAILED and other.exists() and other.stat().st_size:
                output.say(f"The run failed; what it wrote to standard error: runproj runs logs --stderr {run.id[:8]}")


def _follow(wiring: Wiring, run: Run, streams: Sequence[str]) -> bool:
    """Print what comes in any of the streams; whether there was anything."""
    from threading import Thread

    from runproj.runner import handle_of

    handle = handle_of(run)
    backend = wiring.backends.open(handle.backend)
    some = set()

    def copy(stream: str) -> None:
        for data in backend.logs(handle, stream=stream, follow=True):
            some.add(stream)
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()

    def copy_beside(stream: str) -> None:
        with contextlib.suppress(BrokenPipeError):
            copy(stream)

    others = [Thread(target=copy_beside, args=(stream,), daemon=True) for stream in streams[1:]]
    for other in others:
        other.start()
    copy(streams[0])
    for other in others:
        other.join()
    return bool(some)


class _log_folder:  # noqa: N801 - reads as the function it stands for
    """The folder with a run's logs: where it is written while it runs, else its artifacts, fetched for the moment."""

    def __init__(self, wiring: Wiring, run: Run, live: Path) -> None:
        self.wiring, self.run, self.live = wiring, run, live
        self.fetched: Path | None = None

    def __enter__(self) -> Path:
        if not self.run.over and self.live.is_dir():
            return self.live
        import tempfile

        ours = {f"logs/{name}" for name in ("stdout.log", "stderr.log", "timeline")}  # the project may have put more there
        names = [entry.path for entry in self.wiring.artifacts.list(self.run, "logs") if entry.path in ours]
        if not names:
            raise NotFoundError(f"Run {self.run.id[:8]} has no logs", why=f"Its status is {self.run.status.value}.")
        views = self.wiring.settings.cache / "views"
        views.mkdir(parents=True, exist_ok=True)
        self.fetched = Path(tempfile.mkdtemp(prefix=f"{self.run.id}-logs-", dir=views))  # another command may look at them too
        for name in names:
            self.wiring.artifacts.get(self.run, name, self.fetched / Path(name).name)
        return self.fetched

    def __exit__(self, *_: object) -> None:
        from runproj.files import remove_tree

        if self.fetched:
            remove_tree(self.fetched)


def _copy(path: Path) -> None:
    import shutil

    sys.stdout.flush()
    if path.exists():
        with path.open("rb") as file:
            shutil.copyfileobj(file, sys.stdout.buffer, 1 << 20)
    sys.stdout.buffer.flush()


def _merged(folder: Path, *, only: str | None, timestamps: bool) -> None:
    from runproj.logs import read_merged

    at_start = True
    for when, stream, data in read_merged(folder):
        if only and stream != only:
            continue
        if not timestamps:
            sys.stdout.buffer.write(data)
            continue
        stamp = datetime.fromtimestamp(when / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z").encode()
        for line in data.splitlines(keepends=True):
            sys.stdout.buffer.write((stamp + b" " if at_start else b"") + line)
            at_start = line.endswith((b"\n", b"\r"))
    sys.stdout.buffer.flush()
