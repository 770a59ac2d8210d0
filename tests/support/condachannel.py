"""A conda channel in a folder, whose packages are made here, the interpreter among them, for environments that are real."""

from __future__ import annotations

import asyncio
import datetime
import os
import re
import shutil
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path

from rattler.index import index_fs
from rattler_build import ArchiveType, assemble_package

_LEFT_OUT = {
    *("test", "tests", "idlelib", "tkinter", "turtledemo", "ensurepip", "lib2to3", "pydoc_data", "__pycache__"),
    *("site-packages", "dist-packages", "EXTERNALLY-MANAGED"),
}
LONG_AGO = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
MINOR = f"{sys.version_info.major}.{sys.version_info.minor}"
VERSION = f"{MINOR}.{sys.version_info.micro}"


class Channel:
    """Packages in `folder`; `index` lists them, as whoever runs a channel does after each upload."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for subdir in (self.platform, "noarch"):
            (folder / subdir).mkdir(parents=True, exist_ok=True)

    @property
    def platform(self) -> str:
        machine = os.uname().machine
        return {"x86_64": "linux-64"}.get(machine, f"linux-{machine}")

    @property
    def url(self) -> str:
        return self.folder.as_uri()

    def add(
        self,
        name: str,
        version: str,
        files: Mapping[str, str],
        *,
        depends: tuple[str, ...] = (),
        noarch: str | None = "generic",
        made: datetime.datetime = LONG_AGO,
        build: str = "0",
    ) -> Path:
        """Make a package of these files; with `noarch="python"` those below `site-packages` go to the interpreter's."""
        stage = self.folder / f".stage-{name}-{version}-{build}"
        for path, text in files.items():
            target = stage / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
        try:
            return self._pack(name, version, stage, depends, noarch, made, build)
        finally:
            shutil.rmtree(stage)

    def add_module(
        self, name: str, version: str, *, depends: tuple[str, ...] = ("python",), made: datetime.datetime = LONG_AGO
    ) -> Path:
        """A Python package whose module says its version (`V`)."""
        info = f"site-packages/{name}-{version}.dist-info"
        files = {
            f"site-packages/{name}.py": f"V = {version!r}\n",
            f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
            f"{info}/INSTALLER": "conda\n",
            f"{info}/RECORD": f"{name}.py,,\n{name}-{version}.dist-info/METADATA,,\n{name}-{version}.dist-info/RECORD,,\n",
        }
        return self.add(name, version, files, depends=depends, noarch="python", made=made)

    def add_python(self) -> Path:
        """The interpreter that runs this, without what nobody here imports."""
        stage = self.folder / ".stage-python"
        library = stage / "lib" / f"python{MINOR}"
        try:
            shutil.copytree(sysconfig.get_path("stdlib"), library, ignore=_unneeded)
            _as_upstream(library)
            packages = library / "site-packages"
            packages.mkdir(exist_ok=True)
            (packages / "README.txt").write_text("Python packages go here.\n")
            (stage / "bin").mkdir()
            shutil.copy2(os.path.realpath(getattr(sys, "_base_executable", sys.executable)), stage / "bin" / f"python{MINOR}")
            for alias in ("python", "python3"):
                (stage / "bin" / alias).symlink_to(f"python{MINOR}")
            return self._pack("python", VERSION, stage, (), None, LONG_AGO, "0_cpython")
        finally:
            shutil.rmtree(stage)

    def _pack(
        self,
        name: str,
        version: str,
        stage: Path,
        depends: tuple[str, ...],
        noarch: str | None,
        made: datetime.datetime,
        build: str,
    ) -> Path:
        subdir = "noarch" if noarch else self.platform
        made_package = assemble_package(
            name,
            version,
            subdir,
            build,
            self.folder / subdir,
            files_dir=stage,
            depends=list(depends),
            noarch=noarch,  # type: ignore[arg-type]  # one of two words
            timestamp=made,
            compression_level=1,
            detect_prefix=False,
            archive_type=ArchiveType.TarBz2 if name == "base" else ArchiveType.Conda,  # the format of before 2019
        )
        return Path(made_package.path)

    def index(self) -> None:
        """List what is there."""
        asyncio.run(index_fs(self.folder))

    def remove(self, package: Path) -> None:
        package.unlink()


def _unneeded(_: str, names: list[str]) -> set[str]:
    return {name for name in names if name in _LEFT_OUT or name.startswith("config-") or name.endswith(".a")}


def _as_upstream(library: Path) -> None:
    """Debian's interpreter keeps packages elsewhere; here it does as everybody's."""
    if "dist-packages" not in (library / "site.py").read_text():
        return
    own = "import os, site\nsite.addsitedir(os.path.join(os.path.dirname(os.__file__), 'site-packages'))\n"
    (library / "sitecustomize.py").unlink(missing_ok=True)
    (library / "sitecustomize.py").write_text(own)
    schemes = library / "sysconfig.py"
    if schemes.exists():
        schemes.write_text(re.sub(r"prefix_scheme = '\w+'", "prefix_scheme = 'posix_prefix'", schemes.read_text()))
