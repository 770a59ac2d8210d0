"""The noise floor: one plan run several times, and how its metrics varied."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from runproj import runner
from runproj.codec import to_json
from runproj.core.recipe import recipe_of
from runproj.core.run import Run, RunStatus
from runproj.core.services import Services
from runproj.core.verdict import NoiseFloor
from runproj.files import atomic_write
from runproj.leases import Leases
from runproj.reproduce.history import values_of
from runproj.reproduce.outputs import scratch
from runproj.reproduce.tolerance import noise_of

STORED_AS = "runproj/noise.json"


def repeat(
    planned: runner.Planned, times: int, use: Services, leases: Leases, *, on_created: Callable[[Run], None]
) -> tuple[Sequence[Run], NoiseFloor]:
    """Run a plan so many times, or until a run does not finish; the noise floor is stored with each run that did.

    Raises what starting a run raises.
    """
    runs: list[Run] = []
    while len(runs) < times and all(run.status is RunStatus.FINISHED for run in runs):
        started = runner.start(planned, use, leases, on_created=on_created)
        runs.append(use.tracking.get_run(started.id))
        planned = replace(planned, checkout=None)
    finished = [run for run in runs if run.status is RunStatus.FINISHED]
    floor = NoiseFloor(recipe_of(planned.plan), tuple(run.id for run in finished), noise_of(values_of(finished)))
    for run in finished if len(finished) > 1 else ():
        with scratch(use) as folder:
            atomic_write(folder / "noise.json", to_json(floor, pretty=True))
            use.artifacts.adopt(run, folder / "noise.json", STORED_AS)
    return runs, floor
