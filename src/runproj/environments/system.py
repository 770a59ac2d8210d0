"""The system builder: the Python that is first on PATH, as it is.  Records what is installed there; installs nothing."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from runproj import codec, proc
from runproj.core.environment import (
    Environment,
    EnvLock,
    EnvManager,
    EnvPlace,
    EnvSpec,
    LockOptions,
    Progress,
    PythonPin,
)
from runproj.core.values import dataclass
from runproj.environments.digests import lock_digest, platform_name
from runproj.environments.requests import iso
from runproj.errors import EnvironmentFailure, StartError
from runproj.files import atomic_write

_ASK = """
import sys
sys.path[:] = filter(None, sys.path)  # the folder where it is asked has no modules for it
import json, platform
try:
    from importlib import metadata
    found = sorted({(d.metadata["Name"], d.version) for d in metadata.distributions() if d.metadata["Name"]})
except ImportError:
    import pkg_resources
    found = sorted({(d.project_name, d.version) for d in pkg_resources.working_set})
folders = [p for p in sys.path if p.endswith(("site-packages", "dist-packages"))]
json.dump({"version": platform.python_version(), "implementation": platform.python_implementation(), "path": sys.executable,
           "build": sys.version.replace(chr(10), " "), "installed": [list(f) for f in found], "folders": folders}, sys.stdout)
"""


@dataclass(frozen=True)
class _Installed:
    """What the interpreter said, and the state of its folders when it was asked."""

    version: str
    implementation: str
    path: str
    build: str
    installed: tuple[tuple[str, str], ...]
    folders: tuple[str, ...]
    state: str = ""


class SystemBuilder:
    """The interpreter that is there.  `memory`: a folder for its answers;  `environ`: whose PATH counts."""

    def __init__(self, memory: Path, environ: Mapping[str, str]) -> None:
        self._memory = memory
        self._environ = environ

    def lock(self, spec: EnvSpec, project: Path, when: datetime | None, options: LockOptions) -> EnvLock:
        """Record the interpreter and its packages.  What the project asks for is not installed, and the notes say so."""
        del project, when
        if options.extra:
            raise EnvironmentFailure(
                "--with adds packages, and nothing is installed into the system's environment",
                fix="Leave out --env-manager system, or install them yourself.",
            )
        found = self._ask(self._python())
        notes = [*spec.notes]
        if spec.requirements or spec.conda or spec.lock_file or spec.docker:
            notes.append(f"What {spec.origin} asks for is not installed: the system's Python is used as it is.")
        if spec.python is not None and not found.version.startswith(spec.python):
            notes.append(f"{spec.origin} asks for Python {spec.python}; the system's is {found.version}.")
        lock = EnvLock(
            manager=EnvManager.SYSTEM,
            place=EnvPlace.HOST,
            digest="",
            origin="system",
            platform=platform_name(),
            python=PythonPin(found.version, found.implementation, found.path, found.build),
            resolved_at=iso(datetime.now(UTC)),
            notes=tuple(notes),
            installed=tuple(f"{name}=={version}" for name, version in found.installed),
            variables=spec.variables,
        )
        return replace(lock, digest=lock_digest(lock))

    def _python(self) -> Path:
        path = self._environ.get("PATH", os.defpath)
        for name in ("python", "python3"):
            if chosen := shutil.which(name, path=path):
                return Path(chosen)
        raise EnvironmentFailure("No Python is on PATH", fix="Install one, or leave out --env-manager system.")

    def _ask(self, python: Path) -> _Installed:
        """The interpreter's own words, asked again only where it or what is installed has changed."""
        file = self._memory / f"{hashlib.sha256(str(python).encode()).hexdigest()[:32]}.json"
        try:
            known = codec.from_json(_Installed, file.read_bytes())
        except (OSError, codec.DocumentError):
            known = None
        if known is not None and known.state == _state(python, known.folders, self._environ):
            return known
        try:
            done = proc.run([python, "-c", _ASK], env=self._environ, timeout=60)
        except StartError as error:
            raise EnvironmentFailure(error.what, why=error.why) from error
        try:
            said = codec.from_json(_Installed, done.out)
        except codec.DocumentError as error:
            raise EnvironmentFailure(
                f"{python} does not work", why=done.err.decode(errors="replace").strip()[-2000:] or str(error)
            ) from error
        said = replace(said, state=_state(python, said.folders, self._environ))
        atomic_write(file, codec.to_json(said))
        return said

    def build(self, lock: EnvLock, project: Path, into: Path, progress: Progress) -> None:
        """Nothing to make."""
        del lock, project, into, progress

    def environment(self, lock: EnvLock, path: Path) -> Environment:
        """The caller's environment, with that interpreter's folder first."""
        del path
        return Environment(lock, bin=(Path(lock.python.path).parent,) if lock.python else (), variables=dict(lock.variables))

    def problem(self, lock: EnvLock, path: Path, *, thorough: bool = False) -> str | None:
        """Whether the interpreter still is what the lock says."""
        del path, thorough
        if lock.python is None or not Path(lock.python.path).exists():
            return "its interpreter is gone"
        now = self._ask(Path(lock.python.path))
        if now.version != lock.python.version:
            return f"Python is {now.version} now, and was {lock.python.version}"
        if tuple(f"{name}=={version}" for name, version in now.installed) != lock.installed:
            return "other packages are installed now"
        return None


def _state(python: Path, folders: tuple[str, ...], environ: Mapping[str, str]) -> str:
    """What changes when the interpreter or its packages do: folder times, PYTHONPATH."""
    marks = [environ.get("PYTHONPATH", ""), environ.get("PYENV_VERSION", ""), environ.get("VIRTUAL_ENV", "")]
    for path in (python, *map(Path, folders)):
        try:
            status = path.stat()
        except OSError:
            marks.append(f"{path} is gone")
        else:
            marks.append(f"{path} {status.st_mtime_ns} {status.st_ino}")
    return hashlib.sha256("\n".join(marks).encode()).hexdigest()
