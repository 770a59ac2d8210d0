"""Reports of runs: they say what matters, load nothing, and nothing of a run becomes markup."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from conftest import Repository
from runproj.capsule.page import Code, Line, Page, Table, Text, as_html, as_markdown
from runproj.capsule.report import Story, packages_of, page
from runproj.core.call import BoundValue, Call
from runproj.core.environment import EnvLock, EnvManager, EnvPlace, PythonPin
from runproj.core.plan import Plan
from runproj.core.project import Command, EntryPoint, ParameterType
from runproj.core.record import Input, Machine, Output, RunRecord
from runproj.core.run import Metric, Run, RunStatus, Tag
from runproj.core.source import Pin, PinKind
from runproj.core.verdict import Level, MetricCheck, Replay, Sameness, Verdict
from runproj.core.views import RunView
from support.program import SYSTEM, Cli

EVIL = (
    "</pre></td><script>alert(1)</script><img src=https://evil.example/x onerror=alert(1)> \x1b[31m \u202e **bold** | `code` ```"
)


class Seen(HTMLParser):
    """The elements and the text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def story(words: str = "plain", status: RunStatus = RunStatus.FINISHED) -> Story:
    """A run in which everything that somebody chose reads `words`."""
    metrics = tuple(Metric(words + str(number), value, 1) for number, value in enumerate((0.5, math.nan)))
    tags = (Tag("mlflow.note.content", words),)
    run = Run("a" * 32, "1", words, status, 1_700_000_000_000, 1_700_000_004_500, "", words, metrics=metrics, tags=tags)
    value, secret = BoundValue("alpha", words, source="-P"), BoundValue(words, None, ParameterType.SECRET, "-P")
    pylock = '[[packages]]\nname = "numpy"\nversion = "2.1"\n'
    lock = EnvLock(
        EnvManager.VIRTUALENV, EnvPlace.HOST, "d" * 64, words, "linux", PythonPin("3.11.2", "CPython", "/x"), pylock=pylock
    )
    plan = Plan(
        code=Pin(PinKind.GIT, "https://example.org/it.git", "b" * 40, commit="c" * 40, subdirectory=words, branch=words),
        call=Call("main", Command(argv=("python", "train.py", "{alpha}")), (value, secret)),
        lock=lock,
        entry_point=EntryPoint("main", Command(argv=("python",))),
        project=words,
        notes=(words,),
    )
    machine = Machine(words, words, words, words, words, 2, 10**9, gpus=(words,))
    given, made = Input(words, words, 1, "e" * 64), Output(words, 2, "f" * 64)
    record = RunRecord(run.id, status.value, "done", machine=machine, inputs=(given,), outputs=(made,), notes=(words,))
    view = RunView(run, 3 if status is RunStatus.FAILED else 0, words, plan, record)
    check = MetricCheck(words, Sameness.WITHIN, 0.5, 0.5000001, words)
    verdict = Verdict(run.id, Level.R1, Level.R1.words, (Replay(Level.R1, "x", metrics=(check,)),))
    points = [Metric(metrics[0].key, 1 / (step + 1), step, step) for step in range(1000)]
    histories = {metrics[0].key: points}
    return Story(view, words, histories, (verdict,), packages_of(plan), patch=words, log=words)


def test_a_report_says_what_was_done_and_how_to_do_it_again() -> None:
    text = as_markdown(page(story("plain")))
    for part in ("c" * 40, "virtualenv", "CPython 3", "numpy 2", "python train", "runproj reproduce " + "a" * 32, "R1", "e" * 64):
        assert part in text.replace("\\", ""), part
    assert "runproj run 'https://example.org/it.git#plain' -v " + "c" * 40 + " -P alpha=plain -P 'plain=…'" in text
    assert "(secret)" in text.replace("\\", "") and "nan" in text
    assert "FAILED in 4" in as_markdown(page(story(status=RunStatus.FAILED))).replace("\\", "")
    bare = replace(story(), view=replace(story().view, plan=None, record=None), packages=())
    assert "not made by runproj" in as_markdown(page(bare))


def test_nothing_of_a_run_becomes_markup() -> None:
    text = as_html(page(story(EVIL)))
    seen = Seen(text)
    allowed = "html head meta title style body h1 h2 p table tr th td pre details summary svg polyline"
    assert set(seen.tags) <= set(allowed.split()) and seen.open == []
    assert not {name for name, _ in seen.attributes if name.startswith("on") or name in ("src", "href", "style")}
    assert "alert(1)" in "".join(seen.text)
    assert "\x1b" not in text and "\u202e" not in text
    plain = Seen(as_html(page(story())))
    assert plain.tags == seen.tags  # nothing but the words is different


def test_a_page_loads_nothing() -> None:
    text = as_html(page(story(EVIL)))
    assert "default-src 'none'" in text
    without_text = re.sub(r">[^<]*<", "><", text.replace("&lt;", ""))
    assert not re.search(r"(?i)url\(|@import|src=|href=|https?:", without_text)


def test_markdown_stays_text() -> None:
    told = Page(
        EVIL, (("", (Text(EVIL), Code("a\n````\nb"), Table((("a|b", EVIL),), ("x", "y")), Table((("k", Line((1.0,))),)))),)
    )
    text = as_markdown(told)
    assert "\n`````\na\n````\nb\n`````\n" in text
    outside = text.replace("\n`````\na\n````\nb\n`````\n", "")
    assert not re.search(r"(?<!\\)[<>*`]", outside)
    rows = [line for line in outside.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {3}


@pytest.mark.parametrize("values", [(), (1.0,), (math.nan, math.inf), (2.0, 2.0), (1.0, math.nan, 3.0), (-1e308, 1e308)])
def test_lines_of_any_numbers_can_be_drawn(values: tuple[float, ...]) -> None:
    text = as_html(Page("x", (("", (Table((("a", Line(values)),)),)),)))
    assert "nan" not in text and "inf" not in text
    assert Seen(text).open == []


def test_the_command_writes_a_file_or_says_it(cli: Cli, project: Repository) -> None:
    run = cli.json("run", project.url, "-P", f"name={EVIL}", *SYSTEM)["run"]["id"]
    cli("reproduce", run)
    said = cli("report", run[:8])
    assert said.returncode == 0 and said.stdout.startswith("# Run ") and "Repeated 1 time" in said.stdout.replace("\\", "")
    target = cli.home / "a report.html"
    assert cli("report", run, "-o", str(target)).returncode == 0
    seen = Seen(target.read_text())
    assert "script" not in seen.tags and project.head in "".join(seen.text)
    wrong = cli("report", run, "-o", "report.pdf")
    assert wrong.returncode == 2 and "neither" in wrong.stderr
    assert not Path(cli.home, "report.pdf").exists()
