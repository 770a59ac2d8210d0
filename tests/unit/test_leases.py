"""Leases: who works on which run, and who does no more."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from runproj.errors import NotFoundError
from runproj.leases import Leases


@pytest.fixture
def leases(isolated: Path) -> Leases:
    return Leases(isolated / "active")


def test_a_held_lease_is_no_orphan(leases: Leases) -> None:
    lease = leases.take("one", "sqlite:///x")
    lease.update(run_id="r1", folder=Path("/somewhere"))
    assert [info.run_id for info in leases.all()] == ["r1"]
    assert list(leases.orphans()) == []
    lease.end()
    assert leases.all() == []
    assert list(leases.folder.iterdir()) == []


HOLDER = """
import sys, time
from pathlib import Path
from runproj.leases import Leases
leases = Leases(Path(sys.argv[1]))
lease = leases.take("two", "sqlite:///x")
lease.update(run_id="r2", folder=Path("/nowhere"))
print("held", flush=True)
time.sleep(60)
"""


def test_a_killed_holder_leaves_an_orphan_that_one_finder_gets(leases: Leases) -> None:
    process = subprocess.Popen([sys.executable, "-c", HOLDER, leases.folder], stdout=subprocess.PIPE)
    assert process.stdout and process.stdout.readline() == b"held\n"
    assert list(leases.orphans()) == []
    process.kill()
    process.wait()
    [orphan] = list(leases.orphans())
    assert orphan.info.run_id == "r2"
    assert not orphan.info.process.alive
    assert list(leases.orphans()) == [], "it is locked by its finder"
    orphan.end()
    assert leases.all() == []
    process.stdout.close()


def test_a_stopped_holder_is_not_lost(leases: Leases) -> None:
    import signal

    process = subprocess.Popen([sys.executable, "-c", HOLDER, leases.folder], stdout=subprocess.PIPE)
    assert process.stdout and process.stdout.readline() == b"held\n"
    os.kill(process.pid, signal.SIGSTOP)
    old = time.time() - 3600
    os.utime(leases.folder / "two.json", (old, old))
    assert list(leases.orphans()) == []
    process.kill()
    process.wait()
    process.stdout.close()


def test_another_machines_lease_is_left_alone_while_it_gives_signs_of_life(leases: Leases) -> None:
    lease = leases.take("three", "sqlite:///x")
    path = lease.path
    text = path.read_text().replace(lease.info.host, "another-host")
    lease.abandon()
    path.write_text(text)
    assert list(leases.orphans()) == []
    old = time.time() - 60
    os.utime(path, (old, old))
    [orphan] = list(leases.orphans())
    orphan.end()


def test_a_lease_goes_from_process_to_process_without_a_gap(leases: Leases) -> None:
    lease = leases.take("four", "sqlite:///x")
    os.set_inheritable(lease.descriptor, True)
    code = (
        "import sys\nfrom pathlib import Path\nfrom runproj.leases import Leases\n"
        "leases = Leases(Path(sys.argv[1])); lease = leases.inherit('four', int(sys.argv[2]))\n"
        "print('mine', flush=True); sys.stdin.read(); lease.end()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, leases.folder, str(lease.descriptor)],
        pass_fds=[lease.descriptor],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout and process.stdout.readline() == b"mine\n"
    lease.hand_over()
    assert list(leases.orphans()) == []
    assert leases.read("four").process.pid == process.pid
    process.communicate()
    with pytest.raises(NotFoundError):
        leases.read("four")


def test_leftovers_of_a_killed_holder_are_swept_and_those_of_a_living_one_are_not(leases: Leases) -> None:
    lease = leases.take("six", "sqlite:///x")
    (leases.folder / ".seven.json.abc.tmp").write_text("half")
    (leases.folder / "eight.ballast").write_text("x")
    (leases.folder / "nine.lock").write_text("")
    (leases.folder / ".six.json.def.tmp").write_text("half")
    assert list(leases.orphans()) == []
    assert {path.name for path in leases.folder.iterdir()} >= {"six.json", "six.lock", "six.ballast"}
    assert not [path for path in leases.folder.iterdir() if "six" not in path.name]
    lease.end()


def test_an_unreadable_lease_is_not_ours_to_close(leases: Leases) -> None:
    leases.folder.mkdir()
    (leases.folder / "five.json").write_text('{"from": "the future"}')
    assert list(leases.orphans()) == []
    assert leases.all() == []
    assert (leases.folder / "five.json").exists()


def test_nobody_else_can_read_a_lease(leases: Leases) -> None:
    """The tracking URI in it may hold a password."""
    lease = leases.take("secret", "http://user:password@server")
    lease.update(run_id="r", folder=Path("/nowhere"))
    assert lease.path.stat().st_mode & 0o077 == 0
    leases.inherit("secret", lease.descriptor)
    assert lease.path.stat().st_mode & 0o077 == 0
