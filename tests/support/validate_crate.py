"""Has the public validators look at an unpacked capsule: `validate_crate.py FOLDER`; run in an environment that has them.

Without a network the validator cannot load what `@context` names.  It is given the context that the package `rocrate` ships,
and the terms of the workflow-run vocabulary.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

import requests
import rocrate
from google.protobuf import json_format
from in_toto_attestation.predicates.provenance.v1.provenance_pb2 import Provenance
from in_toto_attestation.v1 import statement_pb2
from in_toto_attestation.v1.statement import Statement
from requests.adapters import BaseAdapter
from rocrate.rocrate import ROCrate
from rocrate_validator import models, services
from rocrate_validator.utils.http import HttpRequester

TERMS = "https://w3id.org/ro/terms/workflow-run#"
TERMS_USED = ("ContainerImage", "containerImage", "environment", "registry", "sha256", "tag")
CONTEXTS = {
    "https://w3id.org/ro/crate/1.1/context": json.loads((Path(rocrate.__file__).parent / "data/ro-crate.jsonld").read_text()),
    "https://w3id.org/ro/terms/workflow-run/context": {
        "@context": {
            name: TERMS + name for name in ("ContainerImage", "containerImage", "environment", "registry", "sha256", "tag")
        }
    },
}


class Contexts(BaseAdapter):
    """Answers as w3id.org would."""

    def send(self, request, **options):
        answer = requests.Response()
        answer.status_code, answer.url, answer.request = 200, request.url, request
        answer.headers["Content-Type"] = "application/ld+json"
        answer._content = json.dumps(CONTEXTS[request.url]).encode()
        return answer

    def close(self):
        pass


def crate_issues(folder: Path) -> list[str]:
    """What the validator has against the crate, recommendations included."""
    settings = services.ValidationSettings(
        rocrate_uri=str(folder),
        profile_identifier="process-run-crate",
        requirement_severity=models.Severity.RECOMMENDED,
        skip_availability_check=True,
        no_cache=True,
    )
    HttpRequester().session.mount("https://w3id.org/", Contexts())
    result = services.validate(settings)
    return [f"{issue.severity.name} {issue.check.identifier}: {issue.message}" for issue in result.get_issues()]


def read_by_library(folder: Path) -> dict[str, object]:
    """What the package `rocrate` sees; a warning of it is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        crate = ROCrate(str(folder))
    action = crate.root_dataset["mentions"]
    return {
        "files": len(crate.data_entities),
        "instrument": action["instrument"]["version"],
        "parameters": {item["name"]: item["value"] for item in action["object"] if item.type == "PropertyValue"},
        "results": sorted(item.id for item in action["result"]),
    }


def statement(folder: Path) -> dict[str, object]:
    """The statement, read strictly by the schemas of in-toto and SLSA."""
    text = (folder / "provenance.json").read_text()
    Statement.copy_from_pb(json_format.Parse(text, statement_pb2.Statement())).validate()
    document = json.loads(text)
    predicate = json_format.Parse(json.dumps(document["predicate"]), Provenance())
    return {
        "type": document["predicateType"],
        "build": predicate.build_definition.build_type,
        "dependencies": len(predicate.build_definition.resolved_dependencies),
        "seconds": predicate.run_details.metadata.finished_on.seconds - predicate.run_details.metadata.started_on.seconds,
    }


if __name__ == "__main__":
    place = Path(sys.argv[1])
    found = {"issues": crate_issues(place), "crate": read_by_library(place), "statement": statement(place)}
    print("\n" + json.dumps(found))
