"""The capsule as an RO-Crate: JSON-LD that tells archives and catalogues what was run, on what, and what came of it.

Written after the profile Process Run Crate 0.5 of RO-Crate 1.1; the terms are those of schema.org.
"""

from __future__ import annotations

import json
import mimetypes
from collections.abc import Iterable, Iterator

from runproj.capsule.names import packed
from runproj.core.capsule import Manifest, PackedFile, PackedRun
from runproj.core.plan import Plan
from runproj.core.record import RunRecord
from runproj.core.run import RunStatus
from runproj.core.source import PinKind
from runproj.core.values import dataclass

METADATA = "ro-crate-metadata.json"
_CRATE = "https://w3id.org/ro/crate/1.1"
_PROFILE = "https://w3id.org/ro/wfrun/process/0.5"
_CONTEXT = [f"{_CRATE}/context", "https://w3id.org/ro/terms/workflow-run/context"]
_KINDS = {
    ".whl": "application/zip",
    ".bundle": "application/x-git-bundle",
    ".jsonl": "application/jsonl",
    ".toml": "application/toml",
}
_LICENCE = "The licence of each part is that of its authors; see the code of the project."

Entity = dict[str, object]


@dataclass(frozen=True)
class Told:
    """What the crate tells of: the run that was exported, with plan and record, and the files of the capsule."""

    manifest: Manifest
    run: PackedRun
    plan: Plan
    record: RunRecord | None
    files: tuple[PackedFile, ...]


def metadata(told: Told) -> str:
    """The text of `ro-crate-metadata.json`."""
    action, parts = _action(told)
    files = [_file(file) for file in told.files]
    run = told.run.moved.run
    root: Entity = {
        "@id": "./",
        "@type": "Dataset",
        "name": f"Run {run.name} of {told.plan.project}",
        "description": _description(told),
        "datePublished": told.manifest.created,
        "license": _id("#licence"),
        "conformsTo": _id(_PROFILE),
        "hasPart": [_id(file.path) for file in told.files],
        "author": _id("#agent"),
        "mentions": _id(str(action["@id"])),
    }
    graph: list[Entity] = [
        {"@id": METADATA, "@type": "CreativeWork", "about": _id("./"), "conformsTo": _id(_CRATE)},
        root,
        {"@id": _PROFILE, "@type": "CreativeWork", "name": "Process Run Crate", "version": "0.5"},
        {"@id": "#licence", "@type": "CreativeWork", "name": "Licence of the parts", "description": _LICENCE},
        action,
        *parts,
        *files,
    ]
    return json.dumps({"@context": _CONTEXT, "@graph": _merged(graph)}, indent=1) + "\n"


def _id(name: str) -> Entity:
    return {"@id": name}


def _description(told: Told) -> str:
    run = told.run.moved.run
    note = run.tag("mlflow.note.content")
    said = f"What `{told.plan.call.shown()}` did, with its code, environment, data and results, made to be repeated by runproj."
    return f"{note}\n\n{said}" if note else said


def _action(told: Told) -> tuple[Entity, list[Entity]]:
    """The execution, and what it refers to."""
    run, plan = told.run.moved.run, told.plan
    tool, agent = _tool(told), _agent(run.user)
    given, made = list(_given(told)), list(_made(told))
    finished = run.status is RunStatus.FINISHED
    action: Entity = {
        "@id": f"#run-{run.id}",
        "@type": "CreateAction",
        "name": run.name,
        "description": plan.call.shown(),
        "startTime": _time(run.start),
        "endTime": _time(run.end if run.end is not None else run.start),
        "agent": _id(str(agent["@id"])),
        "instrument": _id(str(tool["@id"])),
        "object": [_id(str(item["@id"])) for item in given],
        "result": [_id(str(item["@id"])) for item in made],
        "actionStatus": f"http://schema.org/{'CompletedActionStatus' if finished else 'FailedActionStatus'}",
    }
    if not finished:
        action["error"] = run.tag("runproj.reason") or run.status.value
    parts = [tool, agent, *(item for item in (*given, *made) if len(item) > 1)]
    if plan.lock.image:
        name = plan.lock.image.reference
        image: Entity = {"@id": "#image", "@type": "ContainerImage", "name": name, "additionalType": _id(_DOCKER)}
        action["containerImage"] = _id("#image")
        parts.append(image)
    return action, parts


_DOCKER = "https://w3id.org/ro/terms/workflow-run#DockerImage"


def _tool(told: Told) -> Entity:
    """The code that was run, at its commit."""
    pin = told.plan.code
    repositories = told.manifest.code.repositories
    url = pin.origins[0] if pin.origins else pin.uri
    name = packed("code", repositories[0].bundle) if repositories else f"#code-{pin.tree}"
    entity: Entity = {
        "@id": f"{url}#{pin.commit}" if url.startswith("http") else name,
        "@type": ["File", "SoftwareSourceCode"] if repositories and not url.startswith("http") else "SoftwareSourceCode",
        "name": told.plan.project,
        "version": pin.commit or pin.tree,
        "url": url,
        "programmingLanguage": "Python",
    }
    if pin.kind is PinKind.GIT:
        entity["codeRepository"] = url
    return entity


def _agent(user: str) -> Entity:
    return {"@id": "#agent", "@type": "Person", "name": user or "unknown"}


def _given(told: Told) -> Iterator[Entity]:
    """Parameters and data.  What is a file of the capsule is only named: it has its own entity."""
    for value in told.plan.call.values:
        if value.value is not None:
            yield {"@id": f"#parameter-{packed(value.name)}", "@type": "PropertyValue", "name": value.name, "value": value.value}
    number = 0
    for data in told.manifest.inputs:
        yield from (_id(packed("inputs", str(number), file.path or "data")) for file in data.files)
        number += len(data.files)


def _made(told: Told) -> Iterator[Entity]:
    """Outputs and the last values of metrics."""
    run = told.run.moved.run
    there = {file.path for file in told.files}
    for output in told.record.outputs if told.record else ():
        if (name := packed("runs", run.id, "artifacts", output.path)) in there:
            yield _id(name)
    for metric in run.metrics:
        number: Entity = {"@id": f"#metric-{packed(metric.key)}", "@type": "PropertyValue", "name": metric.key}
        yield number | {"value": metric.value if metric.value - metric.value == 0 else str(metric.value)}
    yield _id(packed("runs", run.id, "run.json"))


def _file(file: PackedFile) -> Entity:
    suffix = "." + file.path.rpartition(".")[2]
    kind = _KINDS.get(suffix) or mimetypes.types_map.get(suffix, "application/octet-stream")
    return {
        "@id": file.path,
        "@type": "File",
        "name": file.path.rpartition("/")[2],
        "contentSize": str(file.size),
        "sha256": file.sha256,
        "encodingFormat": kind,
    }


def _merged(graph: Iterable[Entity]) -> list[Entity]:
    """One entity for each id: the code is a file too."""
    found: dict[str, Entity] = {}
    for entity in graph:
        name = str(entity["@id"])
        found[name] = {**entity, **found[name]} if name in found else entity
    return list(found.values())


def _time(milliseconds: int) -> str:
    import datetime

    return datetime.datetime.fromtimestamp(milliseconds / 1000, datetime.UTC).isoformat(timespec="milliseconds")
