"""What activating a conda environment would set: found once, when it is built, and kept beside its packages.

`conda activate` sources every script in `etc/conda/activate.d` into the user's shell.  Here they are sourced by a bash of their
own with an empty environment, and the variables that differ afterwards are those that commands get.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from runproj import codec, proc
from runproj.core.values import dataclass
from runproj.errors import EnvironmentFailure, StartError
from runproj.files import atomic_write

FILE = "share/runproj/activation.json"
_SCRIPT = 'for script in "$CONDA_PREFIX"/etc/conda/activate.d/*.sh; do . "$script" >&2 || exit 3; done; env -0'
_SECONDS = 120
_NOT_ITS_OWN = frozenset(("PWD", "OLDPWD", "SHLVL", "_", "BASHOPTS", "SHELLOPTS"))


@dataclass(frozen=True)
class Activation:
    """path: folders that come before the environment's own `bin`;  replaced: conda packages that pip has put others over."""

    variables: tuple[tuple[str, str], ...] = ()
    path: tuple[str, ...] = ()
    replaced: tuple[str, ...] = ()


def base(prefix: Path) -> dict[str, str]:
    """The variables by which programs know an active environment."""
    return {
        "CONDA_PREFIX": str(prefix),
        "CONDA_DEFAULT_ENV": prefix.parent.name[:12],
        "CONDA_SHLVL": "1",
        "PYTHONNOUSERSITE": "1",  # conda's interpreters look into the user's own packages, which no lock knows
    }


def activate(prefix: Path, variables: tuple[tuple[str, str], ...], home: str) -> Activation:
    """Run the scripts of the packages.  `variables`: what the environment file sets; `home`: for scripts that ask."""
    stated = {**_of_packages(prefix), **dict(variables)}
    if not any(prefix.glob("etc/conda/activate.d/*.sh")):
        return Activation(tuple(sorted(stated.items())))
    path = f"{prefix / 'bin'}:/usr/local/bin:/usr/bin:/bin"
    before = {"PATH": path, "HOME": home, "LANG": "C.UTF-8", "TERM": "dumb", **base(prefix), **stated}
    try:
        done = proc.run(["bash", "--noprofile", "--norc", "-c", _SCRIPT], env=before, cwd=prefix, timeout=_SECONDS)
    except StartError as error:
        raise EnvironmentFailure("The environment's activation scripts cannot be run", why=str(error)) from error
    if done.code != 0:
        raise EnvironmentFailure(
            "An activation script of a conda package failed",
            why=done.err.decode(errors="replace").strip()[-2000:] or f"exit code {done.code}",
            fix="Leave out the package it belongs to, or use another version of it.",
        )
    pairs = (os.fsdecode(entry).partition("=") for entry in done.out.split(b"\0") if entry)
    after = {name: value for name, _, value in pairs if name not in _NOT_ITS_OWN and not name.startswith("BASH_FUNC_")}
    front = _in_front(after.pop("PATH", path), path)
    changed = {name: value for name, value in after.items() if before.get(name) != value or name in stated}
    return Activation(tuple(sorted(changed.items())), tuple(filter(None, front)))


def _in_front(after: str, before: str) -> list[str]:
    """The folders that scripts have put before those that were there."""
    known = before.split(":")
    return [folder for folder in after.split(":") if folder not in known]


def _of_packages(prefix: Path) -> dict[str, str]:
    """Variables that packages set without a script (`etc/conda/env_vars.d/*.json`)."""
    found: dict[str, str] = {}
    for file in sorted(prefix.glob("etc/conda/env_vars.d/*.json")):
        try:
            found |= codec.from_json(dict[str, str], file.read_bytes())
        except (OSError, codec.DocumentError) as error:
            raise EnvironmentFailure(f"{file.name} of a conda package cannot be read", why=str(error)) from error
    return found


def keep(prefix: Path, activation: Activation) -> None:
    atomic_write(prefix / FILE, codec.to_json(activation))


def kept(prefix: Path) -> Activation | None:
    """What was found when the environment was built; None where it is damaged."""
    try:
        return codec.from_json(Activation, (prefix / FILE).read_bytes())
    except (OSError, codec.DocumentError):
        return None


def applied(prefix: Path, own: Mapping[str, str]) -> tuple[tuple[Path, ...], dict[str, str]]:
    """Folders for the front of PATH, and variables."""
    found = kept(prefix) or Activation()
    return (*map(Path, found.path), prefix / "bin"), {**base(prefix), **dict(found.variables), **own}
