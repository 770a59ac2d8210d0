"""Sixty real runs of the example of boosted trees, and what can be learnt from them."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import pytest

from conftest import Repository
from real.test_examples import Example

pytestmark = [pytest.mark.slow, pytest.mark.network, pytest.mark.timeout(3000)]

COUNT = 60
ALONE = 3  # runs of the command line; the others are children of one run, whose script trains them in one process

TRIALS = """
import contextlib, io, json, runpy, sys
import runproj

with open("trials.json") as file:
    trials = json.load(file)
for trial in trials:
    with runproj.start_run(nested=True, tags={"model": "xgb"}), contextlib.redirect_stdout(io.StringIO()) as printed:
        runproj.log_params({**trial, "seed": 7})
        sys.argv = ["train.py", *(f"--{name.replace('_', '-')}={value}" for name, value in trial.items())]
        runpy.run_path("train.py", run_name="__main__")
        words = printed.getvalue().split()
        runproj.log_metric("accuracy", float(words[words.index("accuracy") + 1]))
"""


def drawn() -> list[dict[str, str]]:
    """Parameters at random, the same in every test run, so that what is seen is not a matter of luck."""
    chance = random.Random(60)
    return [
        {
            "colsample_bytree": f"{chance.uniform(0.1, 1):.3f}",
            "learning_rate": f"{10 ** chance.uniform(-0.5, -0.1):.4f}",
            "max_depth": str(chance.randint(3, 8)),
            "rounds": str(chance.randint(25, 40)),
            "booster": chance.choice(["gbtree", "dart"]),
        }
        for _ in range(COUNT)
    ]


def test_fewer_columns_for_each_tree_go_with_higher_accuracy(repository: Repository, tmp_path: Path, common_wheels: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    example = Example(repository, elsewhere)
    trials = drawn()
    project = "example_projects/xgboost_classifier"
    repository.commit({f"{project}/trials.py": TRIALS, f"{project}/trials.json": json.dumps(trials[ALONE:])})

    for params in trials[:ALONE]:
        given = [word for name, value in params.items() for word in ("-P", f"{name}={value}")]
        result = example("run", f"{example.url}#{project}", "-q", "--tag", "model=xgb", *given)
        assert result.returncode == 0, result.stderr
    result = example("run", f"{example.url}#{project}", "-q", "-e", "trials.py")
    assert result.returncode == 0, result.stderr

    picture = elsewhere / "accuracy.png"
    result = example("runs", "correlate", "--metric", "accuracy", "tags.model = 'xgb'", "--plot", str(picture))
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0] == f"accuracy in {COUNT} of {COUNT} runs that fit tags.model = 'xgb'"
    assert re.match(r"colsample_bytree +60 +0\.1\d* … 0\.9\d* +linear +-0\.\d{3} ", lines[3]), result.stdout
    assert "Never varied: seed = 7" in lines
    assert picture.read_bytes().startswith(b"\x89PNG")

    document = example.json("runs", "correlate", "--metric", "accuracy", "tags.model = 'xgb'")
    effects = {effect["name"]: effect for effect in document["numeric"]}
    assert effects["colsample_bytree"]["spearman"]["value"] < -0.5
    assert effects["colsample_bytree"]["p_adjusted"] < 1e-3
    [booster] = document["categories"]
    assert booster["eta_squared"] < 0.2, "without dropping trees, both boosters are the same"

    best = example.json("runs", "search", "metrics.accuracy > 0.9", "--sort", "metrics.accuracy:desc", "--limit", "5")["runs"]
    found = [next(item["value"] for item in one["metrics"] if item["key"] == "accuracy") for one in best]
    assert found == sorted(found, reverse=True)
