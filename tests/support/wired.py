"""The program within this process: runs and replays without the cost of starting it each time."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

from runproj import runner
from runproj.core.call import Given
from runproj.core.environment import EnvManager, LockOptions
from runproj.core.plan import Request, RunOptions
from runproj.core.run import Run
from runproj.core.source import Source
from runproj.core.verdict import Verdict
from runproj.core.views import RunView
from runproj.reproduce.replay import Reproduction, Wishes
from runproj.settings import load
from runproj.wiring import Wiring


class Quiet:
    """A reporter that remembers the notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def phase(self, name: str, text: str) -> None: ...

    def progress(self, text: str) -> None: ...

    def done(self, text: str) -> None: ...

    def note(self, text: str) -> None:
        self.notes.append(text)


class Wired:
    """What a user does, by the home folder that the environment names."""

    def __init__(self) -> None:
        self.reporter = Quiet()

    @cached_property
    def wiring(self) -> Wiring:
        return Wiring(load(), self.reporter)

    def run(
        self,
        uri: str | Path,
        params: Mapping[str, str] | None = None,
        *,
        entry_point: str = "main",
        manager: EnvManager = EnvManager.SYSTEM,
        lock: LockOptions | None = None,
        options: RunOptions | None = None,
    ) -> Run:
        wiring = self.wiring
        given = tuple(Given(name, value) for name, value in (params or {}).items())
        lock = lock or LockOptions(manager=manager)
        request = Request(Source(str(uri)), entry_point, given, lock=lock, options=options or RunOptions())
        run = runner.start(runner.plan(request, wiring.services()), wiring.services(), wiring.leases, on_created=lambda _: None)
        return wiring.tracking.get_run(run.id)

    def view(self, run: Run) -> RunView:
        return self.wiring.view(run)

    def reproduce(self, run: Run, wishes: Wishes | None = None) -> Verdict:
        wiring = self.wiring
        return Reproduction(run, wiring.services(), wiring.leases, wishes or Wishes()).judge()
