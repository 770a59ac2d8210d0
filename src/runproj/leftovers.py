"""What an executor leaves in its run's folder, for whoever closes the run in its stead: its phase, and how the run ended."""

from __future__ import annotations

import contextlib
from pathlib import Path

from runproj.codec import DocumentError, from_json, to_json
from runproj.core.outcome import Outcome
from runproj.core.run import Phase
from runproj.errors import RunprojError
from runproj.files import atomic_write


def leave_phase(folder: Path, phase: Phase) -> None:
    """Say what is being done.  Not worth an error, nor the wait for the disk."""
    with contextlib.suppress(OSError):
        (folder / "phase").write_text(phase.value)


def has_begun(folder: Path) -> bool:
    """Whether the executor of the run has said what it does."""
    return (folder / "phase").exists()


def phase_of(folder: Path) -> Phase:
    """What the executor of the run was doing last."""
    try:
        return Phase((folder / "phase").read_text())
    except (OSError, ValueError):
        return Phase.START


def leave_outcome(folder: Path, outcome: Outcome) -> None:
    """Keep how the run ended, where its record cannot be written, for the next command."""
    with contextlib.suppress(RunprojError):
        atomic_write(folder / "outcome.json", to_json(outcome))


def outcome_of(folder: Path) -> Outcome | None:
    """How the run ended, where its executor knew that and could not record it."""
    try:
        return from_json(Outcome, (folder / "outcome.json").read_bytes())
    except (OSError, DocumentError):
        return None
