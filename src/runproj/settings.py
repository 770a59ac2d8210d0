"""Environment variables and `config.toml` → one frozen Settings.  Nothing else reads the process environment for options."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Any

from runproj.core.values import dataclass
from runproj.errors import UsageError


@dataclass(frozen=True)
class Settings:
    """Where things are and what holds unless a command says otherwise.

    home:         everything runproj keeps (store, cache, environments, artifacts).
    tracking_uri: `sqlite:///…`, `postgresql://…` or `http(s)://…`.
    artifacts_uri: where artifacts are kept: a folder or a bucket; empty for beside the database.
    offline:      use only what is cached.
    capture_limit: bytes of a local folder above which its capture is refused.
    docker_base:  the image that `--env-manager docker` builds on; `{python}` in it is the version that is wanted.
    conda_channels: where conda's channels are: name → URL, folder, or another name;  conda_alias: the URL the others are below.
    backends:     backend → options that hold unless something else is said;
    profiles:     name → a backend (`backend`) and options for it, chosen by `--backend NAME`.
    own_spool:    where processes outside of runs keep what they logged until it was sent; in `home` without it.
    """

    home: Path
    tracking_uri: str
    artifacts_uri: str = ""
    experiment: str = "Default"
    experiment_id: str | None = None
    offline: bool = False
    capture_limit: int = 512 * 1024 * 1024
    plain: bool = False
    own_spool: Path | None = None
    conda_channels: Mapping[str, str] = field(default_factory=dict)
    conda_alias: str = ""
    docker_base: str = ""
    backends: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    profiles: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def cache(self) -> Path:
        return self.home / "cache"

    @property
    def environments(self) -> Path:
        return self.home / "envs"

    @property
    def runs(self) -> Path:
        return self.home / "runs"

    @property
    def objects(self) -> Path:
        return self.home / "objects"

    def place(self, name: str) -> tuple[str, dict[str, Any]]:
        """The backend that a name stands for, which may be a profile's, and its options: the profile's before its defaults."""
        profile = dict(self.profiles.get(name, {}))
        backend = str(profile.pop("backend", name))
        return backend, {**self.backends.get(backend, {}), **profile}

    @property
    def spools(self) -> tuple[Path, ...]:
        """Folders in which processes keep what they logged until it was sent."""
        return tuple(filter(None, (self.own_spool, self.home / "spool")))


def load(environ: Mapping[str, str] | None = None, home: Path | None = None) -> Settings:
    """Read the settings.  Raises `UsageError` for a value that has no meaning."""
    variables = os.environ if environ is None else environ
    home = home or _home(variables)
    config = _config(home / "config.toml")
    tracking = (
        variables.get("RUNPROJ_TRACKING_URI")
        or variables.get("MLFLOW_TRACKING_URI")
        or config.get("tracking_uri")
        or f"sqlite:///{home / 'runproj.db'}"
    )
    limit = variables.get("RUNPROJ_CAPTURE_LIMIT") or config.get("capture_limit")
    channels = variables.get("RUNPROJ_CONDA_CHANNELS")
    return Settings(
        home=home,
        tracking_uri=_tracking_uri(tracking),
        artifacts_uri=variables.get("RUNPROJ_ARTIFACTS_URI") or config.get("artifacts_uri") or "",
        experiment=variables.get("MLFLOW_EXPERIMENT_NAME") or config.get("experiment") or "Default",
        experiment_id=_experiment_id(variables),
        offline=_flag(variables.get("RUNPROJ_OFFLINE") or config.get("offline") or ""),
        capture_limit=parse_size(limit) if limit else 512 * 1024 * 1024,
        own_spool=Path(spool).absolute() if (spool := variables.get("RUNPROJ_SPOOL")) else None,
        conda_channels=parse_channels(channels) if channels else _channels(config.get("conda_channels")),
        backends=_tables(config, "backends"),
        profiles=_tables(config, "profiles"),
        docker_base=variables.get("RUNPROJ_DOCKER_BASE") or config.get("docker_base") or "",
        conda_alias=(variables.get("RUNPROJ_CONDA_ALIAS") or config.get("conda_alias") or "").rstrip("/"),
        plain=bool(variables.get("CI") or variables.get("NO_COLOR") or variables.get("TERM") == "dumb"),
    )


def _experiment_id(variables: Mapping[str, str]) -> str | None:
    chosen = variables.get("MLFLOW_EXPERIMENT_ID") or None
    if chosen and variables.get("MLFLOW_EXPERIMENT_NAME"):
        raise UsageError("MLFLOW_EXPERIMENT_ID and MLFLOW_EXPERIMENT_NAME are both set", fix="Unset one of them.")
    return chosen


def _home(variables: Mapping[str, str]) -> Path:
    if chosen := variables.get("RUNPROJ_HOME"):
        return Path(chosen).expanduser().absolute()
    if "HOME" in variables and Path("/proc/self").exists():  # platformdirs' answer on Linux, without the cost of its import
        data = variables.get("XDG_DATA_HOME", "")
        return (Path(data) if data.startswith("/") else Path(variables["HOME"]) / ".local/share") / "runproj"
    import platformdirs

    return Path(platformdirs.user_data_dir("runproj", appauthor=False))


def parse_channels(text: str) -> dict[str, str]:
    """Name → place of `NAME=PLACE` pairs separated by blanks.  Raises `UsageError`."""
    places: dict[str, str] = {}
    for word in text.split():
        name, equals, place = word.partition("=")
        if not equals or not name:
            raise UsageError(
                f"{word!r} does not say where a conda channel is",
                fix="Write NAME=URL, NAME=/folder or NAME=OTHER-NAME; several are separated by blanks.",
            )
        places[name] = place
    return places


def _channels(table: object) -> dict[str, str]:
    """The table `[conda_channels]` of the file."""
    if table is None:
        return {}
    if not isinstance(table, dict) or not all(isinstance(place, str) for place in table.values()):
        raise UsageError(
            "conda_channels has to be a table", fix='[conda_channels]\nconda-forge = "https://mirror.example.org/conda-forge"'
        )
    return table


def _tables(config: Mapping[str, Any], name: str) -> dict[str, dict[str, Any]]:
    """A table of tables, as `[profiles.gpu]`."""
    table = config.get(name) or {}
    if not isinstance(table, dict) or not all(isinstance(inner, dict) for inner in table.values()):
        raise UsageError(f"{name} has to be a table of tables", fix=f'[{name}.NAME]\npartition = "gpu"')
    return table


def _config(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    import tomllib

    try:
        content = tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not valid TOML", why=str(error)) from error
    known = {
        "tracking_uri",
        "artifacts_uri",
        "experiment",
        "offline",
        "capture_limit",
        "conda_channels",
        "conda_alias",
        "docker_base",
        "backends",
        "profiles",
    }
    if unknown := sorted(set(content) - known):
        raise UsageError(f"{path} has unknown keys: {', '.join(unknown)}", fix=f"Known keys: {', '.join(sorted(known))}")
    return {key: value if isinstance(value, dict) else str(value) for key, value in content.items()}


def _tracking_uri(text: str) -> str:
    if text.startswith(("sqlite:///", "postgresql://", "postgres://", "http://", "https://")):
        return text
    raise UsageError(
        f"The tracking URI {text!r} is not one that runproj can use",
        fix="Set RUNPROJ_TRACKING_URI (or MLFLOW_TRACKING_URI) to sqlite:///PATH, postgresql://USER@HOST/DATABASE or http(s)://SERVER.",
    )


def _flag(text: str) -> bool:
    return text.strip().lower() in ("1", "true", "yes", "on")


def parse_size(text: str) -> int:
    """Bytes of "512MB", "2GiB", "1000".  Raises `UsageError`."""
    units = {"": 1, "b": 1, "k": 10**3, "kb": 10**3, "m": 10**6, "mb": 10**6, "g": 10**9, "gb": 10**9, "t": 10**12, "tb": 10**12}
    units |= {f"{prefix}ib": 2 ** (10 * power) for power, prefix in enumerate("kmgt", start=1)}
    number = text.strip().rstrip("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
    unit = text.strip()[len(number) :].lower()
    try:
        return int(float(number) * units[unit])
    except (ValueError, KeyError):
        raise UsageError(f"{text!r} is not a size", fix="Write it like 512MB or 2GiB.") from None


def parse_duration(text: str) -> float:
    """Seconds of "90", "1.5h", "30m", "2h30m".  Raises `UsageError`."""
    import re

    units = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
    parts = re.findall(r"(\d+(?:\.\d+)?)\s*([smhd]?)", text.strip().lower())
    total = sum(float(number) * units[unit] for number, unit in parts)
    if not re.fullmatch(r"(?:\d+(?:\.\d+)?\s*[smhd]?\s*)+", text.strip().lower()) or total <= 0:
        raise UsageError(f"{text!r} is not a length of time", fix="Write it like 90, 30m or 2h.")
    return total
