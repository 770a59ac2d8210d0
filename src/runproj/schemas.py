"""The published JSON Schemas, generated from the types: `python -m runproj.schemas [--check] FOLDER`."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path

from runproj.codec import json_schema
from runproj.core.access import TokenView, UserList, UserView
from runproj.core.capsule import CapsuleImport, CapsuleView, Manifest
from runproj.core.catalogue import ExperimentList, ExperimentView, RegisteredModelList, RegisteredModelView
from runproj.core.correlation import Correlation
from runproj.core.differences import Diff, Why
from runproj.core.environment import LockFile
from runproj.core.pipeline import PipelineView
from runproj.core.plan import Plan
from runproj.core.queue import QueueList
from runproj.core.record import RunRecord
from runproj.core.sweep import SweepView
from runproj.core.transfer import TransferReport
from runproj.core.verdict import NoiseFloor, Verdict
from runproj.core.views import (
    ArtifactList,
    BackendList,
    Checkup,
    CiView,
    Comparison,
    EnvironmentList,
    GcReport,
    LockReport,
    RunList,
    RunView,
    SyncReport,
    ValidationReport,
)
from runproj.descriptor import descriptor_schema

DOCUMENTS: Mapping[str, type] = {
    "plan": Plan,
    "run-record": RunRecord,
    "run": RunView,
    "runs-list": RunList,
    "runs-artifacts": ArtifactList,
    "runs-compare": Comparison,
    "runs-correlate": Correlation,
    "experiment": ExperimentView,
    "experiments-list": ExperimentList,
    "model": RegisteredModelView,
    "models-list": RegisteredModelList,
    "validate": ValidationReport,
    "env-list": EnvironmentList,
    "lock": LockReport,
    "lock-file": LockFile,
    "gc": GcReport,
    "doctor": Checkup,
    "reproduce": Verdict,
    "run-repeat": NoiseFloor,
    "run-pipeline": PipelineView,
    "sweep": SweepView,
    "why": Why,
    "diff": Diff,
    "backends": BackendList,
    "queue": QueueList,
    "sync": SyncReport,
    "transfer": TransferReport,
    "ci": CiView,
    "capsule": Manifest,
    "capsule-export": CapsuleView,
    "capsule-import": CapsuleImport,
    "user": UserView,
    "user-list": UserList,
    "user-token": TokenView,
}


def generate() -> dict[str, str]:
    """File name → text of every schema."""
    documents: dict[str, Mapping[str, object]] = {"runproj.yaml": descriptor_schema()}
    documents |= {name: _with_words_for_numbers(json_schema(kind)) for name, kind in DOCUMENTS.items()}
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return {
        f"{name}.schema.json": json.dumps(head | dict(schema), indent=2, sort_keys=False) + "\n"
        for name, schema in documents.items()
    }


_ANY_NUMBER = {
    "Metric": ("value",),
    "TrialView": ("value",),
    "Measure": ("value",),
    "MetricCheck": ("original", "replay", "low", "high"),
    "Noise": ("mean", "sd", "cv", "least", "greatest"),
}
"""Where a number can be what JSON has no number for (see `codec.to_json`): metrics, and statistics of them."""


def _with_words_for_numbers(schema: dict[str, object]) -> dict[str, object]:
    definitions = schema.get("$defs")
    for name, fields in _ANY_NUMBER.items():
        for field in fields if isinstance(definitions, dict) and name in definitions else ():
            assert isinstance(definitions, dict)
            value = definitions[name]["properties"][field]
            kinds = value.pop("anyOf", [{"type": value.pop("type", "number")}])
            definitions[name]["properties"][field] = {"anyOf": [*kinds, {"enum": ["NaN", "Infinity", "-Infinity"]}], **value}
    return schema


def stale(folder: Path) -> list[str]:
    """Names of files in `folder` that are not what the types say, or that nothing generates."""
    wanted = generate()
    found = {path.name: path.read_text() for path in folder.glob("*.json")}
    return sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))


def main(arguments: list[str]) -> int:
    folder = Path(arguments[-1] if arguments and not arguments[-1].startswith("-") else "schemas")
    if "--check" in arguments:
        for name in (wrong := stale(folder)):
            sys.stderr.write(f"{folder / name} is stale: run python -m runproj.schemas\n")
        return 1 if wrong else 0
    folder.mkdir(exist_ok=True)
    for path in folder.glob("*.json"):
        path.unlink()
    for name, text in generate().items():
        (folder / name).write_text(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
