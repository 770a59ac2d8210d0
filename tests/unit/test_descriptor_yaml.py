"""The door for YAML: positions, texts as written, and documents made to exhaust a machine."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from runproj.descriptor.yaml_nodes import Node, Shape, YamlError, json_ready, load, plain


def root(text: str) -> Node:
    node = load(text.encode(), "f.yaml")
    assert node is not None
    return node


def laughs() -> str:
    pairs = itertools.pairwise("abcdefghijklm")
    return "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in pairs)


def merges() -> str:
    pairs = itertools.pairwise("abcdefghijklmnopqrstuvwxyz")
    return "a: &a {x: 1, y: 1}\n" + "".join(f"{b}: &{b} {{k{b}: {{<<: *{a}, m: *{a}, n: *{a}}}}}\n" for a, b in pairs)


BOMBS: dict[str, Callable[[], str]] = {
    "billion laughs": laughs,
    "laughs in a default": lambda: f"{laughs()}entry_points: {{main: {{command: x, parameters: {{p: {{default: *m}}}}}}}}\n",
    "laughs by merging": merges,
    "quadratic": lambda: f"a: &a {'x' * 100_000}\nb: [{', '.join(['*a'] * 60_000)}]\n",
    "deep list": lambda: "[" * 10_000,
    "deep list with its end": lambda: "[" * 10_000 + "]" * 10_000,
    "deep mapping": lambda: "{a: " * 10_000,
    "deep block": lambda: "\n".join(" " * n + "a:" for n in range(1000)),
    "deep dashes": lambda: "- " * 10_000 + "x",
    "large scalar": lambda: "name: " + "x" * (20 << 20),
    "large quoted scalar": lambda: 'name: "' + "\\n" * (10 << 20) + '"',
    "large file": lambda: "# comment\n" * (5 << 20),
    "many keys": lambda: "".join(f"k{n}: 1\n" for n in range(90_000)),
    "many flow keys": lambda: "{" + "".join(f"k{n}: 1, " for n in range(90_000)) + "}",
    "many documents": lambda: "---\nx\n" * 100_000,
    "many anchors": lambda: "".join(f"- &a{n} x\n" for n in range(90_000)),
    "many tags": lambda: "%TAG !e! tag:x\n---\n" + "- !e!x y\n" * 90_000,
    "alias in itself": lambda: "a: &a [*a]",
    "alias further in": lambda: "&a {x: &b {y: *a}}",
    "open keys": lambda: "? " * 9_000,
    "open brackets and keys": lambda: "{? [" * 5_000,
    "just below the limit": lambda: "unknown: [" + "x, " * 49_000 + "]",
}


MEASURE = """
import re, sys, time
from pathlib import Path
from runproj.descriptor import read_project
from runproj.errors import DescriptorError
start = time.process_time()
try:
    read_project(Path(sys.argv[1]), entry_point="main")
except DescriptorError as error:
    words = str(error)
else:
    words = ""
peak = re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text()).group(1)
print(time.process_time() - start, peak, len(words), words[:300], sep="\\n")
"""


@pytest.mark.parametrize("name", ["MLproject", "runproj.yaml"])
@pytest.mark.parametrize("kind", list(BOMBS))
def test_a_bomb_is_refused_within_a_second_and_200_megabytes(tmp_path: Path, kind: str, name: str) -> None:
    (tmp_path / name).write_text(BOMBS[kind]())
    for _ in range(3):  # seconds of CPU are longer on a busy machine
        command = [sys.executable, "-c", MEASURE, str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
        seconds, memory, length, *words = done.stdout.split("\n")
        if float(seconds) < 1:
            break
    assert words[0] or kind == "just below the limit", "it was read"
    assert float(seconds) < 1
    assert int(memory) < 200 * 1024
    assert int(length) < 5000


def test_texts_are_kept_as_written_and_have_places() -> None:
    node = root("python: 3.10\nlist:\n  - 0010\n  - 'a'\n")
    python = node.get("python")
    assert python is not None
    assert (python.text, python.tag, python.line, python.column) == ("3.10", "float", 1, 9)
    items = node.get("list")
    assert items is not None
    assert [(item.text, item.tag, item.line) for item in items.items] == [("0010", "int", 3), ("a", "str", 4)]


def test_values_are_those_of_a_safe_loader() -> None:
    import yaml

    text = (
        "a: [1, 0x10, 010, 1_000, 1.5, 1e3, 1.0e3, .inf, yes, NO, ~, null, '', 2020-01-01, 12:30:45, !!str 1, !!int '3']\n"
        "b: &b {x: 1, y: 2}\nc: {<<: *b, y: 3}\nd: {<<: [{z: 1, x: 5}, *b]}\ne: |\n  x\n  y\nf: >-\n  x\n  y\ng: *b\n"
    )
    assert plain(root(text)) == yaml.safe_load(text)


def test_what_has_no_json_stays_text() -> None:
    assert json_ready(root("[2020-01-01, .inf, 1.5, ~, true, {1: a}]")) == ["2020-01-01", ".inf", 1.5, None, True, {"1": "a"}]


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "---\n...\n", "\ufeff"])
def test_empty_documents(text: str) -> None:
    assert load(text.encode(), "f.yaml") is None


@pytest.mark.parametrize(
    ("text", "line", "column", "words"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, 1, "the key 'a' is there twice (first in line 1)"),
        ("x:\n  a: 1\n  'a': 3\n", 3, 3, "the key 'a' is there twice"),
        ("a: [1\nb: 2", 2, 2, "is not valid YAML"),
        ("a:\n\t- 1\n", 2, 1, "is not valid YAML"),
        (
            "a: !!python/object/apply:os.system [id]\n",
            1,
            4,
            "the tag tag:yaml.org,2002:python/object/apply:os.system is not allowed",
        ),
        ("a: !Ref x\n", 1, 4, "the tag !Ref is not allowed"),
        ("a: *b\n", 1, 4, "the alias *b has no anchor"),
        ("a: 1\n---\nb: 1\n", 2, 1, "has more than one document"),
        ("? [a]\n: 1\n", 1, 3, "a key has to be a text"),
        ("a: {<<: 1}\n", 1, 5, "`<<` takes a mapping"),
    ],
)
def test_problems_have_places(text: str, line: int, column: int, words: str) -> None:
    with pytest.raises(YamlError) as caught:
        load(text.encode(), "f.yaml")
    problem = caught.value.problem
    assert words in problem.message
    assert (problem.file, problem.line, problem.column) == ("f.yaml", line, column)


@pytest.mark.parametrize("content", [b"\xff", b"a: \x00", b"a: \xc3\x28", b"\xfe\xff\x00"])
def test_bytes_that_are_no_text(content: bytes) -> None:
    with pytest.raises(YamlError, match="not valid YAML"):
        load(content, "f.yaml")


def test_shapes() -> None:
    node = root("{a: [1]}")
    assert (node.shape, node.entries[0][1].shape) == (Shape.MAP, Shape.LIST)
