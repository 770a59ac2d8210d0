"""Artifacts in a bucket: what is stored, what is seen when a writer dies or a content is damaged, what is cleared away."""

from __future__ import annotations

import datetime
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from runproj.artifacts import buckets, open_direct
from runproj.artifacts.objects import ObjectFiles
from runproj.errors import DamagedError, NotFoundError, RefusedError, StorageError, UsageError


@pytest.fixture
def files(s3: str, tmp_path: Path) -> ObjectFiles:
    return ObjectFiles(s3, tmp_path / "scratch", os.environ)


def write(files: ObjectFiles, path: str, *content: bytes) -> None:
    with files.writing(path) as file:
        for data in content:
            file.write(data)


def read(files: ObjectFiles, path: str) -> bytes:
    with files.reading(path) as file:
        return b"".join(file.chunks())


def keys(files: ObjectFiles, prefix: str = "") -> list[str]:
    return sorted(info.key for info in files._bucket.find(prefix))


def raw(files: ObjectFiles, key: str, content: bytes) -> None:
    """Change an object behind the store's back."""
    files._bucket._system.pipe_file(f"{files.url}/{key}", content)


def test_identical_files_are_stored_once(files):
    for path in ("1/a", "2/b", "1/c"):
        write(files, path, b"sa", b"me")
    digest = hashlib.sha256(b"same").hexdigest()
    assert keys(files, "blobs/") == [f"blobs/{digest[:2]}/{digest}"]
    assert len(keys(files, "tree/")) == 3
    with files.reading("2/b") as file:
        assert (file.sha256, file.size) == (digest, 4)


def test_a_large_file_goes_in_pieces(files):
    content = os.urandom(20 << 20)
    write(files, "large", content)
    assert read(files, "large") == content
    with files.reading("large") as file:
        assert b"".join(file.chunks(9 << 20, (9 << 20) + 9)) == content[9 << 20 :][:10]
        assert b"".join(file.chunks(19 << 20)) == content[19 << 20 :]


def test_the_newest_pointer_counts(files):
    write(files, "a", b"old")
    old = keys(files, "tree/")
    write(files, "a", b"new content")
    assert len(keys(files, "tree/")) == 1
    raw(files, old[0], b"")  # as if the writer had been killed before it removed the old one
    assert len(keys(files, "tree/")) == 2
    assert read(files, "a") == b"new content"
    assert [(info.path, info.size) for info in files.list()] == [("a", 11)]
    write(files, "a", b"newest")
    assert len(keys(files, "tree/")) == 1


def test_names_that_look_like_pointers(files):
    pointer = f"x.~{1:016x}-5-{'a' * 64}"
    write(files, pointer, b"a file")
    assert [info.path for info in files.list()] == [pointer]
    with pytest.raises(NotFoundError):
        read(files, "x")
    write(files, "x", b"x itself")
    write(files, "x.~y/z", b"in a folder")
    assert (read(files, "x"), read(files, pointer), read(files, "x.~y/z")) == (b"x itself", b"a file", b"in a folder")
    files.remove("x")
    assert [info.path for info in files.list()] == ["x.~y", pointer] or [info.path for info in files.list()] == [pointer, "x.~y"]


@pytest.mark.parametrize("content", [b"conTent", b"Content and more", b""])
def test_damage_is_found(files, content):
    write(files, "a", b"content")
    raw(files, keys(files, "blobs/")[0], content)
    with pytest.raises(DamagedError):
        read(files, "a")


def test_a_lost_content_is_damage(files):
    write(files, "a", b"content")
    files._bucket.remove(keys(files, "blobs/"))
    with pytest.raises(DamagedError, match="missing"):
        read(files, "a")
    write(files, "a", b"content")
    assert read(files, "a") == b"content"


def test_removing_and_collecting(files, monkeypatch):
    write(files, "1/a", b"shared")
    write(files, "2/a", b"shared")
    write(files, "2/deep/b", b"x" * 5000)
    write(files, "22", b"not below 2")
    files.remove("2")
    files.remove("nothing")
    assert [info.path for info in files.list()] == ["1", "22"]
    assert files.collect() == 0  # a writer may have found the content just now
    later = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=8)
    monkeypatch.setattr(buckets, "_now", lambda: later)
    assert files.collect(dry_run=True) == 5000
    assert files.collect() == 5000
    assert len(keys(files, "blobs/")) == 2
    assert (read(files, "1/a"), read(files, "22")) == (b"shared", b"not below 2")


def test_an_old_content_is_stored_anew_when_it_is_needed_again(files, monkeypatch):
    write(files, "a", b"content")
    raw(files, keys(files, "blobs/")[0], b"CONTENT")
    later = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=6.5)
    monkeypatch.setattr(buckets, "_now", lambda: later)
    write(files, "b", b"content")
    assert read(files, "b") == b"content"


def test_a_content_that_is_needed_again_while_it_is_collected_stays(files, monkeypatch):
    write(files, "1/a", b"content")
    files.remove("1")
    later = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=8)
    monkeypatch.setattr(buckets, "_now", lambda: later)
    find = files._bucket.find

    def and_then(prefix):
        found = find(prefix)
        if prefix == "tree/":  # the collection has seen all pointers
            write(files, "2/b", b"content")
            monkeypatch.setattr(buckets, "_now", lambda: datetime.datetime.now(datetime.UTC))
        return found

    monkeypatch.setattr(files._bucket, "find", and_then)
    assert files.collect() == 0
    assert read(files, "2/b") == b"content"


def test_a_content_that_was_removed_while_it_was_stored_anew_is_stored_again(files, monkeypatch):
    write(files, "1/a", b"content")
    files.remove("1")
    later = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=8)
    monkeypatch.setattr(buckets, "_now", lambda: later)
    touch = files._bucket.touch

    def at_last(key):
        files._bucket.remove(keys(files, "blobs/"))  # as a collection does that looked before the content was stored
        touch(key)

    monkeypatch.setattr(files._bucket, "touch", at_last)
    write(files, "2/b", b"content")
    assert read(files, "2/b") == b"content"


UPLOAD = """
import os, sys, time
from pathlib import Path
from runproj.artifacts.objects import ObjectFiles
files = ObjectFiles(sys.argv[1], Path(sys.argv[2]), os.environ)
bucket = files._bucket
if sys.argv[3] == "before the pointer":
    def touch(key):
        print("now", flush=True)
        time.sleep(60)
    bucket.touch = touch
with files.writing("wait") as file:
    file.write(b"half" * 3_000_000)
    if sys.argv[3] == "while it writes":
        print("now", flush=True)
        time.sleep(60)
"""


@pytest.mark.parametrize("moment", ["while it writes", "before the pointer"])
def test_a_killed_upload_is_never_seen(files, tmp_path, moment):
    scratch = tmp_path / "scratch"
    command = [sys.executable, "-c", UPLOAD, files.url, str(scratch), moment]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"now\n"
        process.kill()
    assert not files.list()
    assert not list(scratch.iterdir())
    write(files, "wait", b"half" * 3_000_000)
    assert read(files, "wait") == b"half" * 3_000_000


def test_uploads_in_pieces_that_nobody_finishes_are_given_up(files, monkeypatch):
    system, root = files._bucket._system, files.url.removeprefix("s3://")
    bucket, _, prefix = root.partition("/")
    system.call_s3("create_multipart_upload", Bucket=bucket, Key=f"{prefix}/blobs/half")
    begun = system.call_s3("list_multipart_uploads", Bucket=bucket)["Uploads"][0]["Initiated"]
    monkeypatch.setattr(buckets, "_now", lambda: begun + datetime.timedelta(hours=23))
    files.collect()
    assert system.call_s3("list_multipart_uploads", Bucket=bucket)["Uploads"]
    monkeypatch.setattr(buckets, "_now", lambda: begun + datetime.timedelta(hours=25))
    files.collect()
    assert not system.call_s3("list_multipart_uploads", Bucket=bucket).get("Uploads")


def test_what_goes_wrong_is_told(files, s3, tmp_path, monkeypatch):
    missing = ObjectFiles("s3://no-such-bucket-here/x", tmp_path, os.environ)
    with pytest.raises(StorageError, match="no-such-bucket-here"):
        write(missing, "a", b"x")
    with pytest.raises(RefusedError):
        write(files, "ü" * 500, b"x")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(StorageError, match="Cannot list"):
        ObjectFiles(s3, tmp_path, os.environ).list("a")


def test_a_missing_package_is_named(tmp_path):
    program = """
import sys
from pathlib import Path
sys.modules["s3fs"] = None
from runproj.artifacts import open_direct
from runproj.errors import UsageError
store = open_direct("sqlite:///x", home=Path("/nowhere"), environ={}, place="s3://bucket/prefix")
assert not {"fsspec", "s3fs", "botocore"} & {name for name, module in sys.modules.items() if module}
try:
    store.files.list()
except UsageError as error:
    assert "runproj[s3]" in str(error), error
else:
    raise AssertionError
"""
    subprocess.run([sys.executable, "-c", program], check=True, cwd=tmp_path)


@pytest.mark.parametrize("place", ["ftp://host/x", "s3://", "relative/folder", "s3:bucket"])
def test_places_that_have_no_meaning(place, tmp_path):
    with pytest.raises(UsageError):
        open_direct("sqlite:///x", home=tmp_path, environ={}, place=place)
