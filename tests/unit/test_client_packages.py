"""The Python client's copy for projects, together with the packages that people plot and compute with."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

import runproj
from conftest import HOSTILE
from runproj.tracking import open_full_store
from support.clients import Flaky, runs
from support.mlflow import mlflow_environment

pytestmark = [pytest.mark.slow, pytest.mark.network]

CODE = """
import json, sys
import matplotlib, numpy, pandas, runproj
matplotlib.use("Agg")
from matplotlib.figure import Figure
from PIL import Image
with runproj.start_run("packages"):
    for value in (numpy.float32(0.5), numpy.int64(3), numpy.array(2.5), numpy.float64("nan"), True):
        runproj.log_metric("m", value)
    runproj.log_metric("steps", 1, step=numpy.int64(7))
    figure = Figure()
    figure.subplots().plot([1, 2, 3])
    runproj.log_figure(figure, "plots/line.png")
    runproj.log_figure(figure, "plots/line.svg")
    runproj.log_figure(Image.new("RGB", (4, 4)), "plots/dot.png")
    days = pandas.to_datetime(["2024-01-01"] * 2)
    frame = pandas.DataFrame({"a": [1, 2], "b": ["x", None], "c": [0.5, float("nan")], "d": days})
    runproj.log_table(frame, "t.json")
    runproj.log_params({"lr": numpy.float64(0.1)})
found = runproj.search_runs("metrics.steps = 1")
assert isinstance(found, pandas.DataFrame)
print(json.dumps([list(found["run_name"]), list(found["metrics.steps"]), str(found["start_time"].dtype), runproj.__file__]))
"""


def test_arrays_frames_and_figures(mlflow_python: Path, tmp_path: Path) -> None:
    inside = tmp_path / HOSTILE / "inside" / "runproj"
    client = Path(runproj.__file__).with_name("client")
    shutil.copytree(client, inside / "client", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copyfile(client / "standalone.py", inside / "__init__.py")
    home = tmp_path / HOSTILE / "server"
    with Flaky(home) as server:
        environ = mlflow_environment(PYTHONPATH=str(inside.parent), RUNPROJ_TRACKING_URI=server.url)
        done = subprocess.run([str(mlflow_python), "-c", CODE], env=environ, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    names, steps, dtype, file = json.loads(done.stdout)
    assert (names, steps, dtype.startswith("datetime64[")) == (["packages"], [1.0], True)
    assert file == str(inside / "__init__.py")
    store = open_full_store(f"sqlite:///{home / 'runproj.db'}", home=home)
    [run] = runs(store)
    assert [repr(point.value) for point in store.history(run.id, "m")] == ["0.5", "3.0", "2.5", "nan", "1.0"]
    store.close()
    [root] = home.glob(f"artifacts/*/{run.id}/artifacts")
    assert (root / "plots/line.png").read_bytes().startswith(b"\x89PNG")
    assert b"<svg" in (root / "plots/line.svg").read_bytes()
    assert (root / "plots/dot.png").read_bytes().startswith(b"\x89PNG")
    table = json.loads((root / "t.json").read_text())
    assert table["columns"] == ["a", "b", "c", "d"]
    assert [row[:3] for row in table["data"]] == [[1, "x", 0.5], [2, None, None]]
