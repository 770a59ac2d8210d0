"""uv as a program: where it is, which settings reach it, and what its failures mean."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path

from runproj import proc
from runproj.core.values import dataclass
from runproj.errors import EnvironmentFailure, RunprojError, StartError, StorageError
from runproj.files import explained, remove_tree

_NOT_PASSED = (
    "PYTHON",
    "CONDA_",
    "VIRTUALENV_",
    "UV_PROJECT",
    "UV_WORKING",
    "UV_SYSTEM_PYTHON",
    "UV_BREAK",
    "UV_TARGET",
    "UV_PREFIX",
    "UV_NO_CACHE",
    "UV_OFFLINE",
    "UV_EXCLUDE_NEWER",
    "UV_COMPILE_BYTECODE",
    "UV_LINK_MODE",
    "UV_CACHE_DIR",
    "UV_CONSTRAINT",
    "UV_OVERRIDE",
    "UV_EXCLUDE",
    "UV_BUILD_CONSTRAINT",
    "UV_RESOLUTION",
    "UV_REQUIRE_HASHES",
    "UV_PREVIEW",
    "UV_MANAGED_PYTHON",
    "UV_NO_MANAGED_PYTHON",
)
_NOT_PASSED_NAMES = ("VIRTUAL_ENV", "UV_PYTHON", "__PYVENV_LAUNCHER__", "PYENV_VERSION")
_NETWORK = re.compile(
    r"error sending request|dns error|failed to lookup address|connection refused|connect error|timed out|"
    r"network is unreachable|network connectivity is disabled|failed to fetch|tls handshake|"
    r"HTTP status (?:server error|client error \((?:401|403|407|429))",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Uv:
    """uv with a cache of ours.

    home: the folder runproj keeps everything in;  environ: this process's environment, from which indexes and proxies come.
    own_cache: another place for packages than all others use.
    """

    home: Path
    environ: Mapping[str, str]
    own_cache: Path | None = None

    @cached_property
    def binary(self) -> Path:
        """The program.  Raises `EnvironmentFailure` where it is missing."""
        beside = Path(sys.executable).with_name("uv")
        if beside.exists():
            return beside
        with contextlib.suppress(ImportError, FileNotFoundError):
            import uv

            return Path(uv.find_uv_bin())
        if found := shutil.which("uv"):
            return Path(found)
        raise EnvironmentFailure("uv was not found, which resolves and installs packages", fix="Install it: `pip install uv`.")

    @cached_property
    def cache(self) -> Path:
        """Where packages are kept: on the file system of the environments, so that they can be hard links."""
        if self.own_cache is not None:
            return self.own_cache
        own = self.home / "cache/uv"
        chosen = self.environ.get("UV_CACHE_DIR")
        if chosen and Path(chosen).is_dir():
            with contextlib.suppress(OSError):
                self.home.mkdir(parents=True, exist_ok=True)
                if Path(chosen).stat().st_dev == self.home.stat().st_dev:
                    return Path(chosen)
        return own

    def variables(self, scratch: Path) -> dict[str, str]:
        """The environment of uv and of what it starts: nothing that would change which packages are chosen, but indexes."""
        kept = {
            name: value
            for name, value in self.environ.items()
            if not name.startswith(_NOT_PASSED) and name not in _NOT_PASSED_NAMES
        }
        if not any(name in kept for name in ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_INDEX", "UV_EXTRA_INDEX_URL")):
            for pip, ours in (("PIP_INDEX_URL", "UV_DEFAULT_INDEX"), ("PIP_EXTRA_INDEX_URL", "UV_INDEX")):
                if pip in kept:
                    kept[ours] = kept[pip]
        return kept | {
            "TMPDIR": str(scratch),
            "NO_COLOR": "1",
            "UV_NO_PROGRESS": "1",
            "UV_PYTHON_DOWNLOADS": "never",
            "GIT_TERMINAL_PROMPT": "0",
        }

    def run(
        self,
        arguments: Sequence[str | Path],
        *,
        cwd: Path,
        scratch: Path,
        offline: bool = False,
        progress: Callable[[str], None] = lambda _: None,
        stdin: bytes = b"",
    ) -> proc.Completed:
        """Run uv to its end."""
        with explained(self.cache):
            self.cache.mkdir(parents=True, exist_ok=True)
        options: list[str | Path] = ["--cache-dir", self.cache, *(["--offline"] if offline else [])]

        def news(line: str) -> None:
            if line.strip().startswith(_NEWS):
                progress(line.strip())

        return proc.stream([self.binary, *arguments, *options], news, cwd=cwd, env=self.variables(scratch), stdin=stdin)

    def fetch_python(self, version: str, into: Path) -> str:
        """Ask uv for an interpreter; returns what went wrong, or nothing.  Whoever forbids downloads is obeyed."""
        if self.environ.get("UV_PYTHON_DOWNLOADS", "automatic").lower() in ("never", "manual"):
            return ""
        with self.scratch() as scratch:
            variables = self.variables(scratch)
            del variables["UV_PYTHON_DOWNLOADS"]  # ours is for resolving; the user's, in uv's own settings, holds here
            argv: list[str | Path] = [self.binary, "python", "install", version, "--install-dir", into, "--no-bin"]
            done = proc.run([*argv, "--cache-dir", self.cache], cwd=scratch, env=variables)
        return "" if done.code == 0 else f"uv could not fetch it: {words(done.err.decode(errors='replace'), 4)}"

    def configuration(self, project: Path) -> str:
        """A digest of everything that decides where packages come from.  Holds no secret, and starts nothing."""
        digest = hashlib.sha256()
        for name in sorted(self.environ):
            if name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL") or (
                name.startswith("UV_") and not name.startswith(_NOT_PASSED) and name not in _NOT_PASSED_NAMES
            ):
                digest.update(f"{name}={self.environ[name]}\0".encode(errors="surrogateescape"))
        for path in (*self._config_files(), project / "uv.toml", project / "pyproject.toml"):
            with contextlib.suppress(OSError):
                digest.update(path.read_bytes() + b"\0")
        return digest.hexdigest()

    def corrected(self, scratch: Path) -> Path:
        """The user's uv settings, with metadata for old packages whose own cannot be read any more."""
        from runproj.environments.old_metadata import CORRECTIONS

        text = ""
        for path in self._config_files():
            with contextlib.suppress(OSError, UnicodeDecodeError):
                text = path.read_text()
                break
        target = scratch / "uv.toml"
        target.write_text(text if "dependency-metadata" in text else f"{text}\n{CORRECTIONS}")
        return target

    def _config_files(self) -> tuple[Path, ...]:
        config = Path(self.environ.get("XDG_CONFIG_HOME") or Path(self.environ.get("HOME", "/nonexistent"), ".config"))
        chosen = [Path(self.environ["UV_CONFIG_FILE"])] if self.environ.get("UV_CONFIG_FILE") else []
        return (*chosen, config / "uv/uv.toml", Path("/etc/uv/uv.toml"))

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """A fresh folder on the disk of the environments.  Those of processes that were killed are removed."""
        root = self.home / "cache/scratch"
        with explained(root):
            root.mkdir(parents=True, exist_ok=True)
            for name in os.listdir(root):
                owner = name.partition("-")[0]
                if owner.isdigit() and proc.start_time(int(owner)) is None:
                    remove_tree(root / name)
            folder = Path(tempfile.mkdtemp(dir=root, prefix=f"{os.getpid()}-"))
        try:
            yield folder
        finally:
            with contextlib.suppress(OSError):
                remove_tree(folder)


def dated(as_of: str | None) -> list[str | Path]:
    """Options that show uv the index as it stood at an ISO time, for what is installed and for what builds it."""
    if as_of is None:
        return []
    options: list[str | Path] = ["--exclude-newer", as_of]
    if as_of < _OLDEST_SETUPTOOLS:
        options += ["--exclude-newer-package", f"setuptools={_OLDEST_SETUPTOOLS}"]
    return options


_OLDEST_SETUPTOOLS = "2019-02-07T00:00:00Z"
"""setuptools 40.8 of that week is the oldest that can be asked to build a package in isolation (PEP 517 with `setup.py`);
packages that are older than that need it too."""


def is_network(text: str) -> bool:
    """Whether a failure is about reaching the index, so that asking it another question is no use."""
    return _NETWORK.search(text) is not None


def words(text: str, lines: int = 40) -> str:
    """The end of what a program said, without what is no news."""
    kept = [line for line in scrub(text).splitlines() if line.strip() and not line.startswith(_CHATTER)]
    return "\n".join(kept[-lines:])


_NEWS = ("Downloading", "Building", "Built", "Cloning", "Updating", "Prepared", "Installed", "Resolved")
"""What uv's lines of progress begin with."""

_CHATTER = (
    "warning: The `--pylock` option is experimental",
    "Using Python ",
    "warning: Failed to hardlink",
    "         If the cache and target",
    "         If this is intended",
)


def scrub(text: str) -> str:
    """The text without the user names and passwords of URLs."""
    return re.sub(r"(\w+://)[^/\s@]+@", r"\1", text)


def failure(what: str, said: str, *, offline: bool = False) -> RunprojError:
    """The user's error for a failed resolve or install, in the words of the program that failed."""
    why = words(said)
    if "No space left on device" in said or "os error 28" in said:
        return StorageError(
            what, why=why, fix="Free some space (`runproj gc`), or set RUNPROJ_HOME to a larger disk; then retry."
        )
    if offline and re.search(r"offline|network connectivity is disabled|network was disabled|not found in the cache", said, re.I):
        return EnvironmentFailure(what, why=why, fix="Not everything is cached: run it once without --offline.")
    if is_network(said):
        return EnvironmentFailure(
            what, why=why, fix="Check the network and the index settings (UV_DEFAULT_INDEX), then run it again."
        )
    return EnvironmentFailure(what, why=why, fix=_advice(said))


def _advice(said: str) -> str:
    """What helps against a failure that is not the network's."""
    if missing := re.search(r"Because ([A-Za-z0-9._-]+) was not found in the package registry", said):
        return f"Check the spelling of {missing[1]!r}, or name the index that has it (UV_INDEX)."
    if "Failed to build" in said or "build backend" in said:
        return (
            "A package had to be built from source. Ask for a version that has a wheel for this Python, choose another Python or "
            "the time it was made for (--as-of DATE), or install the compiler or headers that are named; then run it again."
        )
    if "No solution found" in said:
        return "Relax the versions that are named above, or choose another date (--as-of now) or Python; then run it again."
    return "Run it again; if it fails in the same way, the words above say what is wrong."


def start_error(error: StartError) -> EnvironmentFailure:
    """A program that could not be started, as a failure of the environment."""
    return EnvironmentFailure(error.what, why=error.why, fix=error.fix)
