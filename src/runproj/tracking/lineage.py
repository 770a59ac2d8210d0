"""What went into runs and what came out of them: datasets and logged models."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from runproj.core.models import Dataset, DatasetInput, Lineage, ModelOutput
from runproj.core.run import Tag
from runproj.errors import NotFoundError
from runproj.tracking.sql import Connection, Database, one

_NOTHING = Lineage()


class Lineages:
    """The inputs and outputs of the runs in a database."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def add(self, run_id: str, lineage: Lineage) -> None:
        """Add to what is known of a run.  What is known already stays as it is.  Raises `NotFoundError`."""
        with self.database.writing(durable=False) as connection:
            found = connection.execute("SELECT seq, experiment FROM runs WHERE id = ?", (run_id,)).fetchone()
            if found is None:
                raise NotFoundError(f"There is no run with id {run_id!r}")
            run, experiment = found
            # in one order for all: who adds the same datasets at the same time waits, and does not wait in a circle
            for used in sorted(lineage.datasets, key=lambda used: (used.dataset.name, used.dataset.digest)):
                add_dataset(connection, run, experiment, used)
            links = [(run, "input", model, 0) for model in lineage.models_in]
            links += [(run, "output", output.model_id, output.step) for output in lineage.models_out]
            connection.executemany(
                "INSERT INTO run_models (run, direction, model, step) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING", links
            )

    def of(self, run_ids: Sequence[str]) -> Mapping[str, Lineage]:
        """What is known of several runs, in three queries; runs of which nothing is known are left out."""
        chosen = json.dumps(list(run_ids))
        with self.database.reading() as connection:
            tags = _dataset_tags(connection, chosen)
            datasets: dict[str, list[DatasetInput]] = {}
            for run, number, *fields in connection.execute(
                "SELECT r.id, d.id, d.name, d.digest, d.source_type, d.source, d.schema, d.profile FROM runs r"
                " JOIN run_datasets rd ON rd.run = r.seq JOIN datasets d ON d.id = rd.dataset"
                " WHERE r.id IN (SELECT value FROM json_each(?) AS texts) ORDER BY d.id",
                (chosen,),
            ):
                datasets.setdefault(run, []).append(DatasetInput(Dataset(*fields), tuple(tags.get((run, number), ()))))
            models: dict[tuple[str, str], list[ModelOutput]] = {}
            for run, direction, model, step in connection.execute(
                "SELECT r.id, l.direction, l.model, l.step FROM runs r JOIN run_models l ON l.run = r.seq"
                " WHERE r.id IN (SELECT value FROM json_each(?) AS texts) ORDER BY l.step, l.model",
                (chosen,),
            ):
                models.setdefault((run, direction), []).append(ModelOutput(model, step))
        known = {*datasets, *(run for run, _ in models)}
        return {
            run: Lineage(
                tuple(datasets.get(run, ())),
                tuple(link.model_id for link in models.get((run, "input"), ())),
                tuple(models.get((run, "output"), ())),
            )
            for run in known
        }

    def datasets_of(self, experiments: Sequence[int]) -> list[tuple[str, str, str, str]]:
        """(experiment id, name, digest, context) of each dataset that the experiments' runs used."""
        with self.database.reading() as connection:
            found = connection.execute(
                "SELECT DISTINCT d.experiment, d.name, d.digest, coalesce(t.value, '') FROM datasets d"
                " LEFT JOIN run_dataset_tags t ON t.dataset = d.id AND t.key = 'mlflow.data.context'"
                " WHERE d.experiment IN (SELECT value FROM json_each(?)) ORDER BY d.name, d.digest LIMIT 1000",
                (json.dumps(list(experiments)),),
            )
            return [(str(experiment), name, digest, context) for experiment, name, digest, context in found]


def add_dataset(connection: Connection, run: int, experiment: int, used: DatasetInput) -> None:
    """Record that a run used a dataset; what is known of it already stays."""
    data = used.dataset
    connection.execute(
        "INSERT INTO datasets (experiment, name, digest, source_type, source, schema, profile) VALUES (?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT DO NOTHING",
        (experiment, data.name, data.digest, data.source_type, data.source, data.schema, data.profile),
    )
    (number,) = one(
        connection.execute(
            "SELECT id FROM datasets WHERE experiment = ? AND name = ? AND digest = ?", (experiment, data.name, data.digest)
        )
    )
    if connection.execute("INSERT INTO run_datasets (run, dataset) VALUES (?, ?) ON CONFLICT DO NOTHING", (run, number)).rowcount:
        connection.executemany(
            "INSERT INTO run_dataset_tags (run, dataset, key, value) VALUES (?, ?, ?, ?)"
            " ON CONFLICT (run, dataset, key) DO UPDATE SET value = excluded.value",
            [(run, number, tag.key, tag.value) for tag in used.tags],
        )


def _dataset_tags(connection: Connection, chosen: str) -> dict[tuple[str, int], list[Tag]]:
    tags: dict[tuple[str, int], list[Tag]] = {}
    for run, dataset, key, value in connection.execute(
        "SELECT r.id, t.dataset, t.key, t.value FROM runs r JOIN run_dataset_tags t ON t.run = r.seq"
        " WHERE r.id IN (SELECT value FROM json_each(?) AS texts) ORDER BY t.key",
        (chosen,),
    ):
        tags.setdefault((run, dataset), []).append(Tag(key, value))
    return tags
