"""A container's spool is data of a stranger: what it says is taken over, where it points is not followed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from runproj.client.spool import Spool
from runproj.salvage import salvage

NAME = "20260101T000000-12-0a1b2c3d"
ABOUT = {"uri": "http://127.0.0.1:1", "home_uri": "sqlite:///x", "run": "r" * 32}


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    folder = tmp_path / "theirs" / NAME
    for inner in ("runs", "files"):
        (folder / inner).mkdir(parents=True)
    (folder / "about.json").write_text(
        json.dumps({"uri": "http://attacker", "home_uri": "http://attacker", "family": NAME, "run": "x"})
    )
    return folder


def taken(theirs: Path, tmp_path: Path, *, files: bool = True) -> Path:
    salvage(theirs.parent, tmp_path / "ours", ABOUT, files=files)
    return tmp_path / "ours" / NAME


def events_of(folder: Path) -> list[object]:
    return [json.loads(line) for line in (folder / "events-000001.jsonl").read_bytes().splitlines()]


def write_events(folder: Path, *events: object) -> None:
    (folder / "events-000001.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))


def test_what_was_logged_is_taken_over(theirs: Path, tmp_path: Path) -> None:
    metric, file, table = ["m", 1, "loss", 0.5, 1, 0], ["a", 1, "files/1", "models/m.bin"], ["b", 1, "t.json", {"columns": []}]
    write_events(theirs, metric, file, table)
    (theirs / "sent").write_text("00000001 0000000000000031\n")
    (theirs / "files/1").write_bytes(b"content")
    declared = {"id": "i", "create": True, "start": 5, "tags": {"a": "b"}, "made_by": f"/runproj/spool/{NAME}/runs/3"}
    (theirs / "runs/1.json").write_text(json.dumps(declared))
    (theirs / "runs/1.creating").write_text("true")
    ours = taken(theirs, tmp_path)
    assert events_of(ours) == [metric, file, table]
    assert (ours / "files/1").read_bytes() == b"content"
    assert json.loads((ours / "about.json").read_text()) == {**ABOUT, "family": NAME}
    assert json.loads((ours / "runs/1.json").read_text()) == {**declared, "made_by": str(ours / "runs/3")}
    spool = Spool.take(str(ours))
    assert spool
    assert spool.about.home_uri == "sqlite:///x"
    assert spool.journal.position() == (1, 31)
    spool.release()


def test_where_it_points_is_not_followed(theirs: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    good = ["a", 1, "files/1", "x"]
    write_events(
        theirs,
        ["a", 1, str(secret), "x"],
        ["a", 1, "../../secret", "x"],
        ["a", 1, "files/../../../secret", "x"],
        ["a", 1, "files/1", "../../x"],
        ["a", 1, "files/1", "/etc/x"],
        ["a", 1, ["files/1"], "x"],
        ["b", 1, "../x", {}],
        ["a", 1],
        "text",
        good,
    )
    (theirs / "files/1").symlink_to(secret)
    os.mkfifo(theirs / "files/2")
    (theirs / "files/not-a-number").write_text("x")
    (theirs / "runs/1.json").symlink_to(secret)
    (theirs / "runs/2.json").write_text(json.dumps({"id": 5, "made_by": "/etc/cron.d/x", "artifacts": "file:///etc"}))
    (theirs / "runs/2.id").write_text(json.dumps({"id": "i", "client_id": "i", "artifacts": "file:///etc"}))
    (theirs / "refused.jsonl").symlink_to(secret)
    (theirs / "lock").symlink_to(secret)
    (theirs / "sent").symlink_to(secret)
    lengths = [len(line) for line in (theirs / "events-000001.jsonl").read_bytes().splitlines()]
    ours = taken(theirs, tmp_path)
    assert events_of(ours) == [*[[]] * 9, good]
    assert [len(line) for line in (ours / "events-000001.jsonl").read_bytes().splitlines()] == lengths, "positions hold"
    assert sorted(str(path.relative_to(ours)) for path in ours.rglob("*")) == [
        "about.json",
        "events-000001.jsonl",
        "files",
        "runs",
        "runs/1.json",
        "runs/2.json",
    ]
    assert json.loads((ours / "runs/1.json").read_text()) == {"create": False, "start": 0}
    assert json.loads((ours / "runs/2.json").read_text()) == {"create": False, "start": 0}
    assert secret.read_text() == "secret"


def test_names_and_kinds_of_folders_are_looked_at(theirs: Path, tmp_path: Path) -> None:
    write_events(theirs, ["m", 1, "loss", 0.5, 1, 0])
    (theirs.parent / "link").symlink_to(theirs)
    (theirs.parent / ".new-x").mkdir()
    (theirs.parent / "run-1 x").mkdir()
    (theirs.parent / "plain file").write_text("")
    (theirs / "runs").rmdir()
    (theirs / "runs").symlink_to("/etc")
    ours = taken(theirs, tmp_path)
    assert os.listdir(tmp_path / "ours") == [NAME]
    assert list((ours / "runs").iterdir()) == []


def test_files_stay_behind_where_the_server_is_another_machines(theirs: Path, tmp_path: Path) -> None:
    metric = ["m", 1, "loss", 0.5, 1, 0]
    write_events(theirs, metric, ["a", 1, "files/1", "x"])
    (theirs / "files/1").write_text("x")
    ours = taken(theirs, tmp_path, files=False)
    assert events_of(ours) == [metric, []]
    assert list((ours / "files").iterdir()) == []
