"""`--backend NAME` and `--backend-config`: where to run, and what is said to whom runs it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from runproj.errors import UsageError


def chosen(name: str, config: str | None) -> tuple[str, dict[str, Any]]:
    """The backend that a name stands for, and its options: what was typed comes before the profile, that before its defaults.

    Without a name it is left open: the entry point may say it.
    """
    if not name:
        return "", _given(config)
    from runproj.settings import load

    backend, options = load().place(name)
    return backend, {**options, **_given(config)}


def queued(name: str, config: str | None, *, queue: bool, priority: int | None) -> tuple[str, dict[str, Any]]:
    """As `chosen`, with what `--queue` and `--priority` are short for."""
    backend, options = chosen(name or ("queue" if queue else ""), config)
    if queue and backend != "queue":
        raise UsageError(f"--queue and --backend {name} do not go together", fix="Leave out one of them.")
    if priority is None:
        return backend, options
    if backend != "queue":
        raise UsageError("--priority is for runs in the queue", fix="Say --queue, too.")
    return backend, {**options, "priority": priority}


def _given(text: str | None) -> dict[str, Any]:
    """The options of a JSON text, or of a file of JSON or TOML."""
    if not text:
        return {}
    source, path = text, Path(text)
    if not text.lstrip().startswith("{"):
        try:
            source = path.read_text()
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or str(error)
            raise UsageError(f"{text} cannot be read", why=why, fix='Name a file, or write JSON like {"cpus": 2}.') from None
    try:
        if path.suffix == ".toml":
            import tomllib

            return tomllib.loads(source)
        from runproj.codec import from_json

        return from_json(dict[str, Any], source.encode())
    except ValueError as error:
        raise UsageError("--backend-config cannot be understood", why=str(error), fix="Write JSON, or a file of TOML.") from None
