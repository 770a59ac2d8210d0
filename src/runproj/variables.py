"""The variables of a command, as far as they may be recorded: enough to see that one has changed, not what it says."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping

from runproj.core.environment import Environment

_SECRET = re.compile(r"KEY|TOKEN|SECRET|PASS|CRED|AUTH|SIGN|COOKIE|PRIVATE|SESSION|WEBHOOK|DSN|PROXY|_URL$|_URI$", re.IGNORECASE)
_OF_THE_SESSION = re.compile(
    r"(PWD|OLDPWD|SHLVL|_|TERM|TERMINFO|COLORTERM|COLUMNS|LINES|DISPLAY|WINDOWID|LS_COLORS|PS[0-9]|MAIL|EDITOR|VISUAL|PAGER|LESS|"
    r"HOME|USER|LOGNAME|HOSTNAME|SHELL|TMPDIR|TMP|TEMP|CI|INVOCATION_ID|JOURNAL_STREAM|WAYLAND_DISPLAY|PYTEST_CURRENT_TEST|"
    r"(MLFLOW|RUNPROJ|GIT|SSH|XDG|DBUS|TERM_PROGRAM|HIST|LESS|VSCODE|GITHUB|RUNNER|GITLAB|CI|BUILD|SYSTEMD|DEBUGINFOD|TMUX)_.*|"
    r"(SLURM|SLURMD|SBATCH|RAY|KUBERNETES)_.*|ENVIRONMENT|"
    r"HIST.*|_RUNPROJ.*)"
)
"""What differs from terminal to terminal, machine to machine and run to run without meaning anything."""
_SHOWN = frozenset({"TZ", "LANG", "LANGUAGE", "LC_ALL", "LC_CTYPE", "LC_NUMERIC", "LC_TIME", "LC_COLLATE", "SOURCE_DATE_EPOCH"})
"""Variables whose values are recorded as they are."""


def recordable(environ: Mapping[str, str], environment: Environment) -> tuple[tuple[str, str], ...]:
    """Name and, in short, a hash of the value of each variable that may decide a result.

    What looks like a secret is left out; so are the variables of the session, those by which a run is reached, and what
    `environment` adds, which its lock tells already.
    """
    return tuple(
        (name, value if name in _SHOWN else _mark(value))
        for name, value in sorted((name, _without_ours(name, value, environment)) for name, value in environ.items())
        if not (_OF_THE_SESSION.fullmatch(name) or _SECRET.search(name) or "@" in value or name in environment.variables)
    )


def _without_ours(name: str, value: str, environment: Environment) -> str:
    """Paths without what is put in front of them: the environment's folders, and that of the logging client."""
    ours = {"PATH": len(environment.bin), "PYTHONPATH": 1}.get(name, 0)
    return os.pathsep.join(value.split(os.pathsep)[ours:])


def _mark(value: str) -> str:
    """32 bits tell values apart, and are too few to give one away."""
    return "sha256:" + hashlib.sha256(value.encode(errors="surrogateescape")).hexdigest()[:8]
