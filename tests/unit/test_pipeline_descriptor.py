"""Entry points that need others: what the descriptor may say of them, and the graph that it makes."""

from __future__ import annotations

from pathlib import Path

import pytest

from runproj.core.pipeline import above, clash, cycle, digest_at, files_at, graph_of, may_hold
from runproj.core.project import InputSpec
from runproj.core.record import Output
from runproj.descriptor import Severity, problems_of, read_project
from runproj.inputs import digest_of

STEPS = """\
entry_points:
  evaluate:
    command: t
    needs: check
    backend: big
    inputs:
      model: {from: train, path: ./models/best.bin}
      table: {from: prepare, path: data.csv, sha256: 2CF24DBA5FB0A30E26E83B2AC5B9E29E1B161E5C1FA7425E73043362938B9824}
  train:
    command: t
    inputs: {table: {from: prepare, path: data.csv}}
    outputs: ["models/**"]
  check: {command: t, needs: [prepare]}
  prepare: {command: t, outputs: data.csv}
  alone: {command: t, outputs: data.csv}
"""


def problems(folder: Path, text: str) -> list[str]:
    (folder / "runproj.yaml").write_text(f"entry_points:\n{text}")
    return [f"{p.line}:{p.column}: {p.message} ({p.hint})" for p in problems_of(folder) if p.severity is Severity.ERROR]


def test_needs_are_those_that_are_named_and_those_that_inputs_come_from(tmp_path: Path) -> None:
    (tmp_path / "runproj.yaml").write_text(STEPS)
    project = read_project(tmp_path, entry_point="evaluate")
    points = {point.name: point for point in project.entry_points}
    assert points["evaluate"].needs == ("check", "train", "prepare")
    assert points["evaluate"].backend == "big"
    assert points["evaluate"].inputs == (
        InputSpec("model", "models/best.bin", step="train"),
        InputSpec("table", "data.csv", "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824", step="prepare"),
    )
    graph = graph_of(project.entry_points, "evaluate")
    assert graph.names == ("prepare", "train", "check", "evaluate")
    assert graph.from_on("train") == {"train", "evaluate"}
    assert graph_of(project.entry_points, "alone").names == ("alone",)
    assert problems_of(tmp_path) == ()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("  a: {command: t, needs: b}\n  b: {command: t, needs: [a]}\n", ["2:26: 'a' needs 'b' needs 'a'"]),
        ("  a: {command: t, needs: [a]}\n", ["2:27: 'a' needs 'a'"]),
        (
            "  a: {command: t, outputs: x}\n  b: {command: t, needs: [aa]}\n",
            ["3:27: 'b' needs 'aa', which is no entry point (Did you mean 'a'?)"],
        ),
        (
            "  a: {command: t}\n  b:\n    command: t\n    inputs:\n      x: {from: zzz, path: y}\n",
            ["6:17: 'b' needs 'zzz', which is no entry point (entry points: a, b)"],
        ),
        (
            "  a: {command: t, outputs: data.csv}\n  b: {command: t, inputs: {x: {from: a, path: dat.csv}}}\n",
            ["3:47: 'a' puts out no 'dat.csv' (Did you mean 'data.csv'?)"],
        ),
        (
            "  a: {command: t}\n  b: {command: t, inputs: {x: {from: a, path: y}}}\n",
            ["3:47: 'a' declares no outputs (add `outputs: [y]` to it)"],
        ),
        ("  a: {command: t, outputs: x}\n  b: {command: t, inputs: {x: {from: a}}}\n", ["3:31: the input 'x' needs the `path`"]),
        (
            "  a: {command: t, outputs: x}\n  b: {command: t, inputs: {x: {from: a, uri: 'https://x.org'}}}\n",
            ["3:31: the input 'x' needs the `path`"],
        ),
        (
            "  a: {command: t, outputs: x}\n  b: {command: t, inputs: {x: {from: a, path: ../x}}}\n",
            ["3:47: '../x' is not a path below the project"],
        ),
        (
            "  a: {command: t, outputs: [x/y]}\n  b: {command: t, needs: a, outputs: [x]}\n",
            ["3:38: 'a' and 'b' both put out x/y, which is the same files as x (what one graph puts out needs a path for each)"],
        ),
        ("  a: {command: t, needs: []}\n", ["2:26: the list is empty"]),
    ],
)
def test_what_makes_no_sense_is_told_with_its_place(tmp_path: Path, text: str, expected: list[str]) -> None:
    found = problems(tmp_path, text)
    assert len(found) == len(expected), found
    assert all(one.startswith(words) for one, words in zip(found, expected, strict=True)), found


def test_steps_of_different_graphs_may_put_out_the_same(tmp_path: Path) -> None:
    text = (
        "  a: {command: t, outputs: x}\n  b: {command: t, outputs: x}\n  c: {command: t, needs: a}\n  d: {command: t, needs: b}\n"
    )
    assert not problems(tmp_path, text)
    (both,) = problems(tmp_path, f"{text}  e: {{command: t, needs: [c, d]}}\n")
    assert both.startswith("3:28: 'a' and 'b' both put out x")


def test_an_mlproject_knows_no_steps(tmp_path: Path) -> None:
    (tmp_path / "MLproject").write_text("entry_points:\n  main: {command: t, needs: [other]}\n")
    (warning,) = read_project(tmp_path, entry_point="main").notes[:1]
    assert "only runproj.yaml knows this key" in warning


def test_circles_are_found_wherever_they_are() -> None:
    assert cycle({"a": ["b", "c"], "b": ["c"], "c": []}) == ()
    assert cycle({"a": ["b"], "b": ["c", "x"], "c": ["b"], "x": []}) == ("b", "c", "b")
    assert cycle({"a": ["nobody"]}) == ()
    assert above({"a": ["b"], "b": ["c"], "c": [], "d": ["a"]}, "a") == {"a", "b", "c"}


@pytest.mark.parametrize(
    ("pattern", "path", "fits"),
    [
        ("data.csv", "data.csv", True),
        ("./data.csv", "data.csv", True),
        ("data.csv", "data", False),
        ("out", "out/a/b", True),
        ("out/a/b", "out", True),
        ("out/**", "out/a/b", True),
        ("out/*.csv", "out/x.csv", True),
        ("out/*.csv", "out/x.bin", False),
        ("out/*.csv", "out", True),
        ("**/x", "a/b/x", True),
        ("other/**", "out/a", False),
    ],
)
def test_what_a_pattern_may_leave(pattern: str, path: str, fits: bool) -> None:
    assert may_hold(pattern, path) is fits


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("x", "x", True),
        ("*.csv", "a.csv", True),
        ("*.csv", "a.bin", False),
        ("out/*", "out", True),
        ("out", "out/x", True),
        ("out/**", "out/a/b", True),
        ("*.csv", "*.bin", False),
        ("**/x", "foo", False),
        ("outs", "out", False),
    ],
)
def test_outputs_that_are_the_same_files(one: str, other: str, same: bool) -> None:
    assert clash(one, other) is clash(other, one) is same


def test_what_steps_leave_has_the_digest_of_the_same_files_on_disk(tmp_path: Path) -> None:
    """A step's input is known by the same sha256 as any other input of that content."""
    names = ["d/b.txt", "d/a/z.txt", "d/a.txt", "d/B/x", "other"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    outputs = [Output(name, len(name), digest_of(tmp_path / name)[0]) for name in names]
    folder = files_at(outputs, "d")
    assert {output.path for output in folder} == set(names[:4])
    assert digest_at(folder, "d") == digest_of(tmp_path / "d")[0]
    assert digest_at(files_at(outputs, "./other"), "./other") == outputs[4].sha256
    assert files_at(outputs, "oth") == ()
