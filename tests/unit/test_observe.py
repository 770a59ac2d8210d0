"""Metrics found in output and files, and outputs found by patterns."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runproj.core.project import MetricSpec
from runproj.errors import DescriptorError
from runproj.observe import MetricWatcher, find_outputs, inside, metrics_from_files

LOSS = MetricSpec(name="loss", pattern=r"loss[=:]\s*(\S+)")
ANY = MetricSpec(pattern=r"step (?P<step>\d+) (?P<name>\w+)=(?P<value>\S+)")


def found(specs: list[MetricSpec], *chunks: bytes) -> list[tuple[str, float, int]]:
    watcher = MetricWatcher(specs)
    for chunk in chunks:
        watcher.feed(chunk)
    watcher.close()
    return [(metric.key, metric.value, metric.step) for metric in watcher.take()]


def test_a_pattern_with_one_group_counts_its_steps() -> None:
    assert found([LOSS], b"loss=0.5\nother\nloss: 2.5e-1\n") == [("loss", 0.5, 0), ("loss", 0.25, 1)]


def test_a_pattern_can_name_metric_and_step() -> None:
    assert found([ANY], b"step 7 accuracy=0.9 step 9 f1=1\n") == [("accuracy", 0.9, 7), ("f1", 1.0, 9)]


def test_progress_bars_and_the_last_line_without_an_end_are_read() -> None:
    assert found([LOSS], b"loss=1\rloss=2\rloss=3") == [("loss", 1.0, 0), ("loss", 2.0, 1), ("loss", 3.0, 2)]


def test_infinities_and_nan_are_values_and_words_are_not() -> None:
    values = found([LOSS], b"loss=inf\nloss=-inf\nloss=nan\nloss=bad\n")
    assert [value for _, value, _ in values[:2]] == [math.inf, -math.inf]
    assert math.isnan(values[2][1])
    assert len(values) == 3


@given(st.lists(st.floats(allow_nan=False), max_size=20), st.data())
def test_where_the_output_is_cut_makes_no_difference(values: list[float], data: st.DataObject) -> None:
    text = "".join(f"loss={value!r}\n" for value in values).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=5)))
    chunks = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert [value for _, value, _ in found([LOSS], *chunks)] == values


def test_an_endless_line_is_not_kept() -> None:
    watcher = MetricWatcher([LOSS])
    for _ in range(200):
        watcher.feed(b"x" * 65536)
    assert len(watcher._rest) <= 65536


def test_metrics_from_json_and_csv(isolated: Path) -> None:
    (isolated / "m.json").write_text('{"test": {"accuracy": 0.9, "n": 3, "ok": true}, "name": "x"}')
    (isolated / "m.csv").write_text("epoch,loss,note\n1,0.5,a\n2,0.25,b\n")
    metrics = list(metrics_from_files([MetricSpec(file="m.json"), MetricSpec(file="m.csv")], isolated))
    assert [(m.key, m.value, m.step) for m in metrics] == [
        ("test.accuracy", 0.9, 0),
        ("test.n", 3.0, 0),
        ("loss", 0.5, 1),
        ("loss", 0.25, 2),
    ]


@pytest.mark.parametrize("content", [None, "{", "[1, 2"])
def test_a_metrics_file_that_is_missing_or_broken_is_explained(isolated: Path, content: str | None) -> None:
    if content is not None:
        (isolated / "m.json").write_text(content)
    with pytest.raises(DescriptorError, match=r"m\.json"):
        list(metrics_from_files([MetricSpec(file="m.json")], isolated))


def test_outputs_are_found_and_links_out_of_the_project_are_not_followed(isolated: Path) -> None:
    project = isolated / "project"
    (project / "models" / "deep").mkdir(parents=True)
    (project / "models" / "deep" / "a.bin").write_bytes(b"a")
    (project / "models" / "b.bin").write_bytes(b"b")
    (project / "models" / "out").symlink_to("/etc/passwd")
    (project / "plot.png").write_bytes(b"p")
    names, empty = find_outputs(["models", "*.png", "*.csv", "../*"], project)
    assert names == ["models/b.bin", "models/deep/a.bin", "plot.png"]
    assert "*.csv" in empty


@pytest.mark.parametrize("path", ["..", "../x", "/etc/passwd", "a/../../x", "link/x"])
def test_paths_that_leave_the_project_are_refused(isolated: Path, path: str) -> None:
    project = isolated / "project"
    project.mkdir()
    (project / "link").symlink_to("/etc")
    with pytest.raises(DescriptorError):
        inside(project, path)


@pytest.mark.parametrize(
    "content",
    ["[" * 200_000, '{"a": 1' + "0" * 400 + "}", "{", "a,b\n" + "x" * 200_000 + ",1\n"],
    ids=["deep", "huge", "half", "csv"],
)
def test_a_metrics_file_that_cannot_be_read_is_explained(tmp_path: Path, content: str) -> None:
    name = "m.csv" if content.startswith("a,b") else "m.json"
    (tmp_path / name).write_text(content)
    with pytest.raises(DescriptorError):
        list(metrics_from_files([MetricSpec(file=name)], tmp_path))


def test_a_pipe_is_no_metrics_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "m.json")
    with pytest.raises(DescriptorError):
        list(metrics_from_files([MetricSpec(file="m.json")], tmp_path))


def test_a_pattern_that_is_none_fits_nothing(tmp_path: Path) -> None:
    assert find_outputs(["**foo/*.txt", ""], tmp_path) == ([], ["**foo/*.txt", ""])


def test_outputs_do_not_take_the_place_of_the_record(tmp_path: Path) -> None:
    for name in ("runproj/plan.json", "logs/stdout.log", "logs/mine.log", "runproj.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    assert find_outputs(["runproj", "logs", "*.txt"], tmp_path) == (["logs/mine.log", "runproj.txt"], ["runproj"])
