"""The zip around a capsule: what was packed comes out, and a stranger's file does no harm."""

from __future__ import annotations

import json
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from runproj.capsule.archive import Reader, Writer, document, opened
from runproj.capsule.names import packed, unpacked
from runproj.core.capsule import MANIFEST, Manifest, PackedCode, PackedEnvironment
from runproj.errors import DamagedError, RunprojError, StorageError, UsageError

ENVIRONMENT = PackedEnvironment("system", "0" * 64, "linux")


@pytest.fixture
def capsule(tmp_path: Path) -> Path:
    target = tmp_path / "it's \"a\ncapsule.zip"
    with Writer(target) as writer:
        writer.text("runs/a/run.json", "{}")
        writer.text("runs/a/artifacts/model.bin", b"\0" * 3_000_000)
        manifest = Manifest("a", ("a",), "", "", PackedCode(), ENVIRONMENT, (), tuple(writer.files))
        writer.text(MANIFEST, document(manifest))
    return target


def again(capsule: Path, change: Callable[[zipfile.ZipFile, dict[str, bytes]], None]) -> Path:
    """The capsule written anew by somebody else's program; `change` may leave files out and add what it likes."""
    target = capsule.with_name("other.zip")
    with zipfile.ZipFile(capsule) as source:
        files = {name: source.read(name) for name in source.namelist()}
    with zipfile.ZipFile(target, "w") as archive:
        change(archive, files)
        for name, content in files.items():
            archive.writestr(name, content)
    return target


def declared(files: dict[str, bytes], name: str, content: bytes) -> None:
    """Add a file that the manifest knows."""
    import hashlib

    manifest = json.loads(files[MANIFEST])
    manifest["files"].append({"path": name, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()})
    files[MANIFEST] = json.dumps(manifest).encode()


def read(path: Path) -> list[str]:
    with opened(path) as reader:
        reader.verify()
        return sorted(reader.files)


def test_what_was_packed_comes_out(capsule: Path, tmp_path: Path) -> None:
    with opened(capsule) as reader:
        reader.verify()
        reader.extract("runs/a/artifacts/model.bin", tmp_path / "out" / "model.bin")
    assert (tmp_path / "out" / "model.bin").read_bytes() == b"\0" * 3_000_000
    assert read(again(capsule, lambda archive, files: None)) == ["runs/a/artifacts/model.bin", "runs/a/run.json"]


def test_nothing_is_left_of_a_capsule_that_could_not_be_written(tmp_path: Path) -> None:
    with pytest.raises(RunprojError), Writer(tmp_path / "c.zip") as writer:
        writer.text("a", "b")
        writer.add("c", tmp_path / "missing")
    assert list(tmp_path.glob("*c.zip*")) == []
    (tmp_path / ".c.zip.999999999.part").write_text("of a process that is gone")
    with Writer(tmp_path / "c.zip") as writer:
        writer.text("a", "b")
    assert [path.name for path in tmp_path.glob("*c.zip*")] == ["c.zip"]


@pytest.mark.parametrize(
    "name", ["../x", "/etc/x", "a/../../x", "a//b", "C:x", "a\\b", "./x", "a\nb", "Größe", "x/", ".", "a b", "nul\x7f"]
)
def test_names_that_lead_out_are_refused(capsule: Path, name: str) -> None:
    def change(archive: zipfile.ZipFile, files: dict[str, bytes]) -> None:
        declared(files, name, b"x")
        archive.writestr(name, b"x")

    with pytest.raises(StorageError, match="refused as a capsule"):
        read(again(capsule, change))


def link(archive: zipfile.ZipFile, files: dict[str, bytes]) -> None:
    info = zipfile.ZipInfo("runs/a/artifacts/link")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    declared(files, info.filename, b"/etc/passwd")
    archive.writestr(info, b"/etc/passwd")


def pipe(archive: zipfile.ZipFile, files: dict[str, bytes]) -> None:
    info = zipfile.ZipInfo("runs/a/artifacts/pipe")
    info.external_attr = (stat.S_IFIFO | 0o777) << 16
    declared(files, info.filename, b"")
    archive.writestr(info, b"")


def twice(archive: zipfile.ZipFile, files: dict[str, bytes]) -> None:
    with pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("runs/a/run.json", files.pop("runs/a/run.json"))
        archive.writestr("runs/a/run.json", b"[]")


def bomb(archive: zipfile.ZipFile, files: dict[str, bytes]) -> None:
    content = bytes(100_000_000)
    declared(files, "runs/a/artifacts/bomb", content)
    archive.writestr("runs/a/artifacts/bomb", content, zipfile.ZIP_DEFLATED)


def unusual(archive: zipfile.ZipFile, files: dict[str, bytes]) -> None:
    declared(files, "runs/a/artifacts/x", b"x" * 1000)
    archive.writestr("runs/a/artifacts/x", b"x" * 1000, zipfile.ZIP_LZMA)


def undeclared(archive: zipfile.ZipFile, files: dict[str, bytes]) -> None:
    archive.writestr("runs/a/artifacts/extra", b"x")


def missing(archive: zipfile.ZipFile, files: dict[str, bytes]) -> None:
    del files["runs/a/run.json"]


def no_manifest(archive: zipfile.ZipFile, files: dict[str, bytes]) -> None:
    del files[MANIFEST]


def nonsense(archive: zipfile.ZipFile, files: dict[str, bytes]) -> None:
    files[MANIFEST] = b'{"run": 1}'


def newer(archive: zipfile.ZipFile, files: dict[str, bytes]) -> None:
    files[MANIFEST] = json.dumps(json.loads(files[MANIFEST]) | {"version": 99}).encode()


@pytest.mark.parametrize("change", [link, pipe, twice, bomb, unusual, undeclared, missing, no_manifest, nonsense, newer])
def test_what_no_exporter_makes_is_refused(capsule: Path, change: Callable[[zipfile.ZipFile, dict[str, bytes]], None]) -> None:
    with pytest.raises(StorageError) as error:
        read(again(capsule, change))
    assert not isinstance(error.value, DamagedError)


@pytest.mark.parametrize("name", ["runs/a/run.json", "runs/a/artifacts/model.bin"])
def test_a_changed_byte_is_noticed(capsule: Path, name: str) -> None:
    def change(archive: zipfile.ZipFile, files: dict[str, bytes]) -> None:
        files[name] = b"?" + files[name][1:]

    with pytest.raises(DamagedError, match="is not what was packed"):
        read(again(capsule, change))


def test_what_is_cut_off_or_no_zip_at_all_is_refused(capsule: Path, tmp_path: Path) -> None:
    whole = capsule.read_bytes()
    for content in (whole[:-30], whole[: len(whole) // 2], b"", b"PK\x05\x06" + bytes(18), b"text"):
        target = tmp_path / "cut.zip"
        target.write_bytes(content)
        with pytest.raises(StorageError, match="refused as a capsule"):
            read(target)
    with pytest.raises(UsageError, match="There is no"):
        read(tmp_path / "none.zip")


def test_entries_that_share_their_bytes_are_refused(capsule: Path, tmp_path: Path) -> None:
    """Many entries of the directory that stand for the same bytes would unpack to more than their ratio tells."""
    with zipfile.ZipFile(capsule.with_name("other.zip"), "w") as archive, zipfile.ZipFile(capsule) as source:
        files = {name: source.read(name) for name in source.namelist()}
        content = bytes(20_000_000)
        names = [f"runs/a/artifacts/{number}" for number in range(3)]
        for name in names:
            declared(files, name, content)
        archive.writestr(names[0], content)
        for name in names[1:]:
            info = zipfile.ZipInfo(name)
            first = archive.getinfo(names[0])
            info.header_offset, info.CRC = first.header_offset, first.CRC
            info.file_size = info.compress_size = first.file_size
            archive.filelist.append(info)
            archive.NameToInfo[name] = info
        for name, text in files.items():
            archive.writestr(name, text)
    with pytest.raises(StorageError, match="refused as a capsule"):
        read(capsule.with_name("other.zip"))


@pytest.mark.parametrize("path", ["a b", "Größe\n", "100%", "x/y", "%41", "a+b~c=d,e", "\udcff", '<>:"|?*\\'])
def test_names_of_any_file_are_plain_and_come_back(path: str) -> None:
    name = packed("runs", path)
    assert name.isascii() and not set(name) & set(' \n"<>|?*\\:')
    assert unpacked(name) == f"runs/{path}"


def test_reader_says_what_it_lacks(capsule: Path) -> None:
    with opened(capsule) as reader:
        assert isinstance(reader, Reader) and not reader.has("nothing")
        with pytest.raises(StorageError, match="It has no nothing"):
            reader.read("nothing")
