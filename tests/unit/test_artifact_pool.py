"""A folder of artifacts: identical files are stored once, hashes are kept and checked, nothing half-written is ever seen."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conftest import HOSTILE
from runproj.artifacts.folder import Folder
from runproj.errors import DamagedError, RefusedError, RunprojError, StorageError
from support.waiting import until


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / HOSTILE / "artifacts", pooled=True)


def write(folder: Folder, path: str, *content: bytes) -> Path:
    with folder.writing(path) as file:
        for data in content:
            file.write(data)
    return folder.root / path


def read(folder: Folder, path: str) -> bytes:
    with folder.reading(path) as file:
        return b"".join(file.chunks())


def contents(folder: Folder) -> list[Path]:
    return sorted(path for path in (folder.root / ".blobs").glob("??/*"))


def flip(path: Path, bit: int) -> None:
    """Turn one bit of a file around, as a failing disk does: size and times stay."""
    status = path.stat()
    with path.open("r+b") as file:
        file.seek(bit // 8)
        byte = file.read(1)[0] ^ 1 << bit % 8
        file.seek(bit // 8)
        file.write(bytes([byte]))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_identical_files_are_stored_once(folder):
    first, second, third = (write(folder, path, b"same") for path in ("1/a", "2/b", "1/c"))
    other = write(folder, "1/other", b"different")
    assert first.stat().st_ino == second.stat().st_ino == third.stat().st_ino != other.stat().st_ino
    assert len(contents(folder)) == 2
    assert not list((folder.root / ".blobs" / "incoming").iterdir())
    assert first.stat().st_nlink == 4


def test_a_replaced_file_leaves_the_others_alone(folder):
    write(folder, "a", b"same")
    write(folder, "b", b"same")
    write(folder, "a", b"new")
    assert (read(folder, "a"), read(folder, "b")) == (b"new", b"same")
    write(folder, "a", b"new")  # once more: a link to the same content is put in its own place
    assert read(folder, "a") == b"new"
    assert not list((folder.root / ".blobs" / "incoming").iterdir())


def test_the_hash_is_known(folder):
    import hashlib

    write(folder, "a", b"one", b"two")
    with folder.reading("a") as file:
        assert file.sha256 == hashlib.sha256(b"onetwo").hexdigest()
        assert file.size == 6


def test_files_of_others_are_read_unchecked(folder):
    write(folder, "a", b"ours")
    (folder.root / "b").write_bytes(b"theirs")
    with folder.reading("b") as file:
        assert file.sha256 is None
    assert read(folder, "b") == b"theirs"
    (folder.root / ".blobs" / "inode" / str((folder.root / "b").stat().st_ino)).symlink_to(contents(folder)[0])
    with folder.reading("b") as file:  # a number that belonged to another file once says nothing
        assert file.sha256 is None


def test_every_flipped_bit_is_found(folder):
    content = random.Random(1).randbytes(5000)
    path = write(folder, "a", content)
    for bit in random.Random(2).sample(range(8 * len(content)), 500):
        flip(path, bit)
        with pytest.raises(DamagedError):
            read(folder, "a")
        flip(path, bit)
    assert read(folder, "a") == content


@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: data + b"x", lambda data: b""])
def test_a_file_of_another_length_is_damaged(folder, change):
    path = write(folder, "a", b"content" * 1000)
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(DamagedError):
        read(folder, "a")


def test_of_a_large_damaged_file_the_last_part_is_not_given(folder):
    content = os.urandom(3 << 20)
    flip(write(folder, "a", content), 777)
    got = bytearray()
    with folder.reading("a") as file, pytest.raises(DamagedError):
        for data in file.chunks():
            got += data
    assert len(got) < len(content)
    with folder.reading("a") as file:
        assert b"".join(file.chunks(2 << 20)) == content[2 << 20 :]  # ranges are not checked
        assert b"".join(file.chunks(5, 9)) == content[5:10]


def test_damaged_content_is_not_shared_any_further(folder):
    path = write(folder, "a", b"content")
    flip(path, 3)
    write(folder, "b", b"content")
    write(folder, "c", b"content")
    assert read(folder, "b") == read(folder, "c") == b"content"
    assert (folder.root / "b").stat().st_ino == (folder.root / "c").stat().st_ino
    with pytest.raises(DamagedError):
        read(folder, "a")
    write(folder, "a", b"content")
    assert read(folder, "a") == b"content"
    folder.collect()
    assert len(contents(folder)) == 1
    assert read(folder, "a") == b"content"


def test_no_path_leads_to_the_pool(folder):
    write(folder, "a", b"content")
    inside = contents(folder)[0].relative_to(folder.root).as_posix()
    assert [info.path for info in folder.list()] == ["a"]
    for path in (".blobs", ".BLOBS/x", inside):
        with pytest.raises(RefusedError):
            read(folder, path)
        with pytest.raises(RefusedError):
            write(folder, path, b"x")
        with pytest.raises(RefusedError):
            folder.remove(path)
        with pytest.raises(RefusedError):
            folder.list(path)
    write(folder, "deeper/.blobs", b"an ordinary file")
    assert read(folder, "deeper/.blobs") == b"an ordinary file"


def test_contents_without_a_file_are_collected(folder):
    write(folder, "1/a", b"shared")
    write(folder, "2/a", b"shared")
    write(folder, "2/b", b"x" * 50_000)
    folder.remove("2")
    assert folder.collect(dry_run=True) >= 50_000
    assert len(contents(folder)) == 2
    assert folder.collect() >= 50_000
    assert folder.collect() == 0
    assert len(contents(folder)) == len(list((folder.root / ".blobs" / "inode").iterdir())) == 1
    assert read(folder, "1/a") == b"shared"
    write(folder, "3", b"x" * 50_000)
    assert read(folder, "3") == b"x" * 50_000


def test_a_full_disk(tmp_path):
    small = tmp_path / "small disk"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", small], check=True)
    try:
        folder = Folder(small / "artifacts", pooled=True)
        write(folder, "a", b"before")
        with pytest.raises(StorageError, match="No space left"):
            write(folder, "b", bytes(1 << 19), os.urandom(1 << 20))
        assert [info.path for info in folder.list()] == ["a"]
        assert not list((folder.root / ".blobs" / "incoming").iterdir())
        write(folder, "b", os.urandom(1 << 18))
        assert read(folder, "a") == b"before"
    finally:
        subprocess.run(["umount", small], check=True)


UPLOAD = """
import sys, time
from pathlib import Path
from runproj.artifacts.folder import Folder
folder = Folder(Path(sys.argv[1]), pooled=True)
for path in sys.argv[2:]:
    with folder.writing(path) as file:
        file.write(b"half" * 1000)
        if path == "wait":
            print("half", flush=True)
            time.sleep(60)
"""


def test_a_killed_upload_is_never_seen(folder):
    with subprocess.Popen([sys.executable, "-c", UPLOAD, str(folder.root), "wait"], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"half\n"
        incoming = next((folder.root / ".blobs" / "incoming").iterdir())
        os.utime(incoming, (1, 1))
        folder.collect()
        assert incoming.exists()  # its writer is alive, however long it takes
        process.kill()
    assert not folder.list()
    assert [path for path in folder.root.iterdir() if path.name != ".blobs"] == []
    write(folder, "wait", b"whole")
    assert read(folder, "wait") == b"whole"
    os.utime(incoming, (time.time(), time.time()))
    folder.collect()
    assert incoming.exists()  # it might have been made a moment ago
    os.utime(incoming, (1, 1))
    assert folder.collect() >= 4000
    assert not incoming.exists()


@pytest.mark.parametrize(
    ("fault", "shared"),
    [
        ("link,linkat:error=EPERM", 0),  # a file system without hard links
        ("link,linkat:error=EMLINK:when=2", 1),  # one more link than a file can have: the content is stored once more
        ("symlink,symlinkat:error=EPERM", 3),  # one without symbolic links: hashes are not known
    ],
)
def test_file_systems_that_link_less(folder, fault, shared):
    command = ["strace", "-f", "-o", "/dev/null", "-e", f"trace={fault.partition(':')[0]}", "-e", f"inject={fault}"]
    subprocess.run([*command, sys.executable, "-c", UPLOAD, str(folder.root), "a", "b", "c"], check=True)
    assert {read(folder, path) for path in "abc"} == {b"half" * 1000}
    assert len({(folder.root / path).stat().st_ino for path in "abc"}) == {0: 3, 1: 2, 3: 1}[shared]
    assert len(contents(folder)) == {0: 0, 1: 2, 3: 1}[shared]
    assert not list((folder.root / ".blobs" / "incoming").iterdir())


def test_a_folder_that_turns_into_a_link_leads_nowhere(folder, tmp_path):
    """A folder is exchanged for a link to elsewhere, over and over, while files are written, read and removed through it."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_bytes(b"secret")
    write(folder, "real/file", b"ours")
    (folder.root / "link").symlink_to(outside)
    (folder.root / "place").mkdir()
    program = """
import ctypes, sys
exchange = ctypes.CDLL(None).renameat2
while True:
    exchange(-100, sys.argv[1].encode(), -100, sys.argv[2].encode(), 2)
"""
    with subprocess.Popen([sys.executable, "-c", program, folder.root / "place", folder.root / "link"]) as process:
        through = 0
        until((folder.root / "place").is_symlink)
        for _ in range(1000):
            with contextlib.suppress(RunprojError):
                write(folder, "place/file", b"ours")
                through += 1
            with contextlib.suppress(RunprojError):
                assert read(folder, "place/file") == b"ours"
            with contextlib.suppress(RunprojError):
                folder.remove("place/file")
        process.kill()
    assert (outside / "file").read_bytes() == b"secret"
    assert [path.name for path in outside.iterdir()] == ["file"]
    assert 0 < through < 1000
