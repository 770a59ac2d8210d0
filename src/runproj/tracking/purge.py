"""What is marked as deleted, and how it goes for good."""

from __future__ import annotations

from enum import Enum
from typing import assert_never

from runproj.core.values import dataclass
from runproj.tracking.sql import Database


class Kind(Enum):
    RUN = "run"
    MODEL = "logged model"
    EXPERIMENT = "experiment"


@dataclass(frozen=True)
class Deleted:
    """Something that is marked as deleted.  `artifact_uri` is empty for an experiment, which has no files of its own."""

    kind: Kind
    id: str
    name: str
    artifact_uri: str = ""


def find_deleted(database: Database) -> list[Deleted]:
    """Runs and logged models, then the experiments that hold nothing else."""
    with database.reading() as connection:
        runs = connection.execute("SELECT id, name, artifact_uri FROM runs WHERE lifecycle = 'deleted' ORDER BY seq")
        found = [Deleted(Kind.RUN, *row) for row in runs.fetchall()]
        models = connection.execute("SELECT id, name, artifact_uri FROM models WHERE lifecycle = 'deleted' ORDER BY seq")
        found += [Deleted(Kind.MODEL, *row) for row in models.fetchall()]
        experiments = connection.execute(
            "SELECT e.id, e.name FROM experiments e WHERE e.lifecycle = 'deleted' AND e.id <> 0"
            " AND NOT EXISTS (SELECT 1 FROM runs r WHERE r.experiment = e.id AND r.lifecycle = 'active')"
            " AND NOT EXISTS (SELECT 1 FROM models m WHERE m.experiment = e.id AND m.lifecycle = 'active') ORDER BY e.id"
        )
        return found + [Deleted(Kind.EXPERIMENT, str(number), name) for number, name in experiments.fetchall()]


def purge(database: Database, item: Deleted) -> bool:
    """Remove it with all that belongs to it; whether that was done: what was restored in the meantime stays."""
    with database.writing() as connection:
        match item.kind:
            case Kind.RUN:
                done = connection.execute("DELETE FROM runs WHERE id = ? AND lifecycle = 'deleted'", (item.id,)).rowcount
                connection.execute("DELETE FROM datasets WHERE NOT EXISTS (SELECT 1 FROM run_datasets u WHERE u.dataset = id)")
            case Kind.MODEL:
                done = connection.execute("DELETE FROM models WHERE id = ? AND lifecycle = 'deleted'", (item.id,)).rowcount
            case Kind.EXPERIMENT:
                done = connection.execute(
                    "DELETE FROM experiments WHERE id = ? AND lifecycle = 'deleted'"
                    " AND NOT EXISTS (SELECT 1 FROM runs r WHERE r.experiment = experiments.id)"
                    " AND NOT EXISTS (SELECT 1 FROM models m WHERE m.experiment = experiments.id)",
                    (int(item.id),),
                ).rowcount
            case other:
                assert_never(other)
        return bool(done)
