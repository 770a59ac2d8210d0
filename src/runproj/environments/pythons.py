"""Finds the interpreters of this machine: where they are usually put, past shims that do not work, asked once and remembered."""

from __future__ import annotations

import datetime
import os
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from runproj import codec, proc
from runproj.core.environment import PythonPin
from runproj.core.values import dataclass
from runproj.environments.versions import Version, Wish, parse, parse_wish, settled, show
from runproj.errors import EnvironmentFailure, StartError
from runproj.files import atomic_write

_ASK = (
    "import sys, os, platform; v = sys.version_info; b = getattr(sys, '_base_executable', None) or sys.executable; "
    "said = ['%d.%d.%d' % v[:3], v[3], platform.python_implementation(), b, sys.version.replace('\\n', ' ')]; "
    "sys.stdout.buffer.write(b'\\0'.join(map(os.fsencode, said)))"
)
_ASK_SECONDS = 20


@dataclass(frozen=True)
class Known:
    """What an interpreter said, and the file it was asked at.  `version` is empty for one that does not work."""

    mtime: int
    inode: int
    version: str = ""
    implementation: str = ""
    path: str = ""
    build: str = ""

    def pin(self) -> PythonPin:
        return PythonPin(self.version, self.implementation, self.path, self.build)


@dataclass(frozen=True)
class Choice:
    """The interpreter that was chosen, and what there is to say about it."""

    python: PythonPin
    notes: tuple[str, ...] = ()


class Pythons:
    """The interpreters of this machine.

    memory: a JSON file that keeps what each said;  own: where `uv python install` puts those that runproj fetches;
    system: the folder below which the system's own places are.
    """

    def __init__(self, memory: Path, own: Path, environ: Mapping[str, str], system: Path = Path("/")) -> None:
        self._system = system
        self._memory_file = memory
        self._own = own
        self._environ = environ
        self._memory: dict[str, Known] | None = None

    def unchanged(self, pin: PythonPin) -> bool:
        """Whether the interpreter of a lock is still the one it was.  Starts it only where its file has changed."""
        known = self.ask(Path(pin.path))
        return known is not None and known.version == pin.version

    def ask(self, path: Path) -> Known | None:
        """What the interpreter at `path` is; None where it does not work.  Asked once per file."""
        try:
            status = path.stat()
        except OSError:
            return None
        memory = self._remembered()
        known = memory.get(str(path))
        if known is None or (known.mtime, known.inode) != (status.st_mtime_ns, status.st_ino):
            known = _question(path, status)
            memory[str(path)] = known
            atomic_write(self._memory_file, codec.to_json(memory))
        return known if known.version else None

    def _remembered(self) -> dict[str, Known]:
        if self._memory is None:
            try:
                self._memory = codec.from_json(dict[str, Known], self._memory_file.read_bytes())
            except (OSError, codec.DocumentError):
                self._memory = {}
        return self._memory

    def find(self, wish: Wish | None) -> list[PythonPin]:
        """Every working interpreter that may fulfil `wish`, the places in order of preference, the newest first."""
        found: dict[str, tuple[Version, int, PythonPin]] = {}
        for rank, (path, hint) in enumerate(self._candidates()):
            if wish is not None and hint is not None and not _possible(wish, hint):
                continue
            known = self.ask(path)
            if known is not None and known.path not in found and (version := parse(known.version)) is not None:
                found[known.path] = (version, -rank, known.pin())
        return [pin for _, _, pin in sorted(found.values(), key=lambda item: item[:2], reverse=True)]

    def choose(self, text: str | None, day: datetime.date, *, strict: bool = False) -> Choice | None:
        """The interpreter for a project that asks for `text` and was written on `day`; None where none fits."""
        if text is not None and text.startswith("/"):
            known = self.ask(Path(text))
            return Choice(known.pin()) if known else None
        wish = parse_wish(text) if text is not None else None
        if text is not None and wish is None:
            raise EnvironmentFailure(
                f"The project asks for Python {text!r}, which is not a version",
                fix='Write it like "3.11", "3.11.7" or ">=3.10,<3.13".',
            )
        pins = self.find(wish)
        fitting = [pin for pin in pins if wish is None or wish.accepts(_version(pin))]
        if wish is not None and wish.exact is not None and not fitting:
            return _nearest(wish, pins, strict=strict)
        if not fitting:
            return None
        if wish is not None and wish.minor is not None and len(wish.minor) > 1:
            return Choice(fitting[0])
        return _of_its_time(wish, fitting, day)

    def exactly(self, pin: PythonPin) -> PythonPin:
        """The interpreter of a lock on this machine.  Raises `EnvironmentFailure`."""
        known = self.ask(Path(pin.path))
        if known is not None and (known.version, known.implementation) == (pin.version, pin.implementation):
            return pin
        wish = parse_wish(pin.version)
        for other in self.find(wish):
            if (other.version, other.implementation) == (pin.version, pin.implementation):
                return other
        raise self.missing(f"Python {pin.version}, which the environment is locked to, is not installed here", pin.version)

    def missing(self, what: str, text: str | None, why: str = "") -> EnvironmentFailure:
        """The error that lists what was found instead."""
        pins = self.find(None)
        listed = "\n".join(f"  {pin.version:<8} {pin.path}" for pin in pins) or "  none"
        version = text if text is not None and parse(text) is not None else "VERSION"
        return EnvironmentFailure(
            what,
            why=f"{why}\nFound:\n{listed}".strip(),
            fix=f"Install it (`uv python install {version}`, `pyenv install {version}`, your system's packages), "
            "or change the version the project asks for.",
        )

    def _candidates(self) -> Iterator[tuple[Path, Version | None]]:
        """Paths that may be interpreters, with the version their name promises."""
        seen: set[str] = set()
        for path in self._places():
            if str(path) not in seen:
                seen.add(str(path))
                yield path, _hint(path)

    def _places(self) -> Iterator[Path]:
        variables = self._environ
        home = Path(variables.get("HOME", "/nonexistent"))
        data = Path(variables.get("XDG_DATA_HOME") or home / ".local/share")
        uv = Path(variables.get("UV_PYTHON_INSTALL_DIR") or data / "uv/python")
        pyenvs = [Path(variables["PYENV_ROOT"])] if variables.get("PYENV_ROOT") else []
        mise = Path(variables.get("MISE_DATA_DIR") or data / "mise")
        asdf = Path(variables.get("ASDF_DATA_DIR") or home / ".asdf")
        for root in (self._own, uv):
            yield from _glob(root, "cpython-*/bin/python3")
        for root in (*pyenvs, home / ".pyenv"):
            yield from _glob(root, "versions/*/bin/python")
        for root in (mise, asdf):
            yield from _glob(root, "installs/python/*/bin/python")
        ours = Path(getattr(sys, "_base_executable", sys.executable))
        if ours.is_relative_to(self._system):
            yield ours
        for name in ("usr/local/bin", "usr/bin"):
            yield from (path for path in _glob(self._system / name, "python3.*") if re.fullmatch(r"python3\.\d+", path.name))
        opt = self._system / "opt"
        for root in (home / "miniconda3", home / "anaconda3", home / "miniforge3", home / "mambaforge", opt / "conda"):
            yield from _glob(root, "bin/python3")
            yield from _glob(root, "envs/*/bin/python3")
        yield from _glob(opt, "*/bin/python3")
        yield from _glob(opt / "python", "*/bin/python3")
        for folder in variables.get("PATH", os.defpath).split(os.pathsep):
            if folder.startswith("/") and Path(folder).name != "shims":
                yield from (path for path in _glob(Path(folder), "python3*") if re.fullmatch(r"python3(\.\d+)?", path.name))


def _glob(root: Path, pattern: str) -> list[Path]:
    try:
        return sorted(root.glob(pattern), reverse=True)
    except OSError:
        return []


def _hint(path: Path) -> Version | None:
    """The version a path promises: a folder `3.8.18` or `cpython-3.8.18-linux…`, a file `python3.8`."""
    if found := re.search(r"/(?:cpython-)?(\d+\.\d+\.\d+)(?:[-/])", str(path)):
        return parse(found[1])
    found = re.fullmatch(r"python(\d+\.\d+)", path.name)
    return parse(found[1]) if found else None


def _possible(wish: Wish, hint: Version) -> bool:
    if wish.exact is not None:
        return hint[:2] == wish.exact[:2]
    if wish.minor is not None:
        return hint[: len(wish.minor)] == wish.minor
    return len(hint) < 3 or wish.accepts(hint)


def _question(path: Path, status: os.stat_result) -> Known:
    broken = Known(status.st_mtime_ns, status.st_ino)
    quiet = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "__PYVENV", "PYENV_VERSION"))}
    try:
        answer = proc.run([path, "-I", "-S", "-c", _ASK], env=quiet, timeout=_ASK_SECONDS)
    except (StartError, OSError):
        return broken
    lines = os.fsdecode(answer.out).split("\0")  # a path may hold anything else
    if answer.code != 0 or len(lines) != 5 or lines[1] != "final":
        return broken
    return Known(status.st_mtime_ns, status.st_ino, lines[0], lines[2], lines[3], lines[4])


def _version(pin: PythonPin) -> Version:
    return parse(pin.version) or (0, 0, 0)


def _nearest(wish: Wish, pins: list[PythonPin], *, strict: bool) -> Choice | None:
    """The newest patch of the minor version that was asked for."""
    same = [pin for pin in pins if _version(pin)[:2] == (wish.exact or ())[:2]]
    if not same or strict:
        return None
    return Choice(same[0], (f"Python {wish.text} is not installed; Python {same[0].version} is used instead.",))


def _of_its_time(wish: Wish | None, fitting: list[PythonPin], day: datetime.date) -> Choice:
    """The newest interpreter that was in use on that day; where all are younger, the oldest of them, newest patch."""
    cpython = [pin for pin in fitting if pin.implementation == "CPython" and _version(pin) >= (3, 6)] or fitting
    chosen = next((pin for pin in cpython if settled(_version(pin), day)), None)
    if chosen is None:
        oldest = _version(cpython[-1])[:2]
        chosen = next(pin for pin in cpython if _version(pin)[:2] == oldest)
    if wish is not None:
        return Choice(chosen)
    return Choice(
        chosen, (f"The project names no Python; {show(_version(chosen)[:2])} is the one installed here of its time ({day}).",)
    )
