"""Records as one file: whole or not there, inside of their folder, and said to be complete at last."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from conftest import HOSTILE
from runproj.errors import StorageError
from runproj.packing import PACKED, announce, pack, unpack


def test_a_record_comes_out_as_it_went_in(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    (here / "artifacts" / HOSTILE).mkdir(parents=True)
    (here / "artifacts" / HOSTILE / "old.bin").write_bytes(b"weights")
    (here / "ended.json").write_text("{}")
    (here / "active").mkdir()
    (here / "active" / "token.json").write_text("ours alone")
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "stdout.log").write_text("not of the record")
    for _ in range(2):
        announce(here, tmp_path / "logs")
        pack(here)
    there.mkdir()
    (here / PACKED).rename(there / "fetched")
    unpack(there / "fetched", there)
    found = {str(path.relative_to(there)): path.read_bytes() for path in there.rglob("*") if path.is_file()}
    assert found == {f"artifacts/{HOSTILE}/old.bin": b"weights", "ended.json": b"{}"}


def test_what_is_broken_or_leads_elsewhere_does_no_harm(tmp_path: Path) -> None:
    record, path = tmp_path / "record", tmp_path / "fetched"
    record.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in (("../outside", "x"), ("/absolute", "x"), ("ended.json", "{}")):
            archive.writestr(zipfile.ZipInfo(name), content)  # of no time: its bytes could be those that are exchanged below
    whole = path.read_bytes()
    unpack(path, record)
    assert sorted(file.name for file in record.iterdir()) == ["absolute", "ended.json", "outside"]
    assert not (tmp_path / "outside").exists() and not path.exists()
    (record / "ended.json").unlink()
    for broken in (b"", whole[: len(whole) // 2], whole.replace(b"x", b"y", 1)):
        path.write_bytes(broken)
        with pytest.raises(StorageError, match="broken"):
            unpack(path, record)
        assert not path.exists() and not (record / "ended.json").exists()
