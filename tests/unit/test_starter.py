"""`runproj init`: parameters that are read from the script."""

from __future__ import annotations

from pathlib import Path

import pytest

from runproj.core.call import Given
from runproj.core.parameters import bind
from runproj.core.project import ParameterType as T
from runproj.descriptor import problems_of, read_project, starter


def test_a_starter_has_the_parameters_that_the_script_takes(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(
        "import argparse\n"
        "p = argparse.ArgumentParser()\n"
        "p.add_argument('data')\n"
        "p.add_argument('-l', '--learning-rate', type=float, default=1e-3, help='50%% of it: \"x\" (default: %(default)s)')\n"
        "p.add_argument('--optimizer', choices=['adam', 'sgd'], default='adam')\n"
        "p.add_argument('--layers', type=int, choices=(1, 2), default=2)\n"
        "p.add_argument('-n', type=int, default=5)\n"
        "p.add_argument('--name', default='it\\'s 🙂 {x}')\n"
        "p.add_argument('--run', required=True)\n"
        "p.add_argument('--verbose', action='store_true')\n"
        "p.add_argument('--resume')\n"
        "p.add_argument('--many', nargs='*', default='x')\n"
        "p.add_argument('--computed', default=p.prog)\n"
        "p.add_argument('--odd', type=int, default='7')\n"
        "p.add_argument('--random-state', type=int, default=4)\n"
        "p.parse_args()\n"
    )
    (tmp_path / "runproj.yaml").write_text(starter(tmp_path))
    assert problems_of(tmp_path) == ()
    found = read_project(tmp_path, entry_point="main").entry_points[0]
    assert {p.name: (p.type, p.default) for p in found.parameters} == {
        "data": (T.STRING, None),
        "learning_rate": (T.FLOAT, "0.001"),
        "optimizer": (T.CHOICE, "adam"),
        "layers": (T.CHOICE, "2"),
        "n": (T.INT, "5"),
        "name": (T.STRING, "it's 🙂 {x}"),
        "run": (T.STRING, None),
        "random_state": (T.SEED, "4"),
    }
    assert found.parameters[1].help == '50% of it: "x"'
    call, _ = bind(found, [Given("data", "a b"), Given("run", "r")])
    words = ["a b", "--learning-rate=0.001", "--optimizer=adam", "--layers=2", "-n", "5", "--name=it's 🙂 {x}", "--run=r"]
    words.append("--random-state=4")
    assert list(call.argv({})) == ["python", "train.py", *words]


@pytest.mark.parametrize(
    "text", ["def", "\0", "p.add_subparsers(); p.add_argument('--x', default=1)", "add_argument('--x', default=1)"]
)
def test_a_starter_of_a_script_that_cannot_be_read_has_no_parameters(tmp_path: Path, text: str) -> None:
    (tmp_path / "train.py").write_text(text)
    assert "command: [python, train.py]" in starter(tmp_path)
    assert "\n    parameters:" not in starter(tmp_path)
