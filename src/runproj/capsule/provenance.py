"""Where a capsule's results come from: an in-toto statement with SLSA provenance (v1), optionally in a signed envelope (DSSE)."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator

from runproj import __version__
from runproj.capsule import signing
from runproj.capsule.archive import ENVELOPE, PROVENANCE, Reader, Writer
from runproj.capsule.crate import Told
from runproj.capsule.names import packed
from runproj.core.capsule import MANIFEST, PackedFile, Signature
from runproj.core.source import PinKind
from runproj.errors import DamagedError, StorageError

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "urn:runproj:run:v1"
BUILDER = "urn:runproj:executor"
PAYLOAD = "application/vnd.in-toto+json"
SIGNER = "signer.pub"
"""The public key, so that a signature can at least be told to be a whole one."""

Descriptor = dict[str, object]


def statement(told: Told, manifest: PackedFile) -> str:
    """The statement: its subjects are the manifest, and with it all of the capsule, and each output by itself."""
    run = told.run.moved.run
    lock = told.plan.lock
    document = {
        "_type": STATEMENT,
        "subject": [_file(manifest.path, manifest.sha256), *_outputs(told)],
        "predicateType": PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {
                    "source": told.plan.code.uri,
                    "subdirectory": told.plan.code.subdirectory,
                    "revision": told.plan.code.revision or "",
                    "entryPoint": told.plan.call.entry_point,
                    "parameters": {value.name: value.value for value in told.plan.call.values if value.value is not None},
                },
                "internalParameters": {
                    "command": told.plan.call.shown(),
                    "environment": lock.manager.value,
                    "lock": lock.digest,
                    "platform": lock.platform,
                    "python": f"{lock.python.implementation} {lock.python.version}" if lock.python else "",
                },
                "resolvedDependencies": list(_dependencies(told)),
            },
            "runDetails": {
                "builder": {"id": BUILDER, "version": {"runproj": told.plan.runproj or __version__}},
                "metadata": {
                    "invocationId": run.id,
                    "startedOn": _time(run.start),
                    "finishedOn": _time(run.end if run.end is not None else run.start),
                },
                "byproducts": list(_byproducts(told)),
            },
        },
    }
    return json.dumps(document, indent=1) + "\n"


def _file(name: str, sha256: str) -> Descriptor:
    return {"name": name, "digest": {"sha256": sha256}}


def _outputs(told: Told) -> Iterator[Descriptor]:
    folder = packed("runs", told.run.moved.run.id, "artifacts")
    for output in told.record.outputs if told.record else ():
        yield _file(packed(folder, output.path), output.sha256)


def _dependencies(told: Told) -> Iterator[Descriptor]:
    """Everything that went in: code, changes, packages, image, data."""
    pin = told.plan.code
    if pin.kind is PinKind.GIT and pin.commit:
        yield {"name": "code", "uri": f"git+{pin.uri}@{pin.commit}", "digest": {"gitCommit": pin.commit, "gitTree": pin.tree}}
    for module in pin.submodules:
        yield {"name": module.path, "uri": f"git+{module.uri}@{module.commit}", "digest": {"gitCommit": module.commit}}
    if pin.patch:
        yield _file("code.patch", pin.patch)
    for wheel in told.manifest.environment.wheels:
        yield _file(wheel.path, wheel.sha256)
    if image := told.plan.lock.image:
        yield {"name": "image", "uri": image.reference, "digest": {"sha256": image.reference.rpartition("sha256:")[2]}}
    recorded = told.record.inputs if told.record else ()
    for data in recorded:
        yield {"name": data.name, "uri": data.uri, "digest": {"sha256": data.sha256}}
    known = {data.name for data in recorded if data.kind == "parameter"}
    for packed_data in told.manifest.inputs:
        if packed_data.kind == "parameter" and packed_data.name not in known:  # too large to have been hashed
            yield {"name": packed_data.name, "uri": packed_data.uri, "digest": {"sha256": packed_data.sha256}}


def _byproducts(told: Told) -> Iterator[Descriptor]:
    folder = packed("runs", told.run.moved.run.id, "artifacts")
    for file in told.files:
        if file.path.startswith((f"{folder}/logs/", f"{folder}/runproj/")):
            yield _file(file.path, file.sha256)


def _time(milliseconds: int) -> str:
    import datetime

    at = datetime.datetime.fromtimestamp(milliseconds / 1000, datetime.UTC)
    return at.strftime("%Y-%m-%dT%H:%M:%S") + f".{milliseconds % 1000:03d}Z"


def write(told: Told, manifest: PackedFile, writer: Writer, key: signing.Key | None) -> None:
    """Put the statement into a capsule, and the envelope where there is a key."""
    text = statement(told, manifest).encode()
    writer.text(PROVENANCE, text)
    if key is not None:
        body = base64.b64encode(text).decode()
        signature = {"keyid": key.fingerprint, "sig": base64.b64encode(key.sign(_preauthentication(text))).decode()}
        writer.text(ENVELOPE, json.dumps({"payloadType": PAYLOAD, "payload": body, "signatures": [signature]}) + "\n")


def _preauthentication(body: bytes) -> bytes:
    """What is signed, as DSSE v1 has it."""
    return b"DSSEv1 %d %s %d %s" % (len(PAYLOAD), PAYLOAD.encode(), len(body), body)


def check(reader: Reader, trusted: signing.PublicKey | None) -> Signature | None:
    """Who signed a capsule; None for one that nobody signed.

    trusted: the key that it must be signed with.  Raises `DamagedError` where a signature is there and does not hold, and
    `StorageError` where the one that is wanted is not there.
    """
    text = reader.read(PROVENANCE)
    _require_manifest(reader, text)
    if not reader.has(ENVELOPE):
        if trusted is not None:
            raise StorageError(f"{reader.path} is not signed", fix="Ask its maker to sign it (--sign KEY).")
        return None
    key = trusted or signing.PublicKey.read(reader.read(SIGNER), SIGNER)
    signatures = _signatures(reader, text)
    if not any(key.verifies(signature, _preauthentication(text)) for signature in signatures):
        raise DamagedError(
            f"{reader.path} was not signed by {key.fingerprint}",
            why="The signature does not fit the key and what the capsule says of itself.",
            fix="Get the capsule again from its maker, or name the key of whoever signed it (--signer KEY.pub).",
        )
    return Signature(key.fingerprint, trusted is not None)


def _signatures(reader: Reader, text: bytes) -> list[bytes]:
    """The signatures of the envelope, which has to hold the very statement that lies beside it."""
    try:
        envelope = json.loads(reader.read(ENVELOPE))
        if envelope["payloadType"] != PAYLOAD or base64.b64decode(envelope["payload"], validate=True) != text:
            raise ValueError("it holds another statement")
        return [base64.b64decode(item["sig"], validate=True) for item in envelope["signatures"]]
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedError(f"The signature of {reader.path} cannot be read", why=str(error)) from error


def _require_manifest(reader: Reader, text: bytes) -> None:
    """The statement is about this manifest, and so about this capsule."""
    expected = hashlib.sha256(reader.read(MANIFEST)).hexdigest()
    try:
        document = json.loads(text)
        said = [item["digest"]["sha256"] for item in document["subject"] if item["name"] == MANIFEST]
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedError(f"The provenance of {reader.path} cannot be read", why=str(error)) from error
    if said != [expected]:
        raise DamagedError(f"The provenance of {reader.path} is that of another capsule", fix="Get the capsule again.")
