"""What the shell offers behind Tab, beyond commands and options."""

from __future__ import annotations

from collections.abc import Callable


def runs(incomplete: str) -> list[tuple[str, str]]:
    """Recent runs by name, or by id where one is begun, and `@last`."""
    from runproj.errors import RunprojError

    try:
        found = _recent()
    except RunprojError:  # no store, no suggestions; whoever presses Tab wants no error message
        return []
    offered = [("@last", "the newest run")]
    for run_id, name, status in found:
        offered += [(name, f"{run_id[:8]} {status}"), (run_id[:8], f"{name} {status}")]
    return [item for item in offered if item[0].startswith(incomplete)]


def _recent() -> list[tuple[str, str, str]]:
    from runproj.cli import output
    from runproj.core.run import RunQuery
    from runproj.settings import load
    from runproj.wiring import Wiring

    runs = Wiring(load(), output.TerminalReporter(quiet=True)).tracking.search(RunQuery(limit=50))
    return [(run.id, run.name, run.status.value) for run in runs]


def words(*choices: str) -> Callable[[str], list[str]]:
    """Offers fixed words."""
    return lambda incomplete: [word for word in choices if word.startswith(incomplete)]
