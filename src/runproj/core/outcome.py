"""How an execution ended: what is recorded as status, exit code and reason."""

from __future__ import annotations

import signal

from runproj.core.run import RunStatus
from runproj.core.values import dataclass
from runproj.errors import Interrupted, RunprojError, StartError


@dataclass(frozen=True)
class Outcome:
    """How the execution ended, for whoever waits for it."""

    status: RunStatus
    exit_code: int
    reason: str = ""


def outcome_of(error: BaseException) -> Outcome:
    """What a run that an exception ended has come to: stopped by the user, failed for a reason, or by a bug of ours."""
    match error:
        case Interrupted():
            return Outcome(RunStatus.KILLED, 128 + error.number, f"stopped by {signal.Signals(error.number).name}")
        case KeyboardInterrupt():
            return Outcome(RunStatus.KILLED, 128 + signal.SIGINT, "stopped by SIGINT")
        case RunprojError():
            return Outcome(RunStatus.FAILED, error.exit_code, str(error))
        case _:
            return Outcome(RunStatus.FAILED, StartError.exit_code, f"internal error: {error!r}")
