"""`runproj reproduce`: every level with its exit code, and what ends a replay before anything weaker is compared."""

from __future__ import annotations

import dataclasses
import json
import math
import random
import re
import signal
import time
from pathlib import Path

import jsonschema
import pytest
from scipy import stats

from conftest import Repository
from runproj.core.call import Given
from runproj.core.project import Expectation
from runproj.core.run import TagName
from runproj.core.verdict import Level, MetricCheck, Noise, OutputCheck, Sameness, level_of, limit
from runproj.errors import UsageError
from runproj.reproduce.replay import Wishes
from runproj.reproduce.tolerance import Tolerances, check_metrics, interval, noise_of
from runproj.stats import student_quantile
from support.program import SYSTEM, Cli
from support.wired import Wired

SCRIPT = """
import json, os, pathlib, sys
what, state = sys.argv[1], pathlib.Path(sys.argv[2])
count = int(state.read_text()) + 1 if state.exists() else 0
state.write_text(str(count))
pairs = {"x": 1, "y": 2}
order = sorted(pairs, reverse=count % 2 == 1)
if what == "FAILED" and count:
    sys.exit("out of luck")
if what not in ("nothing", "metrics"):
    content = {key: pairs[key] for key in order} if what == "R3" else {"x": count if what in ("R2", "R1", "R0") else 1}
    pathlib.Path("out.json").write_text(json.dumps(content))
if what not in ("nothing", "outputs"):
    value = {"R1": 1 + count / 1000, "R0": 1.0 + count}.get(what, float("nan") if what == "R2" else 0.1)
    print("score =", value)
    print("loss =", 0.5)
"""
DESCRIPTOR = """
entry_points:
  main:
    parameters: {what: string, state: string}
    command: [python, count.py, "{what}", "{state}"]
    outputs: [out.json]
    metrics: ['(?P<name>\\w+) = (?P<value>\\S+)']
"""


@pytest.fixture
def counting(repository: Repository) -> Repository:
    """A project whose results depend on how often it was run before."""
    repository.commit({"runproj.yaml": DESCRIPTOR, "count.py": SCRIPT})
    return repository


@pytest.mark.parametrize(("level", "code"), [("R4", 0), ("R3", 13), ("R2", 12), ("R1", 11), ("R0", 10), ("FAILED", 20)], ids=str)
def test_each_level_has_an_exit_code(cli: Cli, counting: Repository, tmp_path: Path, level: str, code: int) -> None:
    ran = cli("run", counting.url, "-P", f"what={level}", "-P", f"state={tmp_path / 'state'}", *SYSTEM)
    assert ran.returncode == 0, ran.stderr
    junit, badge = tmp_path / "junit.xml", tmp_path / "badge.svg"
    result = cli("reproduce", "@last", "--json", "--junit", str(junit), "--badge", str(badge))
    assert result.returncode == code == Level(level).exit_code, result.stderr
    verdict = json.loads(result.stdout)
    assert verdict["level"] == level
    schema = Path(__file__).parents[2] / "schemas" / "reproduce.schema.json"
    jsonschema.validate(verdict, json.loads(schema.read_text()))
    _check_junit(junit, level)
    assert level.lower() in badge.read_text().lower()
    view = cli.json("runs", "show", verdict["replays"][0]["run"])
    tags = {tag["key"]: tag["value"] for tag in view["run"]["tags"]}
    assert (tags["runproj.verdict"], tags["runproj.rerun_of"]) == (level, verdict["run"])
    assert "runproj/verdict.json" in {artifact["path"] for artifact in view["artifacts"]}
    assert len({level.exit_code for level in Level}) == len(Level) == 6


def _check_junit(path: Path, level: str) -> None:
    """A public parser reads it, and finds what failed: with nothing demanded, whatever is not R4."""
    from junitparser import Error, Failure, JUnitXml

    suites = JUnitXml.fromfile(str(path))
    (suite,) = list(suites)
    cases = {case.name: [type(result) for result in case.result] for case in suite}
    wanted = [] if level == "R4" else [Error] if level == "FAILED" else [Failure]
    assert cases["at least R4"] == wanted
    if level != "FAILED":
        assert cases["out.json"] == wanted
        assert cases["score"] == ([Failure] if level in ("R1", "R0") else [])
        assert cases["loss"] == []
    assert suite.tests == len(cases)
    assert suite.failures == sum(results == [Failure] for results in cases.values())
    assert suite.errors == sum(results == [Error] for results in cases.values())


def test_what_is_demanded_decides_the_exit_code_and_what_fails(cli: Cli, counting: Repository, tmp_path: Path) -> None:
    from junitparser import JUnitXml

    assert cli("run", counting.url, "-P", "what=R1", "-P", f"state={tmp_path / 'state'}", *SYSTEM).returncode == 0
    result = cli("reproduce", "@last", "--at-least", "r1", "--junit", str(tmp_path / "junit.xml"))
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("R1  reproduced within tolerance")
    assert "weak default" in result.stdout
    assert JUnitXml.fromfile(str(tmp_path / "junit.xml")).failures == 0
    assert cli("reproduce", "@last~1", "--at-least", "R2", "--quiet").returncode == 11
    assert cli("reproduce", "@last", "--at-least", "R5").returncode == 2
    assert cli("reproduce", "nobody").returncode == 1
    assert cli("reproduce", "@last", "-P", "what=R0").returncode == 2


@pytest.fixture
def wired(isolated: Path) -> Wired:
    return Wired()


def test_what_was_not_recorded_is_not_claimed(wired: Wired, counting: Repository, tmp_path: Path) -> None:
    """Without outputs R2 is the most, without metrics outputs alone decide, and without both there is nothing to show."""
    found = {}
    for what in ("metrics", "outputs", "nothing"):
        run = wired.run(counting.url, {"what": what, "state": str(tmp_path / what)})
        verdict = wired.reproduce(run)
        assert ("nothing was recorded" in verdict.words) is (what == "nothing")
        (replay,) = verdict.replays
        found[what] = (replay.level, replay.reason)
    assert [level for level, _ in found.values()] == [Level.R2, Level.R4, Level.R0]
    assert all(words in reason for words, (_, reason) in zip(("R2 is", "alone", "nothing can be"), found.values(), strict=True))


def test_several_replays_the_weakest_counts_and_the_noise_is_told(wired: Wired, counting: Repository, tmp_path: Path) -> None:
    run = wired.run(counting.url, {"what": "R3", "state": str(tmp_path / "state")})
    verdict = wired.reproduce(run, Wishes(times=2))
    assert [replay.level for replay in verdict.replays] == [Level.R3, Level.R4]
    assert verdict.level is Level.R3
    assert {noise.name: (noise.n, noise.mean, noise.sd, noise.cv) for noise in verdict.noise} == {
        "score": (3, 0.1, 0.0, 0.0),
        "loss": (3, 0.5, 0.0, 0.0),
    }
    noisy = wired.run(counting.url, {"what": "R0", "state": str(tmp_path / "other")})
    verdict = wired.reproduce(noisy, Wishes(times=2, ignored=("los*",)))
    assert [(noise.name, noise.n, noise.mean, noise.sd) for noise in verdict.noise] == [("score", 3, 2.0, 1.0)]
    assert [check.name for replay in verdict.replays for check in replay.metrics] == ["score", "score"]


def test_the_yardstick_is_how_earlier_runs_varied_but_not_what_was_judged(
    wired: Wired, counting: Repository, tmp_path: Path
) -> None:
    """Three runs of a recipe make an interval; replays do not: a drift would otherwise excuse itself."""
    params = {"what": "R0", "state": str(tmp_path / "state")}
    runs = [wired.run(counting.url, params) for _ in range(3)]
    assert len({run.tag(TagName.RECIPE) for run in runs}) == 1
    (replay,) = wired.reproduce(runs[0]).replays  # 1, 2, 3, and then 4, which is in 2 ± 4.97
    score = next(check for check in replay.metrics if check.name == "score")
    assert (replay.level, score.same, score.tolerance) == (Level.R1, Sameness.WITHIN, "95 % prediction interval of 3 runs")
    for _ in range(2):
        wired.reproduce(runs[0])
    (replay,) = wired.reproduce(runs[0]).replays  # 7
    score = next(check for check in replay.metrics if check.name == "score")
    assert (replay.level, score.same, score.tolerance) == (Level.R0, Sameness.DIFFERENT, "95 % prediction interval of 3 runs")


def test_what_the_descriptor_expects_comes_first(wired: Wired, repository: Repository, tmp_path: Path) -> None:
    def with_tolerance(rtol: str) -> Level:
        expecting = DESCRIPTOR + f"    expect: {{score: {{value: 1.0, rtol: {rtol}}}}}\n"
        repository.commit({"runproj.yaml": expecting, "count.py": SCRIPT})
        run = wired.run(repository.url, {"what": "R1", "state": str(tmp_path / rtol)})
        return wired.reproduce(run).level

    assert with_tolerance("1e-2") is Level.R1
    assert with_tolerance("1e-9") is Level.R0
    assert wired.reporter.notes == []
    expecting = DESCRIPTOR + "    expect: {score: 7, other: 1}\n"
    repository.commit({"runproj.yaml": expecting})
    verdict = wired.reproduce(wired.run(repository.url, {"what": "R4", "state": str(tmp_path / "state")}))
    assert verdict.level is Level.R4
    assert verdict.notes == (
        "The run's own score is 0.1: expected 7 ± 0.07.",
        "The descriptor expects a metric 'other', and the run has recorded none.",
    )


INPUTS = """
entry_points:
  main:
    command: [python, -c, "import os; print(open(os.environ['RUNPROJ_INPUT_DATA']).read())"]
    inputs: {data: {uri: "file://URI"}}
    outputs: [none.txt]
    metrics: [{name: v, pattern: '(\\d+)'}]
"""


def test_an_input_with_other_content_or_none_ends_the_replay_by_name(
    wired: Wired, repository: Repository, tmp_path: Path
) -> None:
    data = tmp_path / "data.csv"
    data.write_text("1")
    repository.commit({"runproj.yaml": INPUTS.replace("URI", str(data))})
    run = wired.run(repository.url)
    assert wired.reproduce(run).level is Level.R2
    data.write_text("2")
    (replay,) = wired.reproduce(run).replays
    assert (replay.level, replay.metrics) == (Level.FAILED, ())
    assert "input 'data'" in replay.reason
    data.unlink()
    (replay,) = wired.reproduce(run).replays
    assert replay.level is Level.FAILED
    assert str(data) in replay.reason


def test_what_a_path_leads_to_is_an_input_as_well(wired: Wired, repository: Repository, tmp_path: Path) -> None:
    show = "import sys, pathlib; p = pathlib.Path(sys.argv[1]); print((p / 'a' if p.is_dir() else p).read_text())"
    point = 'parameters: {data: path}, command: [python, show.py, "{data}"], metrics: ["(?P<name>v)=(?P<value>.*)"]'
    files = {"runproj.yaml": f"entry_points: {{main: {{{point}}}}}", "show.py": show, "inside": "v=1"}
    repository.commit(files)
    (folder := tmp_path / "folder").mkdir()
    (folder / "a").write_text("v=1")
    (file := tmp_path / "file").write_text("v=1")
    for path in (folder, file):
        run = wired.run(repository.url, {"data": str(path)})
        record = wired.view(run).record
        assert record and [(item.kind, item.name, item.size) for item in record.inputs] == [("parameter", "data", 3)]
        assert wired.reproduce(run).level is Level.R2
        changed = path / "a" if path.is_dir() else path
        changed.write_text("v=2")
        (replay,) = wired.reproduce(run).replays
        assert (replay.level, "'data' leads to has another content" in replay.reason) == (Level.FAILED, True)
        changed.rename(tmp_path / "away")
        (replay,) = wired.reproduce(run).replays
        assert replay.level is Level.FAILED
    inside = wired.run(repository.url, {"data": "inside"})
    record = wired.view(inside).record
    assert record and record.inputs == ()
    assert wired.reproduce(inside).level is Level.R2


def test_an_input_of_which_nothing_is_recorded_is_not_taken_as_it_is(
    wired: Wired, repository: Repository, tmp_path: Path
) -> None:
    (data := tmp_path / "data.csv").write_text("1")
    repository.commit({"runproj.yaml": INPUTS.replace("URI", str(data))})
    run = wired.run(repository.url)
    next(Path(wired.wiring.settings.home).glob(f"**/{run.id}/artifacts/runproj/record.json")).unlink()
    (replay,) = wired.reproduce(run).replays
    assert (replay.level, "is not recorded" in replay.reason) == (Level.FAILED, True)


SECRET = """
entry_points:
  main:
    parameters: {token: {type: secret}}
    command: [python, -c, "import sys; print(len(sys.argv[1]))", "{token}"]
    metrics: [{name: v, pattern: '(\\d+)'}]
"""


def test_a_secret_has_to_be_given_again(wired: Wired, repository: Repository) -> None:
    repository.commit({"runproj.yaml": SECRET})
    run = wired.run(repository.url, {"token": "xyz"})
    (replay,) = wired.reproduce(run).replays
    assert (replay.level, replay.run, "token" in replay.reason) == (Level.FAILED, None, True)
    assert wired.reproduce(run, Wishes(secrets=(Given("token", "xyz"),))).level is Level.R2
    with pytest.raises(UsageError):
        wired.reproduce(run, Wishes(secrets=(Given("other", "xyz"),)))


def test_a_patch_that_is_gone_or_changed_ends_the_replay(wired: Wired, counting: Repository, tmp_path: Path) -> None:
    counting.write({"extra.txt": "not committed"})
    run = wired.run(counting.path, {"what": "R4", "state": str(tmp_path / "state")})
    digest = run.tag(TagName.PATCH)
    assert digest
    wired.wiring.objects.path(digest).unlink()
    assert wired.reproduce(run).level is Level.R4, "it is with the run as well"
    stored = next(Path(wired.wiring.settings.home).glob(f"**/{run.id}/artifacts/runproj/code.patch"))
    for damage in (lambda: stored.write_bytes(stored.read_bytes() + b" "), stored.unlink):
        wired.wiring.objects.path(digest).unlink(missing_ok=True)
        stored.chmod(0o644)
        damage()
        (replay,) = wired.reproduce(run).replays
        assert (replay.level, replay.run) == (Level.FAILED, None)
        assert "patch" in replay.reason


def test_code_that_cannot_be_had_any_more_ends_the_replay(
    wired: Wired, counting: Repository, tmp_path: Path, isolated: Path
) -> None:
    run = wired.run(counting.url, {"what": "R4", "state": str(tmp_path / "state")})
    counting.path.rename(tmp_path / "gone")
    for cached in (Path(wired.wiring.settings.home) / "cache" / "git").iterdir():
        cached.rename(tmp_path / cached.name)
    (replay,) = wired.reproduce(run).replays
    assert (replay.level, "cannot be had" in replay.reason) == (Level.FAILED, True)


def test_a_failed_run_has_no_result_to_reproduce(cli: Cli, project: Repository) -> None:
    cli("run", project.url, "-e", "fail", *SYSTEM)
    result = cli("reproduce", "@last")
    assert (result.returncode, "no result to reproduce" in result.stderr) == (2, True)


def test_a_replay_that_is_stopped_is_closed_and_gives_no_verdict(cli: Cli, repository: Repository) -> None:
    once = "import os, sys, time, pathlib\nmark = pathlib.Path(sys.argv[1])\nif mark.exists(): time.sleep(60)\nmark.touch()\n"
    text = "entry_points: {main: {parameters: {mark: string}, command: [python, once.py, '{mark}']}}\n"
    repository.commit({"runproj.yaml": text, "once.py": once})
    assert cli("run", repository.url, "-P", f"mark={cli.home / 'mark'}", *SYSTEM).returncode == 0
    process = cli.start("reproduce", "@last", "--json")
    deadline = time.monotonic() + 60
    while len(cli.json("runs", "list", "--status", "RUNNING")["runs"]) == 0 and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, ""), err
    assert cli.json("runs", "show", "@last")["run"]["status"] == "KILLED"


def test_levels_are_what_the_checks_allow() -> None:
    """Whatever the checks are, a level holds exactly when all that it and those below it demand holds."""
    rng = random.Random(1)
    for _ in range(2000):
        outputs = [OutputCheck("o", rng.choice(list(Sameness))) for _ in range(rng.randrange(3))]
        metrics = [MetricCheck("m", rng.choice(list(Sameness))) for _ in range(rng.randrange(3))]
        exact = all(m.same is Sameness.EXACT for m in metrics)
        equal = all(o.same in (Sameness.EXACT, Sameness.EQUAL) for o in outputs)
        within = all(m.same in (Sameness.EXACT, Sameness.WITHIN) for m in metrics)
        holds = {
            Level.R4: exact and bool(outputs) and all(o.same is Sameness.EXACT for o in outputs),
            Level.R3: exact and bool(outputs) and equal,
            Level.R2: exact and bool(metrics),
            Level.R1: within and bool(metrics),
            Level.R0: True,
        }
        assert level_of(outputs, metrics) is next(level for level in Level if holds[level]), (outputs, metrics)
        assert bool(limit(outputs, metrics)) is not (bool(outputs) and bool(metrics))


def test_tolerances() -> None:
    nothing = Tolerances({}, {})
    assert [check.same for check in check_metrics({"a": 0.0}, {"a": -0.0}, nothing)] == [Sameness.WITHIN], "other bits"
    assert [check.same for check in check_metrics({"a": math.nan}, {"a": math.nan}, nothing)] == [Sameness.EXACT]
    assert [check.same for check in check_metrics({"a": math.nan}, {"a": 1.0}, nothing)] == [Sameness.DIFFERENT]
    assert [check.same for check in check_metrics({"a": math.inf}, {"a": 1.0}, nothing)] == [Sameness.DIFFERENT]
    assert [check.same for check in check_metrics({"a": 1.0}, {"b": 1.0}, nothing)] == [Sameness.MISSING, Sameness.NEW]
    expecting = Tolerances({"a": Expectation("a", 2.0, 0.1, 0.5)}, {"a": Noise("a", 9, 5.0, 0.1)})
    (check,) = check_metrics({}, {"a": 2.7}, expecting)
    assert (check.same, check.low, check.high) == (Sameness.WITHIN, 1.3, 2.7)
    assert [check.same for check in check_metrics({"a": 5.0}, {}, expecting)] == [Sameness.MISSING]
    assert check_metrics({}, {}, expecting) == ()
    few = Tolerances({}, {"a": Noise("a", 2, 5.0, 0.0)})
    assert check_metrics({"a": 5.0}, {"a": 5.04}, few)[0].same is Sameness.WITHIN
    same = Tolerances({}, {"a": dataclasses.replace(few.noise["a"], n=3)})
    assert check_metrics({"a": 5.0}, {"a": 5.04}, same)[0].same is Sameness.DIFFERENT


def test_the_prediction_interval_is_students() -> None:
    for freedom in (1, 2, 3, 10, 99):
        assert student_quantile(0.975, freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=1e-9)
    values = [0.1, 0.35, 0.2, 0.15]
    (noise,) = noise_of({"a": values, "once": [1.0]})
    low, high, words = interval(noise)
    width = stats.t.ppf(0.975, 3) * stats.tstd(values) * math.sqrt(1 + 1 / 4)
    assert (low, high) == pytest.approx((0.2 - width, 0.2 + width))
    assert re.search("95 %.*4 runs", words)
