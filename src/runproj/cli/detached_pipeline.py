"""`run --detach` of a pipeline: the same command goes on in a process of its own, and says here which run stands for it."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from runproj import proc
from runproj.cli import output
from runproj.files import explained

if TYPE_CHECKING:
    import subprocess

    from runproj.core.run import Run
    from runproj.core.services import Services
    from runproj.wiring import Wiring

_TOLD = "RUNPROJ_DETACHED"
"""Variable of that process: the file with its output.  What it has to tell here it says on standard output."""


def told() -> str | None:
    """Whether this is that process."""
    return os.environ.get(_TOLD)


def begin(wiring: Wiring, *, as_json: bool, quiet: bool) -> int:
    """Start it, and print what it says: the run, or why there is none.  The exit code is its own where it has ended by then."""
    from runproj.cli.detached import tell as tell_of
    from runproj.supervise import Deferred

    with Deferred() as deferred:  # whoever stops it finds what there is to stop
        process, name, reader = _start(wiring.settings.home / "cache")
        try:
            with deferred.lifted(), os.fdopen(reader) as lines:
                said = lines.read()
        except BaseException:  # nobody has been told of it yet: it is not to go on
            proc.send([process.pid], signal.SIGTERM)
            process.wait()
            name.unlink(missing_ok=True)
            raise
    if said and not said.startswith("{"):
        tell_of(wiring.tracking.get_run(said), wiring, as_json=as_json, quiet=quiet)
        return 0
    code = process.wait()
    if said:
        output.write(said.rstrip())
    if words := name.read_text(errors="replace").rstrip():
        output.say(words)
    name.unlink(missing_ok=True)
    return code if code >= 0 else 128 - code


def _start(folder: Path) -> tuple[subprocess.Popen[bytes], Path, int]:
    """Start it; returns also the file with its output, and the descriptor to hear it by."""
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=folder, prefix="pipeline-", suffix=".log")
        os.close(descriptor)
    reader, writer = os.pipe()
    command = [sys.executable, "-P", "-m", "runproj", *sys.argv[1:]]  # -P: the user's folder holds no modules of ours
    try:
        environ = {**os.environ, _TOLD: name}
        return proc.depart(command, cwd=Path.cwd(), env=environ, log=Path(name), stdout=writer), Path(name), reader
    finally:
        os.close(writer)


def tell(name: str, parent: Run, use: Services) -> None:
    """Say which run it is, and have its output where that of a run is looked for, which may be on another disk."""
    folder = use.runs / parent.id / "logs"
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "stdout.log").open("ab", buffering=0) as log:
            log.write(Path(name).read_bytes())
            os.dup2(log.fileno(), sys.stderr.fileno())
            with contextlib.suppress(BrokenPipeError):  # who asked was killed; the pipeline goes on all the same
                os.write(sys.stdout.fileno(), parent.id.encode())
            os.dup2(log.fileno(), sys.stdout.fileno())
        Path(name).unlink(missing_ok=True)
