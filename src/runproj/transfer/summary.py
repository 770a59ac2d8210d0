"""What a transfer tells at its end besides its items: losses once each, and what nobody may overlook."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from runproj.core.run import Experiment
from runproj.core.transfer import ORIGIN, ItemMoved, Loss, Target


@dataclass
class Place:
    """Where the things of an experiment go.

    found:  the target's experiment of that name; it is made when the first thing goes there.
    merged: the target had that experiment before anything of this one was taken over.
    there:  something of the experiment is in the target already, wherever.
    took:   something new goes there.
    """

    wanted: Experiment
    name: str
    found: Experiment | None
    merged: bool = False
    there: bool = False
    took: bool = False


def counted(losses: Iterable[Loss]) -> tuple[Loss, ...]:
    """Equal losses as one."""
    found: dict[tuple[str, str, bool], int] = {}
    for loss in losses:
        key = (loss.what, loss.why, loss.differs)
        found[key] = found.get(key, 0) + loss.count
    return tuple(Loss(what, why, count, differs) for (what, why, differs), count in found.items())


def notes(target: Target, places: Iterable[Place], items: Sequence[ItemMoved], *, dry_run: bool) -> tuple[str, ...]:
    """What was taken over in another way than it was."""
    found = [
        f"What is new of experiment {place.wanted.name!r} {'would go' if dry_run else 'went'} into experiment {place.name!r},"
        " which the target had already" + ("." if place.name == "Default" else "; --suffix keeps such experiments apart.")
        for place in places
        if place.merged and place.took
    ]
    if items and not target.keeps_ids:
        chooses = "would choose" if dry_run else "chose"
        found.append(f"The server {chooses} new ids for runs and logged models; the tag {ORIGIN} of each holds the one it had.")
    return tuple(found)
