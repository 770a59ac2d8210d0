"""`runs correlate` as its users see it: tables, plots of characters, pictures, documents, and what it refuses."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import HOSTILE
from runproj.analysis import Question, correlate, sample
from runproj.cli import output
from runproj.cli.plot import HEIGHT, Look, beside, ends, scatter, strips
from runproj.codec import to_json
from runproj.core.run import Metric, NewRun, Param, Run, RunChanges, RunStatus, Tag
from runproj.pictures import drawing
from runproj.tracking import open_store
from support.program import Cli

SCHEMA = Path(__file__).parents[2] / "schemas" / "runs-correlate.schema.json"
NASTY = "a$b$ <i>&\"'\x1b[31m 文字 " + "long " * 30


@pytest.fixture
def recorded(cli: Cli) -> Cli:
    """The program, with twelve runs that it can find."""
    home = Path(cli.env["RUNPROJ_HOME"])
    store = open_store(f"sqlite:///{home / 'runproj.db'}", home=home, environ={})
    for number in range(12):
        params = {
            "share": f"{0.1 + number * 0.08:.2f}",
            "rate": f"1e-{number % 4}",
            "kind": "ab"[number % 2],
            "seed": "7",
            NASTY: f"{number % 5}",
        }
        given = tuple(Param(key, value) for key, value in params.items())
        run = store.create_run(NewRun("0", number, name=NASTY, params=given, tags=(Tag("model", "xgb"),)))
        score = 0.9 - number * 0.01 + (number % 3) * 0.002 if number else math.nan
        store.update(run.id, RunChanges(status=RunStatus.FINISHED, end=number, metrics=(Metric("accuracy", score, 0),)))
    return cli


def test_tables_plot_and_remarks(recorded: Cli) -> None:
    result = recorded("runs", "correlate", "--metric", "metrics.accuracy", "tags.model = 'xgb'")
    assert result.returncode == 0, result.stderr
    assert "\x1b" not in result.stdout
    lines = result.stdout.splitlines()
    assert lines[0] == "accuracy in 11 of 12 runs that fit tags.model = 'xgb'"
    rows = {line.split()[0]: line for line in lines if line}
    assert re.search(r"^share +11 +0\.18 … 0\.98 +linear +-0\.\d{3} +\S+ +-\d\.\d{3} ", rows["share"])
    assert re.search(r"rate +11 +0.001 … 1 +log ", rows["rate"])
    assert re.search(r"kind +11 +0\.\d{3} +0.100 .* a 0\.\d+ \(5\)|b 0\.\d+ \(6\)", rows["kind"])
    assert [line for line in lines if line.startswith("NUMBER")]
    assert lines.index(rows["share"]) == lines.index(rows["NUMBER"]) + 1, "the strongest comes first"
    assert "Never varied: seed = 7" in lines
    assert "1 run with NaN or an infinity as accuracy: left out, though that is a result, too." in lines
    assert sum(line.count("*") for line in lines if "|" in line) == 11
    assert not [line for line in recorded("runs", "correlate", "-m", "accuracy", "--no-plot").stdout.splitlines() if "|" in line]


def test_the_document_fits_its_schema(recorded: Cli) -> None:
    for arguments in ((), ("--param", "share", "--param", "kind"), ("--sort", "name"), ("params.kind = 'a'", "--min-runs", "1")):
        document = recorded.json("runs", "correlate", "--metric", "accuracy", *arguments)
        jsonschema.validate(document, json.loads(SCHEMA.read_text()))
    document = recorded.json("runs", "correlate", "--metric", "accuracy", "--param", "params.share")
    assert [effect["name"] for effect in document["numeric"]] == ["share"]
    assert document["numeric"][0]["p_adjusted"] == document["numeric"][0]["spearman"]["p"]


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (("--metric", "loss"), 1, "accuracy"),
        (("--metric", "accuracy", "--param", "depth"), 1, "share"),
        (("--metric", "accuracy", "params.kind = 'c'"), 1, "No run is like that"),
        (("--metric", "accuracy", "--min-runs", "99"), 1, "99"),
        (("--metric", "accuracy", "kind ="), 2, "kind"),
        (("--metric", "accuracy", "--sort", "size"), 2, "strength"),
        (("--metric", "accuracy", "--plot", "picture.gif"), 2, ".png"),
        (("--metric", "accuracy", "--plot", "no such folder/picture.png"), 2, "does not exist"),
        ((), 2, "--metric"),
    ],
)
def test_what_is_refused(recorded: Cli, arguments: tuple[str, ...], code: int, word: str) -> None:
    result = recorded("runs", "correlate", *arguments)
    assert (result.returncode, result.stdout) == (code, "")
    assert word in result.stderr


def test_pictures_are_written(recorded: Cli, tmp_path: Path) -> None:
    folder = tmp_path / HOSTILE
    folder.mkdir(exist_ok=True)
    for name in ("a.png", "a.svg", "a.html"):
        result = recorded("runs", "correlate", "--metric", "accuracy", "--plot", str(folder / name))
        assert result.returncode == 0, result.stderr
        assert "Traceback" not in result.stderr
    assert (folder / "a.png").read_bytes().startswith(b"\x89PNG")
    ElementTree.fromstring((folder / "a.svg").read_text())
    page = (folder / "a.html").read_text()
    assert "<i>" not in page
    assert "\x1b" not in page
    assert page.count("<title>") >= 11, "each dot tells its run"
    for run in re.findall(r'xlink:href="#(run-[^"]*)"', page):
        assert f'id="{run}"' in page
    assert "<script" not in page


def test_without_matplotlib_it_is_said_what_to_install(recorded: Cli) -> None:
    hide = "import sys; sys.modules['matplotlib'] = None; from importlib import util; find = util.find_spec;"
    hide += "util.find_spec = lambda name: None if name == 'matplotlib' else find(name);"
    code = f"{hide} from runproj.cli.main import run; sys.exit(run(sys.argv[1:]))"

    def ask(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", code, "runs", "correlate", "--metric", "accuracy", *arguments]
        return subprocess.run(command, cwd=recorded.home, env=recorded.env, capture_output=True, text=True)

    refused = ask("--plot", "a.png")
    assert refused.returncode == 1
    assert 'pip install "runproj[analysis]"' in refused.stderr
    assert ask().returncode == 0, "the numbers need nothing"


def figures(count: int) -> list[Run]:
    """Runs with numbers at the edge of what a double can hold, and with many parameters."""
    sizes = (1e308, -1e308, 5e-324, 0.0, 1e-300, 1e300)
    return [
        Run(
            f"{number:032x}",
            "0",
            "run",
            RunStatus.FINISHED,
            0,
            params=tuple(Param(f"p{place} {NASTY}"[:200], repr(sizes[(number * (place + 1)) % 6])) for place in range(count)),
            metrics=(Metric("loss", sizes[number % 5] / 4, 0),),
        )
        for number in range(12)
    ]


def test_what_has_no_number_in_json_fits_the_schema_too() -> None:
    kinds = ["a", "b", "a", "b"]
    params = [(Param("kind", kind),) for kind in kinds]
    runs = [
        Run(
            kind * 31 + str(number), "0", "run", RunStatus.FINISHED, 0, params=params[number], metrics=(Metric("loss", value, 0),)
        )
        for number, (kind, value) in enumerate(zip(kinds, [1e308, -1e308] * 2, strict=True))
    ]
    document = json.loads(to_json(correlate(runs, sample(runs, "loss"), Question())))
    jsonschema.validate(document, json.loads(SCHEMA.read_text()))
    assert document["categories"][0]["anova"] == {"value": "Infinity", "p": 0.0}


@pytest.mark.parametrize("count", [0, 1, 40])
def test_no_number_of_panels_and_no_size_of_numbers_breaks_a_picture(tmp_path: Path, count: int) -> None:
    runs = figures(count)
    given = sample(runs, "loss")
    target = tmp_path / "a.png"
    drawing(target)(correlate(runs, given, Question()), given)
    assert target.stat().st_size > 1000


LOOKS = st.builds(Look, st.integers(20, 200), st.booleans())
FLOATS = st.floats(allow_nan=False, allow_infinity=False)


@settings(deadline=None)
@given(st.lists(st.tuples(FLOATS, FLOATS), min_size=1, max_size=30), LOOKS)
def test_a_scatter_fits_its_room_and_loses_no_dot(pairs: list[tuple[float, float]], look: Look) -> None:
    xs, ys = zip(*pairs, strict=True)
    lines = scatter(xs, ys, ("x" * 300, "文" * 300), look)
    assert len(lines) == HEIGHT + 3
    room = max(look.columns, 40)
    assert all(output.width(line) <= room + 30 for line in lines), "only axes of very long numbers take more"
    body = "".join(line.partition(look.down)[2] for line in lines[1 : HEIGHT + 1])
    if look.rich:
        assert any("\u2800" < sign <= "\u28ff" for sign in body)
    elif "#" not in body:
        assert sum(1 if sign == "*" else int(sign) for sign in body if sign != " ") == len(pairs)


@settings(deadline=None)
@given(st.lists(st.tuples(st.text(max_size=20), st.lists(FLOATS, min_size=1, max_size=9)), min_size=1, max_size=8), LOOKS)
def test_strips_have_a_line_for_each_group(groups: list[tuple[str, list[float]]], look: Look) -> None:
    lines = strips(groups, ("kind", "accuracy"), look)
    assert len(lines) == len(groups) + 3
    assert not any("\n" in line for line in lines)


def test_axes_end_where_the_values_do() -> None:
    assert ends(0.1, 1.0) == ("0.1", "1")
    assert ends(0.97001, 0.97009) == ("0.97001", "0.97009")
    lines = scatter([1, 10, 1000], [0, 1, 2], ("rate", "loss"), Look(43, rich=False), log=True)
    assert lines[0] == "loss"
    assert lines[1].startswith("2 |")
    assert lines[HEIGHT].startswith("0 |*")
    assert lines[-1].split() == ["1", "rate", "(log)", "1e+03"]
    assert [line.index("*") for line in (lines[1], lines[5], lines[9])] == [42, 16, 3]


def test_two_plots_side_by_side() -> None:
    assert beside(["a", "bb"], ["1", "2", "3"], 3) == ["a    1", "bb   2", "     3"]
