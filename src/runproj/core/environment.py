"""EnvSpec → EnvLock → Environment: the environment that was asked for, pinned, and on disk."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import field
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Protocol

from runproj.core.values import dataclass


class EnvManager(Enum):
    """Who makes the environment."""

    VIRTUALENV = "virtualenv"
    SYSTEM = "system"
    CONDA = "conda"
    DOCKER = "docker"


class EnvPlace(Enum):
    """Where commands of the environment run: a lock says what it yields, a backend what it takes; nothing else crosses."""

    HOST = "host"
    IMAGE = "image"


@dataclass(frozen=True)
class ImageBuild:
    """An image to be made from a Dockerfile.  Paths are relative to the project's folder."""

    dockerfile: str = "Dockerfile"
    context: str = "."
    arguments: tuple[tuple[str, str], ...] = ()
    target: str = ""


@dataclass(frozen=True)
class DockerSpec:
    """The image that a project runs in, and what its containers are given; `docker_env` of an MLproject.

    image:       by tag or digest; empty where `build` says how it is made.
    volumes:     `source:target[:mode]`, as the project has them.
    environment: a name to copy from the host, or a (name, value) pair to set.
    gpus:        "all", a number, or "device=ID,…";  shm_size: as "2GB";  network: "bridge" (default), "none", "host", or a name.
    user:        "uid[:gid]", or a name that the image knows; by default whoever runs runproj.
    """

    image: str = ""
    volumes: tuple[str, ...] = ()
    environment: tuple[tuple[str, str | None], ...] = ()
    build: ImageBuild | None = None
    gpus: str = ""
    shm_size: str = ""
    network: str = ""
    user: str = ""


@dataclass(frozen=True)
class EnvSpec:
    """The environment as the project asks for it, read from its files and not yet resolved.

    manager:      what the project's own declaration means (conda.yaml: CONDA; nothing declared: VIRTUALENV).
    origin:       the file or key it was taken from, for people ("conda.yaml", "uv.lock", "nothing declared").
    python:       a version ("3.8.2", "3.8") or a specifier (">=3.9,<3.12"); None where the project names none.
    requirements: lines of a requirements file; relative paths in them are relative to the project's folder.
    build_requirements: the same, for packages that must be there before the others are built (setuptools, pip, …).
    lock_file:    a lock of the project's own, used as it is (`pylock.toml`, `uv.lock`), relative to the project's folder.
    conda:        dependencies in conda's words, where the project has them; `channels` beside them.
    conda_python: the interpreter among them, as it is written ("python=3.8.2=h357f687_4"); empty where it is not listed.
    variables:    (name, value) pairs that the environment sets (`variables:` of a conda environment file).
    notes:        what could not be carried over, in full sentences; shown and recorded.
    """

    manager: EnvManager = EnvManager.VIRTUALENV
    origin: str = "nothing declared"
    python: str | None = None
    requirements: tuple[str, ...] = ()
    build_requirements: tuple[str, ...] = ()
    lock_file: str | None = None
    conda: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()
    conda_python: str = ""
    variables: tuple[tuple[str, str], ...] = ()
    docker: DockerSpec | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class LockOptions:
    """What the user says about pinning.

    as_of:   "commit", "now", or an ISO date: the index is read as it stood then.
    manager: None lets the project decide (`--env-manager auto`).
    extra:   requirements added by `--with`.
    relock:  resolve anew even where this request was locked before.
    strict:  refuse a fallback (nearest interpreter, today's index) instead of saying and recording it.
    locked:  use the lock that is committed with the project, and nothing else.
    """

    as_of: str = "commit"
    manager: EnvManager | None = None
    extra: tuple[str, ...] = ()
    relock: bool = False
    strict: bool = False
    installer: str = "uv"
    offline: bool = False
    locked: bool = False


@dataclass(frozen=True)
class PythonPin:
    """An interpreter.  `path` is where it was found on the machine that locked; `build` is `sys.version`."""

    version: str
    implementation: str
    path: str
    build: str = ""


@dataclass(frozen=True)
class LocalPackage:
    """A package installed from the checkout.  `digest` is a sha256 over its files, so that a change makes a new environment."""

    path: str
    digest: str
    editable: bool = False


@dataclass(frozen=True)
class CondaPackage:
    """A file of a conda channel.  Where the channel is, configuration says when it is installed.

    file:    its name ("numpy-1.26.4-py311h64a7726_0.conda") in the channel's folder `subdir` ("linux-64", "noarch").
    noarch:  "python" or "generic"; empty for a package of one platform.
    depends: what it needs, in conda's words: says in which order packages are linked.
    site_packages: where an interpreter of an unusual layout keeps packages.
    """

    name: str
    version: str
    build: str
    subdir: str
    channel: str
    file: str
    sha256: str
    size: int = 0
    build_number: int = 0
    noarch: str = ""
    depends: tuple[str, ...] = ()
    site_packages: str = ""


@dataclass(frozen=True)
class ImagePin:
    """An image that cannot move.

    reference: what a container is started from: `name@sha256:…` where a registry has it, else the engine's own id.
    id:        the engine's id of it; empty where the image was not here yet when it was pinned.
    asked:     what was asked for; of it, only the image and the build are replaced by the pin.
    inputs:    of an image that was built: sha256 over Dockerfile, context, arguments and base images.
    bases:     the images that it was built from: as named, and pinned.
    """

    reference: str
    id: str
    asked: DockerSpec
    inputs: str = ""
    bases: tuple[tuple[str, str], ...] = ()

    @property
    def words(self) -> str:
        """The image for people: as it was asked for, and the beginning of what it was pinned to."""
        name = self.asked.image
        if self.inputs:
            name = f"built from {self.asked.build.dockerfile}" if self.asked.build else f"built on {self.bases[0][0]}"
        kind, _, digest = self.reference.rpartition("sha256:")
        return f"{name} ({'registry digest' if kind else 'id'} {digest[:12]})"


@dataclass(frozen=True)
class EnvLock:
    """A pinned environment.  Equal digests are equal environments.

    digest:   sha256 over everything below that decides what gets installed.
    pylock:   text of the PEP 751 lock file with hashes; None where nothing is installed by us (system).
    as_of:    ISO time the index was read at; None for "now" or where a lock file of the project was used.
    resolved_at: ISO time of resolution; not part of the digest.
    installed: what an environment that is not ours had installed ("numpy==1.26.4").
    installer: "uv" or "pip"; not part of the digest: both install the same files.
    conda:    packages of conda channels, sorted by name; `pylock` then holds what pip adds to them.
    variables: (name, value) pairs that the environment sets.
    """

    manager: EnvManager
    place: EnvPlace
    digest: str
    origin: str
    platform: str
    python: PythonPin | None = None
    pylock: str | None = None
    image: ImagePin | None = None
    local_packages: tuple[LocalPackage, ...] = ()
    extra: tuple[str, ...] = ()
    as_of: str | None = None
    resolved_at: str | None = None
    notes: tuple[str, ...] = ()
    installer: str = "uv"
    installed: tuple[str, ...] = ()
    conda: tuple[CondaPackage, ...] = ()
    variables: tuple[tuple[str, str], ...] = ()

    @property
    def package_count(self) -> int:
        """How many packages are installed from it, local ones left out."""
        return len(self.conda) + (self.pylock or "").count("[[packages]]")

    @property
    def words(self) -> str:
        """Which environment it is, and what it was taken from."""
        python = f", {self.python.implementation} {self.python.version}" if self.python else ""
        count = self.package_count
        packages = f", {count} package{'' if count == 1 else 's'}" if self.pylock or self.conda else ""
        if self.image:
            return f"{self.manager.value} from {self.origin}, image {self.image.words}"
        as_of = f" as of {self.as_of[:10]}" if self.as_of else ""
        return f"{self.manager.value} from {self.origin}{python}{packages}{as_of}"


@dataclass(frozen=True)
class ImageFacts:
    """An image that is here.  `variables` are those it sets itself."""

    id: str
    variables: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class LockFile:
    """`runproj.lock`: an environment's lock, committed with the project.

    request: a digest of what the project asked for when it was locked;  lock: without what belongs to one machine (digest, times,
    where the interpreter is, the content of local packages).
    """

    request: str
    lock: EnvLock
    version: int = 1


@dataclass(frozen=True)
class Environment:
    """An environment on disk.  It is applied to a command; it never changes this process.

    bin:       folders put in front of PATH.
    variables: set for the command; `unset` lists variables that must not reach it.
    image:     the command runs in a container of it; None for one that runs on the host.
    """

    lock: EnvLock
    path: Path | None = None
    bin: tuple[Path, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    unset: tuple[str, ...] = ()
    image: ImageFacts | None = None


Progress = Callable[[str], None]
"""Told, in a few words, what is going on right now."""


class EnvironmentBuilder(Protocol):
    """Makes one kind of environment.  Knows nothing of caches or runs."""

    def lock(self, spec: EnvSpec, project: Path, when: datetime | None, options: LockOptions) -> EnvLock:
        """Pin `spec`.  `project` is the checkout's project folder, `when` the commit's time.

        On return every package has an exact version and a hash, or an `EnvironmentFailure` says what could not be solved.
        """

    def build(self, lock: EnvLock, project: Path, into: Path, progress: Progress) -> None:
        """Make the environment at `into`, which does not exist yet.  A normal return guarantees a working environment.

        `into` is its final path (environments are not relocatable).  On failure the caller removes what is there.
        """

    def environment(self, lock: EnvLock, path: Path) -> Environment:
        """How commands use the environment built at `path`.  Touches nothing."""

    def problem(self, lock: EnvLock, path: Path, *, thorough: bool = False) -> str | None:
        """Why the environment at `path` is unfit, or None.  Cheap unless `thorough`, which checks every file."""


class Environments(Protocol):
    """Builders behind a cache: each digest is built once, by whoever comes first."""

    def lock(self, spec: EnvSpec, project: Path, when: datetime | None, options: LockOptions) -> EnvLock:
        """As `EnvironmentBuilder.lock`, answered from the store of locks where this request was pinned before."""

    def ensure(self, lock: EnvLock, project: Path, progress: Progress) -> Environment:
        """The environment of `lock`, built if it is not there.  Raises `EnvironmentFailure`."""

    def examine(self, lock: EnvLock, *, rebuild: bool = False) -> str | None:
        """Check every file of the environment of `lock`, if it is there; says what is wrong with it.

        One that is damaged, or any with `rebuild`, is built anew by the next `ensure`.
        """
