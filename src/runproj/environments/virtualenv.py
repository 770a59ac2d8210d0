"""The virtualenv builder: locks with uv, creates with virtualenv, installs with uv (or pip)."""

from __future__ import annotations

import csv
import datetime
import hashlib
import os
import sys
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from runproj import proc
from runproj.core.environment import (
    Environment,
    EnvLock,
    EnvManager,
    EnvPlace,
    EnvSpec,
    LocalPackage,
    LockOptions,
    Progress,
    PythonPin,
)
from runproj.environments import brought, pylock, requests, resolve, trees, uvtool
from runproj.environments.digests import lock_digest, platform_name
from runproj.environments.pythons import Choice, Pythons
from runproj.environments.versions import parse, parse_wish
from runproj.errors import EnvironmentFailure
from runproj.files import explained

UNSET = (
    "PYTHONHOME",
    "PYTHONPATH",
    "__PYVENV_LAUNCHER__",
    "PYENV_VERSION",
    "CONDA_PREFIX",
    "CONDA_DEFAULT_ENV",
    "CONDA_PROMPT_MODIFIER",
    "CONDA_PYTHON_EXE",
    "CONDA_SHLVL",
    "CONDA_EXE",
    "UV_PYTHON",
    "PIP_PREFIX",
    "PIP_TARGET",
    "PIP_USER",
)
"""Variables of the caller's own Python that must not reach the environment's."""

OLDEST_VIRTUALENV = (3, 8)
"""virtualenv writes a start-up hook into the environment that older interpreters cannot parse; uv makes theirs."""

COMPANION = "setuptools<81"
"""What every Python environment used to contain: `venv`, conda and MLflow put setuptools there, and with it `pkg_resources`,
which code of that time imports without saying so.  From 82 on it is gone."""
COMPANION_UNTIL = (3, 12)
"""From Python 3.12 on, `venv` no longer adds it."""


class VirtualenvBuilder:
    """Environments made by virtualenv from a PEP 751 lock."""

    def __init__(self, uv: uvtool.Uv, pythons: Pythons, *, offline: bool = False) -> None:
        self._uv = uv
        self._pythons = pythons
        self._offline = offline

    def lock(self, spec: EnvSpec, project: Path, when: datetime.datetime | None, options: LockOptions) -> EnvLock:
        """Pin `spec` (see `EnvironmentBuilder.lock`)."""
        now = datetime.datetime.now(datetime.UTC)
        at = requests.moment(options.as_of, when, now)
        wanted = requests.wanted(spec, options)
        options = replace(options, offline=options.offline or self._offline)
        own = project / spec.lock_file if spec.lock_file else None
        python_wish = wanted.python or (_required_python(own) if own else None)
        written = when if when is not None and options.as_of == "commit" else at.date or now
        choice = self.interpreter(python_wish, written.date(), spec.origin, options)
        if own is not None:
            answer = self._own_lock(own, project, choice.python, at, options)
        else:
            soft = _companions(wanted, choice.python, spec)
            question = resolve.Question(
                wanted.lines, soft, choice.python, at.date, project, strict=options.strict, offline=options.offline
            )
            answer = resolve.resolve(question, self._uv) if wanted.lines or soft else resolve.empty(choice.python)
        local = tuple(local_package(package, project) for package in answer.local)
        lock = EnvLock(
            manager=EnvManager.VIRTUALENV,
            place=EnvPlace.HOST,
            digest="",
            origin=spec.origin,
            platform=platform_name(),
            python=choice.python,
            pylock=answer.text,
            local_packages=local,
            extra=options.extra,
            variables=spec.variables,
            as_of=answer.as_of,
            resolved_at=requests.iso(now),
            notes=(*wanted.notes, *choice.notes, *answer.notes),
            installer=options.installer,
        )
        return replace(lock, digest=lock_digest(lock))

    def interpreter(self, text: str | None, day: datetime.date, origin: str, options: LockOptions) -> Choice:
        """The interpreter for what `origin` asks for, fetched where that is allowed.  Raises `EnvironmentFailure`."""
        choice = self._pythons.choose(text, day, strict=options.strict)
        said = ""
        if choice is None and not options.offline and not (text or "").startswith("/"):
            said = self._uv.fetch_python(text or "3", self._uv.home / "pythons")
            choice = self._pythons.choose(text, day, strict=options.strict)
        if choice is None:
            raise self._pythons.missing(
                f"No interpreter for Python {text or '3'} (asked for by {origin}) is installed", text, said
            )
        return choice

    def _own_lock(self, own: Path, project: Path, python: PythonPin, at: requests.Moment, options: LockOptions) -> resolve.Answer:
        """The project's lock, with what `--with` adds, resolved beside it."""
        note = ""
        if own.name == "uv.lock":
            answer, note = resolve.export(own, project, python, self._uv)
            if note and options.locked:
                raise EnvironmentFailure(note.partition(";")[0], fix="Run `uv lock` and commit it, or run without --locked.")
        else:
            answer = resolve.project_lock(own, project)
        answer = replace(answer, notes=(note,) if note else ())
        if not options.extra:
            return answer
        fixed = [f"{item['name']}=={item['version']}" for item in pylock.packages(answer.text) if "version" in item]
        question = resolve.Question(
            options.extra,
            (),
            python,
            at.date,
            project,
            strict=options.strict,
            offline=options.offline,
            constraints=tuple(fixed),
        )
        return resolve.with_extra(answer, resolve.resolve(question, self._uv))

    def build(self, lock: EnvLock, project: Path, into: Path, progress: Progress) -> None:
        """Make the environment at `into` (see `EnvironmentBuilder.build`)."""
        if lock.python is None or lock.pylock is None:
            raise EnvironmentFailure("The lock names no interpreter or no packages", fix="Lock it anew (--relock).")
        python = self._pythons.exactly(lock.python)
        with self._uv.scratch() as scratch, explained(into):
            self._create(lock, python, into, scratch, progress)
            self.install(lock, project, into / "bin/python", scratch, progress)

    def install(self, lock: EnvLock, project: Path, interpreter: Path, scratch: Path, progress: Progress) -> None:
        """Install what the lock's `pylock` and `local_packages` name for an interpreter of ours."""
        if lock.pylock and pylock.packages(lock.pylock):
            self._install(lock, brought.localised(lock.pylock, self._uv.home, scratch), interpreter, scratch, progress)
        for package in lock.local_packages:
            self._install_local(lock, package, project, interpreter, scratch, progress)

    def _create(self, lock: EnvLock, python: PythonPin, into: Path, scratch: Path, progress: Progress) -> None:
        progress(f"creating a virtualenv with Python {python.version}")
        version = parse(python.version) or (3,)
        if version < OLDEST_VIRTUALENV:
            done = self._uv.run(["venv", "--python", python.path, into], cwd=scratch, scratch=scratch)
        else:
            seed = ["--no-setuptools", "--no-wheel", "--pip", "embed"] if lock.installer == "pip" else ["--no-seed"]
            variables = self._uv.variables(scratch)
            app_data = self._uv.home / "cache/virtualenv"
            argv: list[str | Path] = [sys.executable, "-I", "-m", "virtualenv", "--quiet", "--no-vcs-ignore", *seed]
            argv += ["--no-periodic-update", "--app-data", app_data, "--python", python.path, into]
            done = proc.run(argv, cwd=scratch, env=variables | {"VIRTUALENV_CONFIG_FILE": os.devnull})
        if done.code != 0 or not (into / "bin/python").exists():
            raise uvtool.failure(f"A virtualenv with Python {python.version} cannot be created", done.text)

    def _install(self, lock: EnvLock, text: str, interpreter: Path, scratch: Path, progress: Progress) -> None:
        if lock.installer == "pip":
            self._install_by_pip(text, interpreter, scratch, progress)
            return
        target = scratch / "pylock.toml"
        target.write_text(text)
        progress(f"installing {len(pylock.packages(text))} packages")
        self._uv_install(["-r", target], lock, interpreter, scratch, scratch, progress)

    def _install_local(
        self, lock: EnvLock, package: LocalPackage, project: Path, interpreter: Path, scratch: Path, progress: Progress
    ) -> None:
        """Install a package of the checkout.  Never editable: the checkout is gone when the run is over."""
        folder = project / package.path
        if trees.digest_of(folder) != package.digest:
            raise EnvironmentFailure(
                f"The local package {package.path} is not what it was when the environment was locked",
                fix="Lock it anew (--relock).",
            )
        if wheel := brought.built_wheel(package.digest, self._uv.home, scratch):
            progress(f"installing {package.path} as the capsule brought it")
            self._uv_install(["--no-deps", "--reinstall", f"./{wheel.name}"], lock, interpreter, wheel.parent, scratch, progress)
            return
        progress(f"installing {package.path} from the project")
        here, what = (folder, ".") if folder.is_dir() else (folder.parent, f"./{folder.name}")
        with trees.untouched(project):  # a relative path, because an absolute one may hold what a requirement cannot
            arguments: list[str | Path] = ["--no-deps", "--reinstall", "--refresh", what]
            self._uv_install(arguments, lock, interpreter, here, scratch, progress)

    def _uv_install(
        self, what: list[str | Path], lock: EnvLock, interpreter: Path, cwd: Path, scratch: Path, progress: Progress
    ) -> None:
        arguments: list[str | Path] = ["pip", "install", "--python", interpreter, "--preview-features", "pylock"]
        arguments += [*uvtool.dated(lock.as_of), "--link-mode", "hardlink", *what]
        if "-r" in what and self._uv.run(arguments, cwd=cwd, scratch=scratch, offline=True).code == 0:
            return  # the cache had everything: asking the index whether it still has the same costs more than installing
        done = self._uv.run(arguments, cwd=cwd, scratch=scratch, offline=self._offline, progress=progress)
        if done.code != 0:
            raise uvtool.failure("The environment cannot be built", done.err.decode(errors="replace"), offline=self._offline)

    def _install_by_pip(self, text: str, interpreter: Path, scratch: Path, progress: Progress) -> None:
        target = scratch / "requirements.txt"
        target.write_text(pylock.as_requirements(text))
        progress(f"installing {len(pylock.packages(text))} packages with pip")
        argv: list[str | Path] = [interpreter, "-m", "pip", "install", "--require-hashes", "--no-deps", "--no-compile"]
        argv += ["--disable-pip-version-check", "--no-input", "--cache-dir", self._uv.home / "cache/pip", "-r", target]
        done = proc.stream(argv, progress, cwd=scratch, env=self._uv.variables(scratch))
        if done.code != 0:
            raise uvtool.failure("The environment cannot be built", done.text)

    def environment(self, lock: EnvLock, path: Path) -> Environment:
        """How commands use the environment at `path`.  A pip from outside refuses to install past it."""
        variables = {"VIRTUAL_ENV": str(path), "PIP_REQUIRE_VIRTUALENV": "1", **dict(lock.variables)}
        return Environment(lock=lock, path=path, bin=(path / "bin",), variables=variables, unset=UNSET)

    def problem(self, lock: EnvLock, path: Path, *, thorough: bool = False) -> str | None:
        """Why the environment is unfit, or None."""
        del lock
        for name in ("pyvenv.cfg", "bin/python"):
            if not (path / name).exists():
                return f"{name} is missing" if not (path / name).is_symlink() else "its interpreter is gone"
        if not thorough:
            return None
        return next(damages(path), None)


def _companions(wanted: requests.Wanted, python: PythonPin, spec: EnvSpec) -> tuple[str, ...]:
    """What the environments of that kind and time contained without being asked."""
    declared = bool(wanted.lines or spec.python or spec.conda)
    old = (parse(python.version) or (0,)) < COMPANION_UNTIL
    if not declared or "setuptools" in requests.names(wanted.lines) or not (old or spec.manager is EnvManager.CONDA):
        return ()
    return (COMPANION,)


def _required_python(lock_file: Path) -> str | None:
    """The interpreter that a lock of the project's own was made for."""
    try:
        text = pylock.parse(lock_file.read_text()).get("requires-python")
    except OSError:
        return None
    return text if isinstance(text, str) and parse_wish(text) else None


def local_package(package: pylock.Local, project: Path) -> LocalPackage:
    """A package of the checkout, with the digest of its files."""
    return LocalPackage(package.path, trees.digest_of(project / package.path), package.editable)


def damages(path: Path, ours: tuple[str, ...] = ()) -> Iterator[str]:
    """Files that are not what their package's RECORD says.  `ours`: only packages of these installers are looked at."""
    for record in sorted(path.glob("lib/python3*/site-packages/*.dist-info/RECORD")):
        if ours and not _installed_by(record, ours):
            continue
        root = record.parent.parent
        with record.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            for row in csv.reader(file):
                if len(row) < 2 or not row[1].startswith("sha256="):
                    continue
                target = root / row[0]
                try:
                    with target.open("rb") as content:
                        found = hashlib.file_digest(content, "sha256").digest()
                except OSError:
                    yield f"{row[0]} of {record.parent.name.removesuffix('.dist-info')} is missing"
                    continue
                if urlsafe_b64encode(found).rstrip(b"=").decode() != row[1].removeprefix("sha256="):
                    yield f"{row[0]} of {record.parent.name.removesuffix('.dist-info')} has been changed"


def _installed_by(record: Path, ours: tuple[str, ...]) -> bool:
    try:
        return record.with_name("INSTALLER").read_text().strip() in ours
    except OSError:
        return False
