"""A capsule: one zip file that holds a run and all that running it again needs.  What is in it, and what came of moving it."""

from __future__ import annotations

from dataclasses import field

from runproj.core.models import LoggedModel
from runproj.core.run import Experiment
from runproj.core.transfer import MovedRun, TransferReport
from runproj.core.values import dataclass

CAPSULE_VERSION = 1
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class PackedFile:
    """A file of the capsule.  `path` is its name in the zip: `/` between parts, other characters than plain ones as =XX."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class PackedRepository:
    """A commit as a git bundle.  `shallow`: commits whose parents are left out."""

    uri: str
    commit: str
    bundle: str
    shallow: tuple[str, ...] = ()


@dataclass(frozen=True)
class PackedCode:
    """The commit and those of its submodules.  Uncommitted changes, and code outside git, are the run's `runproj/code.patch`.

    lfs: sha256 of the files that stand in the code as pointers; they are at `code/lfs/SHA256`.
    """

    repositories: tuple[PackedRepository, ...] = ()
    lfs: tuple[str, ...] = ()


@dataclass(frozen=True)
class PackedWheel:
    """A package.  `of`: what it was built from (sha256 of a source archive, digest of a local package); empty where the lock
    itself names the wheel by its hash."""

    path: str
    sha256: str
    of: str = ""


@dataclass(frozen=True)
class PackedImage:
    """An image of the Docker engine as `docker save` writes it.  `id` is the engine's; `reference` what the lock pins."""

    path: str
    id: str
    reference: str


@dataclass(frozen=True)
class PackedEnvironment:
    """What the environment can be made from without an index.

    complete: nothing else is needed but the interpreter (and, for an environment of the system, that system).
    """

    manager: str
    digest: str
    platform: str
    python: str = ""
    wheels: tuple[PackedWheel, ...] = ()
    image: PackedImage | None = None
    complete: bool = True
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class PackedInput:
    """Data that is not in the code: a declared input, or what a parameter of type path names.

    kind:   "input" or "parameter".
    uri:    what the plan says: a URI or an absolute path.
    sha256: of the file, or of a folder's sorted listing.
    files:  a single file has the path ""; the files of a folder have paths relative to it.
    """

    kind: str
    name: str
    uri: str
    sha256: str
    files: tuple[PackedFile, ...]
    folder: bool = False


@dataclass(frozen=True)
class PackedRun:
    """The record of a run: its experiment, itself, and the models it logged.  Points of metrics are beside it, one a line."""

    experiment: Experiment
    moved: MovedRun
    models: tuple[LoggedModel, ...] = ()


@dataclass(frozen=True)
class Manifest:
    """`manifest.json`: every file of the capsule but itself and the provenance, and what they are.

    runs: the run that was exported, and those that its command began inside it.
    """

    run: str
    runs: tuple[str, ...]
    created: str
    runproj: str
    code: PackedCode
    environment: PackedEnvironment
    inputs: tuple[PackedInput, ...]
    files: tuple[PackedFile, ...]
    notes: tuple[str, ...] = ()
    version: int = CAPSULE_VERSION


@dataclass(frozen=True)
class Signature:
    """Who signed a capsule.  `key`: fingerprint as `ssh-keygen -l` shows it; `trusted`: it is a key that the user named."""

    key: str
    trusted: bool = False


@dataclass(frozen=True)
class CapsuleView:
    """`export RUN FILE.zip`.  `size` in bytes; `complete`: the run can be repeated from it without a network."""

    path: str
    run: str
    size: int
    sha256: str
    files: int
    wheels: int
    inputs: int
    complete: bool
    signature: Signature | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class CapsuleImport:
    """`import FILE.zip`.  `run` is the id that the run has here."""

    run: str
    sha256: str
    verified: bool
    wheels: int
    inputs: int
    transfer: TransferReport
    signature: Signature | None = None
    notes: tuple[str, ...] = field(default_factory=tuple)
