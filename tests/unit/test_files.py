"""Atomic writes, locks, removal and the content-addressed store."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from runproj.errors import StorageError
from runproj.files import Lock, LockedElsewhere, Objects, atomic_write, remove_tree, sha256_file


def test_a_write_replaces_and_leaves_nothing_beside(isolated: Path) -> None:
    target = isolated / "deep" / "file"
    atomic_write(target, "one")
    atomic_write(target, b"two", mode=0o600)
    assert target.read_text() == "two"
    assert target.stat().st_mode & 0o777 == 0o600
    assert os.listdir(target.parent) == ["file"]


def test_a_full_disk_is_explained_and_the_old_content_stays(isolated: Path) -> None:
    small = isolated / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", small], check=True)
    try:
        atomic_write(small / "file", b"old")
        with pytest.raises(StorageError) as caught:
            atomic_write(small / "file", b"x" * 100_000)
        assert "No space left" in caught.value.why
        assert "runproj gc" in caught.value.fix
        assert (small / "file").read_bytes() == b"old"
        assert os.listdir(small) == ["file"]
    finally:
        subprocess.run(["umount", small], check=True)


def test_a_lock_is_exclusive_and_dies_with_its_holder(isolated: Path) -> None:
    path = isolated / "lock"
    code = "import sys,time; from pathlib import Path; from runproj.files import Lock; l=Lock(Path(sys.argv[1])); l.acquire();"
    code += "print('locked', flush=True); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE)
    assert process.stdout and process.stdout.readline() == b"locked\n"
    with pytest.raises(LockedElsewhere):
        Lock(path).acquire(wait=False)
    process.kill()
    process.wait()
    process.stdout.close()
    with Lock(path) as lock:
        assert lock.descriptor > 0


def test_a_waiter_is_told_once(isolated: Path) -> None:
    import threading

    told: list[int] = []
    first, second = Lock(isolated / "lock"), Lock(isolated / "lock")
    first.acquire()
    thread = threading.Thread(target=lambda: second.acquire(on_wait=lambda: told.append(1)))
    thread.start()
    while not told:
        pass
    first.release()
    thread.join()
    second.release()
    assert told == [1]


def test_who_waited_for_a_removed_lock_file_locks_the_one_that_is_there(isolated: Path) -> None:
    import threading

    path = isolated / "lock"
    waiting = threading.Event()
    first, second = Lock(path), Lock(path)
    first.acquire()
    thread = threading.Thread(target=lambda: second.acquire(on_wait=waiting.set))
    thread.start()
    waiting.wait()
    path.unlink()
    first.release()
    thread.join()
    with pytest.raises(LockedElsewhere):
        Lock(path).acquire(wait=False)
    second.release()


def test_read_only_folders_are_removed_and_links_are_not_followed(isolated: Path) -> None:
    outside = isolated / "outside"
    outside.mkdir()
    (outside / "precious").write_text("x")
    doomed = isolated / "doomed"
    (doomed / "inner").mkdir(parents=True)
    (doomed / "inner" / "file").write_text("x")
    (doomed / "link").symlink_to(outside)
    (doomed / "inner").chmod(0o500)
    remove_tree(doomed)
    assert not doomed.exists()
    assert (outside / "precious").exists()
    assert [name for name in os.listdir(isolated) if name.startswith(".trash")] == []


@pytest.mark.parametrize("name", ["", "..", "../../evil", "../" + "a" * 61, "/" + "a" * 63, "A" * 64, "a" * 63, "é" * 64])
def test_what_is_no_sha256_leads_nowhere(tmp_path: Path, name: str) -> None:
    (tmp_path / "evil").write_text("stays")
    objects = Objects(tmp_path / "a" / "b")
    for use in (objects.path, objects.get):
        with pytest.raises(StorageError, match="no sha256"):
            use(name)
    assert (tmp_path / "evil").read_text() == "stays"


def test_objects_are_stored_once_read_only_and_checked(isolated: Path) -> None:
    objects = Objects(isolated / "objects")
    digest = objects.put(b"content")
    assert objects.put(b"content") == digest
    assert digest == sha256_file(objects.path(digest))
    assert objects.get(digest) == b"content"
    assert objects.path(digest).stat().st_mode & 0o222 == 0
    objects.path(digest).chmod(0o644)
    objects.path(digest).write_bytes(b"c0ntent")
    assert objects.get(digest) is None, "a flipped bit is not handed out"
    assert objects.put(b"content") == digest
    assert objects.get(digest) == b"content"
