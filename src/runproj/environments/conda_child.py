"""conda's solver and installer, asked in a process of their own (`conda_worker.py`), and what their failures mean."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from runproj import codec, proc
from runproj.core.environment import CondaPackage, Progress
from runproj.core.values import dataclass
from runproj.environments.uvtool import scrub
from runproj.errors import EnvironmentFailure, RunprojError, StorageError
from runproj.files import Objects

_FILE = re.compile(r"[A-Za-z0-9_.!+-]+\.(?:conda|tar\.bz2)")
_PLAIN = re.compile(r"[a-z0-9_-]+")
_WORKER = Path(__file__).with_name("conda_worker.py")
REACH_SECONDS = 3.0
"""How long a channel may take to answer before it counts as out of reach."""


class Unreachable(EnvironmentFailure):
    """A channel does not answer, or is none."""


def installed() -> bool:
    """Whether the library is there.  Imports nothing."""
    return importlib.util.find_spec("rattler") is not None


def subdir() -> str:
    """conda's name of this platform."""
    machine = os.uname().machine
    return {"x86_64": "linux-64", "i686": "linux-32"}.get(machine, f"linux-{machine}")


@dataclass(frozen=True)
class Rattler:
    """The library, with caches below `home`.  `environ`: proxies, credentials and `CONDA_OVERRIDE_…` come from there."""

    home: Path
    environ: Mapping[str, str]

    @property
    def cache(self) -> Path:
        return self.home / "cache/conda"

    def silent(self, urls: Sequence[str]) -> dict[str, str]:
        """Channels that do not answer within a few seconds, and why."""
        request = {"do": "reach", "urls": list(urls), "subdir": subdir(), "timeout": REACH_SECONDS}
        return dict(self._ask(request, "The channels cannot be asked")["problems"])

    def solve(
        self, specs: Sequence[str], urls: Sequence[str], exclude_newer: str | None, *, offline: bool, progress: Progress
    ) -> list[dict[str, Any]]:  # JSON of conda's own records
        """The newest packages that fit together.  Raises `EnvironmentFailure` in the solver's words."""
        request: dict[str, object] = {
            "do": "solve",
            "specs": list(specs),
            "channels": list(urls),
            "subdir": subdir(),
            "cache": str(self.cache),
        }
        request |= {"exclude_newer": exclude_newer, "offline": offline}
        found = self._ask(request, "The conda environment cannot be solved", progress)["records"]
        return [record for record in found if isinstance(record, dict)]

    def install(
        self, packages: Sequence[CondaPackage], urls: Mapping[str, str], prefix: Path, *, offline: bool, progress: Progress
    ) -> None:
        """Install packages, verified, into `prefix`.  `urls`: where each channel is."""
        described = [self._described(package, urls[package.channel]) for package in packages]
        request = {"do": "install", "packages": described, "prefix": str(prefix), "cache": str(self.cache), "offline": offline}
        self._ask(request, "The conda environment cannot be built", progress)

    def fetch(
        self, packages: Sequence[CondaPackage], urls: Mapping[str, str], into: Path, *, offline: bool, progress: Progress
    ) -> None:
        """Write the files of packages, verified, into a folder."""
        described = [self._described(package, urls[package.channel]) for package in packages]
        request = {"do": "fetch", "packages": described, "into": str(into), "cache": str(self.cache), "offline": offline}
        self._ask(request, "The packages of the conda environment cannot be had", progress)

    def _described(self, package: CondaPackage, channel: str) -> dict[str, object]:
        """A package with the place of its file: here, where a capsule brought it, else in its channel.

        Raises `EnvironmentFailure` for names that would lead the file to another place.
        """
        if not _FILE.fullmatch(package.file) or not _PLAIN.fullmatch(package.subdir):
            raise EnvironmentFailure(f"{package.subdir[:80]}/{package.file[:80]} is not a name that a conda package has")
        brought = Objects(self.home / "objects").path(package.sha256)
        url = brought.as_uri() if brought.exists() else f"{channel}/{package.subdir}/{package.file}"
        return {**codec.to_plain(package), "url": url, "place": scrub(channel)}

    def _ask(self, request: dict[str, object], what: str, progress: Progress = lambda _: None) -> dict[str, Any]:
        if request["do"] != "reach":
            require_library()

        def news(line: str) -> None:
            if line.startswith("\t"):
                progress(line.strip())

        done = proc.stream([sys.executable, "-I", _WORKER], news, env=self._variables(), stdin=json.dumps(request).encode())
        if done.code == 0:
            try:
                answer = json.loads(done.out)
            except ValueError:
                answer = {}
            if "error" in answer:
                raise _failure(what, answer["error"], scrub(answer["said"]))
            if answer:
                return dict(answer)
            if request["do"] in ("install", "fetch"):
                return {}
        raise _failure(what, "install", scrub(done.err.decode(errors="replace").strip()[-4000:]) or f"exit code {done.code}")

    def _variables(self) -> dict[str, str]:
        return {name: value for name, value in self.environ.items() if not name.startswith("PYTHON")}


def require_library() -> None:
    """Raises `EnvironmentFailure` where the library is missing."""
    if not installed():
        raise EnvironmentFailure(
            "Environments made by conda need py-rattler, which is not installed",
            fix="Install it (`pip install 'runproj[conda]'`), or use `--env-manager virtualenv`: "
            "the packages are then taken from the Python package index.",
        )


_ELSE = "or use `--env-manager virtualenv`, which takes the packages from the Python package index."


def _failure(what: str, kind: str, said: str) -> RunprojError:
    if "No space left on device" in said or "os error 28" in said:
        return StorageError(
            what, why=said, fix="Free some space (`runproj gc`), or set RUNPROJ_HOME to a larger disk; then retry."
        )
    match kind:
        case "channel":
            return Unreachable(
                what, why=said, fix=f"Check the network and where the channels are (RUNPROJ_CONDA_CHANNELS), {_ELSE}"
            )
        case "uncached":
            return Unreachable(what, why=f"Not everything is cached.\n{said}", fix="Run it once without --offline.")
        case "solve":
            return EnvironmentFailure(
                what, why=said, fix=f"Relax the versions named above, choose another date (--as-of now) or channel, {_ELSE}"
            )
        case "spec":
            return EnvironmentFailure(
                what, why=said, fix="Write dependencies as conda does: numpy, numpy=1.26, 'numpy>=1.26,<2'."
            )
        case "hash":
            return EnvironmentFailure(
                what,
                why=said,
                fix="The file has been replaced since it was locked: have the channel restored, or lock anew (--relock).",
            )
        case "offline":
            return EnvironmentFailure(what, why=f"Not cached: {said}", fix="Run it once without --offline.")
        case _:
            return EnvironmentFailure(
                what, why=said, fix="Run it again; if it fails in the same way, the words above say what is wrong."
            )
