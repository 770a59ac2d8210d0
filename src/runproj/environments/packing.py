"""The environment of a lock as files that can be carried away: the wheels that fit its interpreter, fetched by their hashes."""

from __future__ import annotations

import html
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runproj import inputs, proc
from runproj.core.capsule import PackedEnvironment, PackedImage, PackedWheel
from runproj.core.environment import EnvLock, EnvManager, LocalPackage, Progress, PythonPin
from runproj.core.values import dataclass
from runproj.environments import brought, pylock, trees, uvtool
from runproj.environments.digests import platform_name
from runproj.environments.pythons import Pythons
from runproj.environments.versions import parse
from runproj.errors import EnvironmentFailure
from runproj.files import explained, sha256_file

if TYPE_CHECKING:
    from runproj.environments.conda import CondaBuilder
    from runproj.environments.docker import DockerBuilder

_OLDEST_PIP = (3, 9)
"""The oldest Python that a pip of virtualenv's works with."""
_NO_M = (3, 8)
"""Before this Python, the names of ABIs end in m."""
_MISSING = re.compile(r"No matching distribution found for ([A-Za-z0-9._-]+)")
_PIP_SETTINGS = ("PIP_CERT", "PIP_CLIENT_CERT", "PIP_PROXY", "PIP_TRUSTED_HOST", "PIP_DEFAULT_TIMEOUT", "PIP_CONFIG_FILE")
_SYSTEM = "The environment is what is installed on the machine (--env-manager system): the capsule does not hold it."


class Packer:
    """Packs virtual environments.  `python` is the interpreter of the lock on this machine."""

    def __init__(self, uv: uvtool.Uv, python: PythonPin, progress: Progress, *, offline: bool = False) -> None:
        self._uv = uv
        self._python = python
        self._progress = progress
        self._offline = offline
        self._kept = brought.brought(uv.home)

    def pack(self, lock: EnvLock, project: Path, into: Path) -> tuple[PackedWheel, ...]:
        """Write the wheels of a lock to the empty folder `into`; those that had to be built, here, to `built` below it.

        Raises `EnvironmentFailure` where something cannot be had any more.
        """
        packages = pylock.packages(lock.pylock or "")
        with self._uv.scratch() as scratch, explained(into):
            self._progress(f"fetching {len(packages)} packages")
            sources = self._wheels(packages, into, scratch)
            wheels = [PackedWheel(path.name, sha256_file(path)) for path in sorted(into.glob("*.whl"))]
            wheels += [self._built_of(package, lock, into / "built", scratch) for package in self._needed(sources, scratch)]
            wheels += [self._local(package, project, lock, into / "built", scratch) for package in lock.local_packages]
        return tuple(wheels)

    def _wheels(self, packages: list[dict[str, Any]], into: Path, scratch: Path) -> list[dict[str, Any]]:  # TOML tables
        """Fetch what there are wheels for; returns the packages that have to be built."""
        wanted = [package for package in packages if pylock.wheels(package)]
        sources = [package for package in packages if not pylock.wheels(package)]
        while wanted:
            done = self._download(wanted, into, scratch)
            if done.code == 0:
                break
            missing = {_normal(name) for name in _MISSING.findall(done.text)}
            unfit = [package for package in wanted if _normal(package["name"]) in missing and package.get("sdist")]
            if not unfit:
                raise uvtool.failure("The packages of the environment cannot be had", done.text)
            sources += unfit
            wanted = [package for package in wanted if package not in unfit]
        return sources

    def _download(self, packages: list[dict[str, Any]], into: Path, scratch: Path) -> proc.Completed:  # TOML tables
        """pip chooses the wheels that fit the interpreter, among the files that the lock names, and checks their hashes.

        It is run by that interpreter, or, for one that no pip works with any more, told what it would be.
        """
        page, requirements = scratch / "index.html", scratch / "requirements.txt"
        page.write_text("".join(self._link(wheel, scratch) for package in packages for wheel in pylock.wheels(package)))
        requirements.write_text("".join(f"{pylock.requirement(package)}\n" for package in packages))
        python, foreign = self._whose()
        argv: list[str | Path] = [python, "-I", self._pip() / "pip", "download", "--no-index", "--find-links", page, *foreign]
        argv += ["--require-hashes", "--no-deps", "--only-binary", ":all:", "--disable-pip-version-check", "--no-input"]
        argv += ["--cache-dir", self._uv.home / "cache/pip", "--dest", into, "-r", requirements]
        return proc.stream(argv, self._progress_of_pip, cwd=scratch, env=self._variables(scratch))

    def _link(self, wheel: dict[str, Any], scratch: Path) -> str:  # a TOML table
        """A line of the only index that pip sees."""
        name, digest = pylock.file_name(wheel), str(wheel.get("hashes", {}).get("sha256", ""))
        url = str(wheel.get("url", ""))
        if self._kept and len(digest) == 64 and self._kept.objects.path(digest).exists():
            url = brought.linked(self._kept, digest, scratch / "here" / digest / name).as_uri()
        elif self._offline:
            return ""
        return f'<a href="{html.escape(url)}#sha256={digest}">{html.escape(name)}</a>\n'

    def _progress_of_pip(self, line: str) -> None:
        if line.strip().startswith(("Collecting", "Downloading")):
            self._progress(line.strip())

    def _whose(self) -> tuple[str, list[str]]:
        """The interpreter that runs pip, and options that describe the lock's where that is another."""
        version = parse(self._python.version) or (3,)
        if version >= _OLDEST_PIP:
            return self._python.path, []
        name = "".join(map(str, version[:2]))
        _, architecture, _, glibc = (*platform_name().split("-"), "", "", "")[:4]
        newest = int(glibc.partition(".")[2] or 17)
        systems = [f"manylinux_2_{minor}" for minor in range(newest, 4, -1)]
        systems += ["manylinux2014", "manylinux2010", "manylinux1", "linux"]
        options = ["--python-version", ".".join(map(str, version[:3])), "--implementation", "cp"]
        for abi in (f"cp{name}{'m' if version < _NO_M else ''}", "abi3", "none"):
            options += ["--abi", abi]
        for system in systems:
            options += ["--platform", f"{system}_{architecture}"]
        return sys.executable, options

    def _pip(self) -> Path:
        """The pip that virtualenv has in store for the interpreter that runs it: a wheel, which can be run as it is."""
        from virtualenv.seed.wheels.embed import get_embed_wheel

        version = max(parse(self._python.version) or (3,), _OLDEST_PIP)
        wheel = get_embed_wheel("pip", ".".join(map(str, version[:2])))
        if wheel is None:
            said = f"virtualenv has no pip for Python {self._python.version}"
            raise EnvironmentFailure(said, fix="Bring virtualenv up to date.")
        return Path(wheel.path)

    def _needed(self, packages: list[dict[str, Any]], scratch: Path) -> list[dict[str, Any]]:  # TOML tables
        """Those whose marker is true for the interpreter: a lock may be for several platforms."""
        markers = [str(package.get("marker", "")) for package in packages]
        if not any(markers):
            return packages
        code = (
            "import sys; sys.path.insert(0, sys.argv[1]); from pip._vendor.packaging.markers import Marker\n"
            "print(*(int(not text or Marker(text).evaluate()) for text in sys.argv[2:]))"
        )
        argv: list[str | Path] = [self._whose()[0], "-I", "-c", code, self._pip(), *markers]
        done = proc.run(argv, cwd=scratch, env=self._variables(scratch))
        if done.code != 0:
            raise uvtool.failure("The markers of the lock cannot be read", done.text)
        return [package for package, word in zip(packages, done.out.split(), strict=True) if word == b"1"]

    def _variables(self, scratch: Path) -> dict[str, str]:
        """pip's environment: the way to the network, and nothing that would change what is chosen."""
        kept = {name: value for name, value in self._uv.variables(scratch).items() if not name.startswith("PIP_")}
        return kept | {name: value for name in _PIP_SETTINGS if (value := self._uv.environ.get(name))}

    def _built_of(self, package: dict[str, Any], lock: EnvLock, into: Path, scratch: Path) -> PackedWheel:  # a TOML table
        """Build a wheel from a source archive, or from the commit of a repository."""
        if "vcs" in package:
            return self._of_repository(package, lock, into, scratch)
        source = package.get("sdist") or package.get("archive") or {}
        digest = str(source.get("hashes", {}).get("sha256", ""))
        if known := self._known(digest, into):
            return known
        archive = scratch / "sources" / pylock.file_name(source)
        inputs.fetch(str(source.get("url", "")), archive, self._progress)
        if (found := sha256_file(archive)) != digest:
            raise EnvironmentFailure(f"The source of {package['name']} is not what the lock names", why=f"Its sha256 is {found}.")
        self._progress(f"building {package['name']} {package.get('version', '')}")
        return self._built(archive.name, lock, into, digest, scratch, archive.parent)

    def _of_repository(self, package: dict[str, Any], lock: EnvLock, into: Path, scratch: Path) -> PackedWheel:  # a TOML table
        """uv knows how to get at it; in a cache that is empty, what it has built is the only wheel."""
        of = pylock.repository_key(package)
        if known := self._known(of, into):
            return known
        cache, target = scratch / "cache" / of, scratch / "pylock.toml"
        alone = next(block for block in pylock.blocks(lock.pylock or "") if pylock.packages(block) == [package])
        target.write_text(f'lock-version = "1.0"\ncreated-by = "runproj"\n\n{alone}')
        self._progress(f"building {package['name']} of {uvtool.scrub(str(package['vcs'].get('url', '')))}")
        argv: list[str | Path] = ["pip", "install", "--python", self._python.path, "--target", scratch / "target" / of]
        argv += ["--preview-features", "pylock", "--no-deps", *uvtool.dated(lock.as_of), "-r", target]
        own = replace(self._uv, own_cache=cache)
        done = own.run(argv, cwd=scratch, scratch=scratch, offline=self._offline, progress=self._progress)
        found = sorted(cache.rglob("*.whl")) if done.code == 0 else []
        if len(found) != 1:
            raise uvtool.failure(f"{package['name']} cannot be built", done.err.decode(errors="replace"), offline=self._offline)
        return _placed(found[0], into, of)

    def _local(self, package: LocalPackage, project: Path, lock: EnvLock, into: Path, scratch: Path) -> PackedWheel:
        """Build a wheel of a package of the checkout."""
        if known := self._known(package.digest, into):
            return known
        self._progress(f"building {package.path} of the project")
        folder = project / package.path
        here, what = (folder, ".") if folder.is_dir() else (folder.parent, folder.name)
        if folder.suffix == ".whl":
            return _placed(folder, into, package.digest)
        with trees.untouched(project):
            return self._built(what, lock, into, package.digest, scratch, here)

    def _known(self, of: str, into: Path) -> PackedWheel | None:
        """What a capsule has brought as built."""
        if self._kept is None or (built := self._kept.wheel(of)) is None:
            return None
        return _placed(brought.linked(self._kept, built.sha256, into / of[:16] / built.name), into, of)

    def _built(self, what: str, lock: EnvLock, into: Path, of: str, scratch: Path, cwd: Path) -> PackedWheel:
        target = scratch / "built" / of
        argv: list[str | Path] = ["build", "--wheel", what, "--python", self._python.path, "--out-dir", target]
        dated = uvtool.dated(lock.as_of)
        done = self._uv.run([*argv, *dated], cwd=cwd, scratch=scratch, offline=self._offline, progress=self._progress)
        found = sorted(target.glob("*.whl")) if done.code == 0 else []
        if len(found) != 1:
            raise uvtool.failure(f"{what} cannot be built", done.err.decode(errors="replace"), offline=self._offline)
        return _placed(found[0], into, of)


def _placed(wheel: Path, into: Path, of: str) -> PackedWheel:
    """A wheel where the capsule has it: two packages may be built to files of one name."""
    target = into / of[:16] / wheel.name
    if target != wheel:
        target.parent.mkdir(parents=True)
        shutil.copyfile(wheel, target)
    return PackedWheel(f"{into.name}/{of[:16]}/{wheel.name}", sha256_file(target), of)


@dataclass(frozen=True)
class Tools:
    """What packing works with."""

    uv: uvtool.Uv
    pythons: Pythons
    progress: Progress
    offline: bool
    conda: Callable[[], CondaBuilder]
    docker: Callable[[], DockerBuilder]


def pack(lock: EnvLock, project: Path, into: Path, use: Tools) -> PackedEnvironment:
    """Write to the empty folder `into` what an environment can be made from (see `EnvironmentCache.pack`)."""
    wheels: tuple[PackedWheel, ...] = ()
    notes: tuple[str, ...] = ()
    image: PackedImage | None = None
    match lock.manager:
        case EnvManager.SYSTEM:
            notes = (_SYSTEM,)
        case EnvManager.VIRTUALENV if lock.python:
            packer = Packer(use.uv, use.pythons.exactly(lock.python), use.progress, offline=use.offline)
            wheels = packer.pack(lock, project, into)
        case EnvManager.CONDA:
            wheels = _pack_conda(lock, project, into, use)
        case EnvManager.DOCKER:
            image = use.docker().save(lock, into, use.progress)
        case _:
            raise EnvironmentFailure("The lock names no interpreter", fix="Leave the packages out (--no-wheels).")
    python = f"{lock.python.implementation} {lock.python.version}" if lock.python else ""
    return PackedEnvironment(lock.manager.value, lock.digest, lock.platform, python, wheels, image, notes=notes)


def _pack_conda(lock: EnvLock, project: Path, into: Path, use: Tools) -> tuple[PackedWheel, ...]:
    """The files of conda's packages, and the wheels of what pip adds to them."""
    conda = use.conda()
    wheels: tuple[PackedWheel, ...] = ()
    if lock.pylock or lock.local_packages:
        with use.uv.scratch() as scratch:
            python = conda.interpreter(lock, scratch / "env", use.progress)
            wheels = Packer(use.uv, python, use.progress, offline=use.offline).pack(lock, project, into)
    conda.pack(lock, into, use.progress)
    return (*wheels, *(PackedWheel(package.file, package.sha256) for package in lock.conda))


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
