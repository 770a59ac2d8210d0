"""A copy of the Python that runs this, with runproj and every library they load: it runs in any image of the same processor.

An image of a project need not have runproj, nor a Python that it could run with, nor the same C library.  So the copy brings its
own, and the dynamic linker too, which is started with the Python as its argument (`--library-path`, `--argv0`: glibc 2.33 and
later, musl).  Programs that it starts itself go by a script of two lines, for which the image has to have `/bin/sh`.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from runproj import proc
from runproj.errors import BackendError
from runproj.files import explained

LINKER = "lib/linker"
"""In the copy: what starts it."""
PROGRAM, REAL = "bin/python3", "bin/python3.real"
_PACKAGES = ("site-packages", "dist-packages")
_LEFT_OUT = (
    *("__pycache__", *_PACKAGES, "config-*", "test", "tests", "idlelib", "tkinter", "ensurepip", "lib2to3"),
    *("pip", "pip-*", "uv", "uv-*", "kubernetes", "setuptools", "wheel"),
)
_ELF = b"\x7fELF"


def command(folder: str) -> tuple[str, ...]:
    """What starts the Python of a copy, in front of its arguments."""
    return f"{folder}/{LINKER}", "--library-path", f"{folder}/lib", "--argv0", f"{folder}/{PROGRAM}", f"{folder}/{REAL}"


def copy(folder: Path) -> None:
    """Make the copy at the place where it will be used.  Raises `BackendError`, `StorageError`."""
    library = folder / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}"
    own = Path(sysconfig.get_path("stdlib"))
    packages = [Path(entry) for entry in sys.path if Path(entry).name in _PACKAGES and Path(entry).is_dir()]
    here = library / "site-packages"
    with explained(folder):
        (folder / "bin").mkdir(parents=True, exist_ok=True)
        _copied(own, library)
        for place in packages:
            _copied(place, here)
        _copied(Path(__file__).parent, here / "runproj")  # it may be installed by a link to its source
        (library / "sitecustomize.py").write_text(f"import sys\nsys.path.append({str(here)!r})\n")  # Debian's looks elsewhere
        shutil.copy2(os.path.realpath(sys.executable), folder / REAL)
        linker = _linker(folder / REAL)
        shutil.copy2(os.path.realpath(linker), folder / LINKER)
        for name in _needed(linker, [folder / REAL, *_shared(library)]):
            shutil.copy2(os.path.realpath(name), folder / "lib" / os.path.basename(name))  # noqa: PTH119
        words = " ".join(command(str(folder))[:-3])
        (folder / PROGRAM).write_text(f'#!/bin/sh\nexec {words} --argv0 "$0" {folder / REAL} "$@"\n')
        (folder / PROGRAM).chmod(0o755)
        _open_to_all(folder)


def _copied(source: Path, target: Path) -> None:
    ignored = shutil.ignore_patterns(*_LEFT_OUT)
    shutil.copytree(source, target, ignore=ignored, dirs_exist_ok=True, ignore_dangling_symlinks=True)


def _open_to_all(folder: Path) -> None:
    """Have everybody read it: an image may have a user of its own, and whoever installed a package may have kept it private."""
    for path in (folder, *folder.rglob("*")):
        mode = path.stat().st_mode
        path.chmod(mode | 0o444 | (0o111 if mode & 0o100 else 0))


def _shared(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*.so*")):
        if path.is_file():
            with path.open("rb") as file:
                if file.read(4) == _ELF:
                    yield path


def _linker(program: Path) -> str:
    """The dynamic linker that a program names (PT_INTERP of ELF).  Raises `BackendError`."""
    found = re.search(rb"/[\w./-]*/ld-[\w.-]+\.so[.\d]*\x00", program.read_bytes())
    if found is None:
        raise BackendError(f"{program} names no dynamic linker", fix="Use an image whose Python is a usual one, from a package.")
    return found[0].rstrip(b"\0").decode()


def _needed(linker: str, programs: list[Path]) -> set[str]:
    """All libraries that they load, by the linker's own word.  Those that lie beside what needs them are left out."""
    found: set[str] = set()
    for program in programs:
        said = proc.run([linker, "--list", program], tied=False).out.decode(errors="replace")
        found |= {match[1] for match in re.finditer(r"=> (/\S+) \(0x", said)}
    ours = os.fspath(programs[0].parent.parent)
    return {name for name in found if not os.path.realpath(name).startswith(f"{ours}/")}
