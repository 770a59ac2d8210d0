"""A command under supervision: bytes, codes, signals, time limits, and nothing left behind."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from runproj import proc
from runproj.errors import StartError
from runproj.logs import LogWriter, read_merged
from runproj.supervise import CommandSpec, Deferred, Ending, run
from support.waiting import until

HERE = Path(__file__).parent


class Stage:
    """A folder to run commands in, with their logs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.mark = f"test-{os.getpid()}-{time.monotonic_ns()}"

    def run(self, *argv: str, timeout: float | None = None, grace: float = 5.0, told: bool = False) -> Ending:
        out, err = LogWriter(self.folder, "stdout", None), LogWriter(self.folder, "stderr", None)
        env = {**os.environ, "RUNPROJ_GUARDED": self.mark}
        try:
            return run(CommandSpec(argv, self.folder, env, timeout, grace, told=told), out, err)
        finally:
            out.close()
            err.close()

    def bash(self, script: str, **limits: float) -> Ending:
        return self.run("bash", "-c", script, **limits)

    @property
    def survivors(self) -> list[int]:
        return [pid for pid in proc.marked("RUNPROJ_GUARDED", self.mark) if proc.start_time(pid)]

    def log(self, name: str = "stdout") -> bytes:
        return (self.folder / f"{name}.log").read_bytes()


@pytest.fixture
def stage(isolated: Path) -> Stage:
    folder = isolated / "stage"
    folder.mkdir()
    return Stage(folder)


@pytest.mark.parametrize("code", [0, 1, 2, 3, 42, 124, 125, 126, 127, 128, 130, 255])
def test_exit_codes_are_the_commands_own(stage: Stage, code: int) -> None:
    assert stage.bash(f"exit {code}").code == code


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGABRT, signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_death_by_signal_is_128_plus_n(stage: Stage, number: signal.Signals) -> None:
    ending = stage.bash(f"kill -{number.value} $$; sleep 5")
    assert (ending.code, ending.signal, ending.stopped) == (128 + number, number, None)


def test_a_missing_program_is_told_from_one_that_fails(stage: Stage) -> None:
    ending = stage.run("no-such-program-anywhere")
    assert (ending.code, ending.error) == (127, 2)


def test_a_file_that_may_not_be_executed(stage: Stage) -> None:
    (stage.folder / "script").write_text("#!/bin/sh\n")
    assert stage.run("./script").code == 126


def test_output_is_stored_byte_for_byte(stage: Stage) -> None:
    data = bytes(range(256)) * 2000 + b"progress 1%\rprogress 2%\r\n\xff\xfe no newline at the end"
    (stage.folder / "data").write_bytes(data)
    stage.bash("cat data; cat data >&2")
    assert stage.log() == data
    assert stage.log("stderr") == data


def test_streams_can_be_merged_in_the_order_they_were_written(stage: Stage) -> None:
    seen = "until grep -qs {0}$i std{0}.log; do sleep 0.01; done; sleep 0.02"
    stage.bash(f"for i in 1 2 3; do echo out$i; {seen.format('out')}; echo err$i >&2; {seen.format('err')}; done")
    merged = [data for _, _, data in read_merged(stage.folder)]
    assert merged == [b"out1\n", b"err1\n", b"out2\n", b"err2\n", b"out3\n", b"err3\n"]
    times = [when for when, _, _ in read_merged(stage.folder)]
    assert times == sorted(times)
    assert abs(times[0] / 1000 - time.time()) < 60


def test_output_without_a_mark_has_the_time_of_its_file(tmp_path: Path) -> None:
    (tmp_path / "stdout.log").write_bytes(b"one\ntwo\n")
    (tmp_path / "timeline").write_text("1700000000000 o 4\n")
    os.utime(tmp_path / "stdout.log", (1_700_000_009, 1_700_000_009))
    expected = [(1_700_000_000_000, "o", b"one\n"), (1_700_000_009_000, "o", b"two\n")]
    assert list(read_merged(tmp_path)) == expected
    (tmp_path / "timeline").unlink()
    assert list(read_merged(tmp_path)) == [(1_700_000_009_000, "o", b"one\ntwo\n")]
    assert list(read_merged(tmp_path / "not begun")) == []


def test_a_long_line_and_much_output_need_little_memory(stage: Stage) -> None:
    script = (
        "import sys\n"
        "sys.path[:0] = sys.argv[1:]\n"
        "from test_supervise import Stage\n"
        "from pathlib import Path\n"
        "Stage(Path('.')).bash('head -c 300000000 /dev/zero')\n"
        "print(Path('/proc/self/status').read_text().partition('VmHWM:')[2].split()[0])\n"  # ru_maxrss is inherited from pytest
    )
    result = subprocess.run(
        [sys.executable, "-c", script, str(HERE), str(HERE.parent)], cwd=stage.folder, capture_output=True, text=True, check=True
    )
    assert int(result.stdout) < 120 * 1024
    assert (stage.folder / "stdout.log").stat().st_size == 300_000_000


def test_timeout_ends_everything(stage: Stage) -> None:
    ending = stage.bash("setsid sleep 60 & sleep 60", timeout=0.3)
    assert ending.timed_out
    assert stage.survivors == []


def test_who_ignores_sigterm_is_killed_after_the_grace_period(stage: Stage) -> None:
    ending = stage.bash("trap '' TERM; while :; do sleep 0.1; done", timeout=5, grace=0.5)
    assert (ending.timed_out, ending.signal) == (True, signal.SIGKILL)
    assert stage.survivors == []


def test_background_processes_end_with_the_command(stage: Stage) -> None:
    ending = stage.bash("setsid sleep 6000 & (nohup sleep 6001 &) ; echo started")
    assert ending.code == 0
    assert ending.leftovers == 2
    assert stage.survivors == []


FAMILY = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen(["setsid", "sleep", "600"])
subprocess.Popen(["bash", "-c", "sleep 601 & setsid bash -c 'sleep 602 & wait' & wait"])
print("ready", flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_reaches_the_whole_family_even_detached_and_stubborn_members(stage: Stage, number: signal.Signals) -> None:
    def stop_when_ready() -> None:
        while not (stage.folder / "stdout.log").exists() or b"ready" not in stage.log():
            time.sleep(0.02)
        until(lambda: len(stage.survivors) >= 5)
        os.kill(os.getpid(), number)

    (stage.folder / "family.py").write_text(FAMILY)
    thread = threading.Thread(target=stop_when_ready)
    thread.start()
    ending = stage.run(sys.executable, "family.py", grace=1.0)
    thread.join()
    assert ending.stopped == number
    assert stage.survivors == []


RUNNER = """
import sys
sys.path[:0] = sys.argv[1], sys.argv[3]
from pathlib import Path
from test_supervise import Stage
stage = Stage(Path("."))
stage.mark = sys.argv[2]
stage.run(sys.executable, "family.py")
"""


@pytest.mark.parametrize("victim", ["runner", "guard"])
def test_nothing_survives_kill_9_of_the_runner_or_of_the_guard(stage: Stage, victim: str) -> None:
    (stage.folder / "family.py").write_text(FAMILY)
    process = subprocess.Popen([sys.executable, "-c", RUNNER, str(HERE), stage.mark, str(HERE.parent)], cwd=stage.folder)
    while not (stage.folder / "stdout.log").exists() or b"ready" not in stage.log():
        time.sleep(0.02)
    until(lambda: len(stage.survivors) >= 5)
    if victim == "runner":
        process.kill()
    else:
        guard = next(pid for pid in proc.descendants([process.pid]) if "guard.py" in Path(f"/proc/{pid}/cmdline").read_text())
        os.kill(guard, signal.SIGKILL)
    process.wait()
    until(lambda: not stage.survivors)


def test_a_full_disk_ends_the_command_and_says_so(stage: Stage) -> None:
    from runproj.errors import StorageError

    small = stage.folder / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", small], check=True)
    try:
        inner = Stage(small)
        inner.mark = stage.mark
        with pytest.raises(StorageError, match=r"stdout\.log"):
            inner.bash("yes & yes")
        assert stage.survivors == []
    finally:
        subprocess.run(["umount", small], check=True)


def test_output_that_nobody_reads_any_more_is_still_recorded(stage: Stage) -> None:
    read, write = os.pipe()
    os.close(read)
    out, err = LogWriter(stage.folder, "stdout", write), LogWriter(stage.folder, "stderr", None)
    ending = run(CommandSpec(["bash", "-c", "echo one; sleep 0.1; echo two"], stage.folder, dict(os.environ)), out, err)
    out.close()
    err.close()
    os.close(write)
    assert ending.code == 0
    assert stage.log() == b"one\ntwo\n"


def test_resource_use_is_reported(stage: Stage) -> None:
    ending = stage.run(sys.executable, "-c", "x = bytearray(50_000_000); sum(range(3_000_000))")
    assert ending.memory > 50_000_000
    assert ending.cpu > 0.01


def test_checksum_of_a_binary_stream(stage: Stage) -> None:
    data = os.urandom(5_000_000)
    (stage.folder / "data").write_bytes(data)
    stage.bash("cat data")
    assert hashlib.sha256(stage.log()).digest() == hashlib.sha256(data).digest()


@pytest.mark.parametrize("limit", ["signal", "timeout"])
def test_a_reader_who_has_stopped_reading_does_not_keep_a_run_from_ending(stage: Stage, limit: str) -> None:
    read, write = os.pipe()
    out, err = LogWriter(stage.folder, "stdout", write), LogWriter(stage.folder, "stderr", None)
    spec = CommandSpec(["yes"], stage.folder, os.environ, timeout=1 if limit == "timeout" else None, grace=1)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    if limit == "signal":
        threading.Timer(1, os.kill, (os.getpid(), signal.SIGTERM)).start()
    try:
        ending = run(spec, out, err)
        assert (ending.stopped, ending.timed_out) == ((signal.SIGTERM, False) if limit == "signal" else (None, True))
    finally:
        signal.signal(signal.SIGTERM, before)
        out.close()
        err.close()
        os.close(read)
        os.close(write)


@pytest.mark.parametrize(("argv", "env"), [(["x" * 1000] * 10_000, {}), (["true"], {"A": "a\0b"})])
def test_a_command_that_the_system_does_not_take_is_explained(stage: Stage, argv: list[str], env: dict[str, str]) -> None:
    out, err = LogWriter(stage.folder, "stdout", None), LogWriter(stage.folder, "stderr", None)
    descriptors = len(os.listdir("/proc/self/fd"))
    with pytest.raises(StartError, match="could not be started"):
        run(CommandSpec(argv, stage.folder, env), out, err)
    assert len(os.listdir("/proc/self/fd")) <= descriptors
    out.close()
    err.close()


def test_a_program_that_leaves_a_process_behind_is_not_waited_for(isolated: Path) -> None:
    number = proc.run(["sh", "-c", "sleep 6000 & echo $!"]).out.strip()
    os.kill(int(number), signal.SIGKILL)


def test_a_word_of_the_engine_reaches_what_listens_to_it_and_ends_nothing(stage: Stage) -> None:
    listens = f"import os, signal, time\nheard = []\nsignal.signal(12, lambda *_: heard.append(1))\nos.kill({os.getpid()}, 12)\n"
    listens += "while not heard: time.sleep(0.01)\nprint(12)"  # `signal.pause` would not see one that has come before it
    script = f"sleep 60 & {sys.executable} -c '{listens}'; kill -0 $! && echo after; kill $!"
    ending = stage.run("bash", "-c", script, told=True)
    assert (ending.stopped, ending.signal) == (None, None)
    assert stage.log() == b"12\nafter\n"


def test_who_was_told_by_the_engine_is_not_told_again(stage: Stage) -> None:
    script = f"trap 'echo told' TERM; kill -TERM {os.getpid()}; sleep 0.5; kill -TERM $$; sleep 0.5; exit 0"
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        ending = stage.run("bash", "-c", script, told=True, grace=20)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert ending.stopped == signal.SIGTERM
    assert stage.log() == b"told\n"


def test_what_waited_interrupts_the_part_that_lifts_it_and_the_next_waits_again():
    class Told(Exception):
        pass

    def tell(_number: int, _frame: object) -> None:
        raise Told

    before, done = signal.signal(signal.SIGTERM, tell), []
    try:
        with pytest.raises(Told), Deferred() as deferred:
            signal.raise_signal(signal.SIGTERM)
            with pytest.raises(Told), deferred.lifted():
                done.append("not this")
            signal.raise_signal(signal.SIGTERM)
            done.append("this")
    finally:
        signal.signal(signal.SIGTERM, before)
    assert done == ["this"]
