"""Programs that are run to their end."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from runproj import proc
from runproj.errors import StartError


def test_a_program_that_refuses_before_it_reads_is_heard() -> None:
    done = proc.run(["sh", "-c", "exec 0<&-; echo no >&2; exit 3"], stdin=b"x" * 5_000_000)
    assert (done.code, done.err) == (3, b"no\n")
    for _ in range(20):  # little enough to be written when the pipe is closed
        assert proc.run(["true"], stdin=b"x", timeout=60).code == 0


def test_a_program_that_takes_too_long_is_ended() -> None:
    with pytest.raises(StartError, match=r"longer than 0\.2 seconds"):
        proc.run(["sleep", "60"], timeout=0.2)


@pytest.mark.parametrize("tied", [True, False])
def test_a_program_that_is_tied_dies_with_this_process(tmp_path: Path, tied: bool) -> None:
    mark = tmp_path / "survived"
    script = f"echo $$ > {tmp_path}/pid; while [ ! -e {tmp_path}/go ]; do sleep 0.05; done; touch {mark}"
    code = f"from runproj import proc; proc.run(['sh', '-c', {script!r}], tied={tied})"
    process = subprocess.Popen([sys.executable, "-c", code])
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (tmp_path / "go").touch()
    pid = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 60
    while proc.start_time(pid) is not None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert mark.exists() == (not tied)
