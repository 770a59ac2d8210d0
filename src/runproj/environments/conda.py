"""The conda builder: solves and installs with rattler, adds what `pip:` lists with uv."""

from __future__ import annotations

import datetime
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from runproj.core.environment import (
    CondaPackage,
    Environment,
    EnvLock,
    EnvManager,
    EnvPlace,
    EnvSpec,
    LockOptions,
    Progress,
    PythonPin,
)
from runproj.environments import activation, conda_child, pylock, requests, resolve, uvtool
from runproj.environments.channels import Channels
from runproj.environments.digests import lock_digest, platform_name
from runproj.environments.versions import parse
from runproj.environments.virtualenv import UNSET, VirtualenvBuilder, damages, local_package
from runproj.errors import EnvironmentFailure
from runproj.files import explained

_UNSET = (
    *(name for name in UNSET if not name.startswith("CONDA_")),
    "VIRTUAL_ENV",
    "VIRTUAL_ENV_PROMPT",
    "PIP_REQUIRE_VIRTUALENV",
)
_CONDAS_OWN = tuple(name for name in UNSET if name.startswith("CONDA_"))
_SPEC_CHANNEL = re.compile(r"^(?P<channel>[^\s\[]+?)(?:/(?P<subdir>(?:linux|osx|win)-\w+|noarch))?::(?P<rest>.+)$")


class CondaBuilder:
    """Environments made of conda packages, without a conda on the machine.

    pip: installs and resolves the Python packages that are listed under `pip:`;  progress: told what making a lock waits for.
    """

    def __init__(
        self,
        conda: conda_child.Rattler,
        channels: Channels,
        uv: uvtool.Uv,
        pip: VirtualenvBuilder,
        progress: Progress = lambda _: None,
        *,
        offline: bool = False,
    ) -> None:
        self._progress = progress
        self._conda = conda
        self._channels = channels
        self._uv = uv
        self._pip = pip
        self._offline = offline

    # -- lock

    def lock(self, spec: EnvSpec, project: Path, when: datetime.datetime | None, options: LockOptions) -> EnvLock:
        """Pin `spec` (see `EnvironmentBuilder.lock`)."""
        conda_child.require_library()
        if spec.lock_file:
            raise EnvironmentFailure(
                f"{spec.lock_file} names Python packages only, and conda cannot install from it",
                fix="Use `--env-manager virtualenv`.",
            )
        now = datetime.datetime.now(datetime.UTC)
        at = requests.moment(options.as_of, when, now)
        options = replace(options, offline=options.offline or self._offline)
        lines = requests.pip_lines(spec, options)
        packages, as_of, notes = self._solve(spec, at, options, bool(lines))
        python = _interpreter(packages)
        answer = resolve.Answer("")
        if lines:
            answer = self._resolve_pip(lines, packages, python, at, project, options)
        lock = EnvLock(
            manager=EnvManager.CONDA,
            place=EnvPlace.HOST,
            digest="",
            origin=spec.origin,
            platform=platform_name(),
            python=python,
            pylock=answer.text or None,
            local_packages=tuple(local_package(package, project) for package in answer.local),
            extra=options.extra,
            as_of=as_of,
            resolved_at=requests.iso(now),
            notes=(*spec.notes, *notes, *answer.notes),
            installer="uv",
            conda=packages,
            variables=spec.variables,
        )
        return replace(lock, digest=lock_digest(lock))

    def _solve(
        self, spec: EnvSpec, at: requests.Moment, options: LockOptions, pip: bool
    ) -> tuple[tuple[CondaPackage, ...], str | None, list[str]]:
        """Packages, the moment they are of, and what there is to say about it."""
        wanted, channels = self._wanted(spec, pip)
        urls = {self._channels.url(name): name for name in channels}
        notes = [] if spec.channels else [f"The project names no conda channel; {', '.join(channels)} is used."]
        dates = [requests.iso(at.date) if at.date else None]
        if at.date and not options.strict:
            dates.append(None)
        first: EnvironmentFailure | None = None
        for date in dates:
            try:
                records = self._conda.solve(wanted, list(urls), date, offline=options.offline, progress=self._progress)
            except conda_child.Unreachable:
                raise
            except EnvironmentFailure as error:
                first = first or error
                continue
            if first is not None:
                notes.append(f"The channels as of {dates[0]} have no solution, so today's were used. {_gist(first)}")
            return tuple(sorted((_package(record, urls) for record in records), key=lambda item: item.name)), date, notes
        raise first or EnvironmentFailure("The conda environment cannot be solved")

    def _wanted(self, spec: EnvSpec, pip: bool) -> tuple[list[str], list[str]]:
        """Dependencies in the solver's words, and the channels they may come from."""
        listed = [*([spec.conda_python] if spec.conda_python else []), *spec.conda]
        python = _python_spec(spec)
        if python or (pip and not spec.conda_python):
            listed.append(python or "python")
        channels = list(self._channels.names(spec.channels))
        wanted = []
        for text in listed:
            if found := _SPEC_CHANNEL.match(text):
                name = self._channels.name(found["channel"]) or channels[0]
                if name not in channels:
                    channels.append(name)
                place = self._channels.url(name) + (f"/{found['subdir']}" if found["subdir"] else "")
                text = f"{place}::{found['rest']}"
            wanted.append(text)
        return wanted, channels

    def _resolve_pip(
        self,
        lines: tuple[str, ...],
        packages: tuple[CondaPackage, ...],
        python: PythonPin | None,
        at: requests.Moment,
        project: Path,
        options: LockOptions,
    ) -> resolve.Answer:
        """The lock of what pip adds: resolved by the environment's own interpreter, with what conda brings taken as given."""
        if python is None:
            raise EnvironmentFailure(
                "The conda environment has no Python, and packages for pip are listed", fix="Add python to it."
            )
        from runproj.environments import conda_pip

        with self._uv.scratch() as scratch:
            prefix = scratch / "env"
            self._install_conda(packages, prefix, options.offline, self._progress)
            there = replace(python, path=str(prefix / "bin/python"))
            question = resolve.Question(lines, (), there, at.date, project, strict=options.strict, offline=options.offline)
            return conda_pip.resolve_beside(question, prefix, scratch, self._uv)

    # -- build

    def build(self, lock: EnvLock, project: Path, into: Path, progress: Progress) -> None:
        """Make the environment at `into` (see `EnvironmentBuilder.build`)."""
        conda_child.require_library()
        with self._uv.scratch() as scratch, explained(into):
            self._install_conda(lock.conda, into, self._offline, progress)
            if lock.pylock or lock.local_packages:
                self._pip.install(lock, project, into / "bin/python", scratch, progress)
            found = activation.activate(into, lock.variables, str(scratch))
            activation.keep(into, replace(found, replaced=tuple(_replaced(into, lock))))

    def _install_conda(self, packages: tuple[CondaPackage, ...], prefix: Path, offline: bool, progress: Progress) -> None:
        self._conda.install(packages, self._urls(packages), prefix, offline=offline, progress=progress)

    def _urls(self, packages: tuple[CondaPackage, ...]) -> dict[str, str]:
        return {name: self._channels.url(name) for name in {package.channel for package in packages}}

    # -- carry away

    def pack(self, lock: EnvLock, into: Path, progress: Progress) -> None:
        """Write the files of the conda packages into a folder."""
        self._conda.fetch(lock.conda, self._urls(lock.conda), into, offline=self._offline, progress=progress)

    def interpreter(self, lock: EnvLock, prefix: Path, progress: Progress) -> PythonPin:
        """The environment's interpreter, in an environment of conda's packages alone that is made at `prefix`."""
        self._install_conda(lock.conda, prefix, self._offline, progress)
        assert lock.python is not None  # there is something for pip
        return replace(lock.python, path=str(prefix / "bin/python"))

    # -- use

    def environment(self, lock: EnvLock, path: Path) -> Environment:
        """How commands use the environment at `path`."""
        folders, variables = activation.applied(path, {})
        unset = (*_UNSET, *(name for name in _CONDAS_OWN if name not in variables))
        return Environment(lock=lock, path=path, bin=folders, variables=variables, unset=unset)

    def problem(self, lock: EnvLock, path: Path, *, thorough: bool = False) -> str | None:
        """Why the environment is unfit, or None."""
        if lock.python and not (path / "bin/python").exists():
            return "bin/python is missing"
        found = activation.kept(path)
        if found is None:
            return f"{activation.FILE} is missing"
        if not thorough:
            return None
        have = {file.name for file in path.glob("conda-meta/*.json")}
        for package in lock.conda:
            if f"{re.sub(r'[.](conda|tar[.]bz2)$', '', package.file)}.json" not in have:
                return f"the record of {package.name} is missing"
        return next(_damaged_files(path, found.replaced), None) or next(damages(path, ours=("uv", "pip")), None)


def _gist(error: EnvironmentFailure) -> str:
    words = " ".join(error.why.split())
    return f"The solver said: {words[:300]}" if words else ""


def _python_spec(spec: EnvSpec) -> str:
    """The interpreter in the solver's words, where it is not among the dependencies as it should be."""
    if spec.python is None or (spec.conda_python and spec.python in spec.conda_python):
        return ""
    if re.fullmatch(r"\d+(\.\d+){0,1}", spec.python):
        return f"python {spec.python}.*"
    return f"python =={spec.python}" if parse(spec.python) else f"python {spec.python}"


def _interpreter(packages: tuple[CondaPackage, ...]) -> PythonPin | None:
    for package in packages:
        if package.name == "python":
            return PythonPin(package.version, "PyPy" if "pypy" in package.build else "CPython", "bin/python", package.build)
    return None


def _package(record: Mapping[str, Any], urls: Mapping[str, str]) -> CondaPackage:
    """A package of the lock from conda's record of it."""
    name, channel = str(record["name"]), str(record["channel"]).rstrip("/")
    if not record.get("sha256"):
        raise EnvironmentFailure(
            f"The channel {urls.get(channel, channel)} gives no sha256 of {record['fn']}, so it cannot be locked",
            fix="Use a channel that does, or another version of the package.",
        )
    return CondaPackage(
        name=name,
        version=str(record["version"]),
        build=str(record["build"]),
        subdir=str(record["subdir"]),
        channel=urls.get(channel) or uvtool.scrub(channel),
        file=str(record["fn"]),
        sha256=str(record["sha256"]),
        size=int(record.get("size") or 0),
        build_number=int(record.get("build_number") or 0),
        noarch=str(record.get("noarch") or ""),
        depends=tuple(record.get("depends") or ()),
        site_packages=str(record.get("python_site_packages_path") or ""),
    )


def _replaced(prefix: Path, lock: EnvLock) -> Iterator[str]:
    """conda packages whose files pip's have taken the place of: those that pip's lock names too."""
    ours = {_normal(str(item["name"])) for item in pylock.packages(lock.pylock or "")}
    ours |= {_normal(Path(package.path).name) for package in lock.local_packages}
    if not ours:
        return
    for file in sorted(prefix.glob("conda-meta/*.json")):
        for path, _, _ in _files(file):
            found = re.search(r"site-packages/([^/]+?)-[^/-]+\.(?:dist|egg)-info/", path)
            if found and _normal(found[1]) in ours:
                yield file.stem
                break


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _files(meta: Path) -> Iterator[tuple[str, str, str]]:
    """Path, kind and sha256 of the files of an installed conda package."""
    try:
        listed = json.loads(meta.read_bytes())["paths_data"]["paths"]
        for item in listed:
            yield item["_path"], item.get("path_type", ""), item.get("sha256_in_prefix") or item.get("sha256") or ""
    except (OSError, ValueError, KeyError, TypeError):
        return


def _damaged_files(prefix: Path, replaced: tuple[str, ...]) -> Iterator[str]:
    """Files that are not what they were when conda's packages were installed."""
    for meta in sorted(prefix.glob("conda-meta/*.json")):
        if meta.stem in replaced:
            continue
        for name, kind, sha256 in _files(meta):
            path = prefix / name
            if kind == "pyc_file":
                continue
            if not path.exists() and not path.is_symlink():
                yield f"{name} of {meta.stem} is missing"
            elif sha256 and kind != "softlink" and path.is_file():
                with path.open("rb") as content:
                    if hashlib.file_digest(content, "sha256").hexdigest() != sha256:
                        yield f"{name} of {meta.stem} has been changed"
